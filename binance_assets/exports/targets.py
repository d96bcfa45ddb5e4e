"""The targets by name."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from binance_assets.exports.backtesting import BACKTESTING
from binance_assets.exports.freqtrade import FREQTRADE
from binance_assets.exports.nautilus import NAUTILUS
from binance_assets.exports.qlib import QLIB
from binance_assets.exports.tables import CSV, FEATHER, PARQUET
from binance_assets.exports.target import Target
from binance_assets.exports.zipline import ZIPLINE

TARGETS: Final[Mapping[str, Target]] = {
    target.name: target for target in (PARQUET, CSV, FEATHER, FREQTRADE, BACKTESTING, NAUTILUS, QLIB, ZIPLINE)
}
"""All targets, in the order of :data:`binance_assets.exports.choices.MISSING_BY_TARGET`."""
