"""What a person can accept, and what is stored then."""

from __future__ import annotations

from dataclasses import replace
from typing import get_args

import polars as pl
import pytest

from binance_assets.ingest.override import acceptable
from binance_assets.model.results import ACCEPTED, PartitionResult, Verdict
from binance_assets.model.series import parse_series
from binance_assets.model.timestamps import DAY, HOUR
from binance_assets_tests.support.results import result_of

HOURS = parse_series("spot/BTCUSDT/1h")
KEY = "2024-01-02"


def refused(verdict: Verdict, rows: int | None = None, candles: pl.DataFrame | None = None) -> PartitionResult:
    result = result_of(HOURS, KEY, rows, verdict)
    end = result.partition.end
    gap = ((end - HOUR, end),) if rows is not None else ()
    return replace(
        result, missing=gap, reason="why", strict=True, candles=result.candles if candles is None else candles
    )


def accept(result: PartitionResult, days_later: float = 30) -> PartitionResult | str:
    return acceptable(result, None, round(result.partition.end + days_later * DAY), "ada", "I know")


@pytest.mark.parametrize(
    "result",
    [refused("lost", 23), refused("unbalanced"), refused("invalid"), refused("unfinished", 23)],
    ids=lambda result: str(result.verdict),
)
def test_what_the_exchange_really_has_is_accepted_as_it_is(result: PartitionResult) -> None:
    assert not result.is_accepted
    accepted = accept(result)
    assert isinstance(accepted, PartitionResult)
    assert accepted.is_accepted
    assert accepted == replace(result, accepted_by="ada", accepted_because="I know", candles=accepted.candles)
    assert accepted.candles.equals(result.candles)


@pytest.mark.parametrize("verdict", sorted(set(get_args(Verdict)) - ACCEPTED - {"lost"}))
def test_a_partition_without_candles_that_could_not_be_fetched_has_nothing_to_accept(verdict: Verdict) -> None:
    assert accept(replace(refused(verdict), candles=result_of(HOURS, KEY, 0).candles)) == "why"


def test_the_end_of_a_symbol_is_accepted_once_its_candles_cannot_come_late() -> None:
    end = refused("unfinished", 23)
    assert str(accept(end, days_later=0.9)).startswith("why; it ended less than a day ago")
    assert isinstance(accept(end, days_later=1), PartitionResult)


def test_candles_that_break_a_rule_are_sorted_and_their_values_stay() -> None:
    candles = refused("invalid").candles
    accepted = accept(refused("invalid", candles=candles.reverse()))
    assert isinstance(accepted, PartitionResult)
    assert accepted.candles.equals(candles)


def test_candles_with_a_null_or_a_repeated_time_cannot_be_stored() -> None:
    candles = refused("invalid").candles
    null = candles.with_columns(pl.when(pl.int_range(pl.len()) == 3).then(None).otherwise("close").alias("close"))
    assert "values are missing" in str(accept(refused("invalid", candles=null)))
    assert "open at the same time" in str(accept(refused("invalid", candles=pl.concat([candles, candles[:1]]))))


@pytest.mark.parametrize("verdict", sorted(ACCEPTED - {"unbalanced"}))
def test_a_good_result_needs_no_person(verdict: Verdict) -> None:
    result = result_of(HOURS, KEY, verdict=verdict)
    assert accept(result) is result


def test_results_are_equal_if_their_fields_and_the_values_of_their_candles_are() -> None:
    result = refused("lost", 23)
    assert result == replace(result, candles=result.candles.clone())
    assert result != replace(result, candles=result.candles.head(1))
    assert result != replace(result, reason="another")
    assert result != "lost"
