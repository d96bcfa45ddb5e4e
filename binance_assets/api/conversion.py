"""Tables of other libraries, which the extra ``binance-assets[pandas]`` installs."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

import polars as pl

if TYPE_CHECKING:
    import pandas as pd
    import pyarrow as pa


def as_pandas(table: pl.DataFrame | pl.LazyFrame) -> pd.DataFrame:
    """Return a table as a pandas DataFrame with the same columns; times keep their time zone, UTC.

    Args:
        table: What :func:`~binance_assets.api.reading.scan`, ``load``, or ``panel`` returned.

    Raises:
        ImportError: pandas or pyarrow is not installed; the message names the extra.
    """
    _require("as_pandas", "pandas", "pyarrow")
    return table.lazy().collect().to_pandas()


def as_arrow(table: pl.DataFrame | pl.LazyFrame) -> pa.Table:
    """Return a table as a pyarrow Table with the same columns.

    Args:
        table: What :func:`~binance_assets.api.reading.scan`, ``load``, or ``panel`` returned.

    Raises:
        ImportError: pyarrow is not installed; the message names the extra.
    """
    _require("as_arrow", "pyarrow")
    return table.lazy().collect().to_arrow()


def _require(function: str, *modules: str) -> None:
    for module in modules:
        try:
            importlib.import_module(module)
        except ImportError as error:
            raise ImportError(
                f"{function} needs {module}; pip install 'binance-assets[pandas]'", name=module
            ) from error
