"""The asset ``<market>/coverage``: what the lake holds of each series, as a Parquet file and on the asset's page.

Here belong the asset and its page. What does not belong here: counting and drawing (``storage.coverage``), and the
sensor that refreshes it (``sensors``).
"""

# No `from __future__ import annotations` here: Dagster reads the types of an asset's arguments when it is defined.
import base64
import datetime as dt
from collections.abc import Mapping, Sequence

import dagster as dg

from binance_assets.model.markets import Market
from binance_assets.model.series import Series
from binance_assets.orchestration.checks import refresh_checks
from binance_assets.orchestration.freshness import fresh_result, fresh_spec
from binance_assets.orchestration.interrupted import prove_life
from binance_assets.orchestration.resources import LakeResource
from binance_assets.storage.coverage import coverage_markdown, coverage_picture, coverage_table, coverages_of


def coverage_key(market: Market) -> dg.AssetKey:
    """Return the key of a market's coverage asset."""
    return dg.AssetKey([market.name, "coverage"])


def coverage_asset(
    market: Market, series: Sequence[Series], ended: Mapping[Series, dt.date] | None = None
) -> dg.AssetsDefinition:
    """Return the coverage asset of a market.

    Args:
        market: The market.
        series: Its series, fetched and derived.
        ended: The last day of each series whose symbol is delisted.
    """

    @dg.asset(
        key=coverage_key(market),
        group_name=market.name,
        kinds={"polars", "parquet"},
        check_specs=[fresh_spec(coverage_key(market))],
        description=f"What the lake holds of Binance {market.title}: for each series the first and the last partition, "
        "partitions by verdict, refused and missing partitions, candles, and bytes.\n\nA sensor refreshes it after "
        "materializations.",
    )
    def coverage(context: dg.AssetExecutionContext, lake: LakeResource) -> dg.MaterializeResult:  # type: ignore[type-arg]
        prove_life(context)
        now = dt.datetime.now(dt.UTC)
        # Now the pages of the series show the same partitions as the coverage.
        gaps = refresh_checks(context.instance, lake.lake(), series)
        index = lake.lake().file_index(market, series)
        lake.lake().remember_files(market, index)
        entries = coverages_of(
            index, series, now.date(), {member: gaps[member].absent.keys() for member in series}, ended
        )
        table = coverage_table(entries)
        path = lake.lake().write_coverage(market, table)
        months = sorted({month for entry in entries for month in entry.months})
        period = f"{months[0]} to {months[-1]}, " if months else ""
        legend = f"{period}one line per series in the order of the table; green is complete, red lacks many partitions"
        picture = base64.b64encode(coverage_picture(entries)).decode()
        return dg.MaterializeResult(
            check_results=[fresh_result(index, series, now, ended)],
            metadata={
                "table": dg.MetadataValue.md(coverage_markdown(table)),
                "days by month": dg.MetadataValue.md(
                    f"{legend}\n\n![green: complete, red: incomplete](data:image/png;base64,{picture})"
                ),
                "path": dg.MetadataValue.path(path.absolute()),
                "dagster/row_count": dg.MetadataValue.int(table.height),
                "partitions": dg.MetadataValue.int(int(table["partitions"].sum())),
                "refused": dg.MetadataValue.int(int(table["refused"].sum())),
                "missing": dg.MetadataValue.int(int(table["missing"].sum())),
                "candles": dg.MetadataValue.int(int(table["rows"].sum())),
                "bytes": dg.MetadataValue.int(int(table["bytes"].sum())),
            },
        )

    return coverage
