"""Defects that are planted in recorded days: none that the exchange's evidence can show is written.

Each kind of defect has a symbol of its own, whose rows are a recorded day of real 1m candles with the defect, between
two sound days. One sandbox serves the defective rows, another the sound ones, and a download takes the API of one and
the archive of one. The 1d candles are the sound ones everywhere, unless the defect is in them.
"""

from __future__ import annotations

import csv
import datetime as dt
import io
import zipfile
from collections.abc import Callable, Iterator, Sequence
from decimal import Decimal
from functools import cache
from pathlib import Path
from typing import Literal

import polars as pl
import pytest

from binance_assets.candles.columns import TIME, columns
from binance_assets.exchange.session import Exchange
from binance_assets.ingest.download import download
from binance_assets.ingest.options import DownloadOptions
from binance_assets.ingest.verify import verify
from binance_assets.model.markets import SPOT
from binance_assets.model.partitions import partitions_between
from binance_assets.model.results import PartitionResult
from binance_assets.model.series import Series
from binance_assets.model.timestamps import DAY, MINUTE
from binance_assets.sandbox import Sandbox, SandboxOptions, running_sandbox
from binance_assets.settings import Settings, Source, read_settings
from binance_assets.storage.lake import Lake
from binance_assets_tests.support.environment import environment_of
from binance_assets_tests.support.exchange import quick_retrier

Row = list[str]
Rows = list[Row]
Change = Callable[[Rows], Rows]
Outcome = Literal["refused", "written", "sound"]

DAYS = ["2020-01-01", "2020-01-02", "2020-01-03"]
OPEN, HIGH, LOW, CLOSE, VOLUME, CLOSE_TIME, QUOTE, TRADES, TAKER, TAKER_QUOTE = range(1, 11)
PRICES = (OPEN, HIGH, LOW, CLOSE)
AMOUNTS = (VOLUME, QUOTE, TRADES, TAKER, TAKER_QUOTE)
AT = 700  # the row that a defect changes; it has trades, and neither the day's highest nor its lowest price


def changed(field: int, change: Callable[[Decimal], object], row: int = AT) -> Change:
    """Return the defect that changes a field of one row."""

    def plant(rows: Rows) -> Rows:
        rows[row][field] = _text(change(Decimal(rows[row][field])))
        return rows

    return plant


def set_to(field: int, text: str) -> Change:
    return changed(field, lambda _: text)


def dropped(first: int, last: int) -> Change:
    return lambda rows: rows[:first] + rows[last:]


def scaled(fields: Sequence[int], factor: str, first: int = AT, last: int = AT + 1) -> Change:
    """Return the defect that multiplies fields of some rows."""

    def plant(rows: Rows) -> Rows:
        for row in rows[first:last]:
            for field in fields:
                row[field] = _text(Decimal(row[field]) * Decimal(factor))
        return rows

    return plant


def _text(value: object) -> str:
    return format(value, "f") if isinstance(value, Decimal) and value.is_finite() else str(value)


def swapped_fields(first: int, second: int, fields: Sequence[int]) -> Change:
    def plant(rows: Rows) -> Rows:
        for field in fields:
            rows[first][field], rows[second][field] = rows[second][field], rows[first][field]
        return rows

    return plant


def swapped_in_place(rows: Rows) -> Rows:
    rows[AT], rows[AT + 1] = rows[AT + 1], rows[AT]
    return rows


def zeroed(rows: Rows) -> Rows:
    for field in AMOUNTS:
        rows[AT][field] = "0"
    for field in PRICES:
        rows[AT][field] = rows[AT - 1][CLOSE]
    return rows


def takers_and_makers_swapped(rows: Rows) -> Rows:
    row = rows[AT]
    row[TAKER] = _text(Decimal(row[VOLUME]) - Decimal(row[TAKER]))
    row[TAKER_QUOTE] = _text(Decimal(row[QUOTE]) - Decimal(row[TAKER_QUOTE]))
    return rows


def rotated(rows: Rows) -> Rows:
    """Move the values of all rows to the next one; the times stay."""
    values = [row[1:6] + row[7:] for row in rows]
    for row, moved in zip(rows, values[-1:] + values[:-1], strict=True):
        row[1:6], row[7:] = moved[:5], moved[5:]
    return rows


def moved_volume(rows: Rows) -> Rows:
    """Move what was traded in a candle to the next one."""
    for field in AMOUNTS:
        rows[AT + 1][field] = _text(Decimal(rows[AT][field]) + Decimal(rows[AT + 1][field]))
        rows[AT][field] = "0"
    return rows


def merged(rows: Rows) -> Rows:
    """Merge two candles into the first of them."""
    first, second = rows[AT], rows.pop(AT + 1)
    first[HIGH] = max(first[HIGH], second[HIGH], key=Decimal)
    first[LOW] = min(first[LOW], second[LOW], key=Decimal)
    first[CLOSE] = second[CLOSE]
    for field in AMOUNTS:
        first[field] = _text(Decimal(first[field]) + Decimal(second[field]))
    return rows


def times_in_microseconds(first: int, last: int) -> Change:
    def plant(rows: Rows) -> Rows:
        for row in rows[first:last]:
            row[0], row[CLOSE_TIME] = f"{row[0]}000", f"{row[CLOSE_TIME]}999"
        return rows

    return plant


def lows_of_zero_before_microseconds(rows: Rows) -> Rows:
    for row in rows[AT : AT + 5]:
        row[LOW] = "0"
    return times_in_microseconds(AT + 5, AT + 6)(rows)


def without_a_candle_without_trades(rows: Rows) -> Rows:
    return [row for row in rows if row[TRADES] != "0"]


def of_the_day_before(shift_times: bool, fields: Sequence[int] | None = None) -> Change:
    """Return the defect that takes rows, or fields of them, from the day before."""

    def plant(rows: Rows) -> Rows:
        other = recorded_rows(DAYS[0])
        if not shift_times:
            return other
        for row, before in zip(rows, other, strict=True):
            for field in fields or range(1, len(row)):
                if field != CLOSE_TIME:
                    row[field] = before[field]
        return rows

    return plant


def days_high_lowered(rows: Rows) -> Rows:
    highest = max(Decimal(row[HIGH]) for row in rows)
    for row in rows:
        if Decimal(row[HIGH]) == highest:
            row[HIGH] = max(row[OPEN], row[CLOSE], key=Decimal)
    return rows


def between(field: int) -> Change:
    """Return the defect that moves a price to the middle of its candle."""

    def plant(rows: Rows) -> Rows:
        row = rows[AT]
        row[field] = _text(((Decimal(row[HIGH]) + Decimal(row[LOW])) / 2).quantize(Decimal("0.01")) + Decimal("0.01"))
        return rows

    return plant


def high_raised_below_the_days(rows: Rows) -> Rows:
    rows[AT][HIGH] = _text(Decimal(rows[AT][HIGH]) + Decimal("0.01"))
    return rows


# What becomes of the day: if both sources have the defect, and if one of them has it. A sound result equals the
# recorded day. `written` stands for a false candle that is accepted.
KINDS: dict[str, tuple[Change, Outcome]] = {
    "a traded candle dropped": (dropped(AT, AT + 1), "refused"),
    "first rows dropped": (dropped(0, 10), "refused"),
    "last rows dropped": (dropped(1430, 1440), "refused"),
    "middle rows dropped": (dropped(AT, AT + 30), "refused"),
    "an empty day": (dropped(0, 1440), "refused"),
    "an exact repeat of a row": (lambda rows: [*rows[: AT + 1], *rows[AT:]], "sound"),
    "two rows swapped in place": (swapped_in_place, "sound"),
    "1 ms on an open time": (changed(0, lambda time: time + 1), "refused"),
    "the rows of another day": (of_the_day_before(shift_times=False), "refused"),
    "no number as close": (set_to(CLOSE, "NaN"), "refused"),
    "no close": (set_to(CLOSE, ""), "refused"),
    "an infinite high": (set_to(HIGH, "inf"), "refused"),
    "low 0": (set_to(LOW, "0"), "refused"),
    "a negative volume of takers": (changed(TAKER, lambda amount: -amount), "refused"),
    "close above high": (changed(CLOSE, lambda price: price * 2), "refused"),
    "a unit more volume": (changed(VOLUME, lambda amount: amount + Decimal("0.000001")), "refused"),
    "a unit less volume": (changed(VOLUME, lambda amount: amount - Decimal("0.000001")), "refused"),
    "a trade more": (changed(TRADES, lambda count: count + 1), "refused"),
    "a trade less": (changed(TRADES, lambda count: count - 1), "refused"),
    "takers and makers swapped": (takers_and_makers_swapped, "refused"),
    "a candle zeroed": (zeroed, "refused"),
    "another day with the times of this one": (of_the_day_before(shift_times=True), "refused"),
    "1e-8 more volume": (changed(VOLUME, lambda amount: amount + Decimal("1e-8")), "refused"),
    "5e-6 more turnover": (changed(QUOTE, lambda amount: amount + Decimal("5e-6")), "refused"),
    "a high 1.5 times as high": (changed(HIGH, lambda price: price * Decimal("1.5")), "refused"),
    "a low half as high": (changed(LOW, lambda price: price / 2), "refused"),
    "a candle ten times as high": (scaled(PRICES, "10"), "refused"),
    "a candle 1 % higher": (scaled(PRICES, "1.01"), "refused"),
    "the day's high lowered": (days_high_lowered, "refused"),
    "all prices doubled": (scaled(PRICES, "2", 0, 1440), "refused"),
    "the prices of another day": (of_the_day_before(shift_times=True, fields=PRICES), "refused"),
    "values moved to the next row": (rotated, "refused"),
    "volume moved to the next candle": (moved_volume, "refused"),
    "close_time 1 ms early": (changed(CLOSE_TIME, lambda time: time - 1), "refused"),
    "close_time half a candle early": (changed(CLOSE_TIME, lambda time: time - 30_000), "refused"),
    "values of two neighbors swapped": (swapped_fields(AT, AT + 1, (*PRICES, *AMOUNTS)), "written"),
    "open moved inside its candle": (between(OPEN), "written"),
    "close moved inside its candle": (between(CLOSE), "written"),
    "a high raised below the day's": (high_raised_below_the_days, "written"),
    "1e-8 more turnover": (changed(QUOTE, lambda amount: amount + Decimal("1e-8")), "refused"),
    "two candles merged": (merged, "written"),
    "times in microseconds": (times_in_microseconds(0, 1440), "sound"),
    "a row in microseconds after lows of 0": (lows_of_zero_before_microseconds, "refused"),
    "candles without trades dropped": (without_a_candle_without_trades, "written"),
}
"""The kinds of defects, and what becomes of a day that has the defect in both sources.

``written`` marks what no evidence that is asked for can show. The day's sums and its four prices stay the same, and the
mean prices stay within their candles. Two merged candles, or a dropped candle without trades, look like an outage of a
minute, which both sources show; the note says that it is not a known one.
"""

LIKE_AN_OUTAGE = ("two candles merged", "candles without trades dropped")
"""The written kinds that leave a gap, so that the other source is asked and heals them."""

WITHOUT_FILE = ("an empty day", "the rows of another day")
"""The kinds for which the sandbox's archive has no file of that day, so nothing is fetched from the archive."""

ZIPS: Path


def recorded_rows(day: str, symbol: str = "BTCUSDT") -> Rows:
    """Return the rows of a recorded day; the caller may change them."""
    return [list(row) for row in rows_of_zip(ZIPS / "spot" / f"{symbol}-1m-{day}.zip")]


@cache
def rows_of_zip(path: Path) -> Rows:
    with zipfile.ZipFile(path) as archive:
        return list(csv.reader(io.TextIOWrapper(archive.open(archive.namelist()[0]))))


def sound_rows(kind: str) -> Rows:
    """Return the rows of the day without the defect.

    BTCUSDT has no candle without trades. For that kind they are those of a day of ARBUSDT, with the times of this one.
    """
    rows = recorded_rows(DAYS[1])
    if kind != "candles without trades dropped":
        return rows
    other = recorded_rows("2023-07-25", "ARBUSDT")
    for row, values in zip(rows, other, strict=True):
        row[1:6], row[7:] = values[1:6], values[7:]
    return rows


def symbol_of(kind: str) -> str:
    return f"K{list(KINDS).index(kind):02}USDT"


def daily_row(rows: Rows) -> Row:
    """Return the 1d candle that the rows of a day add up to."""
    traded = [row for row in rows if row[TRADES] != "0"]
    sums = {field: _text(sum((Decimal(row[field]) for row in rows), Decimal(0))) for field in AMOUNTS}
    start = int(rows[0][0])
    high, low = max((row[HIGH] for row in traded), key=Decimal), min((row[LOW] for row in traded), key=Decimal)
    return [
        str(start), traded[0][OPEN], high, low, traded[-1][CLOSE], sums[VOLUME], str(start + DAY - 1), sums[QUOTE],
        sums[TRADES], sums[TAKER], sums[TAKER_QUOTE], "0",
    ]  # fmt: skip


def write_csv(path: Path, rows: Rows) -> None:
    path.write_text("".join(",".join(row) + "\n" for row in rows))


@pytest.fixture(scope="module")
def sandboxes(recorded_zips: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Sandbox]]:
    """Two sandboxes: one serves each symbol with its defect, the other without."""
    global ZIPS
    ZIPS = recorded_zips
    before, usual, after = (recorded_rows(day) for day in DAYS)
    sums = [daily_row(rows) for rows in (before, usual, after)]
    folders = {name: tmp_path_factory.mktemp(name) / "spot" for name in ("bad", "good")}
    for folder in folders.values():
        folder.mkdir()
    for kind, (change, _) in KINDS.items():
        sound = sound_rows(kind)
        sum_of_day = sums[1] if sound == usual else daily_row(sound)
        for name, middle in (("bad", change(sound_rows(kind))), ("good", sound)):
            start = folders[name] / symbol_of(kind)
            write_csv(Path(f"{start}-1d-2020-01.csv"), [sums[0], sum_of_day, sums[2]])
            write_csv(Path(f"{start}-1m-{DAYS[1]}.csv"), middle)
            for day, rows in ((DAYS[0], before), (DAYS[2], after)):  # only their edges matter to the day between them
                write_csv(Path(f"{start}-1m-{day}.csv"), [rows[0], rows[-1]])
    with (
        running_sandbox(SandboxOptions(replay=folders["bad"].parent)) as bad,
        running_sandbox(SandboxOptions(replay=folders["good"].parent)) as good,
    ):
        yield {"bad": bad, "good": good}


def settings_of(sandboxes: dict[str, Sandbox], api: str, archive: str, folder: Path) -> Settings:
    environment = environment_of(sandboxes[api], folder) | {"BINANCE_ARCHIVE_URL": sandboxes[archive].url}
    return read_settings(environment)


def fetch(settings: Settings, kind: str, source: Source) -> PartitionResult:
    """Download the day with the defect."""
    series = Series(SPOT, symbol_of(kind), SPOT.intervals[1])
    partitions = partitions_between(dt.date(2020, 1, 2), dt.date(2020, 1, 3), series.interval)
    exchange = Exchange(SPOT, settings, retrier=quick_retrier())
    try:
        (result,) = download(exchange, series, partitions, DownloadOptions(source))
        return result
    finally:
        exchange.close()


def outcome_of(result: PartitionResult, kind: str) -> Outcome:
    if not result.is_accepted:
        return "refused"
    recorded = sound_rows(kind)
    rows = [[float(field) for field in row[1:6]] for row in recorded]
    columns = ["open", "high", "low", "close", "volume"]
    sound = pl.DataFrame(rows, schema=columns, orient="row")
    others = result.candles["quote_volume"].to_list() == [float(row[QUOTE]) for row in recorded]
    closes = result.candles["close_time"].to_physical() - result.candles["open_time"].to_physical()
    is_sound = result.candles.select(columns).equals(sound) and others and closes.unique().to_list() == [MINUTE - 1]
    return "sound" if is_sound else "written"


@pytest.mark.parametrize("kind", KINDS)
def test_a_defect_in_both_sources_is_refused_where_evidence_can_show_it(
    sandboxes: dict[str, Sandbox], tmp_path: Path, kind: str
) -> None:
    source: Source = "rest" if list(KINDS).index(kind) % 2 else "archive"  # each asks the other source as well
    result = fetch(settings_of(sandboxes, "bad", "bad", tmp_path), kind, source)
    assert outcome_of(result, kind) == KINDS[kind][1], (result.verdict, result.reason)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("api", "archive", "source"), [("bad", "good", "rest"), ("good", "bad", "archive")])
def test_a_defect_in_one_source_is_healed_from_the_other(
    sandboxes: dict[str, Sandbox], tmp_path: Path, kind: str, api: str, archive: str, source: Source
) -> None:
    result = fetch(settings_of(sandboxes, api, archive, tmp_path), kind, source)
    expected = "written" if KINDS[kind][1] == "written" and kind not in LIKE_AN_OUTAGE else "sound"
    if archive == "bad" and kind in WITHOUT_FILE:
        expected = "refused"
    assert outcome_of(result, kind) == expected, (result.verdict, result.reason)


# -- verify -----------------------------------------------------------------------------------------------------------

UNSTORABLE = ("no number as close", "no close", "an infinite high", "times in microseconds")
STORABLE = [kind for kind in KINDS if kind not in UNSTORABLE]
FOUND_BY_OTHER_SOURCE = [kind for kind in STORABLE if KINDS[kind][1] == "written"]


def findings(sandboxes: dict[str, Sandbox], folder: Path, kind: str, deep: bool) -> list[str]:
    """Return what ``verify`` finds in a lake that holds the defect, while the exchange serves the sound candles."""
    series = Series(SPOT, symbol_of(kind), SPOT.intervals[1])
    (partition,) = partitions_between(dt.date(2020, 1, 2), dt.date(2020, 1, 3), series.interval)
    rows = KINDS[kind][0](sound_rows(kind))
    values = [
        [int(row[0]), *map(float, row[1:6]), int(row[6]), float(row[7]), int(row[8]), *map(float, row[9:11])]
        for row in rows
    ]
    names = columns(SPOT)
    raw = pl.DataFrame(
        values, schema={name: pl.Int64 if dtype == TIME else dtype for name, dtype in names.items()}, orient="row"
    )
    candles = raw.cast(dict(names))  # type: ignore[arg-type]
    lake = Lake(folder / "lake")
    lake.prepare("sandbox")
    lake.write(series, PartitionResult(partition, "complete", candles))
    exchange = Exchange(SPOT, settings_of(sandboxes, "good", "good", folder), retrier=quick_retrier())
    try:
        found = verify(lake, exchange, series, [partition], None, strict=True, on_progress=lambda _: None, deep=deep)
        return [finding.message for finding in found]
    finally:
        exchange.close()


@pytest.mark.parametrize("kind", STORABLE)
def test_verify_finds_a_defect_in_the_lake_that_the_evidence_shows(
    sandboxes: dict[str, Sandbox], tmp_path: Path, kind: str
) -> None:
    assert findings(sandboxes, tmp_path, kind, deep=False), kind


@pytest.mark.parametrize("kind", FOUND_BY_OTHER_SOURCE)
def test_deep_verification_finds_every_defect(sandboxes: dict[str, Sandbox], tmp_path: Path, kind: str) -> None:
    assert findings(sandboxes, tmp_path, kind, deep=True), kind
