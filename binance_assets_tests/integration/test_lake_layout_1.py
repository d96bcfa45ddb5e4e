"""A lake that version 0.1.0 wrote, with a file for each partition, stays readable and is brought to layout 2.

The lake in ``support/layout_1`` was written by that version, from the sandbox: seven fetched series and a derived one.
"""

from __future__ import annotations

import datetime as dt
import shutil
from collections.abc import Callable
from pathlib import Path

import polars as pl
import pytest
from click.testing import CliRunner, Result

from binance_assets.cli.main import cli
from binance_assets.model.series import parse_any_series, parse_series
from binance_assets.sandbox import Sandbox
from binance_assets.storage.checksums import footer_is_intact
from binance_assets.storage.lake import Lake
from binance_assets.storage.locks import file_lock
from binance_assets.storage.parquet_files import read_footer
from binance_assets_tests.support.environment import Fetch, cli_environment, without_progress
from binance_assets_tests.support.lakes import coverage_of, keys, local, read, stored

LAYOUT_1 = Path(__file__).parents[1] / "support" / "layout_1"

MINUTES = parse_series("spot/BTCUSDT/1m")
HOURS = parse_series("spot/BTCUSDT/1h")
HELD = {
    "coinm/BTCUSD_PERP/1d": ["2024-01-01", "2024-01-02", "2024-01-03", "2024-01-04", "2024-01-05"],
    "spot/BTCUSDT/15m": ["2023-12-30", "2023-12-31", "2024-01-01", "2024-01-02"],
    "spot/BTCUSDT/1h": ["2023-12-30", "2023-12-31", "2024-01-01", "2024-01-02"],
    "spot/BTCUSDT/1m": ["2024-01-31", "2024-02-01"],
    "spot/BTCUSDT/1w": ["2023-11-01", "2023-12-01", "2024-01-01"],
    "spot/BTCUSDT/45m": ["2023-12-30", "2023-12-31", "2024-01-01", "2024-01-02"],
    "spot/SOLUSDT/1mo": ["2020-08-01", "2020-09-01", "2020-10-01"],
    "usdm/ETHUSDT/4h": ["2024-01-01", "2024-01-02", "2024-01-03"],
}
FILES = 28

Command = Callable[..., Result]


@pytest.fixture
def lake(tmp_path: Path) -> Lake:
    """A copy of the lake of version 0.1.0, in the folder of the commands."""
    shutil.copytree(LAYOUT_1, tmp_path, dirs_exist_ok=True)
    return Lake(tmp_path / "lake")


@pytest.fixture
def command(sandbox: Sandbox, tmp_path: Path) -> Command:
    """A function that runs ``binance-assets`` in this process, in the folder of the lake."""

    def run(*arguments: str) -> Result:
        with pytest.MonkeyPatch.context() as patch:
            patch.chdir(tmp_path)
            return CliRunner().invoke(cli, arguments, env=cli_environment(sandbox, tmp_path))

    return run


def printed(result: Result) -> str:
    """Return what a command printed, which is nothing on standard error but the progress of a slow machine."""
    assert without_progress(result.stderr) == []
    return result.stdout


def paths(lake: Lake) -> list[str]:
    return sorted(str(path.relative_to(local(lake.root))) for path in local(lake.root).rglob("*.parquet"))


def test_every_partition_is_found_and_read(lake: Lake, fetch: Fetch) -> None:
    assert {str(series): keys(lake, series) for series in lake.series()} == HELD
    assert (lake.venue, lake.first_open(parse_series("spot/SOLUSDT/1mo"))) == ("sandbox", 1596240000000)
    for result in fetch("spot/BTCUSDT/1h", "2023-12-30", "2024-01-03"):
        entry = stored(lake, HOURS, result.partition.key)
        assert (entry.rows, entry.verdict, entry.source, entry.version) == (24, "complete", "rest", "0.1.0")
        assert entry.size == local(entry.path).stat().st_size
        assert read(lake, HOURS, result.partition.key).equals(result.candles)
    derived = parse_any_series("spot/BTCUSDT/45m")
    assert stored(lake, derived, "2024-01-01").derived_from == "spot/BTCUSDT/15m"
    coverage = coverage_of(lake, HOURS, dt.date(2024, 1, 3), set())
    assert (coverage.first, coverage.last, coverage.rows, coverage.missing) == ("2023-12-30", "2024-01-02", 96, 0)


def test_commands_that_read_leave_it_as_it_is(lake: Lake, command: Command) -> None:
    before = {path: (local(lake.root) / path).read_bytes() for path in paths(lake)}
    assert len(before) == FILES + 1  # the coverage of a market is Parquet too
    result = command("verify")
    assert (result.exit_code, printed(result)) == (0, "28 partitions of 8 series are as they should be\n")
    result = command("series")
    assert "spot/BTCUSDT/1m                       2 partitions, 2024-01-31 to 2024-02-01" in result.output
    assert {path: (local(lake.root) / path).read_bytes() for path in paths(lake)} == before


def test_a_first_write_to_a_span_brings_that_span_over(lake: Lake, command: Command, fetch: Fetch) -> None:
    (later,) = fetch("spot/BTCUSDT/1h", "2024-01-03", "2024-01-04")
    before = {key: read(lake, HOURS, key) for key in keys(lake, HOURS)}
    lake.prepare("sandbox")
    lake.write(HOURS, later)
    assert sorted(path.name for path in local(lake.folder(HOURS)).glob("*.parquet")) == [
        "2023-12-30.parquet",
        "2023-12-31.parquet",
        "2024.parquet",
    ]
    assert keys(lake, HOURS) == [*HELD["spot/BTCUSDT/1h"], "2024-01-03"]
    for key, candles in before.items():
        assert read(lake, HOURS, key).equals(candles)
    assert [path.name for path in local(lake.root).iterdir() if not path.name.startswith("market=")] == []
    assert pl.scan_parquet(local(lake.folder(HOURS))).collect().height == 5 * 24
    assert command("verify", "spot/BTCUSDT/1h").exit_code == 0


def test_migrate_brings_the_whole_lake_over_and_does_nothing_the_next_time(lake: Lake, command: Command) -> None:
    before = {name: read_all(lake, name) for name in HELD}
    result = command("migrate")
    assert result.exit_code == 0, result.output
    assert printed(result) == f"{lake.root} has layout 2; files written: 13, series: 8\n"
    assert {name: read_all(lake, name) for name in HELD} == before
    assert paths(lake) == [
        "market=coinm/symbol=BTCUSD_PERP/interval=1d/2024.parquet",
        "market=spot/symbol=BTCUSDT/interval=15m/2023.parquet",
        "market=spot/symbol=BTCUSDT/interval=15m/2024.parquet",
        "market=spot/symbol=BTCUSDT/interval=1h/2023.parquet",
        "market=spot/symbol=BTCUSDT/interval=1h/2024.parquet",
        "market=spot/symbol=BTCUSDT/interval=1m/2024-01.parquet",
        "market=spot/symbol=BTCUSDT/interval=1m/2024-02.parquet",
        "market=spot/symbol=BTCUSDT/interval=1w/2023.parquet",
        "market=spot/symbol=BTCUSDT/interval=1w/2024.parquet",
        "market=spot/symbol=BTCUSDT/interval=45m/2023.parquet",
        "market=spot/symbol=BTCUSDT/interval=45m/2024.parquet",
        "market=spot/symbol=SOLUSDT/interval=1mo/2020.parquet",
        "market=usdm/symbol=ETHUSDT/interval=4h/2024.parquet",
    ]
    assert command("verify").exit_code == 0
    state = local(lake.root).with_name("lake.state")
    assert (state / "coverage" / "spot.parquet").exists()
    again = command("migrate")
    assert (again.exit_code, printed(again)) == (
        0,
        f"{lake.root} has layout 2; files written: 0, series: 0\n",
    )


def read_all(lake: Lake, name: str) -> list[object]:
    """Return the partitions of a series: key, metadata and candles."""
    series = parse_any_series(name)
    return [
        (
            key,
            entry.rows,
            entry.verdict,
            entry.source,
            entry.first,
            entry.last,
            entry.texts,
            read(lake, series, key).rows(),
        )
        for key in keys(lake, series)
        for entry in [stored(lake, series, key)]
    ]


def test_migrate_leaves_a_damaged_file_and_names_it(lake: Lake, command: Command) -> None:
    damaged = local(lake.folder(HOURS)) / "2024-01-01.parquet"
    damaged.write_bytes(b"torn")
    result = command("migrate")
    assert result.exit_code == 1
    assert f"left as it is: {damaged} cannot be read" in result.output
    assert damaged.read_bytes() == b"torn"
    assert keys(lake, HOURS) == ["2023-12-30", "2023-12-31", "2024-01-02"]


def test_migrate_without_a_lake_says_which_setting_names_it(command: Command, tmp_path: Path) -> None:
    result = command("migrate")
    assert (result.exit_code, tmp_path.joinpath("lake").exists()) == (2, False)
    assert without_progress(result.output) == [
        f"error: there is no lake {tmp_path / 'lake'}; set BINANCE_ASSETS_LAKE to its folder"
    ]


def test_a_file_of_layout_1_beside_the_file_that_replaced_it_does_not_count(lake: Lake) -> None:
    """A migration that was killed leaves both; the file of the span is the later one."""
    old = local(lake.folder(HOURS)) / "2024-01-01.parquet"
    content = old.read_bytes()
    lake.migrate_state()
    lake.migrate_span(HOURS, "2024")
    old.write_bytes(content)
    assert keys(lake, HOURS) == HELD["spot/BTCUSDT/1h"]
    assert stored(lake, HOURS, "2024-01-01").path == lake.folder(HOURS) / "2024.parquet"
    assert lake.outdated_spans(HOURS) == ["2023", "2024"]
    lake.migrate_span(HOURS, "2024")
    assert not old.exists()


def test_migrate_adds_checksums_to_files_of_layout_2_and_removes_a_lock_file_that_is_free(
    lake: Lake, command: Command
) -> None:
    """Development versions of 0.2.0 wrote neither checksums nor the lock file of this version."""
    assert command("migrate").exit_code == 0
    path = local(lake.folder(HOURS)) / "2024.parquet"
    before = [read(lake, HOURS, key) for key in keys(lake, HOURS)]
    metadata = {name: text for name, text in pl.read_parquet_metadata(path).items() if not name.endswith("_crc32")}
    pl.read_parquet(path, hive_partitioning=False).write_parquet(path, metadata=metadata)
    (local(lake.folder(HOURS)) / ".lock").touch()
    (local(lake.folder(MINUTES)) / ".lock").touch()
    assert footer_is_intact(read_footer(path)[0]) is None
    assert lake.outdated_spans(HOURS) == ["2024"]
    result = command("migrate")
    assert (result.exit_code, printed(result)) == (0, f"{lake.root} has layout 2; files written: 1, series: 1\n")
    assert footer_is_intact(read_footer(path)[0]) is True
    assert lake.outdated_spans(HOURS) == []
    assert all(read(lake, HOURS, key).equals(candles) for key, candles in zip(keys(lake, HOURS), before, strict=True))
    assert not (local(lake.folder(HOURS)) / ".lock").exists()
    assert (local(lake.folder(MINUTES)) / ".lock").exists()  # nothing was written there
    with file_lock(local(lake.folder(MINUTES)) / ".lock"):
        lake.migrate_span(MINUTES, "2024-01")
        assert (local(lake.folder(MINUTES)) / ".lock").exists()
    lake.migrate_span(MINUTES, "2024-01")
    assert not (local(lake.folder(MINUTES)) / ".lock").exists()
