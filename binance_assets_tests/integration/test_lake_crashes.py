"""The lake under crashes and concurrent writers: each partition is whole, once, and the best one that was written."""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path

import duckdb
import hypothesis.strategies as st
import polars as pl
import pyarrow.dataset
import pytest
from hypothesis import HealthCheck, given, settings

from binance_assets.model.series import Series, parse_series
from binance_assets.storage.lake import Lake
from binance_assets.storage.spans import span_name
from binance_assets_tests.support.environment import CHECKOUT
from binance_assets_tests.support.killed_writers import KilledWriters, Spec, killed_writers, write
from binance_assets_tests.support.lakes import local, stored, temporary_files
from binance_assets_tests.support.results import write_as_layout_1

MINUTES = parse_series("spot/BTCUSDT/1m")
HOURS = parse_series("spot/BTCUSDT/1h")
LAYOUT_1 = Path(__file__).parents[1] / "support" / "layout_1" / "lake"

# Days around the ends of a month and of a year, so that some share a file and others do not.
KEYS = ["2023-12-30", "2023-12-31", "2024-01-01", "2024-01-02", "2024-01-31", "2024-02-01"]

Model = dict[str, Spec]
"""What a series should hold: the best accepted version of each partition, of equally good ones the last, by key."""

Write = tuple[list[Spec], int | None]
"""Partitions that are written in one call, and the step at which the writer is killed; None to let it live."""


@pytest.fixture(scope="module")
def writers() -> Iterator[KilledWriters]:
    with killed_writers() as started:
        yield started


def check(root: Path, series: Series, model: Mapping[str, Spec]) -> None:
    """The lake holds exactly the partitions of ``model``, whichever program reads it."""
    lake = Lake(root)
    results = {key: spec.result(series) for key, spec in sorted(model.items())}
    held = lake.stored_partitions(series)
    assert [partition.key for partition in held] == list(results)
    for entry, result in zip(held.values(), results.values(), strict=True):
        assert (entry.verdict, entry.note, entry.rows) == (result.verdict, result.reason, result.candles.height)
        assert (entry.archive_file, entry.archive_sha256) == (result.provenance.file, result.provenance.sha256)
    expected = [row for result in results.values() for row in result.candles.rows()]
    assert lake.read(series, list(held)).rows() == expected
    assert lake.scan(series, list(held)).collect().rows() == expected
    paths = {local(entry.path) for entry in held.values()}
    assert sum(entry.size for entry in held.values()) == sum(path.stat().st_size for path in paths)
    # A program that lists files meets a partition twice between the two steps that bring it to the current layout.
    if results and not lake.outdated_spans(series):
        check_other_readers(root, [(row[0], row[1]) for row in expected])


def check_other_readers(root: Path, expected: list[tuple[object, object]]) -> None:
    folder = root / "market=spot"
    assert pl.scan_parquet(root).sort("open_time").select("open_time", "open").collect().rows() == expected
    relation = duckdb.sql(f"SELECT epoch_ms(open_time), open FROM '{root}/**/*.parquet' ORDER BY ALL")
    assert relation is not None
    rows = [(time.timestamp() * 1_000, price) for time, price in expected]  # type: ignore[attr-defined]
    assert relation.fetchall() == rows
    table = pyarrow.dataset.dataset(folder, partitioning="hive").to_table(columns=["open_time", "open"])
    assert sorted(zip(*table.to_pydict().values(), strict=True)) == expected


def replaced(model: Mapping[str, Spec], specs: list[Spec]) -> Model:
    """Return the partitions that a write of ``specs`` replaces: those that are not worse than what is stored."""

    def rank(spec: Spec) -> tuple[bool, bool]:
        return spec.verdict == "outage", spec.rows == 0

    return {spec.key: spec for spec in specs if spec.key not in model or rank(spec) <= rank(model[spec.key])}


def survived(lake: Lake, series: Series, specs: list[Spec], model: Model) -> Model:
    """Return the model after a killed write: for each file, all of its partitions are new, or none."""
    notes = {partition.key: entry.note for partition, entry in lake.stored_partitions(series).items()}
    expected = replaced(model, specs).values()
    names = {span_name(spec.key, series.interval) for spec in expected}
    for name in names:
        members = [spec for spec in expected if span_name(spec.key, series.interval) == name]
        is_new = [notes.get(spec.key) == f"seed {spec.seed}" for spec in members]
        assert all(is_new) or not any(is_new), f"{name} was replaced in part"
        if all(is_new):
            model = model | {spec.key: spec for spec in members}
    return model


@st.composite
def write_calls(draw: st.DrawFn) -> list[Write]:
    """Return calls that write a few partitions each; every version of a partition has a seed of its own."""
    calls = []
    for number in range(draw(st.integers(1, 5))):
        keys = draw(st.lists(st.sampled_from(KEYS), min_size=1, max_size=4, unique=True))
        specs = [
            Spec(
                key,
                10 * number + 1 + position,
                draw(st.integers(0, 3)),
                draw(st.sampled_from(["complete", "complete", "outage", "lost"])),
            )
            for position, key in enumerate(keys)
        ]
        calls.append((specs, draw(st.none() | st.integers(1, 30))))
    return calls


@settings(max_examples=30, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    series=st.sampled_from([MINUTES, HOURS]),
    layout_1=st.sets(st.sampled_from(KEYS), max_size=3),
    calls=write_calls(),
)
def test_any_writes_refusals_and_kills_leave_the_best_accepted_version_of_each_partition(
    writers: KilledWriters, tmp_path: Path, series: Series, layout_1: set[str], calls: list[Write]
) -> None:
    root = tmp_path / "lake"
    shutil.rmtree(root, ignore_errors=True)
    shutil.rmtree(tmp_path / "lake.state", ignore_errors=True)
    model = {key: Spec(key, 0) for key in layout_1}
    for spec in model.values():
        write_as_layout_1(root, series, spec.result(series))
    check(root, series, model)
    for specs, kill_at in calls:
        if any(spec.verdict == "lost" for spec in specs):
            with pytest.raises(ValueError, match="must not be written"):
                write(root, series, specs)
        elif writers.write(root, series, specs, kill_at):
            model |= replaced(model, specs)
        else:
            model = survived(Lake(root), series, specs, model)
        check(root, series, model)


@pytest.mark.parametrize("series", [MINUTES, HOURS], ids=str)
def test_a_writer_killed_at_any_step_replaces_a_partition_or_does_not(
    writers: KilledWriters, tmp_path: Path, series: Series
) -> None:
    root = tmp_path / "lake"
    model = {key: Spec(key, number) for number, key in enumerate(KEYS)}
    assert writers.write(root, series, list(model.values()))
    for step in range(1, 100):
        specs = [Spec("2024-01-01", 100 + step, rows=3)]
        finished = writers.write(root, series, specs, kill_at=step)
        model = survived(Lake(root), series, specs, model)
        check(root, series, model)
        if finished:
            break
    assert step > 5
    assert model["2024-01-01"].seed == 100 + step
    Lake(root).prepare("sandbox")
    assert temporary_files(Lake(root)) == []


def test_a_migration_killed_at_any_step_loses_nothing_and_can_be_run_again(
    writers: KilledWriters, tmp_path: Path
) -> None:
    root = tmp_path / "lake"
    shutil.copytree(LAYOUT_1, root)
    before = contents(root)
    assert len(before) == 8
    killed = 0
    # Each run goes on where the last one was killed, a few steps later each time.
    while not writers.migrate(root, kill_at=9 + killed):
        killed += 1
        assert contents(root) == before
    assert killed > 5
    assert contents(root) == before
    lake = Lake(root)
    assert [lake.outdated_spans(series) for series in lake.series()] == [[]] * 8
    assert sorted(path.name for path in root.iterdir()) == ["market=coinm", "market=spot", "market=usdm"]
    assert lake.first_open(parse_series("spot/SOLUSDT/1mo")) == 1596240000000
    spot = sum(len(rows) for name, (rows, _) in before.items() if name.startswith("spot/"))
    assert pl.scan_parquet(root / "market=spot").collect().height == spot


def contents(root: Path) -> dict[str, tuple[list[object], list[object]]]:
    """Return the candles of each series and what the lake says of its partitions, without their files."""
    lake = Lake(root)
    found = {}
    for series in lake.series():
        held = lake.stored_partitions(series)
        entries = [
            (partition.key, entry.rows, entry.verdict, entry.source, entry.texts) for partition, entry in held.items()
        ]
        found[str(series)] = (lake.read(series, list(held)).rows(), entries)
    return found  # type: ignore[return-value]


@pytest.mark.parametrize("count", [2, 8])
def test_writers_of_different_days_of_a_file_lose_nothing(writers: KilledWriters, tmp_path: Path, count: int) -> None:
    root = tmp_path / "lake"
    model = {key: Spec(key, number) for number, key in enumerate(f"2024-01-{day:02}" for day in range(1, 25))}
    writers.write_at_once(root, HOURS, list(model.values()), count)
    check(root, HOURS, model)


def test_writers_of_the_same_day_leave_one_whole_day(writers: KilledWriters, tmp_path: Path) -> None:
    root, neighbor = tmp_path / "lake", Spec("2024-01-02", 1000)
    writers.write(root, MINUTES, [neighbor])
    versions = [Spec("2024-01-01", seed, rows=1 + seed % 5) for seed in range(24)]
    writers.write_at_once(root, MINUTES, versions, 8)
    note = stored(Lake(root), MINUTES, "2024-01-01").note
    (winner,) = (version for version in versions if note == f"seed {version.seed}")
    check(root, MINUTES, {winner.key: winner, neighbor.key: neighbor})


def test_a_reader_never_meets_half_a_file_or_a_partition_twice(tmp_path: Path) -> None:
    """The reader is Polars itself, over the folder, while a process replaces partitions of its file."""
    root = tmp_path / "lake"
    write(root, MINUTES, [Spec(f"2024-01-{day:02}", 0) for day in range(1, 11)])
    program = (
        "import sys; from pathlib import Path; from binance_assets.model.series import parse_series\n"
        "from binance_assets_tests.support.killed_writers import Spec, write\n"
        f"for seed in range(60): write(Path(sys.argv[1]), parse_series('{MINUTES}'), [Spec('2024-01-05', seed)])\n"
    )
    with subprocess.Popen([sys.executable, "-c", program, str(root)], cwd=CHECKOUT) as writer:
        readings = 0
        while writer.poll() is None:
            opens = pl.scan_parquet(root).select("open_time").collect()["open_time"]
            assert (opens.len(), opens.is_duplicated().any()) == (20, False)
            held = Lake(root).stored_partitions(MINUTES)
            assert Lake(root).read(MINUTES, list(held)).height == 20
            readings += 1
    assert writer.returncode == 0
    assert readings > 3
