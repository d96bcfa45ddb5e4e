"""The lake: partitions in files of a sensible size, in a layout that other programs read as one table."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from datetime import date
from pathlib import Path

import duckdb
import polars as pl
import pyarrow.dataset
import pytest

from binance_assets import __version__
from binance_assets.candles.columns import columns, empty_candles
from binance_assets.model.partitions import partition_for_key, partitions_between
from binance_assets.model.results import PartitionResult
from binance_assets.model.series import Series, parse_series
from binance_assets.storage.lake import Lake, LakeError
from binance_assets_tests.support.environment import Fetch
from binance_assets_tests.support.lakes import keys, local, read, stored

SPOT = parse_series("spot/BTCUSDT/1h")
MINUTES = parse_series("spot/BTCUSDT/1m")
DAY = partition_for_key("2024-01-01", SPOT.interval)


@pytest.fixture
def lake(tmp_path: Path) -> Lake:
    lake = Lake(tmp_path / "lake")
    lake.prepare("sandbox")
    return lake


def store(
    lake: Lake, fetch: Fetch, name: str, start: str = "2024-01-01", end: str = "2024-01-04"
) -> list[PartitionResult]:
    results = fetch(name, start, end)
    lake.write_all(parse_series(name), results)
    return results


def query(sql: str) -> list[tuple[object, ...]]:
    relation = duckdb.sql(sql)
    assert relation is not None
    return relation.fetchall()


@pytest.mark.parametrize(
    ("name", "start", "end", "files"),
    [
        ("spot/BTCUSDT/1m", "2024-01-30", "2024-02-02", ["2024-01", "2024-02"]),
        ("spot/BTCUSDT/5m", "2024-01-30", "2024-02-02", ["2024-01", "2024-02"]),
        ("spot/BTCUSDT/15m", "2023-12-30", "2024-01-03", ["2023", "2024"]),
        ("spot/BTCUSDT/1h", "2023-12-30", "2024-01-03", ["2023", "2024"]),
        ("spot/BTCUSDT/1d", "2023-12-30", "2024-01-03", ["2023", "2024"]),
        ("spot/BTCUSDT/1w", "2023-11-01", "2024-03-01", ["2023", "2024"]),
    ],
)
def test_files_span_a_month_or_a_year_by_interval_and_hold_the_fetched_candles(
    lake: Lake, fetch: Fetch, name: str, start: str, end: str, files: list[str]
) -> None:
    series = parse_series(name)
    results = store(lake, fetch, name, start, end)
    folder = local(lake.root) / "market=spot" / "symbol=BTCUSDT" / f"interval={series.interval.name}"
    assert sorted(path.stem for path in folder.glob("*.parquet")) == files
    frames = [pl.read_parquet(folder / f"{file}.parquet", hive_partitioning=False) for file in files]
    assert pl.concat(frames).equals(pl.concat([result.candles for result in results]))
    assert dict(frames[0].schema) == columns(series.market)
    assert keys(lake, series) == [result.partition.key for result in results]
    assert lake.path(series, results[0].partition) == folder / f"{files[0]}.parquet"


def test_a_file_of_seconds_spans_a_day(lake: Lake) -> None:
    series = parse_series("spot/BTCUSDT/1s")
    partitions = partitions_between(date.fromisoformat("2024-01-01"), date.fromisoformat("2024-01-03"), series.interval)
    empty = empty_candles(series.market)
    lake.write_all(series, [PartitionResult(partition, "outage", empty) for partition in partitions])
    assert sorted(path.name for path in local(lake.folder(series)).glob("*.parquet")) == [
        "2024-01-01.parquet",
        "2024-01-02.parquet",
    ]


def test_the_metadata_of_a_file_describes_it_and_its_partitions(lake: Lake, fetch: Fetch) -> None:
    results = store(lake, fetch, "spot/BTCUSDT/1h")
    metadata = pl.read_parquet_metadata(local(lake.path(SPOT, DAY)))
    assert (metadata["series"], metadata["layout"], metadata["venue"]) == ("spot/BTCUSDT/1h", "2", "sandbox")
    assert metadata["version"] == __version__
    for result in results:
        entry = stored(lake, SPOT, result.partition.key)
        opens = result.candles["open_time"].to_physical()
        assert (entry.source, entry.verdict, entry.missing, entry.version) == ("rest", "complete", [], __version__)
        assert (entry.rows, entry.first, entry.last) == (24, opens[0], opens[-1])
        assert (entry.note, entry.archive_file, entry.accepted_by, entry.texts) == (None, None, None, {})


def test_files_are_sorted_zstd_with_statistics_and_a_small_file_is_one_row_group(lake: Lake, fetch: Fetch) -> None:
    store(lake, fetch, "spot/BTCUSDT/1h")
    table = f"parquet_metadata('{lake.path(SPOT, DAY)}')"
    assert query(f"SELECT DISTINCT compression, stats_min_value IS NOT NULL, row_group_id FROM {table}") == [
        ("ZSTD", True, 0)
    ]
    assert pl.read_parquet(local(lake.path(SPOT, DAY)))["open_time"].is_sorted()


def test_a_day_of_a_month_of_minutes_is_found_in_one_of_several_row_groups(lake: Lake, fetch: Fetch) -> None:
    store(lake, fetch, "spot/BTCUSDT/1m", "2024-01-01", "2024-02-01")
    groups = query(
        "SELECT stats_min_value::TIMESTAMPTZ, stats_max_value::TIMESTAMPTZ "
        f"FROM parquet_metadata('{lake.path(MINUTES, DAY)}') WHERE path_in_schema = 'open_time'"
    )
    assert len(groups) > 3
    day = read(lake, MINUTES, "2024-01-17")["open_time"]
    assert sum(1 for low, high in groups if low <= day[-1] and high >= day[0]) <= 2


def test_a_replaced_partition_leaves_its_neighbors_as_they_were(lake: Lake, fetch: Fetch) -> None:
    results = store(lake, fetch, "spot/BTCUSDT/1h")
    before = {key: (stored(lake, SPOT, key), read(lake, SPOT, key)) for key in keys(lake, SPOT)}
    replacement = PartitionResult(results[1].partition, "complete", results[1].candles.slice(2), reason="shorter")
    lake.write(SPOT, replacement)
    assert read(lake, SPOT, "2024-01-02").equals(results[1].candles.slice(2))
    assert stored(lake, SPOT, "2024-01-02").note == "shorter"
    for key in ("2024-01-01", "2024-01-03"):
        entry, candles = before[key]
        assert read(lake, SPOT, key).equals(candles)
        now = stored(lake, SPOT, key)
        assert (now.rows, now.verdict, now.first, now.last, now.texts) == (
            entry.rows,
            entry.verdict,
            entry.first,
            entry.last,
            entry.texts,
        )


def test_a_partition_without_candles_is_an_entry_of_the_metadata(lake: Lake, fetch: Fetch) -> None:
    lake.write(SPOT, PartitionResult(DAY, "before_listing", empty_candles(SPOT.market)))
    assert dict(pl.read_parquet_schema(local(lake.path(SPOT, DAY)))) == columns(SPOT.market)
    entry = stored(lake, SPOT, "2024-01-01")
    assert (entry.rows, entry.verdict, entry.first, entry.last) == (0, "before_listing", None, None)
    assert entry.size == local(lake.path(SPOT, DAY)).stat().st_size
    store(lake, fetch, "spot/BTCUSDT/1h", "2024-01-02", "2024-01-04")
    assert keys(lake, SPOT) == ["2024-01-01", "2024-01-02", "2024-01-03"]
    assert read(lake, SPOT, "2024-01-01").is_empty()


@pytest.mark.parametrize("verdict", ["lost", "unfinished", "invalid", "unreachable"])
def test_a_refused_partition_is_not_written_nor_is_any_other_of_the_call(
    lake: Lake, fetch: Fetch, verdict: str
) -> None:
    good = fetch("spot/BTCUSDT/1h", "2024-01-02", "2024-01-03")
    refused = PartitionResult(DAY, verdict, empty_candles(SPOT.market))  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="must not be written"):
        lake.write_all(SPOT, [*good, refused])
    assert lake.stored_partitions(SPOT) == {}


def test_polars_duckdb_and_pyarrow_read_the_whole_lake_as_one_table(lake: Lake, fetch: Fetch) -> None:
    store(lake, fetch, "spot/BTCUSDT/1h")
    store(lake, fetch, "spot/ETHUSDT/4h")
    lake.remember_first_open(SPOT, 0)
    lake.write_coverage(SPOT.market, pl.DataFrame({"series": ["spot/BTCUSDT/1h"]}))
    table = pl.scan_parquet(local(lake.root)).collect()
    assert table.height == 3 * 24 + 3 * 6
    assert set(table["symbol"]) == {"BTCUSDT", "ETHUSDT"}
    rows = query(f"SELECT symbol, interval, count(*) FROM '{lake.root}/**/*.parquet' GROUP BY ALL ORDER BY ALL")
    assert rows == [("BTCUSDT", "1h", 72), ("ETHUSDT", "4h", 18)]
    dataset = pyarrow.dataset.dataset(lake.root, partitioning="hive").to_table()
    assert dataset.num_rows == 3 * 24 + 3 * 6
    assert set(dataset["symbol"].to_pylist()) == {"BTCUSDT", "ETHUSDT"}


def test_duckdb_reads_all_markets_as_one_table_by_union_of_columns(lake: Lake, fetch: Fetch) -> None:
    store(lake, fetch, "spot/BTCUSDT/1h")
    store(lake, fetch, "coinm/BTCUSD_PERP/1h")
    glob = f"{lake.root}/**/*.parquet"
    rows = query(
        f"SELECT market, count(quote_volume), count(base_volume) FROM read_parquet('{glob}', union_by_name=true) "
        "GROUP BY ALL ORDER BY ALL"
    )
    assert rows == [("coinm", 0, 72), ("spot", 72, 0)]


def test_real_and_synthetic_candles_are_never_mixed(lake: Lake, tmp_path: Path) -> None:
    with pytest.raises(LakeError, match="BINANCE_ASSETS_LAKE"):
        lake.prepare("binance")
    assert lake.venue == "sandbox"
    real = Lake(tmp_path / "real")
    real.prepare("binance")
    with pytest.raises(LakeError, match="'binance'"):
        real.check_venue("sandbox")


def test_a_copy_of_the_lake_without_its_marker_still_knows_its_venue(lake: Lake, fetch: Fetch, tmp_path: Path) -> None:
    store(lake, fetch, "spot/BTCUSDT/1h")
    copy = Lake(local(lake.root).rename(tmp_path / "copy"))
    assert copy.venue == "sandbox"
    with pytest.raises(LakeError, match="'sandbox'"):
        copy.prepare("binance")


def test_a_damaged_file_or_one_of_another_series_counts_as_absent(lake: Lake, fetch: Fetch) -> None:
    store(lake, fetch, "spot/BTCUSDT/1h")
    path = local(lake.path(SPOT, DAY))
    other = parse_series("spot/ETHUSDT/1h")
    local(lake.path(other, DAY)).parent.mkdir(parents=True)
    local(lake.path(other, DAY)).write_bytes(path.read_bytes())
    assert lake.stored(other, DAY) is None
    assert lake.damaged(other) == [f"{lake.path(other, DAY)} holds spot/BTCUSDT/1h, not spot/ETHUSDT/1h"]
    content = path.read_bytes()
    for damaged in (content[:-100], content[-100:], b"", b"PAR1", content[:-8] + b"\xff\xff\xff\x7fPAR1"):
        path.write_bytes(damaged)
        assert lake.stored(SPOT, DAY) is None
        assert lake.missing(SPOT, [DAY]) == (DAY,)
        (line,) = lake.damaged(SPOT)
        assert line.startswith(f"{path} cannot be read")


def test_a_write_into_a_damaged_file_keeps_a_copy_and_what_can_be_read(lake: Lake, fetch: Fetch) -> None:
    """Damage in one row group costs the days of this group only; they count as absent, so they are fetched again."""
    january = store(lake, fetch, "spot/BTCUSDT/1m", "2024-01-01", "2024-02-01")
    path = local(lake.path(MINUTES, DAY))
    content = bytearray(path.read_bytes())
    content[100:2000] = bytes(1900)  # in the first row group, which holds the first ten days
    path.write_bytes(content)
    lake.write(MINUTES, january[20])
    held = keys(lake, MINUTES)
    assert held == [f"2024-01-{day:02}" for day in range(11, 32)]
    for result in january[10:]:
        assert read(lake, MINUTES, result.partition.key).equals(result.candles)
    copy = local(lake.root).with_name("lake.state") / "damaged" / path.relative_to(local(lake.root))
    assert copy.read_bytes() == bytes(content)


def test_a_file_of_a_later_layout_is_an_error_and_is_never_replaced(lake: Lake, fetch: Fetch) -> None:
    (result, *_) = store(lake, fetch, "spot/BTCUSDT/1h")
    path = local(lake.path(SPOT, DAY))
    result.candles.write_parquet(path, metadata={"series": str(SPOT), "layout": "3"})
    before = path.read_bytes()
    with pytest.raises(LakeError, match=r"layout 3.*later binance-assets"):
        lake.stored(SPOT, DAY)
    with pytest.raises(LakeError, match="layout 3"):
        lake.write(SPOT, result)
    assert path.read_bytes() == before
    (local(lake.root).with_name("lake.state") / "lake.json").write_text('{"origin": "sandbox", "layout": 3}')
    with pytest.raises(LakeError, match=r"layout 3.*later binance-assets"):
        lake.prepare("sandbox")


WRITE_AND_WAIT = """
import sys, time
from pathlib import Path
from binance_assets.storage.locks import own_file
with own_file(Path(sys.argv[1])) as file:
    file.write(b"half")
    print("written", flush=True)
    time.sleep(60)
"""


def test_prepare_removes_temporary_files_of_dead_processes_only(lake: Lake) -> None:
    incoming = local(lake.root).with_name("lake.state") / "incoming"
    paths = [incoming / f"{number:032x}.part" for number in range(2)]
    writers = [subprocess.Popen([sys.executable, "-c", WRITE_AND_WAIT, path], stdout=subprocess.PIPE) for path in paths]
    try:
        for writer in writers:
            assert writer.stdout is not None
            writer.stdout.readline()
        writers[0].kill()
        writers[0].wait()
        Lake(lake.root).prepare("sandbox")
        assert [path.exists() for path in paths] == [False, True]  # the second one has a living writer
    finally:
        for writer in writers:
            writer.kill()
            writer.communicate()


def test_prepare_removes_temporary_files_of_earlier_versions_after_a_day(lake: Lake) -> None:
    incoming = local(lake.root).with_name("lake.state") / "incoming"
    old, new = (incoming / f"{2**22 + 1}-{name}-{os.uname().nodename}" for name in ("0123", "4567"))
    for path in (old, new):
        path.write_bytes(b"half")
    os.utime(old, (old.stat().st_mtime - 25 * 3600,) * 2)
    Lake(lake.root).prepare("sandbox")
    assert not old.exists()
    assert new.exists()  # its writer may be in another container with the same host name


def test_a_failed_write_is_an_error_and_keeps_the_files(lake: Lake, fetch: Fetch) -> None:
    (result, *_) = store(lake, fetch, "spot/BTCUSDT/1h")
    before = local(lake.path(SPOT, DAY)).read_bytes()
    incoming = local(lake.root).with_name("lake.state") / "incoming"
    shutil.rmtree(incoming)
    incoming.write_text("in the way")  # root may write anywhere, so permissions prove nothing
    with pytest.raises(LakeError, match="cannot be written"):
        lake.write(SPOT, result)
    assert local(lake.path(SPOT, DAY)).read_bytes() == before


def test_a_lake_behind_a_symbolic_link_keeps_its_other_files_beside_the_real_folder(
    tmp_path: Path, fetch: Fetch
) -> None:
    """A file can be replaced atomically within one file system only, and the link may lead into another one."""
    (tmp_path / "disk" / "candles").mkdir(parents=True)
    (tmp_path / "lake").symlink_to(tmp_path / "disk" / "candles")
    linked = Lake(tmp_path / "lake")
    linked.prepare("sandbox")
    store(linked, fetch, "spot/BTCUSDT/1h")
    assert sorted(path.name for path in (tmp_path / "disk").iterdir()) == ["candles", "candles.state"]
    assert keys(Lake(tmp_path / "disk" / "candles"), SPOT) == keys(linked, SPOT)


def test_a_symbol_outside_ascii_keeps_its_name(lake: Lake, fetch: Fetch) -> None:
    series: Series = parse_series("usdm/币安人生USDT/1h")
    store(lake, fetch, str(series), "2026-01-01", "2026-01-02")
    assert (local(lake.root) / "market=usdm" / "symbol=币安人生USDT").is_dir()
    assert set(pl.scan_parquet(local(lake.root) / "market=usdm").collect()["symbol"]) == {"币安人生USDT"}
    assert lake.series() == [series]


def test_partitions_are_found_by_range_and_missing_ones_are_named(lake: Lake, fetch: Fetch) -> None:
    assert (lake.stored_partitions(SPOT), lake.partitions(SPOT), lake.series()) == ({}, [], [])
    days = fetch("spot/BTCUSDT/1h", "2023-12-30", "2024-01-05")
    lake.write_all(SPOT, [result for result in days if result.partition.key != "2024-01-02"])
    partitions = [result.partition for result in days]
    assert lake.missing(SPOT, partitions) == (partitions[3],)
    assert lake.partitions(SPOT) == partitions
    assert lake.partitions(SPOT, start=date.fromisoformat("2024-01-02")) == partitions[3:]
    held = lake.stored_partitions(SPOT, date.fromisoformat("2023-12-31"), date.fromisoformat("2024-01-04"))
    assert [partition.key for partition in held] == ["2023-12-31", "2024-01-01", "2024-01-03"]
    with pytest.raises(LakeError, match="2024-01-02: it is not in the lake"):
        lake.read(SPOT, partitions)
    with pytest.raises(LakeError, match="2024-01-02 is not in the lake"):
        lake.scan(SPOT, partitions)
