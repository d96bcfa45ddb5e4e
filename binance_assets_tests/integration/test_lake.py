"""The lake: atomic files in a layout that Polars and DuckDB read as one table."""

from __future__ import annotations

import datetime as dt
import os
import subprocess
import sys
from pathlib import Path

import duckdb
import polars as pl
import pytest

from binance_assets import __version__
from binance_assets.candles.columns import columns, empty_candles
from binance_assets.model.partitions import partition_for_key
from binance_assets.model.results import PartitionResult
from binance_assets.model.series import Series, parse_series
from binance_assets.storage.lake import Lake, LakeError
from binance_assets_tests.support.environment import Fetch

SPOT = parse_series("spot/BTCUSDT/1h")
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
    for result in results:
        lake.write(parse_series(name), result)
    return results


def query(sql: str) -> list[tuple[object, ...]]:
    relation = duckdb.sql(sql)
    assert relation is not None
    return relation.fetchall()


def test_a_file_has_the_path_of_the_layout_and_the_fetched_candles(lake: Lake, fetch: Fetch) -> None:
    result = store(lake, fetch, "spot/BTCUSDT/1h")[0]
    path = lake.root / "market=spot" / "symbol=BTCUSDT" / "interval=1h" / "2024-01-01.parquet"
    assert path == lake.path(SPOT, DAY)
    assert pl.read_parquet(path, hive_partitioning=False).equals(result.candles)
    assert dict(pl.read_parquet_schema(path)) == columns(SPOT.market)


def test_the_metadata_of_a_file_describes_it(lake: Lake, fetch: Fetch) -> None:
    store(lake, fetch, "spot/BTCUSDT/1h")
    metadata = pl.read_parquet_metadata(lake.path(SPOT, DAY))
    assert metadata["series"] == "spot/BTCUSDT/1h"
    assert (metadata["source"], metadata["verdict"]) == ("rest", "complete")
    assert (metadata["missing"], metadata["version"]) == ("[]", __version__)
    stored = lake.stored(SPOT, DAY)
    assert stored is not None
    assert (metadata["note"], metadata["archive_file"], metadata["accepted_by"]) == ("", "", "")
    assert (stored.note, stored.archive_file, stored.accepted_by, stored.texts) == (None, None, None, {})


def test_files_are_zstd_with_statistics(lake: Lake, fetch: Fetch) -> None:
    store(lake, fetch, "spot/BTCUSDT/1h")
    table = f"parquet_metadata('{lake.path(SPOT, DAY)}')"
    found = query(f"SELECT DISTINCT compression, stats_min_value IS NOT NULL FROM {table}")
    assert found == [("ZSTD", True)]


def test_polars_and_duckdb_read_a_market_as_one_table(lake: Lake, fetch: Fetch) -> None:
    store(lake, fetch, "spot/BTCUSDT/1h")
    store(lake, fetch, "spot/ETHUSDT/4h")
    table = pl.scan_parquet(lake.root / "market=spot").collect()
    assert table.height == 3 * 24 + 3 * 6
    assert set(table["symbol"]) == {"BTCUSDT", "ETHUSDT"}
    glob = f"{lake.root}/market=spot/**/*.parquet"
    rows = query(f"SELECT symbol, interval, count(*) FROM '{glob}' GROUP BY ALL ORDER BY ALL")
    assert rows == [("BTCUSDT", "1h", 72), ("ETHUSDT", "4h", 18)]


def test_duckdb_reads_all_markets_as_one_table_by_union_of_columns(lake: Lake, fetch: Fetch) -> None:
    store(lake, fetch, "spot/BTCUSDT/1h")
    store(lake, fetch, "coinm/BTCUSD_PERP/1h")
    glob = f"{lake.root}/**/*.parquet"
    rows = query(
        f"SELECT market, count(quote_volume), count(base_volume) FROM read_parquet('{glob}', union_by_name=true) "
        "GROUP BY ALL ORDER BY ALL"
    )
    assert rows == [("coinm", 0, 72), ("spot", 72, 0)]


def test_a_partition_without_candles_is_a_file_without_rows_but_with_all_columns(lake: Lake) -> None:
    lake.write(SPOT, PartitionResult(DAY, "before_listing", empty_candles(SPOT.market)))
    assert dict(pl.read_parquet_schema(lake.path(SPOT, DAY))) == columns(SPOT.market)
    stored = lake.stored(SPOT, DAY)
    assert stored is not None
    assert (stored.rows, stored.verdict) == (0, "before_listing")


@pytest.mark.parametrize("verdict", ["lost", "unfinished", "invalid", "unreachable"])
def test_a_refused_partition_is_not_written(lake: Lake, verdict: str) -> None:
    with pytest.raises(ValueError, match="must not be written"):
        lake.write(SPOT, PartitionResult(DAY, verdict, empty_candles(SPOT.market)))  # type: ignore[arg-type]
    assert lake.stored(SPOT, DAY) is None


def test_real_and_synthetic_candles_are_never_mixed(lake: Lake, tmp_path: Path) -> None:
    with pytest.raises(LakeError, match="BINANCE_ASSETS_LAKE"):
        lake.prepare("binance")
    assert lake.venue == "sandbox"
    real = Lake(tmp_path / "real")
    real.prepare("binance")
    with pytest.raises(LakeError, match="'binance'"):
        real.check_venue("sandbox")


def test_a_damaged_file_or_one_of_another_series_counts_as_absent(lake: Lake, fetch: Fetch) -> None:
    store(lake, fetch, "spot/BTCUSDT/1h")
    path = lake.path(SPOT, DAY)
    other = parse_series("spot/ETHUSDT/1h")
    lake.path(other, DAY).parent.mkdir(parents=True)
    lake.path(other, DAY).write_bytes(path.read_bytes())
    assert lake.stored(other, DAY) is None
    path.write_bytes(path.read_bytes()[:-100])
    assert lake.stored(SPOT, DAY) is None
    path.write_bytes(b"")
    assert lake.stored(SPOT, DAY) is None


def test_prepare_removes_temporary_files_of_dead_processes_only(lake: Lake) -> None:
    dead = subprocess.Popen([sys.executable, "-c", ""])
    dead.wait()
    host = os.uname().nodename
    stale = lake.root / ".incoming" / f"{dead.pid}-0123-{host}"
    ours = lake.root / ".incoming" / f"{os.getpid()}-4567-{host}"
    stale.write_bytes(b"half")
    ours.write_bytes(b"half")
    Lake(lake.root).prepare("sandbox")
    assert not stale.exists()
    assert ours.exists()  # its process is alive


def test_a_failed_write_is_an_error_and_keeps_the_files(lake: Lake, fetch: Fetch) -> None:
    (result, *_) = store(lake, fetch, "spot/BTCUSDT/1h")
    before = lake.path(SPOT, DAY).read_bytes()
    (lake.root / ".incoming").rmdir()
    (lake.root / ".incoming").write_text("in the way")  # root may write anywhere, so permissions prove nothing
    with pytest.raises(LakeError, match="cannot be written"):
        lake.write(SPOT, result)
    assert lake.path(SPOT, DAY).read_bytes() == before


def test_a_symbol_outside_ascii_keeps_its_name(lake: Lake, fetch: Fetch) -> None:
    series: Series = parse_series("usdm/币安人生USDT/1h")
    store(lake, fetch, str(series), "2026-01-01", "2026-01-02")
    assert (lake.root / "market=usdm" / "symbol=币安人生USDT").is_dir()
    assert set(pl.scan_parquet(lake.root / "market=usdm").collect()["symbol"]) == {"币安人生USDT"}


def test_keys_are_those_of_the_partitions_that_have_files(lake: Lake, fetch: Fetch) -> None:
    assert lake.keys(SPOT) == []
    store(lake, fetch, "spot/BTCUSDT/1h")
    assert lake.keys(SPOT) == ["2024-01-01", "2024-01-02", "2024-01-03"]
    assert partition_for_key(lake.keys(SPOT)[-1], SPOT.interval).start == int(
        dt.datetime(2024, 1, 3, tzinfo=dt.UTC).timestamp() * 1_000
    )
