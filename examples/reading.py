"""Read the lake by the names of series, and as files with Polars, DuckDB, and pyarrow."""

import duckdb
import polars as pl
import pyarrow.dataset

import binance_assets as ba

candles = pl.scan_parquet("lake/market=spot/")
print(candles.filter(symbol="BTCUSDT", interval="1m").select("open_time", "close", "volume").head(3).collect())

# Across markets, DuckDB takes the union of their columns.
print(
    duckdb.sql(
        "SELECT market, symbol, count(*) AS candles "
        "FROM read_parquet('lake/**/*.parquet', union_by_name = true) GROUP BY ALL ORDER BY ALL"
    )
)

dataset = pyarrow.dataset.dataset("lake", partitioning="hive")
print(f"{dataset.count_rows():,} candles in {len(dataset.files)} files")

# By name: every gap is known, and a day that the lake lacks is an error.
hours = ba.load("spot/BTCUSDT/1m", every="1h", missing="flat")
print(f"{hours.height} hours, {hours['is_filled'].sum()} of them filled")
