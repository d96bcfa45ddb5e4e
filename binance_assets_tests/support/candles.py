"""Rows of klines responses and archive files as tables, for comparison."""

from __future__ import annotations

import json
import zipfile
from pathlib import Path
from typing import Any

import polars as pl

from binance_assets.candles.columns import columns
from binance_assets.candles.parsing import csv_rows, parse_rows
from binance_assets.model.markets import Market


def parse_page(market: Market, body: bytes) -> pl.DataFrame:
    """Return the table of a klines response, as the project parses it."""
    return parse_rows(market, csv_rows(body))


def body_of(rows: list[list[Any]]) -> bytes:
    """Return the klines response that has ``rows``."""
    return json.dumps(rows, separators=(",", ":")).encode()


def expected(market: Market, rows: list[list[Any]]) -> pl.DataFrame:
    """Return the table of ``rows`` without the project's parser: only Python's own int and float."""
    kinds = [int, *[float] * 5, int, float, int, float, float]
    values = [[kind(field) for kind, field in zip(kinds, row, strict=False)] for row in rows]
    names = columns(market)
    schema = {name: pl.Int64 if dtype == pl.Datetime("ms", "UTC") else dtype for name, dtype in names.items()}
    raw = pl.DataFrame(values, schema=schema, orient="row")
    return raw.cast(dict(names))  # type: ignore[arg-type]


def archive_rows(path: Path) -> list[list[Any]]:
    """Return the rows of an archive zip whose times are in ms, in the types of a klines response."""
    with zipfile.ZipFile(path) as archive:
        lines = archive.read(archive.namelist()[0]).decode().split()
    fields = [line.split(",") for line in lines if line[0].isdigit()]
    return [[int(f[0]), *f[1:6], int(f[6]), f[7], int(f[8]), *f[9:11], "0"] for f in fields]
