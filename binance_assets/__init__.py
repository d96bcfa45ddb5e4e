"""Binance candles you can trust, as Dagster assets."""

from __future__ import annotations

__version__ = "0.1.0"
