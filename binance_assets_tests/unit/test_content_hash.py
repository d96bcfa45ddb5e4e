"""The content hash: it depends on every value of a partition, and on nothing else."""

from __future__ import annotations

import re
import struct
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from binance_assets.candles.content_hash import content_hash
from binance_assets.model.series import parse_series
from binance_assets_tests.support.results import result_of

LAKE_PAGE = Path(__file__).parents[2] / "docs" / "lake.md"
SERIES = ["spot/BTCUSDT/1h", "usdm/BTCUSDT/1m", "coinm/BTCUSD_PERP/1h"]


def candles_of(name: str) -> pl.DataFrame:
    return result_of(parse_series(name), "2024-01-01").candles


def documented_hash(candles: pl.DataFrame) -> str:
    """Return what the code of docs/lake.md computes."""
    (code,) = re.findall(r"^```python\n(import base64\n.*?)^```$", LAKE_PAGE.read_text(), re.DOTALL | re.MULTILINE)
    names: dict[str, Any] = {}
    exec(code, names)
    return str(names["content_hash"](candles))


@pytest.mark.parametrize("name", SERIES)
@pytest.mark.parametrize("rows", [None, 1, 0])
def test_the_documented_code_computes_the_same_hash(name: str, rows: int | None) -> None:
    candles = candles_of(name)[:rows]
    assert content_hash(candles) == documented_hash(candles)
    assert re.fullmatch(r"[\w-]{16}", content_hash(candles))


def test_the_hash_of_given_candles_never_changes() -> None:
    assert content_hash(candles_of("spot/BTCUSDT/1m")) == "Gi6hNPJNmIrG7bB5"


@pytest.mark.parametrize("name", SERIES)
def test_neither_chunks_nor_the_encoding_of_a_file_change_the_hash(name: str, tmp_path: Path) -> None:
    candles = candles_of(name)
    hashes = {content_hash(candles)}
    hashes.add(content_hash(pl.concat([candles[:7], candles[7:]], rechunk=False)))
    hashes.add(
        content_hash(
            pl.concat([candles, candles])[5 : candles.height + 5]
            .sort("open_time")
            .unique("open_time")
            .sort("open_time")
        )
    )
    hashes.add(content_hash(pl.concat([candles[-3:], candles])[3:]))
    for number, options in enumerate([{"compression": "snappy"}, {"row_group_size": 5}, {"statistics": False}]):
        path = tmp_path / f"{number}.parquet"
        candles.write_parquet(path, **options)  # type: ignore[arg-type]
        hashes.add(content_hash(pl.read_parquet(path)))
    assert len(hashes) == 1


@pytest.mark.parametrize("name", SERIES)
def test_every_column_every_row_and_their_order_change_the_hash(name: str) -> None:
    candles = candles_of(name)
    changed = [candles[1:], candles[:-1], candles.reverse(), candles.head(0)]
    for column, dtype in candles.schema.items():
        one = pl.lit(1).cast(pl.Duration("ms")) if dtype.is_temporal() else 1
        changed.append(
            candles.with_columns(
                pl.when(pl.int_range(pl.len()) == 17).then(pl.col(column) + one).otherwise(column).alias(column)
            )
        )
        changed.append(candles.rename({column: "another"}))
        if not dtype.is_temporal():
            changed.append(
                candles.with_columns(pl.when(pl.int_range(pl.len()) == 3).then(None).otherwise(column).alias(column))
            )
    hashes = {content_hash(table) for table in (candles, *changed)}
    assert len(hashes) == 1 + len(changed)


def test_floats_are_taken_bit_by_bit() -> None:
    other_nan = struct.unpack("<d", struct.pack("<Q", 0x7FF8_0000_0000_0001))[0]
    columns = [[0.0], [-0.0], [float("nan")], [other_nan], [float("inf")]]
    hashes = [content_hash(pl.DataFrame({"open": values})) for values in columns]
    assert len(set(hashes)) == len(columns)
    assert hashes == [content_hash(pl.DataFrame({"open": values})) for values in columns]
