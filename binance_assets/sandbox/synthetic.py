"""Synthetic candles in closed form: any row of any interval without making the finer rows first.

A symbol's trading is one fixed pattern of the 86,400 seconds of a day, the same on every day, and a few integers for
each day: a base price, an amplitude and a volume multiplier. With ``p`` a price of the pattern and ``v`` a volume::

    price  = base + amplitude * p
    volume = multiplier * v
    quote  = multiplier * (base * sum(v) + amplitude * sum(v * p))

The pattern is added up once per interval, so every interval agrees exactly with every other one. A pattern ends
where its amplitude takes the base price to that of the next day, so that prices do not jump at midnight. All values
are integers: prices in ticks, volumes in lots; a month of the dearest symbol stays below 10**18.

Times are integer ms since the epoch, UTC.
"""

from __future__ import annotations

import io
import random
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

_SECONDS: Final = DAY // SECOND
_VARIANTS: Final = 4  # patterns are shared between symbols to bound memory; the days' integers are a symbol's own
_QUIET_MINUTES: Final = 3
_WALK_SPREAD: Final = 15_300  # of the raw walk at noon: 104 (difference of two random bytes) * sqrt(86400) / 2

_LEVEL_UNITS: Final = 200  # the price level, in the unit by which day closes move
_LOWEST_UNITS: Final = 70
_HIGHEST_UNITS: Final = 700
_DAYS_AT_ONCE: Final = 1024

_BLOCK: Final = 1440
_CACHE_BYTES: Final = 128 * 1024 * 1024

_PER_MINUTE: Final = MINUTE // SECOND
_ONE_DAY: Final = next(interval for interval in INTERVALS if interval.step == DAY)

_Number: TypeAlias = int | pl.Series

_FIRST_MAX_MIN_LAST: Final = [
    pl.col("open").first(),
    pl.col("high").max(),
    pl.col("low").min(),
    pl.col("close").last(),
]


class Pattern:
    """A day of trading in abstract units: prices from 0 to ``reach``, volumes in lots.

    Args:
        variant: Which of the patterns.
        reach: The last price; the first is 0 and the path's spread is of the same order.
    """

    def __init__(self, variant: int, reach: int) -> None:
        """Make the seconds; the other intervals follow when they are asked for."""
        self.seconds = _seconds(variant, reach)
        self._tables = {1: self.seconds}

    def table(self, seconds: int) -> pl.DataFrame:
        """The pattern in buckets of so many seconds, a divisor of the day."""
        if seconds not in self._tables:
            finer = self.table(_PER_MINUTE) if seconds > _PER_MINUTE else self.seconds
            self._tables[seconds] = _bucketed(finer, seconds * len(finer) // _SECONDS)
        return self._tables[seconds]

    def part(self, first: int, end: int) -> tuple[int, ...]:
        """One row for the seconds ``[first, end)`` of the day."""
        return _bucketed(self.seconds[first:end], end - first).row(0)


@cache
def _pattern(variant: int, reach: int) -> Pattern:
    return Pattern(variant, reach)


def _bucketed(table: pl.DataFrame, rows: int) -> pl.DataFrame:
    bucket = (pl.int_range(pl.len()) // rows).alias("bucket")
    sums = pl.col("trades", "volume", "taker", "volume_price", "taker_price").sum()
    return table.group_by(bucket, maintain_order=True).agg(*_FIRST_MAX_MIN_LAST, sums).drop("bucket")


def _seconds(variant: int, reach: int) -> pl.DataFrame:
    up, down, busy, above, below, size, taken = _random_columns(f"sandbox pattern {variant}", 7)
    second = pl.int_range(1, _SECONDS + 1, eager=True)
    walk = (up - down).cum_sum()
    bridge = walk - second * int(walk[-1]) // _SECONDS
    path = second * reach // _SECONDS + bridge * reach // _WALK_SPREAD
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
    noise = random.Random(seed).randbytes(count * _SECONDS)
    return [pl.Series(list(noise[i::count]), dtype=pl.Int64) for i in range(count)]


def _trades(busy: pl.Series, variant: int) -> pl.Series:
    """Trades of each second: none in every third or so, nor in a few whole minutes, but some in the last."""
    counts = [0 if byte < 90 else 1 + byte % 5 for byte in busy]
    for minute in random.Random(f"quiet {variant}").sample(range(1, 1439), _QUIET_MINUTES):
        counts[minute * _PER_MINUTE : (minute + 1) * _PER_MINUTE] = [0] * _PER_MINUTE
    counts[-1] = 1
    return pl.Series(counts, dtype=pl.Int64)


@dataclass(frozen=True, slots=True)
class Scale:
    """How a symbol's integers are written.

    Attributes:
        tick: Decimals of the price's integers.
        lot: Decimals of the volume's integers.
        price: Decimals that prices are written with.
        volume: Decimals that volumes are written with.
        value: Decimals of the quote volume (COIN-M: base volume), in its integers and in writing.
    """

    tick: int
    lot: int
    price: int
    volume: int
    value: int


_USDM_SCALE: Final = Scale(2, 3, 2, 3, 5)
_COINM_SCALE: Final = Scale(1, 0, 1, 0, 8)
_LEAST_TICKS: Final = 2_000


def _scale(listing: Listing) -> Scale:
    if listing.market is SPOT:
        tick = next((n for n, least in ((2, "100"), (4, "1"), (6, "0.01")) if listing.level >= Decimal(least)), 8)
        return Scale(tick, 8 - tick, 8, 8, 8)
    return _COINM_SCALE if listing.market is COINM else _USDM_SCALE


@dataclass(frozen=True, slots=True)
class Columns:
    """Rows to be written, as columns of integers; ``value`` is the quote volume (COIN-M: base volume)."""

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
    """The rows as JSON, of which ``[[`` in front and ``]]`` instead of the final ``],[`` would make a list."""

    def price(ticks: pl.Series) -> pl.Series:
        return _decimal(ticks, scale.tick, scale.price)

    def volume(lots: pl.Series) -> pl.Series:
        return _decimal(lots, scale.lot, scale.volume)

    def value(units: pl.Series) -> pl.Series:
        return _decimal(units, scale.value, scale.value)

    # The quote character as separator: polars writes the decimals and they come out as JSON strings, several times
    # faster than making strings of them first.
    rows = len(columns.open)
    comma = _repeated(",", rows)
    fields = [
        columns.open_time.cast(pl.String) + comma,
        price(columns.open), comma, price(columns.high), comma, price(columns.low), comma, price(columns.close), comma,
        volume(columns.volume), comma + columns.close_time.cast(pl.String) + comma,
        value(columns.value), comma + columns.trades.cast(pl.String) + comma,
        volume(columns.taker), comma, value(columns.taker_value), comma,
        _repeated("0", rows),
    ]  # fmt: skip
    frame = pl.DataFrame([field.alias(str(i)) for i, field in enumerate(fields)])
    text = io.BytesIO()
    frame.write_csv(
        text, include_header=False, quote_style="never", separator='"', line_terminator='"],[', batch_size=2 * _BLOCK
    )
    return text.getvalue()


@lru_cache(64)
def _repeated(text: str, rows: int) -> pl.Series:
    return pl.repeat(text, rows, eager=True)


@lru_cache(64)
def _multiples(of: int, count: int) -> pl.Series:
    return pl.int_range(0, count * of, of, eager=True)


@cache
def _unit(decimals: int, written: int) -> pl.Series:
    unit = Decimal(1).scaleb(-decimals).quantize(Decimal(1).scaleb(-written))
    return pl.Series([unit], dtype=pl.Decimal(38, written))


def _decimal(integers: pl.Series, decimals: int, written: int) -> pl.Series:
    whole = integers.cast(pl.Decimal(38, 0))
    return whole * _unit(decimals, written) if written else whole


class BlockCache:
    """Rendered blocks of rows, the least recently used dropped beyond a bound of bytes."""

    def __init__(self, most_bytes: int = _CACHE_BYTES) -> None:
        """An empty cache of at most ``most_bytes``."""
        self._most = most_bytes
        self._held = 0
        self._blocks: OrderedDict[tuple[str, str, int], bytes] = OrderedDict()

    def get(self, key: tuple[str, str, int]) -> bytes | None:
        """The block called ``key``, if it is held."""
        block = self._blocks.get(key)
        if block is not None:
            self._blocks.move_to_end(key)
        return block

    def put(self, key: tuple[str, str, int], block: bytes) -> None:
        """Hold ``block``."""
        self._blocks[key] = block
        self._held += len(block)
        while self._held > self._most:
            self._held -= len(self._blocks.popitem(last=False)[1])


class SyntheticCandles:
    """The candles of one symbol.

    Args:
        listing: The symbol.
        blocks: Where rendered blocks are kept; symbols may share it.
    """

    def __init__(self, listing: Listing, blocks: BlockCache) -> None:
        """Settle the symbol's scale; its days follow when they are asked for."""
        name = f"{listing.market}/{listing.symbol}"
        self._listing = listing
        self._name = name
        self._scale = _scale(listing)
        unit = max(int(listing.level.scaleb(self._scale.tick)), _LEAST_TICKS) // _LEVEL_UNITS
        self._reach = int(10 ** (len(str(unit)) - 1))
        self._multiple = unit // self._reach
        self._variant = zlib.crc32(name.encode()) % _VARIANTS
        self._first_day = listing.listed // DAY
        self._noise = random.Random(name)
        self._units = array("q", [_LEVEL_UNITS])
        self._base = self._amplitude = self._multiplier = pl.Series(dtype=pl.Int64)
        self._blocks = blocks

    def select(self, interval: Interval, start: int, end: int, limit: int, newest: bool, now: int) -> bytes:
        """Rows that open in ``[start, end]``, both included, ascending, as the JSON list of an answer.

        Args:
            interval: The candles' interval.
            start: Earliest open time, ms UTC.
            end: Latest open time, ms UTC.
            limit: At most so many rows.
            newest: Whether the newest of them stay rather than the oldest.
            now: The clock, ms UTC: the candle that holds it is the last, unfinished.
        """
        grid = _Grid(interval, self._first_day % 3)
        over = self._over(now)
        first = max(grid.next_slot(min(max(start, 0), over)), grid.slot(self._listing.listed))
        last = grid.slot(min(end, over - 1))
        if newest:
            first = max(first, last - limit + 1)
        else:
            last = min(last, first + limit - 1)
        return _page(self._rows(grid, first, last, over)) if first <= last else b"[]"

    def _over(self, now: int) -> int:
        """The end of what has been traded: the second of ``now`` is there in full."""
        second = now // SECOND * SECOND + SECOND
        return second if self._listing.ended is None else min(second, self._listing.ended)

    def _rows(self, grid: _Grid, first: int, last: int, over: int) -> Iterator[memoryview]:
        whole_first, whole_last = grid.next_slot(self._listing.listed), grid.slot(over) - 1
        if first < whole_first:
            yield self._clipped(grid, first, over)
        if (a := max(first, whole_first)) <= (b := min(last, whole_last)):
            yield from self._whole_coarse(grid, a, b) if grid.interval.is_multi_day else self._whole(grid, a, b)
        if last > whole_last and last >= whole_first:
            yield self._clipped(grid, last, over)

    def _whole(self, grid: _Grid, first: int, last: int) -> Iterator[memoryview]:
        for number in range(first // _BLOCK, last // _BLOCK + 1):
            begin = max(number * _BLOCK, grid.next_slot(self._listing.listed))
            block = self._block(grid, number, begin)
            a = block.index(_row_start(grid, first)) if first > begin else 0
            ends_within = last + 1 < (number + 1) * _BLOCK
            b = block.index(_row_start(grid, last + 1), a) if ends_within else len(block)
            yield memoryview(block)[a:b]

    def _block(self, grid: _Grid, number: int, begin: int) -> bytes:
        key = (self._name, grid.interval.name, number)
        block = self._blocks.get(key)
        if block is None:
            block = render(self._columns(grid.interval, begin, (number + 1) * _BLOCK), self._scale)
            self._blocks.put(key, block)
        return block

    def _columns(self, interval: Interval, first: int, end: int) -> Columns:
        """Whole candles of an interval up to a day, slots ``[first, end)``."""
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
        return self._priced(table, day, opens, opens + (interval.step - 1))

    def _priced(self, table: pl.DataFrame, day: _Number, opens: pl.Series, closes: pl.Series) -> Columns:
        base, amplitude, multiplier = self._base[day], self._amplitude[day], self._multiplier[day]
        high, low = base + amplitude * table["high"], base + amplitude * table["low"]
        volume, taker = multiplier * table["volume"], multiplier * table["taker"]
        if self._listing.market is COINM:
            per_contract = self._per_contract(base)
            value, taker_value = volume * per_contract, taker * per_contract
        else:
            swing = multiplier * amplitude
            value = volume * base + swing * table["volume_price"]
            taker_value = taker * base + swing * table["taker_price"]
        falling = high < low  # a negative amplitude turns the pattern over
        return Columns(
            opens, closes,
            base + amplitude * table["open"],
            low.zip_with(falling, high), high.zip_with(falling, low),
            base + amplitude * table["close"],
            volume, value, multiplier * table["trades"], taker, taker_value,
        )  # fmt: skip

    def _per_contract(self, base: _Number) -> _Number:
        """Base volume of a contract, in 1e-8 of the asset; fixed for a day so that volumes stay additive."""
        worth = self._listing.contract_size * 10 ** (8 + self._scale.tick)
        return worth // base if isinstance(base, int) else pl.Series([worth], dtype=pl.Int64) // base

    def _extend(self, day: int) -> None:
        """Make the integers of days up to number ``day`` since the listing."""
        if day < len(self._base):
            return
        multipliers = self._multiplier.to_list()
        while len(multipliers) <= day:
            noise = self._noise.randbytes(2 * _DAYS_AT_ONCE)
            last = self._units.pop()
            self._units.extend(accumulate(zip(noise[::2], noise[1::2], strict=True), _next_units, initial=last))
            multipliers += [1 + byte // 32 for byte in noise[::2]]
        units = pl.Series(list(self._units), dtype=pl.Int64)
        self._base = units[:-1] * (self._reach * self._multiple)
        self._amplitude = (units[1:] - units[:-1]) * self._multiple
        self._multiplier = pl.Series(multipliers, dtype=pl.Int64)

    def _whole_coarse(self, grid: _Grid, first: int, last: int) -> Iterator[memoryview]:
        """Whole candles longer than a day, added up from the days."""
        edges = [grid.start(slot) for slot in range(first, last + 2)]
        days = self._columns(_ONE_DAY, edges[0] // DAY, edges[-1] // DAY)
        frame = pl.DataFrame({name: getattr(days, name) for name in Columns.__slots__})
        starts = pl.DataFrame({"start": edges[:-1]}, schema={"start": pl.Int64})
        sums = pl.col("volume", "value", "trades", "taker", "taker_value").sum()
        grouped = (
            frame.join_asof(starts, left_on="open_time", right_on="start", coalesce=False)
            .group_by("start", maintain_order=True)
            .agg(pl.col("open_time").first(), pl.col("close_time").last(), *_FIRST_MAX_MIN_LAST, sums)
        )
        yield memoryview(render(Columns(**{name: grouped[name] for name in Columns.__slots__}), self._scale))

    def _clipped(self, grid: _Grid, slot: int, over: int) -> memoryview:
        """The row of a slot of which only a part has been traded."""
        begin, end = grid.start(slot), grid.start(slot + 1)
        parts = list(self._parts(max(begin, self._listing.listed), min(end, over)))
        sums = (_folded(parts, name, sum) for name in ("volume", "value", "trades", "taker", "taker_value"))
        row = Columns(
            pl.Series([begin]), pl.Series([end - 1]),
            parts[0].open, _folded(parts, "high", max), _folded(parts, "low", min), parts[-1].close, *sums,
        )  # fmt: skip
        return memoryview(render(row, self._scale))

    def _parts(self, start: int, end: int) -> Iterator[Columns]:
        """What was traded in ``[start, end)``, day by day, one row each."""
        pattern = _pattern(self._variant, self._reach)
        for day in range(start // DAY, (end - 1) // DAY + 1):
            midnight = day * DAY
            first, stop = max(start - midnight, 0) // SECOND, min(end - midnight, DAY) // SECOND
            table = pattern.table(_SECONDS)
            if stop - first < _SECONDS:
                table = pl.DataFrame([pattern.part(first, stop)], schema=pattern.seconds.schema, orient="row")
            self._extend(day - self._first_day)
            time = pl.Series([midnight])
            yield self._priced(table, day - self._first_day, time, time)


def _folded(parts: list[Columns], name: str, fold: Callable[[Iterable[int]], int]) -> pl.Series:
    """One value out of those of rows that follow each other."""
    return pl.Series([fold(int(getattr(part, name)[0]) for part in parts)])


def _next_units(units: int, noise: tuple[int, int]) -> int:
    """The next day's close: a step of 1 to 4 units, somewhat more often towards the price level."""
    size, way = noise
    step = 1 + size % 4
    up = way < 128 + (_LEVEL_UNITS - units) // 8
    if units < _LOWEST_UNITS:
        up = True
    elif units > _HIGHEST_UNITS:
        up = False
    return units + step if up else units - step


def _row_start(grid: _Grid, slot: int) -> bytes:
    return b'%d,"' % grid.start(slot)


def _page(rendered: Iterable[memoryview]) -> bytes:
    """One JSON list of what :func:`render` made, in a single copy."""
    parts: list[memoryview | bytes] = [b"[["]
    parts += rendered
    last = parts.pop()
    return b"".join((*parts, last[: -len(b"],[")], b"]]"))


class _Grid:
    """The open times of one interval for one symbol: that of ``3d`` follows the day of listing."""

    def __init__(self, interval: Interval, three_day_phase: int) -> None:
        self.interval = interval
        self._phase = three_day_phase * DAY if interval.has_symbol_phase else 0

    def slot(self, time: int) -> int:
        return self.interval.slot(time - self._phase)

    def start(self, slot: int) -> int:
        return self.interval.slot_start(slot) + self._phase

    def next_slot(self, time: int) -> int:
        """The first slot that starts at ``time`` or later."""
        slot = self.slot(time)
        return slot if self.start(slot) == time else slot + 1
