"""Recorded days of USD-M on which the exchange's own candles disagree, and ordinary days beside them."""

from __future__ import annotations

import csv
import datetime as dt
from collections.abc import Iterator
from decimal import Decimal
from itertools import pairwise
from pathlib import Path

import pytest

from binance_assets.completeness.disputed_days import disputed_days, disputed_days_within
from binance_assets.model.markets import SPOT, USDM
from binance_assets.model.partitions import Partition
from binance_assets.model.results import PartitionResult
from binance_assets.model.timestamps import DAY, HOUR, to_ms
from binance_assets.sandbox import Fault, Sandbox, SandboxOptions, running_sandbox
from binance_assets.settings import Settings, Source, read_settings
from binance_assets_tests.support.environment import environment_of
from binance_assets_tests.support.exchange import days_of, verdicts

SERIES = "usdm/BTCUSDT"
ALL: tuple[Source, ...] = ("rest", "archive", "auto")


@pytest.fixture(scope="module")
def replaying(recorded: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sandbox]:
    """The recorded days of BTCUSDT under names that the sandbox reads, and candles of 12h, the sums of those of 4h."""
    folder = tmp_path_factory.mktemp("replay") / "usdm"
    folder.mkdir()
    for name, month in (
        ("BTCUSDT-1d-some-days", "1d-2023-08"),
        ("BTCUSDT-4h-some-days", "4h-2023-08"),
        ("BTCUSDT-5m-2025-01-some-days", "5m-2025-01"),
        ("BTCUSDT-5m-2025-08-some-days", "5m-2025-08"),
    ):
        (folder / f"BTCUSDT-{month}.csv").write_bytes((recorded / "usdm" / f"{name}.csv").read_bytes())
    write_half_days(recorded / "usdm" / "BTCUSDT-4h-some-days.csv", folder / "BTCUSDT-12h-2023-08.csv")
    with running_sandbox(SandboxOptions(replay=folder.parent)) as running:
        yield running


def write_half_days(hours: Path, target: Path) -> None:
    """Write the candles of 12h that the candles of 4h in a CSV add up to."""
    rows = list(csv.reader(hours.read_text().splitlines()[1:]))
    lines = []
    for first in range(0, len(rows), 3):
        part = rows[first : first + 3]
        sums = {field: sum(Decimal(row[field]) for row in part) for field in (5, 7, 8, 9, 10)}
        open_time = int(part[0][0])
        assert open_time % (12 * HOUR) == 0
        high, low = max((row[2] for row in part), key=Decimal), min((row[3] for row in part), key=Decimal)
        line = [open_time, part[0][1], high, low, part[-1][4], sums[5], open_time + 12 * HOUR - 1]
        lines.append(",".join(map(str, [*line, sums[7], sums[8], sums[9], sums[10], 0])))
    target.write_text("\n".join(lines) + "\n")


@pytest.fixture
def settings(replaying: Sandbox, tmp_path: Path) -> Settings:
    replaying.faults.clear()
    replaying.requests.clear()
    return read_settings(environment_of(replaying, tmp_path))


def strictly(settings: Settings, name: str, start: str, end: str, source: Source) -> list[PartitionResult]:
    return days_of(settings, f"{SERIES}/{name}", start, end, source, strict=True)


@pytest.mark.parametrize("source", ALL)
@pytest.mark.parametrize(
    ("interval", "start", "end"),
    [
        ("5m", "2025-01-13", "2025-01-16"),
        ("5m", "2025-08-28", "2025-08-31"),  # with the halt of 2025-08-29, which has candles without trades
        ("4h", "2024-03-26", "2024-03-30"),
        ("4h", "2025-08-28", "2025-08-31"),
        ("12h", "2025-01-28", "2025-01-31"),
        ("1d", "2023-08-15", "2023-08-18"),
    ],
)
def test_ordinary_days_and_the_halt_are_complete(
    settings: Settings, interval: str, start: str, end: str, source: Source
) -> None:
    days = strictly(settings, interval, start, end, source)
    assert set(verdicts(days)) == {"complete"}, [day.reason for day in days]


@pytest.mark.parametrize("source", ALL)
def test_a_wrong_1d_candle_is_disproved_by_the_4h_candles(settings: Settings, source: Source) -> None:
    before, day, after = strictly(settings, "12h", "2023-08-15", "2023-08-18", source)
    assert (before.verdict, day.verdict, after.verdict) == ("complete", "unbalanced", "complete")
    assert (day.is_accepted, day.witnesses) == (True, ("4h candles of rest",))
    assert "2,257,127 trades of 2,185,324" in day.reason
    assert "known day of USD-M futures 2023-08-16: 1d candles of most symbols are wrong" in day.reason


def test_candles_are_no_witnesses_of_themselves(settings: Settings) -> None:
    _, day, _ = strictly(settings, "4h", "2023-08-15", "2023-08-18", "rest")
    assert (day.verdict, day.is_accepted, day.witnesses) == ("unbalanced", False, ())
    assert "no other candles confirm it" in day.reason


@pytest.mark.parametrize("source", ALL)
def test_a_day_that_lost_candles_is_refused(settings: Settings, source: Source) -> None:
    before, day, after = strictly(settings, "5m", "2025-01-28", "2025-01-31", source)
    assert (before.verdict, day.verdict, after.verdict) == ("complete", "unbalanced", "complete")
    assert (day.is_accepted, day.can_override) == (False, True)
    assert "3,949,351 trades of 3,968,545" in day.reason
    assert "the 4h candles of rest differ as well" in day.reason
    assert "known day of USD-M futures 2025-01-29" in day.reason


def test_a_loss_of_the_whole_archive_is_refused_where_the_api_shows_it(replaying: Sandbox, settings: Settings) -> None:
    """In the recorded files all intervals of 2025-01-14 lack the same trades; only the API has them."""
    start = to_ms(dt.date(2025, 1, 14))
    for interval in ("1d", "4h"):
        replaying.faults.add(Fault("one_trade_more", interval=interval, start=start, end=start + DAY))
    replaying.faults.add(Fault("status", value=400, interval="5m"))
    _, day, _ = strictly(settings, "5m", "2025-01-13", "2025-01-16", "archive")
    assert (day.verdict, day.is_accepted, day.provenance.source) == ("unbalanced", False, "archive")
    assert "the 4h candles of rest differ as well" in day.reason


def test_known_days_are_ascending_and_belong_to_a_market() -> None:
    days = disputed_days()
    assert len(days) == 15
    assert all(before.day < after.day for before, after in pairwise(days))
    assert {disputed.market for disputed in days} == {"usdm"}


def test_known_day_is_found_in_its_own_partition_and_market() -> None:
    start = to_ms(dt.date(2023, 8, 16))
    (found,) = disputed_days_within(USDM, Partition(start, start + DAY))
    assert found.day == dt.date(2023, 8, 16)
    assert disputed_days_within(USDM, Partition(start + DAY, start + 2 * DAY)) == []
    assert disputed_days_within(SPOT, Partition(start, start + DAY)) == []
    assert len(disputed_days_within(USDM, Partition(to_ms(dt.date(2023, 11, 1)), to_ms(dt.date(2023, 12, 1))))) == 3
