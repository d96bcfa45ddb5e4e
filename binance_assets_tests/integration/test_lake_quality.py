"""What replaces a stored partition: an equal or better result, never a worse one, unless a person accepts it."""

from __future__ import annotations

import datetime as dt
import subprocess
import sys
import time
from dataclasses import replace
from itertools import product
from pathlib import Path

import polars as pl
import pytest

from binance_assets.candles.content_hash import content_hash
from binance_assets.candles.resampling import resample_as_before
from binance_assets.ingest.derive import derive_partitions
from binance_assets.ingest.verify import verify_derived
from binance_assets.model.intervals import parse_derived_interval
from binance_assets.model.partitions import partition_for_key
from binance_assets.model.results import ACCEPTED, PartitionResult, Provenance, Verdict
from binance_assets.model.series import derived_series, parse_series
from binance_assets.storage.lake import Lake
from binance_assets.storage.metadata import Replaced
from binance_assets.storage.universe import Derived
from binance_assets_tests.support.lakes import change, keys, local, read, stored
from binance_assets_tests.support.results import result_of, write_as_layout_1

HOURS = parse_series("spot/BTCUSDT/1h")
KEY, NEIGHBOR = "2024-01-02", "2024-01-03"

# From best to worst, as docs/lake.md states it.
DOCUMENTED: list[Verdict] = [
    "complete",
    "listing",
    "delisted",
    "before_listing",
    "outage",
    "unproved",
    "suspended",
    "unbalanced",
]


@pytest.fixture
def lake(tmp_path: Path) -> Lake:
    lake = Lake(tmp_path / "lake")
    lake.prepare("sandbox")
    return lake


def other(verdict: Verdict = "complete", rows: int | None = None) -> PartitionResult:
    """A result with other values than those of ``result_of``."""
    result = result_of(HOURS, KEY, rows, verdict)
    provenance = Provenance("archive", "BTCUSDT-1h-2024-01.zip", "ab" * 32)
    return replace(result, candles=result.candles.with_columns(pl.col("volume") + 1), provenance=provenance)


def test_the_order_covers_every_accepted_verdict() -> None:
    assert set(DOCUMENTED) == ACCEPTED
    page = (Path(__file__).parents[2] / "docs" / "lake.md").read_text()
    section = page.split("## Which result replaces another")[1].split("\n## ")[0]
    positions = [section.index(f"`{verdict}`") for verdict in DOCUMENTED]
    assert positions == sorted(positions)


@pytest.mark.parametrize(("old", "new"), list(product(DOCUMENTED, DOCUMENTED)))
def test_a_result_replaces_an_equal_or_worse_partition_only(lake: Lake, old: Verdict, new: Verdict) -> None:
    first, second = result_of(HOURS, KEY, verdict=old), other(new)
    lake.write_all(HOURS, [first, result_of(HOURS, NEIGHBOR)])
    path = local(lake.path(HOURS, first.partition))
    before = path.read_bytes()
    written = lake.write(HOURS, second)
    now = stored(lake, HOURS, KEY)
    if DOCUMENTED.index(new) > DOCUMENTED.index(old):
        assert path.read_bytes() == before
        assert written.declined is not None
        assert (written.verdict, written.declined.verdict, now.verdict) == (old, new, old)
        assert read(lake, HOURS, KEY).equals(first.candles)
    else:
        assert written.declined is None
        assert (written.verdict, now.verdict) == (new, new)
        assert read(lake, HOURS, KEY).equals(second.candles)
        assert now.replaced is not None
        assert (now.replaced.verdict, now.replaced.content_hash) == (old, content_hash(first.candles))
    assert keys(lake, HOURS) == [KEY, NEIGHBOR]
    assert stored(lake, HOURS, NEIGHBOR).replaced is None


def test_of_equal_verdicts_the_one_with_more_missing_is_worse(lake: Lake) -> None:
    def outage(hours: int) -> PartitionResult:
        end = partition_for_key(KEY, HOURS.interval).end
        return replace(other("outage", 24 - hours), missing=((end - hours * 3_600_000, end),))

    lake.write(HOURS, outage(2))
    assert lake.write(HOURS, outage(3)).declined is not None
    assert lake.write(HOURS, outage(2)).declined is None
    assert lake.write(HOURS, outage(1)).declined is None
    assert stored(lake, HOURS, KEY).rows == 23


def test_a_delisted_partition_with_candles_is_not_replaced_by_one_without(lake: Lake) -> None:
    lake.write(HOURS, result_of(HOURS, KEY, 5, "delisted"))
    assert lake.write(HOURS, result_of(HOURS, KEY, 0, "delisted")).declined is not None
    assert stored(lake, HOURS, KEY).rows == 5


def test_the_metadata_keep_what_was_replaced_the_last_time_that_it_changed(lake: Lake) -> None:
    first, second = other("unproved"), result_of(HOURS, KEY)
    lake.write(HOURS, first)
    assert stored(lake, HOURS, KEY).replaced is None
    lake.write(HOURS, first)  # a refresh that finds the same
    assert stored(lake, HOURS, KEY).replaced is None
    start = time.time()
    lake.write(HOURS, second)
    replaced = stored(lake, HOURS, KEY).replaced
    assert replaced is not None
    at = dt.datetime.fromisoformat(replaced.at).timestamp()
    assert start - 1 <= at <= time.time()
    assert replaced == Replaced(
        verdict="unproved", content_hash=content_hash(first.candles), archive_sha256="ab" * 32, at=replaced.at
    )
    lake.write(HOURS, second)
    lake.write(HOURS, result_of(HOURS, NEIGHBOR))
    assert stored(lake, HOURS, KEY).replaced == replaced


def test_a_verdict_that_says_more_about_the_same_candles_replaces_unproved(lake: Lake) -> None:
    lake.write(HOURS, result_of(HOURS, KEY, verdict="unproved"))
    assert lake.write(HOURS, other("unbalanced")).declined is not None  # other candles
    assert lake.write(HOURS, result_of(HOURS, KEY, verdict="unbalanced")).verdict == "unbalanced"
    assert lake.write(HOURS, result_of(HOURS, KEY, verdict="unproved")).declined is not None  # less evidence
    assert lake.write(HOURS, other("unproved")).declined is None


def test_what_a_person_accepts_replaces_a_better_partition_and_is_replaced_by_one(lake: Lake) -> None:
    accepted = replace(other("lost", 20), accepted_by="ada", accepted_because="the exchange has no more")
    lake.write(HOURS, result_of(HOURS, KEY))
    assert lake.write(HOURS, accepted).declined is None
    assert stored(lake, HOURS, KEY).verdict == "lost"
    lake.write(HOURS, result_of(HOURS, KEY, verdict="outage"))
    entry = stored(lake, HOURS, KEY)
    assert (entry.verdict, entry.accepted_by, entry.replaced and entry.replaced.verdict) == ("outage", None, "lost")


@pytest.mark.parametrize("old_layout", [False, True])
def test_a_partition_whose_candles_are_damaged_is_replaced_by_a_worse_one(lake: Lake, old_layout: bool) -> None:
    if old_layout:
        path = write_as_layout_1(lake.root, HOURS, result_of(HOURS, KEY))
        content = path.read_bytes()
        path.write_bytes(b"\0" * (len(content) // 2) + content[len(content) // 2 :])
    else:
        lake.write(HOURS, result_of(HOURS, KEY))
        change(lake, HOURS, KEY, content_hash="AAAAAAAAAAAAAAAA")
    assert lake.write(HOURS, other("unbalanced")).declined is None
    assert stored(lake, HOURS, KEY).verdict == "unbalanced"


def test_a_partition_of_layout_1_is_kept_if_it_is_better_and_its_hash_is_known_if_it_is_replaced(lake: Lake) -> None:
    first = result_of(HOURS, KEY)
    path = write_as_layout_1(lake.root, HOURS, first)
    content = path.read_bytes()
    declined = lake.write(HOURS, other("unproved"))
    assert (declined.path, declined.verdict, path.read_bytes()) == (path, "complete", content)
    lake.write(HOURS, other())
    replaced = stored(lake, HOURS, KEY).replaced
    assert replaced is not None
    assert replaced.content_hash == content_hash(first.candles)


def test_what_is_derived_from_accepted_candles_that_break_a_rule_is_marked_like_them(lake: Lake) -> None:
    derived = Derived(derived_series(HOURS.market, "BTCUSDT", parse_derived_interval("4h")), HOURS)
    base = result_of(HOURS, KEY, verdict="invalid")  # its lows are 0
    base = replace(base, accepted_by="ada", accepted_because="as the exchange has it")
    lake.write(HOURS, base)
    (result,) = derive_partitions(lake, derived, [base.partition])
    assert (result.verdict, result.accepted_by, result.candles.height) == ("invalid", "ada", 6)
    lake.write(derived.series, result)
    assert list(verify_derived(lake, derived, [base.partition], lambda count: None)) == []


def test_verify_accepts_sums_of_earlier_versions_and_names_other_amounts_and_a_base_that_is_gone(lake: Lake) -> None:
    derived = Derived(derived_series(HOURS.market, "BTCUSDT", parse_derived_interval("4h")), HOURS)
    base = result_of(HOURS, KEY)
    amounts = [52_000_000.00000001, 40_000_000.00000001, 67_000_000.00000003]
    traded = pl.Series([*amounts, *[1.0] * (base.candles.height - len(amounts))])
    prices = [pl.lit(1.0).alias(name) for name in ("open", "high", "low", "close")]
    lake.write(
        HOURS,
        replace(
            base,
            candles=base.candles.with_columns(
                *prices, *(traded.alias(name) for name in HOURS.market.value_columns), trades=pl.lit(1, pl.Int64)
            ),
        ),
    )
    (result,) = derive_partitions(lake, derived, [base.partition])
    before = resample_as_before(HOURS.market, read(lake, HOURS, KEY), derived.series.interval)
    assert not before.equals(result.candles)

    def findings(candles: pl.DataFrame) -> list[str]:
        lake.write(derived.series, replace(result, candles=candles))
        return [finding.message for finding in verify_derived(lake, derived, [base.partition], lambda count: None)]

    assert findings(result.candles) == findings(before) == []
    assert len(findings(before.with_columns(pl.col("volume") + 1))) == 1
    local(lake.path(HOURS, base.partition)).unlink()
    (message,) = findings(before)
    assert message.startswith("it cannot be derived again: ")


WRITER = """
import sys
from pathlib import Path
from binance_assets.model.series import parse_series
from binance_assets.storage.lake import Lake
from binance_assets_tests.support.results import result_of
series = parse_series("spot/BTCUSDT/1h")
for number in range(20):
    Lake(Path(sys.argv[1])).write(series, result_of(series, "2024-01-02", verdict=sys.argv[2]))
"""


def test_of_processes_that_write_at_once_the_best_result_stays(lake: Lake) -> None:
    verdicts = ["unbalanced", "complete", "unproved"]
    command = [sys.executable, "-c", WRITER, str(lake.root)]
    for process in [subprocess.Popen([*command, verdict]) for verdict in verdicts]:
        assert process.wait(60) == 0
    assert stored(lake, HOURS, KEY).verdict == "complete"


def test_a_year_of_replaced_days_is_read_back(lake: Lake) -> None:
    days = [f"2024-01-{day:02}" for day in range(1, 11)]
    lake.write_all(HOURS, [result_of(HOURS, day, verdict="unproved") for day in days])
    lake.write_all(HOURS, [result_of(HOURS, day) for day in days])
    entries = lake.stored_partitions(HOURS).values()
    assert [entry.replaced and entry.replaced.verdict for entry in entries] == ["unproved"] * 10
