"""Freshness: how late the newest candles may be before an asset's page turns red."""

from __future__ import annotations

import datetime as dt

import dagster as dg

from binance_assets.model.series import Series

# A day is brought after midnight, and by the catch-up until the next noon; an asset counts as a whole, so that an old
# day that is fetched again makes it look fresh.
_DAILY = dg.FreshnessPolicy.time_window(fail_window=dt.timedelta(hours=36), warn_window=dt.timedelta(hours=26))
# A month is brought on the 8th of the next one.
_MONTHLY = dg.FreshnessPolicy.time_window(fail_window=dt.timedelta(days=40), warn_window=dt.timedelta(days=33))


def freshness_of(series: Series) -> dg.FreshnessPolicy:
    """The policy of the asset of ``series``."""
    return _MONTHLY if series.interval.is_multi_day else _DAILY
