"""The asset ``<market>/coverage``: what the lake holds of each series, as a Parquet file and on the asset's page.

Here belong the asset and its page. What does not belong here: counting and drawing (``storage.coverage``), and the
sensor that refreshes it (``sensors``).
"""

# No `from __future__ import annotations` here: Dagster reads the types of an asset's arguments when it is defined.
import datetime as dt
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import dagster as dg
import polars as pl

from binance_assets.charts.coverage_chart import draw_coverage
from binance_assets.charts.figures import NO_LIBRARY, as_markdown, can_draw
from binance_assets.model.bucket_paths import LakePath
from binance_assets.model.markets import Market
from binance_assets.model.series import Series
from binance_assets.orchestration.checks import refresh_checks
from binance_assets.orchestration.dagster_internals.steps import has_downstream_in_run
from binance_assets.orchestration.freshness import fresh_result, fresh_spec
from binance_assets.orchestration.interrupted import prove_life
from binance_assets.orchestration.keys import asset_key
from binance_assets.orchestration.losses import record_losses
from binance_assets.orchestration.resources import LakeResource
from binance_assets.storage.coverage import (
    Coverage,
    chart_rows,
    coverage_markdown,
    coverage_table,
    coverages_of,
    most_lacking,
)


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

    key = coverage_key(market)

    @dg.asset(
        key=key,
        group_name=market.name,
        kinds={"polars", "parquet"},
        check_specs=[fresh_spec(key)],
        output_required=False,
        # In a run over series, after all of them, also after those that fail. With inputs it would not run then.
        op_tags={"dagster/priority": "-1"},
        description=f"What the lake holds of Binance {market.title}: for each series the first and the last partition, "
        "partitions by verdict, refused and missing partitions, candles, and bytes.\n\nA sensor refreshes it after "
        "materializations.",
    )
    def coverage(context: dg.AssetExecutionContext, lake: LakeResource) -> Iterator[Any]:
        prove_life(context)
        now = dt.datetime.now(dt.UTC)
        # Now the pages of the series show the same partitions as the coverage, also if somebody deleted a file.
        record_losses(context.instance, lake.lake(), series)
        gaps = refresh_checks(context.instance, lake.lake(), series)
        index = lake.lake().file_index(market, series)
        lake.lake().remember_files(market, index)
        entries = coverages_of(
            index,
            series,
            now.date(),
            {member: gaps[member].unwritten for member in series},
            ended,
            {member: gaps[member].lost for member in series},
        )
        table = coverage_table(entries)
        path = lake.lake().write_coverage(market, table)
        metadata = _page(market, entries, table, path)
        if has_downstream_in_run(context):  # which starts only after an output
            yield dg.MaterializeResult(metadata=metadata)
        else:  # without the two tags per series that Dagster adds to an output
            yield dg.AssetMaterialization(key, metadata=metadata)
        yield fresh_result(index, series, now, ended)

    return _downstream_of(coverage, series)


def _page(
    market: Market, entries: Sequence[Coverage], table: pl.DataFrame, path: LakePath
) -> dict[str, dg.MetadataValue]:
    """Return the metadata of a materialization, which is the page of the asset."""
    named = most_lacking(entries)
    rest = len(entries) - len(named)
    note = f"\n\nThe series that lack the most partitions; {rest:,} more are in the Parquet file." if rest else ""
    return {
        "table": dg.MetadataValue.md(coverage_markdown(coverage_table(named)) + note),
        "days by month": dg.MetadataValue.md(_picture(market, entries)),
        "path": dg.MetadataValue.path(str(path.absolute())),
        "dagster/row_count": dg.MetadataValue.int(table.height),
        "partitions": dg.MetadataValue.int(int(table["partitions"].sum())),
        "refused": dg.MetadataValue.int(int(table["refused"].sum())),
        "missing": dg.MetadataValue.int(int(table["missing"].sum())),
        "candles": dg.MetadataValue.int(int(table["rows"].sum())),
        "bytes": dg.MetadataValue.int(int(table["bytes"].sum())),
    }


def _picture(market: Market, entries: Sequence[Coverage]) -> str:
    """Return the chart as Markdown, or one line that says why there is none."""
    rows = chart_rows(entries)
    if not any(row.months for row in rows):
        return "The lake holds no partition yet."
    if not can_draw():
        return NO_LIBRARY
    return as_markdown(draw_coverage(rows, f"Binance {market.title}: stored partitions by month"), "stored by month")


def _downstream_of(coverage: dg.AssetsDefinition, series: Sequence[Series]) -> dg.AssetsDefinition:
    """Return the asset with dependencies on ``series`` that its op does not know.

    Before a step, Dagster lists all partitions of each input of its op: 30 ms for each series, a minute for 2,000
    (Dagster 1.13.28). The asset graph, which orders backfills and draws the lineage, needs the dependencies only.
    """
    spec = coverage.get_asset_spec().replace_attributes(deps=[asset_key(member) for member in series])
    return dg.AssetsDefinition(
        keys_by_input_name={},
        keys_by_output_name={"result": spec.key},
        node_def=coverage.op,
        specs=[spec],
        check_specs_by_output_name=dict(coverage.check_specs_by_output_name),
        resource_defs=coverage.resource_defs,
    )
