"""Backfill policies: into how many runs Dagster divides a backfill over several series.

By default it is one run, which is the quickest on one machine: a process starts once, and fetches several series at
once. Where several machines execute runs, a setting divides the series into groups, each of which is a run.

Here belongs the policy of each asset. What does not belong here: the runs of a command (``backfill``, ``queued_runs``).
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import Final

import dagster as dg

from binance_assets.model.series import Series

# Dagster puts assets into one run if their policies are equal. These differ only in how many partitions a run may have,
# which no range reaches: there are 3,650 days in ten years.
_NO_LIMIT: Final = 100_000

with warnings.catch_warnings():
    warnings.simplefilter("ignore", dg.BetaWarning)  # users can do nothing about the beta label
    SINGLE_RUN: Final = dg.BackfillPolicy.single_run()
    """All series of a backfill in one run."""


def backfill_policies(series: Sequence[Series], per_run: int) -> dict[Series, dg.BackfillPolicy]:
    """Return the policy of each fetched series; a derived one has that of its base, so that both are in one run.

    Args:
        series: The fetched series.
        per_run: The most of them in one run; 0 for all.
    """
    if not per_run:
        return dict.fromkeys(series, SINGLE_RUN)
    # Dagster warns of each job whose assets have several policies, and names all of them.
    warnings.filterwarnings("ignore", message="Asset job .* materializes assets with varying BackfillPolicies")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", dg.BetaWarning)
        return {
            member: dg.BackfillPolicy.multi_run(_NO_LIMIT + number // per_run) for number, member in enumerate(series)
        }
