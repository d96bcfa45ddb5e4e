"""Keys: the names under which Dagster knows a series.

Here belongs the mapping from a series to Dagster's names. What does not belong here: names of jobs (``jobs``), of
partitions (``partitions``), or of files (``storage``).
"""

from __future__ import annotations

import dagster as dg

from binance_assets.model.series import Series


def asset_key(series: Series) -> dg.AssetKey:
    """Return the key of the asset that holds ``series``."""
    return dg.AssetKey(list(series.key))


def op_name(series: Series) -> str:
    """Return the name of the op, and of the step, that materializes ``series``; run configuration is keyed by it."""
    return asset_key(series).to_python_identifier()
