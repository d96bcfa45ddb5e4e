"""Jobs: for each market one over its daily series and one over its monthly ones.

Daily and monthly partitions cannot share a job, and a job per series would make the code location slow to load.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import dagster as dg

from binance_assets.model.markets import Market
from binance_assets.model.series import Series, by_market
from binance_assets.orchestration.assets import asset_key
from binance_assets.orchestration.partitions import BY_NAME, partition_kind

if TYPE_CHECKING:
    from dagster._core.definitions.unresolved_asset_job_definition import UnresolvedAssetJobDefinition


def job_name(market: Market, kind: str) -> str:
    """The name of a market's job over partitions of ``kind`` (``daily`` or ``monthly``)."""
    return f"{market.name}_{kind}"


def candle_jobs(series: Sequence[Series]) -> list[UnresolvedAssetJobDefinition]:
    """The jobs of those markets and kinds of partitions that have series."""
    jobs = []
    for market, members in by_market(series).items():
        for kind in BY_NAME:
            keys = [asset_key(one) for one in members if partition_kind(one.interval) == kind]
            if keys:
                job = dg.define_asset_job(
                    job_name(market, kind),
                    selection=dg.AssetSelection.assets(*keys),
                    description=f"Fetches the {kind} partitions of every tracked series of Binance {market.title}.",
                )
                jobs.append(job)
    return jobs
