"""Synthetic candles in closed form: any row of any interval, computed without the finer rows.

A symbol's trading consists of one fixed pattern of the 86,400 seconds of a day, the same every day, and a few integers
per day: a base price, an amplitude and a volume multiplier. For a price ``p`` and a volume ``v`` of the pattern::

    price  = base + amplitude * p
    volume = multiplier * v
    quote  = multiplier * (base * sum(v) + amplitude * sum(v * p))

The base volume of COIN-M is the sum over the minutes of volume / mean price.

The pattern is aggregated once per interval, so all intervals agree exactly. The last price of the pattern, times the
day's amplitude, leads to the base price of the next day, so prices do not jump at midnight. All values are integers:
prices in ticks, volumes in lots; a month of the most expensive symbol stays below 10**18.

Times are integer ms since the epoch, UTC.
"""

from __future__ import annotations

import io
import random
import threading
import zlib
from array import array
from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from decimal import Decimal
from functools import cache, lru_cache
from itertools import accumulate
from typing import Final, TypeAlias

import polars as pl

from binance_assets.model.intervals import INTERVALS, Interval
from binance_assets.model.markets import COINM, SPOT
from binance_assets.model.timestamps import DAY, MINUTE, SECOND
from binance_assets.sandbox.listings import Listing

_SECONDS_PER_DAY: Final = DAY // SECOND
_MINUTES_PER_DAY: Final = DAY // MINUTE
_VARIANTS: Final = 4  # symbols share patterns to bound memory; each has its own integers per day
_QUIET_MINUTES: Final = 3
_WALK_SPREAD: Final = 15_300  # of the raw walk at noon: 104 (difference of two random bytes) * sqrt(86400) / 2

_LEVEL_UNITS: Final = 200  # the price level, in the unit by which daily closes move
_MIN_UNITS: Final = 70
_MAX_UNITS: Final = 700
_DAYS_PER_EXTENSION: Final = 1024

_ROWS_PER_BLOCK: Final = 1440
_DAYS_PER_BLOCK: Final = 64
_CACHE_BYTES: Final = 128 * 1024 * 1024

_SECONDS_PER_MINUTE: Final = MINUTE // SECOND
_ONE_DAY: Final = next(interval for interval in INTERVALS if interval.step == DAY)

_Number: TypeAlias = int | pl.Series

_VALUED: Final = ("volume", "taker", "volume_price")
"""The columns of a pattern that give the base volumes."""

_OHLC: Final = [
    pl.col("open").first(),
    pl.col("high").max(),
    pl.col("low").min(),
    pl.col("close").last(),
]


class Pattern:
    """A day of trading in abstract units: prices that go from 0 to ``reach``, volumes in lots.

    Args:
        variant: Number of the pattern.
        reach: The last price; the first is 0, and the spread of the path is of the same order of magnitude.

    Attributes:
        seconds: The pattern by second, with the columns ``open, high, low, close, trades, volume, taker, volume_price,
            taker_price``.
    """

    def __init__(self, variant: int, reach: int) -> None:
        """Compute the seconds; the other intervals follow on demand."""
        self.seconds = _pattern_seconds(variant, reach)
        self._tables = {1: self.seconds}

    def table(self, seconds: int) -> pl.DataFrame:
        """Return the pattern in buckets of ``seconds``, which must divide the day."""
        if seconds not in self._tables:
            finer = self.table(_SECONDS_PER_MINUTE) if seconds > _SECONDS_PER_MINUTE else self.seconds
            self._tables[seconds] = _aggregate(finer, seconds * len(finer) // _SECONDS_PER_DAY)
        return self._tables[seconds]

    def partial_row(self, first: int, end: int) -> tuple[int, ...]:
        """Return one row for the seconds ``[first, end)`` of the day."""
        return _aggregate(self.seconds[first:end], end - first).row(0)


@cache
def _pattern(variant: int, reach: int) -> Pattern:
    return Pattern(variant, reach)


def _aggregate(table: pl.DataFrame, rows_per_bucket: int) -> pl.DataFrame:
    bucket = (pl.int_range(pl.len()) // rows_per_bucket).alias("bucket")
    sums = pl.col("trades", "volume", "taker", "volume_price", "taker_price").sum()
    return table.group_by(bucket, maintain_order=True).agg(*_OHLC, sums).drop("bucket")


def _pattern_seconds(variant: int, reach: int) -> pl.DataFrame:
    up, down, busy, above, below, size, taken = _random_columns(f"sandbox pattern {variant}", 7)
    second = pl.int_range(1, _SECONDS_PER_DAY + 1, eager=True)
    walk = (up - down).cum_sum()
    bridge = walk - second * int(walk[-1]) // _SECONDS_PER_DAY
    path = second * reach // _SECONDS_PER_DAY + bridge * reach // _WALK_SPREAD
    trades = _trades(busy, variant)
    frame = pl.DataFrame({"path": path, "trades": trades, "above": above, "below": below, "size": size, "taken": taken})
    traded = pl.col("trades") > 0
    frame = frame.with_columns(pl.when(traded).then("path").forward_fill().fill_null(0).alias("close"))
    frame = frame.with_columns(pl.col("close").shift(1, fill_value=0).alias("open"))
    volume = pl.col("trades") * (6 * pl.col("size") + 1)
    frame = frame.with_columns(
        high=pl.max_horizontal("open", "close") + pl.when(traded).then(pl.col("above") * reach // 5000).otherwise(0),
        low=pl.min_horizontal("open", "close") - pl.when(traded).then(pl.col("below") * reach // 5000).otherwise(0),
        volume=volume,
        taker=volume * pl.col("taken") // 255,
    )
    return frame.select(
        "open", "high", "low", "close", "trades", "volume", "taker",
        volume_price=pl.col("volume") * pl.col("close"),
        taker_price=pl.col("taker") * pl.col("close"),
    )  # fmt: skip


def _random_columns(seed: str, count: int) -> list[pl.Series]:
    noise = random.Random(seed).randbytes(count * _SECONDS_PER_DAY)
    return [pl.Series(list(noise[i::count]), dtype=pl.Int64) for i in range(count)]


def _trades(busy: pl.Series, variant: int) -> pl.Series:
    """Return the trades per second: none in about a third of the seconds and in a few whole minutes, 1 in the last."""
    counts = [0 if byte < 90 else 1 + byte % 5 for byte in busy]
    for minute in random.Random(f"quiet {variant}").sample(range(1, 1439), _QUIET_MINUTES):
        counts[minute * _SECONDS_PER_MINUTE : (minute + 1) * _SECONDS_PER_MINUTE] = [0] * _SECONDS_PER_MINUTE
    counts[-1] = 1
    return pl.Series(counts, dtype=pl.Int64)


@dataclass(frozen=True, slots=True)
class Scale:
    """The decimal places of a symbol's values.

    Attributes:
        tick: Decimal places of a tick, the unit of the price integers.
        lot: Decimal places of a lot, the unit of the volume integers.
        price: Decimal places of written prices.
        volume: Decimal places of written volumes.
        value: Decimal places of the quote volume (COIN-M: base volume), as integer and as written.
    """

    tick: int
    lot: int
    price: int
    volume: int
    value: int


_USDM_SCALE: Final = Scale(2, 3, 2, 3, 5)
_COINM_SCALE: Final = Scale(1, 0, 1, 0, 8)
_MIN_TICKS: Final = 2_000


def _scale(listing: Listing) -> Scale:
    if listing.market is SPOT:
        tick = next(
            (n for n, lowest in ((2, "100"), (4, "1"), (6, "0.01")) if listing.price_level >= Decimal(lowest)), 8
        )
        return Scale(tick, 8 - tick, 8, 8, 8)
    return _COINM_SCALE if listing.market is COINM else _USDM_SCALE


@dataclass(frozen=True, slots=True)
class Columns:
    """Rows to render, as columns of integers; ``value`` is the quote volume (COIN-M: base volume)."""

    open_time: pl.Series
    close_time: pl.Series
    open: pl.Series
    high: pl.Series
    low: pl.Series
    close: pl.Series
    volume: pl.Series
    value: pl.Series
    trades: pl.Series
    taker: pl.Series
    taker_value: pl.Series


def render(columns: Columns, scale: Scale) -> bytes:
    """Render the rows as JSON; adding ``[[`` in front and replacing the final ``],[`` by ``]]`` makes it a list."""

    def price(ticks: pl.Series) -> pl.Series:
        return _decimal(ticks, scale.tick, scale.price)

    def volume(lots: pl.Series) -> pl.Series:
        return _decimal(lots, scale.lot, scale.volume)

    def value(units: pl.Series) -> pl.Series:
        return _decimal(units, scale.value, scale.value)

    # The separator is the quote character, so the decimals that polars writes become JSON strings. This is several
    # times as fast as converting them to strings first.
    rows = len(columns.open)
    comma = _constant_column(",", rows)
    fields = [
        columns.open_time.cast(pl.String) + comma,
        price(columns.open), comma, price(columns.high), comma, price(columns.low), comma, price(columns.close), comma,
        volume(columns.volume), comma + columns.close_time.cast(pl.String) + comma,
        value(columns.value), comma + columns.trades.cast(pl.String) + comma,
        volume(columns.taker), comma, value(columns.taker_value), comma,
        _constant_column("0", rows),
    ]  # fmt: skip
    frame = pl.DataFrame([field.alias(str(i)) for i, field in enumerate(fields)])
    text = io.BytesIO()
    frame.write_csv(
        text,
        include_header=False,
        quote_style="never",
        separator='"',
        line_terminator='"],[',
        batch_size=2 * _ROWS_PER_BLOCK,
    )
    return text.getvalue()


@lru_cache(64)
def _constant_column(text: str, rows: int) -> pl.Series:
    return pl.repeat(text, rows, eager=True)


@lru_cache(64)
def _multiples(step: int, count: int) -> pl.Series:
    return pl.int_range(0, count * step, step, eager=True)


@cache
def _unit(decimals: int, places: int) -> pl.Series:
    unit = Decimal(1).scaleb(-decimals).quantize(Decimal(1).scaleb(-places))
    return pl.Series([unit], dtype=pl.Decimal(38, places))


def _decimal(integers: pl.Series, decimals: int, places: int) -> pl.Series:
    """Convert integers in units of ``10**-decimals`` to decimals that are written with so many ``places``."""
    as_decimals = integers.cast(pl.Decimal(38, 0))
    return as_decimals * _unit(decimals, places) if places else as_decimals


class BlockCache:
    """An LRU cache of rendered blocks of rows, for any threads.

    Args:
        max_bytes: Maximum size of all blocks.
    """

    def __init__(self, max_bytes: int = _CACHE_BYTES) -> None:
        """Start empty."""
        self._max_bytes = max_bytes
        self._cached_bytes = 0
        self._blocks: OrderedDict[tuple[str, str, int], bytes] = OrderedDict()
        self._lock = threading.Lock()

    def get(self, key: tuple[str, str, int]) -> bytes | None:
        """Return the block with ``key``, or None if it is not in the cache."""
        with self._lock:
            block = self._blocks.get(key)
            if block is not None:
                self._blocks.move_to_end(key)
        return block

    def put(self, key: tuple[str, str, int], block: bytes) -> None:
        """Add ``block``; another thread may have added the same."""
        with self._lock:
            self._cached_bytes += len(block) - len(self._blocks.pop(key, b""))
            self._blocks[key] = block
            while self._cached_bytes > self._max_bytes:
                self._cached_bytes -= len(self._blocks.popitem(last=False)[1])


class SyntheticCandles:
    """The candles of one symbol.

    Args:
        listing: The symbol.
        blocks: The cache for rendered blocks; symbols may share it.
    """

    def __init__(self, listing: Listing, blocks: BlockCache) -> None:
        """Choose the symbol's scale; its days follow on demand."""
        name = f"{listing.market}/{listing.symbol}"
        self._listing = listing
        self._name = name
        self._scale = _scale(listing)
        unit = max(int(listing.price_level.scaleb(self._scale.tick)), _MIN_TICKS) // _LEVEL_UNITS
        self._reach = int(10 ** (len(str(unit)) - 1))
        self._multiple = unit // self._reach
        self._variant = zlib.crc32(name.encode()) % _VARIANTS
        self._first_day = listing.listed_at // DAY
        self._noise = random.Random(name)
        self._units = array("q", [_LEVEL_UNITS])
        self._base = self._amplitude = self._multiplier = pl.Series(dtype=pl.Int64)
        self._blocks = blocks
        self._daily_base_volumes: dict[int, pl.DataFrame] = {}

    def select(self, interval: Interval, start: int, end: int, limit: int, newest: bool, now: int) -> bytes:
        """Return the rows that open in ``[start, end]``, ascending, as the JSON list of a response.

        Args:
            interval: The candles' interval.
            start: Earliest open time, ms UTC.
            end: Latest open time, ms UTC.
            limit: Maximum number of rows.
            newest: Whether to keep the newest rows rather than the oldest.
            now: The clock, ms UTC: the last row is the unfinished candle that contains it.
        """
        grid = _Grid(interval, self._first_day % 3)
        traded_until = self._traded_until(now)
        first = max(grid.next_slot(min(max(start, 0), traded_until)), grid.slot(self._listing.listed_at))
        last = grid.slot(min(end, traded_until - 1))
        if newest:
            first = max(first, last - limit + 1)
        else:
            last = min(last, first + limit - 1)
        return _page(self._rows(grid, first, last, traded_until)) if first <= last else b"[]"

    def _traded_until(self, now: int) -> int:
        """Return the end of trading so far, ms UTC; the current second counts as complete."""
        second = now // SECOND * SECOND + SECOND
        return second if self._listing.delivered_at is None else min(second, self._listing.delivered_at)

    def _rows(self, grid: _Grid, first: int, last: int, traded_until: int) -> Iterator[memoryview]:
        complete_first, complete_last = grid.next_slot(self._listing.listed_at), grid.slot(traded_until) - 1
        if first < complete_first:
            yield self._partial(grid, first, traded_until)
        if (begin := max(first, complete_first)) <= (end := min(last, complete_last)):
            yield from (
                self._complete_multi_day(grid, begin, end)
                if grid.interval.is_multi_day
                else self._complete(grid, begin, end)
            )
        if last > complete_last and last >= complete_first:
            yield self._partial(grid, last, traded_until)

    def _complete(self, grid: _Grid, first: int, last: int) -> Iterator[memoryview]:
        rows = _rows_per_block(grid.interval)
        for number in range(first // rows, last // rows + 1):
            begin, end = max(number * rows, grid.next_slot(self._listing.listed_at)), (number + 1) * rows
            block = self._block(grid, number, begin, end)
            offset = block.index(_row_start(grid, first)) if first > begin else 0
            ends_within = last + 1 < end
            stop = block.index(_row_start(grid, last + 1), offset) if ends_within else len(block)
            yield memoryview(block)[offset:stop]

    def _block(self, grid: _Grid, number: int, begin: int, end: int) -> bytes:
        key = (self._name, grid.interval.name, number)
        block = self._blocks.get(key)
        if block is None:
            block = render(self._columns(grid.interval, begin, end), self._scale)
            self._blocks.put(key, block)
        return block

    def _columns(self, interval: Interval, first: int, end: int) -> Columns:
        """Return the complete candles of an interval up to a day, slots ``[first, end)``."""
        per_day = DAY // interval.step
        table = _pattern(self._variant, self._reach).table(interval.step // SECOND)
        if first // per_day == (end - 1) // per_day:
            day: _Number = first // per_day - self._first_day
            table = table[first % per_day : first % per_day + end - first]
        else:
            slots = _multiples(1, end - first) + first
            day = slots // per_day - self._first_day
            table = table[slots % per_day]
        self._extend((end - 1) // per_day - self._first_day)
        opens = _multiples(interval.step, end - first) + first * interval.step
        base_volumes = self._base_volumes(interval, first, end) if self._listing.market is COINM else None
        return self._apply_days(table, day, opens, opens + (interval.step - 1), base_volumes)

    def _base_volumes(self, interval: Interval, first: int, end: int) -> tuple[pl.Series, pl.Series]:
        """Return the base volumes of COIN-M's candles, slots ``[first, end)`` of an interval up to a day."""
        if interval.step == DAY:
            days = self._base_volumes_of_days(first, end)
            return days["value"], days["taker_value"]
        grouped = self._base_volumes_of(max(interval.step // MINUTE, 1), first, end)
        return grouped["value"], grouped["taker_value"]

    def _base_volumes_of(self, minutes: int, first: int, end: int) -> pl.DataFrame:
        """Return the base volumes of slots ``[first, end)`` of so many minutes."""
        sums = self._minute_base_volumes(first * minutes, end * minutes)
        return sums.group_by(pl.int_range(pl.len()) // minutes, maintain_order=True).sum()

    def _base_volumes_of_days(self, first: int, end: int) -> pl.DataFrame:
        """Return the base volumes of days ``[first, end)`` since the epoch.

        They are added up once, in blocks: requests for candles of a day or longer would add up 1440 minutes per day
        again and again.
        """
        numbers = range(first // _DAYS_PER_BLOCK, (end - 1) // _DAYS_PER_BLOCK + 1)
        for number in numbers:
            if number not in self._daily_base_volumes:
                begin = max(number * _DAYS_PER_BLOCK, self._first_day)
                sums = self._base_volumes_of(_MINUTES_PER_DAY, begin, (number + 1) * _DAYS_PER_BLOCK)
                self._daily_base_volumes[number] = sums
        days = pl.concat([self._daily_base_volumes[number] for number in numbers])
        begin = max(numbers[0] * _DAYS_PER_BLOCK, self._first_day)
        return days[first - begin : end - begin]

    def _minute_base_volumes(self, first: int, end: int) -> pl.DataFrame:
        """Return the base volumes of minutes ``[first, end)`` since the epoch, in 1e-8 of the asset.

        A contract is worth a fixed amount of USD, so a minute's volume is divided by its mean price. This is not a
        product of a pattern and integers per day, so coarser candles add up the minutes.
        """
        table = _pattern(self._variant, self._reach).table(_SECONDS_PER_MINUTE).select(_VALUED)
        minutes = _multiples(1, end - first) + first
        day, minute = minutes // _MINUTES_PER_DAY - self._first_day, minutes % _MINUTES_PER_DAY
        self._extend((end - 1) // _MINUTES_PER_DAY - self._first_day)
        return self._valued(table[minute], day)

    def _valued(self, table: pl.DataFrame, day: _Number) -> pl.DataFrame:
        """Return the base volumes of rows of the pattern, each at the row's mean price."""
        base, amplitude, multiplier = self._base[day], self._amplitude[day], self._multiplier[day]
        price = base + amplitude * (table["volume_price"] / table["volume"])
        contract_value = self._listing.contract_size * 10 ** (8 + self._scale.tick)
        return pl.DataFrame(
            {
                name: (contract_value * (multiplier * table[column]) / price).fill_nan(0).round().cast(pl.Int64)
                for name, column in (("value", "volume"), ("taker_value", "taker"))
            }
        )

    def _apply_days(
        self,
        table: pl.DataFrame,
        day: _Number,
        opens: pl.Series,
        closes: pl.Series,
        base_volumes: tuple[pl.Series, pl.Series] | None,
    ) -> Columns:
        base, amplitude, multiplier = self._base[day], self._amplitude[day], self._multiplier[day]
        high, low = base + amplitude * table["high"], base + amplitude * table["low"]
        volume, taker = multiplier * table["volume"], multiplier * table["taker"]
        if base_volumes is not None:
            value, taker_value = base_volumes
        else:
            swing = multiplier * amplitude
            value = volume * base + swing * table["volume_price"]
            taker_value = taker * base + swing * table["taker_price"]
        inverted = high < low  # a negative amplitude swaps high and low
        return Columns(
            opens, closes,
            base + amplitude * table["open"],
            low.zip_with(inverted, high), high.zip_with(inverted, low),
            base + amplitude * table["close"],
            volume, value, multiplier * table["trades"], taker, taker_value,
        )  # fmt: skip

    def _extend(self, day: int) -> None:
        """Generate the integers of the days up to number ``day`` since the listing."""
        if day < len(self._base):
            return
        multipliers = self._multiplier.to_list()
        while len(multipliers) <= day:
            noise = self._noise.randbytes(2 * _DAYS_PER_EXTENSION)
            last = self._units.pop()
            self._units.extend(accumulate(zip(noise[::2], noise[1::2], strict=True), _next_units, initial=last))
            multipliers += [1 + byte // 32 for byte in noise[::2]]
        units = pl.Series(list(self._units), dtype=pl.Int64)
        self._base = units[:-1] * (self._reach * self._multiple)
        self._amplitude = (units[1:] - units[:-1]) * self._multiple
        self._multiplier = pl.Series(multipliers, dtype=pl.Int64)

    def _complete_multi_day(self, grid: _Grid, first: int, last: int) -> Iterator[memoryview]:
        """Yield complete candles longer than a day, aggregated from days."""
        edges = [grid.start(slot) for slot in range(first, last + 2)]
        days = self._columns(_ONE_DAY, edges[0] // DAY, edges[-1] // DAY)
        frame = pl.DataFrame({name: getattr(days, name) for name in Columns.__slots__})
        starts = pl.DataFrame({"start": edges[:-1]}, schema={"start": pl.Int64})
        sums = pl.col("volume", "value", "trades", "taker", "taker_value").sum()
        grouped = (
            frame.join_asof(starts, left_on="open_time", right_on="start", coalesce=False)
            .group_by("start", maintain_order=True)
            .agg(pl.col("open_time").first(), pl.col("close_time").last(), *_OHLC, sums)
        )
        yield memoryview(render(Columns(**{name: grouped[name] for name in Columns.__slots__}), self._scale))

    def _partial(self, grid: _Grid, slot: int, traded_until: int) -> memoryview:
        """Return the row of a slot that has been traded only in part."""
        begin, end = grid.start(slot), grid.start(slot + 1)
        parts = list(self._parts(max(begin, self._listing.listed_at), min(end, traded_until)))
        sums = (_reduced(parts, name, sum) for name in ("volume", "value", "trades", "taker", "taker_value"))
        row = Columns(
            pl.Series([begin]), pl.Series([end - 1]),
            parts[0].open, _reduced(parts, "high", max), _reduced(parts, "low", min), parts[-1].close, *sums,
        )  # fmt: skip
        return memoryview(render(row, self._scale))

    def _parts(self, start: int, end: int) -> Iterator[Columns]:
        """Yield the trading in ``[start, end)``, one row per day."""
        pattern = _pattern(self._variant, self._reach)
        for day in range(start // DAY, (end - 1) // DAY + 1):
            midnight = day * DAY
            first, stop = max(start - midnight, 0) // SECOND, min(end - midnight, DAY) // SECOND
            table = pattern.table(_SECONDS_PER_DAY)
            if stop - first < _SECONDS_PER_DAY:
                table = pl.DataFrame([pattern.partial_row(first, stop)], schema=pattern.seconds.schema, orient="row")
            self._extend(day - self._first_day)
            time = pl.Series([midnight])
            base_volumes = self._part_base_volumes(day, first, stop) if self._listing.market is COINM else None
            yield self._apply_days(table, day - self._first_day, time, time, base_volumes)

    def _part_base_volumes(self, day: int, first: int, stop: int) -> tuple[pl.Series, pl.Series]:
        """Return the base volumes of the seconds ``[first, stop)`` of a day: of whole minutes, and of the rest."""
        pattern = _pattern(self._variant, self._reach)
        whole_from, whole_to = -(-first // _SECONDS_PER_MINUTE), stop // _SECONDS_PER_MINUTE
        parts = [self._minute_base_volumes(day * _MINUTES_PER_DAY + whole_from, day * _MINUTES_PER_DAY + whole_to)]
        edges = [
            (first, min(stop, whole_from * _SECONDS_PER_MINUTE)),
            (max(first, whole_to * _SECONDS_PER_MINUTE), stop),
        ]
        for start, end in edges if whole_from <= whole_to else [(first, stop)]:
            if start < end:
                row = pl.DataFrame([pattern.partial_row(start, end)], schema=pattern.seconds.schema, orient="row")
                parts.append(self._valued(row, day - self._first_day))
        total = pl.concat(parts).sum()
        return total["value"], total["taker_value"]


def _rows_per_block(interval: Interval) -> int:
    """Return how many rows are rendered at once: of few days, because COIN-M adds up the minutes of each day."""
    return min(_ROWS_PER_BLOCK, _DAYS_PER_BLOCK * DAY // interval.step)


def _reduced(parts: list[Columns], name: str, reduce: Callable[[Iterable[int]], int]) -> pl.Series:
    """Reduce a column of consecutive rows to one value."""
    return pl.Series([reduce(int(getattr(part, name)[0]) for part in parts)])


def _next_units(units: int, noise: tuple[int, int]) -> int:
    """Return the next day's close: a step of 1 to 4 units, with a slight bias towards the price level."""
    size, direction = noise
    step = 1 + size % 4
    up = direction < 128 + (_LEVEL_UNITS - units) // 8
    if units < _MIN_UNITS:
        up = True
    elif units > _MAX_UNITS:
        up = False
    return units + step if up else units - step


def _row_start(grid: _Grid, slot: int) -> bytes:
    return b'%d,"' % grid.start(slot)


def _page(rendered: Iterable[memoryview]) -> bytes:
    """Join the output of :func:`render` to one JSON list, in a single copy."""
    parts: list[memoryview | bytes] = [b"[["]
    parts += rendered
    last = parts.pop()
    return b"".join((*parts, last[: -len(b"],[")], b"]]"))


class _Grid:
    """The open times of one interval for one symbol; those of ``3d`` depend on the day of listing."""

    def __init__(self, interval: Interval, three_day_phase: int) -> None:
        self.interval = interval
        self._phase = three_day_phase * DAY if interval.has_symbol_phase else 0

    def slot(self, time: int) -> int:
        return self.interval.slot(time - self._phase)

    def start(self, slot: int) -> int:
        return self.interval.slot_start(slot) + self._phase

    def next_slot(self, time: int) -> int:
        """Return the first slot that starts at ``time`` or later."""
        slot = self.slot(time)
        return slot if self.start(slot) == time else slot + 1
