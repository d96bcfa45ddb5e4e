"""Jobs: for each market, one over its daily series and one over its monthly ones.

Daily and monthly partitions cannot share a job, and one job per series would make the code location slow to load.

Here belong the jobs and their names. What does not belong here: when they run (``schedules``, ``catch_up``,
``sensors``).
"""

from __future__ import annotations

from collections.abc import Sequence

import dagster as dg

from binance_assets.model.markets import Market
from binance_assets.model.series import Series, by_market
from binance_assets.orchestration.dagster_internals.code_location import AssetJob
from binance_assets.orchestration.keys import asset_key
from binance_assets.orchestration.partitions import BY_KIND, partition_kind


def job_name(market: Market, kind: str) -> str:
    """Return the name of a market's job over partitions of ``kind`` (``daily`` or ``monthly``)."""
    return f"{market.name}_{kind}"


def candle_jobs(series: Sequence[Series]) -> list[AssetJob]:
    """Return a job for each market and kind of partitions that has series."""
    jobs = []
    for market, members in by_market(series).items():
        for kind in BY_KIND:
            keys = [asset_key(member) for member in members if partition_kind(member.interval) == kind]
            if keys:
                job = dg.define_asset_job(
                    job_name(market, kind),
                    selection=dg.AssetSelection.assets(*keys),
                    executor_def=dg.in_process_executor,
                    description=f"Fetches the {kind} partitions of every tracked series of Binance {market.title}.",
                )
                jobs.append(job)
    return jobs
