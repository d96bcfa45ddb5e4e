"""Reading candles by the names of series: ``scan``, ``load``, and ``panel``.

Only the files that hold the range are opened; their names follow from the series and the range. The candles of a
partition are compared with the hash with which they were written, as the IO manager ``candles`` does.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, get_args

import polars as pl

from binance_assets.api.arguments import Moment, SeriesName, all_series_of, interval_of, lake_at, range_of
from binance_assets.api.gaps import (
    Missing,
    MissingCandles,
    clipped,
    coarse_gaps,
    gaps_of,
    with_flat_candles,
    with_null_rows,
)
from binance_assets.candles.columns import TIME, columns
from binance_assets.candles.resampling import resample
from binance_assets.model.bucket_paths import LakePath
from binance_assets.model.intervals import INTERVALS, Interval
from binance_assets.model.outside import printable
from binance_assets.model.partitions import (
    Partition,
    last_finished_end,
    next_partition_first_day,
    partition_first_day,
    partitions_between,
)
from binance_assets.model.series import Series
from binance_assets.model.spelling import did_you_mean, nearest_series
from binance_assets.model.timestamps import DAY, to_date, to_ms
from binance_assets.model.wording import name_some
from binance_assets.settings import ConfigurationError
from binance_assets.storage.lake import Lake, LakeError, StoredPartition

_MAX_NAMED: Final = 5
_OR_ALLOW: Final = ", or pass allow_missing=True"
_BACK: Final = 366  # how many partitions without a candle may precede a gap at the start of a range


class MissingPartitions(LakeError):
    """The lake does not hold partitions that were asked for; the message names the command that fetches them.

    Attributes:
        series: The series.
        partitions: The partitions that the lake lacks, ascending; empty if it holds none of the series at all.
    """

    def __init__(self, series: Series, partitions: Sequence[Partition], message: str) -> None:
        super().__init__(message)
        self.series = series
        self.partitions = tuple(partitions)


@dataclass(frozen=True, slots=True)
class _Reading:
    """How each series is read; the fields are the arguments of :func:`scan`."""

    start: int | None
    end: int | None
    every: Interval | None
    missing: Missing
    verdicts: bool
    allow_missing: bool
    check: bool


def scan(
    series: SeriesName | Sequence[SeriesName],
    start: Moment | None = None,
    end: Moment | None = None,
    every: str | Interval | None = None,
    missing: Missing = "keep",
    *,
    verdicts: bool = False,
    allow_missing: bool = False,
    check: bool = True,
    lake: str | LakePath | Lake | None = None,
) -> pl.LazyFrame:
    """Return the candles that open in ``[start, end)`` lazily, sorted by open time.

    Args:
        series: ``spot/BTCUSDT/1m``. A list of series gives one long table, in the order of the list.
        start: Where the range begins: ``2024``, ``2024-07``, ``2024-01-31``, a date, or a datetime, in UTC. None for
            the first stored partition.
        end: Where it ends, excluded. None for the end of the last stored partition.
        every: A coarser interval, at most ``1d``: candles as the exchange computes them. A candle is in the table if it
            opens in the range, and it is always computed from all finer candles in it, also beyond ``end``.
        missing: What becomes of the candles that accepted partitions lack, see
            :mod:`binance_assets.api.gaps`: ``keep`` leaves them out; ``null`` gives rows with nothing but an open
            time; ``flat`` gives candles without trades at the last close, marked in a column ``is_filled``, except
            before the first candle; ``raise`` raises an error that names them. With ``every``, a coarse candle is
            missing if all of its finer ones are, but ``raise`` names any finer one.
        verdicts: Whether to add a column ``verdict``, that of the partition.
        allow_missing: Whether to go on without the partitions that the lake does not hold.
        check: Whether to compare the candles with their hashes now, which reads each file once: 0.12 s for a year of
            1m.
        lake: The folder of the lake; None for that of the settings (``BINANCE_ASSETS_LAKE``, also in ``.env``).

    Returns:
        The columns of the market; for a list, a column ``symbol`` before them, and ``market`` and ``interval`` if
        those differ. A list over COIN-M and other markets has the columns of both, with nulls.

    Raises:
        MissingPartitions: The lake lacks a partition of the range; the message names the command that fetches it.
        MissingCandles: ``missing`` is ``raise``, and there is a gap.
        LakeError: A file cannot be read, or its candles are not those that were written.
        ConfigurationError: An argument or a setting is not valid.
    """
    members = all_series_of(series)
    reading = _reading(members, start, end, every, missing, verdicts, allow_missing, check)
    source = lake_at(lake)
    tables = [_scan(source, member, reading) for member in members]
    if isinstance(series, str | Series):
        return tables[0]
    names = _identity(members, reading.every)
    labeled = [table.select(*names(member), pl.all()) for member, table in zip(members, tables, strict=True)]
    return pl.concat(labeled, how="diagonal")


def load(
    series: SeriesName | Sequence[SeriesName],
    start: Moment | None = None,
    end: Moment | None = None,
    every: str | Interval | None = None,
    missing: Missing = "keep",
    *,
    verdicts: bool = False,
    allow_missing: bool = False,
    check: bool = True,
    lake: str | LakePath | Lake | None = None,
) -> pl.DataFrame:
    """Return the candles that open in ``[start, end)`` as a table in memory.

    The arguments are those of :func:`scan`.

    Raises:
        MissingPartitions, MissingCandles, LakeError, ConfigurationError: As for :func:`scan`.
    """
    source = lake_at(lake)
    table = scan(
        series, start, end, every, missing, verdicts=verdicts, allow_missing=allow_missing, check=check, lake=source
    )
    return source.collect(table)


def panel(
    series: Sequence[SeriesName],
    start: Moment | None = None,
    end: Moment | None = None,
    every: str | Interval | None = None,
    missing: Missing = "keep",
    *,
    column: str = "close",
    allow_missing: bool = False,
    check: bool = True,
    lake: str | LakePath | Lake | None = None,
) -> pl.DataFrame:
    """Return one column of several series side by side, sorted by open time.

    Args:
        series: The series, all of one interval unless ``every`` makes them so.
        start: As for :func:`scan`.
        end: As for :func:`scan`.
        every: As for :func:`scan`.
        missing: As for :func:`scan`. An open time at which no series has a candle is in no row with ``keep``.
        column: The column, such as ``close`` or ``volume``; each market of the series must have it.
        allow_missing: As for :func:`scan`.
        check: As for :func:`scan`.
        lake: As for :func:`scan`.

    Returns:
        The column ``open_time``, and one for each series, named by its symbol; if two markets have a symbol in common,
        all are named ``market/symbol``. A series without a candle at a time has a null there.

    Raises:
        MissingPartitions, MissingCandles, LakeError: As for :func:`scan`.
        ConfigurationError: An argument is not valid, the intervals differ, or a market lacks the column.
    """
    members = all_series_of(series)
    reading = _reading(members, start, end, every, missing, False, allow_missing, check)
    if reading.every is None and len({member.interval for member in members}) > 1:
        raise ConfigurationError("the series of a panel have several intervals; give every, such as every='1h'")
    for member in members:
        if column == "open_time" or column not in columns(member.market):
            raise ConfigurationError(
                f"{member} has no column {printable(column)!r} for a panel; it has {', '.join(columns(member.market))}"
            )
    source, names = lake_at(lake), _panel_names(members)
    tables = [
        source.collect(_scan(source, member, reading).select("open_time", pl.col(column).alias(name)))
        for member, name in zip(members, names, strict=True)
    ]
    return pl.concat(tables, how="align") if len(tables) > 1 else tables[0]


def _reading(
    members: Sequence[Series],
    start: Moment | None,
    end: Moment | None,
    every: str | Interval | None,
    missing: Missing,
    verdicts: bool,
    allow_missing: bool,
    check: bool,
) -> _Reading:
    """Return the checked arguments.

    Raises:
        ConfigurationError: An argument is not valid.
    """
    if missing not in get_args(Missing):
        raise ConfigurationError(f"missing={printable(missing)!r} is none of {', '.join(map(repr, get_args(Missing)))}")
    coarse = _coarse(members, every)
    first, last = range_of(start, end)
    return _Reading(first, last, coarse, missing, verdicts, allow_missing, check)


def _coarse(members: Sequence[Series], every: str | Interval | None) -> Interval | None:
    """Return the interval ``every``; None for None.

    Raises:
        ConfigurationError: It is no interval of at most a day, or no multiple of that of a series.
    """
    interval = interval_of(every)
    for member in members:
        if interval is not None and interval.step % member.interval.step:
            raise ConfigurationError(f"every={interval}: candles of {member} do not add up to it")
    return interval


def _identity(members: Sequence[Series], every: Interval | None) -> _Labels:
    has_markets = len({member.market.name for member in members}) > 1
    has_intervals = every is None and len({member.interval for member in members}) > 1
    return _Labels(has_markets, has_intervals)


@dataclass(frozen=True, slots=True)
class _Labels:
    """Which columns name the series of a long table."""

    has_markets: bool
    has_intervals: bool

    def __call__(self, series: Series) -> list[pl.Expr]:
        labels = {"symbol": series.symbol}
        if self.has_markets:
            labels["market"] = series.market.name
        if self.has_intervals:
            labels["interval"] = series.interval.name
        return [pl.lit(text).alias(name) for name, text in labels.items()]


def _panel_names(members: Sequence[Series]) -> list[str]:
    symbols = [member.symbol for member in members]
    if len(set(symbols)) == len(symbols):
        return symbols
    names = [f"{member.market}/{member.symbol}" for member in members]
    return names if len(set(names)) == len(names) else [str(member) for member in members]


def _scan(lake: Lake, series: Series, reading: _Reading) -> pl.LazyFrame:
    """Return the candles of one series."""
    interval = reading.every or series.interval
    first, last = reading.start, reading.end
    if reading.every is not None:  # a candle that opens in the range, with all of its finer candles
        first, last = (None if time is None else -(-time // interval.step) * interval.step for time in (first, last))
    stored = _stored(lake, series, first, last, reading.allow_missing)
    gaps = gaps_of(stored)
    if reading.missing == "raise" and (spans := clipped(gaps, first, last)):
        raise MissingCandles(series, spans)
    table = lake.scan(series, list(stored), reading.check)
    if reading.every is not None and interval != series.interval:
        table, gaps = resample(series.market, table, interval), coarse_gaps(gaps, interval)
    if reading.missing in ("null", "flat"):
        table = with_null_rows(table, series.market, gaps, interval, _phase(interval, stored))
    if reading.missing == "flat":
        table = with_flat_candles(table, series.market, interval, _close_before(lake, series, stored))
    time = pl.col("open_time")
    if first is not None:
        table = table.filter(time >= pl.lit(first).cast(TIME))
    if last is not None:
        table = table.filter(time < pl.lit(last).cast(TIME))
    return _with_verdicts(table, series, stored) if reading.verdicts else table


def _phase(interval: Interval, stored: Mapping[Partition, StoredPartition]) -> int:
    opens = (entry.first for entry in stored.values() if entry.first is not None)
    return next((interval.phase(time) for time in opens), 0) if interval.has_symbol_phase else 0


def _with_verdicts(table: pl.LazyFrame, series: Series, stored: Mapping[Partition, StoredPartition]) -> pl.LazyFrame:
    first = pl.col("open_time").dt.truncate("1mo" if series.interval.is_multi_day else "1d").dt.epoch("ms")
    starts, verdicts = [partition.start for partition in stored], [entry.verdict for entry in stored.values()]
    return table.with_columns(verdict=first.replace_strict(starts, verdicts, return_dtype=pl.String))


def _close_before(lake: Lake, series: Series, stored: Mapping[Partition, StoredPartition]) -> float | None:
    """Return the last close before the first of the partitions if that one begins with a gap; None if unknown."""
    if not stored:
        return None
    first = next(iter(stored))
    if not any(start == first.start for start, _ in gaps_of({first: stored[first]})):
        return None
    day = to_date(first.start)
    for _ in range(_BACK):
        day = partition_first_day(day - dt.timedelta(days=1), series.interval)
        (partition,) = partitions_between(day, next_partition_first_day(day, series.interval), series.interval)
        entry = lake.stored(series, partition)
        if entry is None:
            return None
        if entry.rows:
            close: float = lake.read(series, [partition])["close"][-1]
            return close
    return None


def check_stored(lake: Lake, series: Series, start: int | None, end: int | None) -> None:
    """Check that the lake holds every partition of a range.

    Args:
        lake: The lake.
        series: The series.
        start: Where the range begins, ms UTC; None for the first stored partition.
        end: Where it ends, excluded; None for the end of the last stored partition.

    Raises:
        MissingPartitions: It lacks one.
    """
    _stored(lake, series, start, end, allow_missing=False, alternative="")


def _stored(
    lake: Lake,
    series: Series,
    start: int | None,
    end: int | None,
    allow_missing: bool,
    alternative: str = _OR_ALLOW,
) -> dict[Partition, StoredPartition]:
    """Return the stored partitions that overlap ``[start, end)``, ascending.

    With both ends, their files are opened by name. Otherwise, the folder of the series shows where it begins or ends.

    Raises:
        MissingPartitions: One of them is not stored, unless ``allow_missing``.
    """
    first = None if start is None else partition_first_day(to_date(start), series.interval)
    last = None if end is None else to_date(end + DAY - 1)
    if first is not None and last is not None:
        asked = partitions_between(first, last, series.interval)
        stored = lake.stored_among(series, asked)
    else:
        stored = lake.stored_partitions(series, first, last)
        bounds = list(stored)
        asked = (
            partitions_between(first or to_date(bounds[0].start), last or to_date(bounds[-1].end), series.interval)
            if bounds
            else []
        )
        if not bounds and not allow_missing:
            raise MissingPartitions(series, [], _none_stored(lake, series, first))
    missing = [partition for partition in asked if partition not in stored]
    if missing and not allow_missing:
        raise MissingPartitions(series, missing, _lacking(lake, series, missing, alternative))
    return stored


def _none_stored(lake: Lake, series: Series, first: dt.date | None) -> str:
    since = f" from {first} on" if first else ""
    hint = series_hint(lake, series) if first is None else ""
    return f"the lake in {lake.root} holds no partition of {series}{since}{hint}; {way_out(series, first, None)}"


def series_hint(lake: Lake, series: Series, tracked: Iterable[Series] = ()) -> str:
    """Return the question whether a series is meant that the lake has, such as `` (did you mean spot/BTCUSDT/1m?)``.

    Args:
        lake: The lake.
        series: A series of which the lake has nothing.
        tracked: More series that may be meant.
    """
    if series in tracked:
        return ""
    return did_you_mean(nearest_series(str(series), map(str, dict.fromkeys([*lake.series(), *tracked]))))


def _lacking(lake: Lake, series: Series, missing: Sequence[Partition], alternative: str) -> str:
    """Return what is missing, and how to get it; a damaged file is named."""
    named = f"the lake in {lake.root} lacks {name_some(missing, _MAX_NAMED)} of {series}"
    now = to_ms(dt.datetime.now(dt.UTC).date())
    over = last_finished_end(now, series.interval)
    if missing[-1].start >= to_ms(over):
        return f"{named}; {missing[-1]} is not over yet, so give an end of at most {over}"
    (content,) = lake.read_each(series, missing[:1])
    reason = content.candles if isinstance(content.candles, str) else ""
    damage = f" ({reason})" if str(lake.path(series, missing[0])) in reason else ""
    following = next_partition_first_day(to_date(missing[-1].start), series.interval)
    return (
        f"{named}{damage}; {way_out(series, to_date(missing[0].start), following)}, "
        f"which names the reason if it refuses one{alternative}"
    )


def way_out(series: Series, first: dt.date | None, end: dt.date | None) -> str:
    """Return what to do to get partitions that the lake does not hold.

    Args:
        series: The series.
        first: The first day; None for that of the first candle.
        end: The day after the last one; None for all that there are.
    """
    if series.interval not in INTERVALS:
        return (
            f"Binance has no {series.interval}: materialize the asset in Dagster, or give a finer series and "
            f"every='{series.interval}'"
        )
    dates = "".join(f" --{name} {day}" for name, day in (("start", first), ("end", end)) if day)
    return f"run binance-assets download {series.symbol} --market {series.market} --interval {series.interval}{dates}"
