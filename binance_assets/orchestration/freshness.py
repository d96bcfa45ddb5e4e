"""Freshness: how old the newest materialization may be before an asset's page turns yellow or red.

Here belong the windows and their reasons. What does not belong here: the schedules that keep assets fresh
(``schedules``, ``catch_up``).
"""

from __future__ import annotations

import datetime as dt

import dagster as dg

from binance_assets.model.series import Series

# The schedule fetches a day shortly after midnight, and the catch-up retries until the next noon. Dagster looks at an
# asset as a whole, so fetching an old day again makes it look fresh.
_DAILY = dg.FreshnessPolicy.time_window(fail_window=dt.timedelta(hours=36), warn_window=dt.timedelta(hours=26))
# The schedule fetches a month on the 8th of the next one.
_MONTHLY = dg.FreshnessPolicy.time_window(fail_window=dt.timedelta(days=40), warn_window=dt.timedelta(days=33))


def freshness_policy_for(series: Series) -> dg.FreshnessPolicy:
    """Return the policy of the asset of ``series``."""
    return _MONTHLY if series.interval.is_multi_day else _DAILY
