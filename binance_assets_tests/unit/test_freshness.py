"""Freshness: a series is stale by the age of its last stored partition, whatever happened lately."""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping

import dagster as dg
import polars as pl
import pytest

from binance_assets.model.series import Series, parse_series
from binance_assets.orchestration.freshness import fresh_result, stale_series
from binance_assets.storage.file_index import SCHEMA

BTC, ETH, WEEKS = (parse_series(name) for name in ("spot/BTCUSDT/1m", "spot/ETHUSDT/1d", "spot/BTCUSDT/1w"))
NOON = dt.datetime(2024, 3, 10, 12, tzinfo=dt.UTC)


def index_of(held: Mapping[Series, Mapping[str, str]]) -> pl.DataFrame:
    """Return the index of files that hold partitions, given as verdicts by key."""
    rows = []
    for series, verdicts in held.items():
        partitions = [
            {"day": dt.date.fromisoformat(key), "verdict": verdict, "is_accepted": True, "has_unnamed_outage": False,
             "rows": 1, "bytes": 1}
            for key, verdict in verdicts.items()
        ]  # fmt: skip
        rows.append(dict.fromkeys(SCHEMA.names()) | {"series": str(series), "partitions": partitions})
    return pl.DataFrame(rows, schema=SCHEMA)


@pytest.mark.parametrize(
    ("series", "verdicts", "is_stale"),
    [
        (BTC, {"2024-03-09": "complete"}, False),
        (BTC, {"2024-03-08": "complete"}, False),  # it ended 36 hours ago
        (BTC, {"2024-03-07": "complete"}, True),
        (BTC, {"2024-03-09": "complete", "2022-01-01": "complete"}, False),  # whichever was written last
        (BTC, {"2022-03-09": "complete", "2022-03-08": "delisted"}, True),  # trading went on
        (BTC, {"2022-03-09": "delisted"}, False),
        (ETH, {"2022-03-09": "complete"}, True),
        (WEEKS, {"2024-02-01": "complete"}, False),
        (WEEKS, {"2024-01-01": "complete"}, False),  # it ended 39 days ago
        (WEEKS, {"2023-12-01": "complete"}, True),
        (BTC, {}, True),
    ],
)
def test_a_series_is_stale_by_its_last_partition(series: Series, verdicts: dict[str, str], is_stale: bool) -> None:
    stale = list(stale_series(index_of({series: verdicts} if verdicts else {}), [series], NOON, {}))
    assert [entry.series for entry in stale] == [series] * is_stale


def test_a_delisted_series_is_fresh_once_its_last_day_is_stored() -> None:
    ended = {BTC: dt.date(2023, 5, 2)}
    for last, is_stale in (("2023-05-01", True), ("2023-05-02", False), ("2023-05-03", False)):
        index = index_of({BTC: {last: "complete"}})
        assert bool(list(stale_series(index, [BTC], NOON, ended))) == is_stale, last


def test_the_check_names_the_stale_series_and_the_table_is_bounded() -> None:
    series = [parse_series(f"spot/A{number}USDT/1m") for number in range(1_200)]
    result = fresh_result(
        index_of({BTC: {"2022-01-01": "complete"}, ETH: {"2024-03-09": "complete"}}), [BTC, ETH], NOON
    )
    assert (result.passed, result.severity) == (False, dg.AssetCheckSeverity.WARN)
    assert result.description == "the last stored partition is too old: spot/BTCUSDT/1m (2022-01-01)"
    many = fresh_result(index_of({}), series, NOON)
    table = many.metadata["series"]
    assert isinstance(table, dg.TableMetadataValue)
    assert (many.metadata["stale"].value, len(table.records)) == (1_200, 1_000)
    assert len(str(many.description)) < 300
