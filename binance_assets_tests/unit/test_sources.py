"""Which of two results of a partition is better, and how the candles of two sources are merged."""

from __future__ import annotations

from dataclasses import replace
from typing import get_args

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from binance_assets.candles.columns import columns
from binance_assets.ingest.sources import (
    SOURCE_CHAINS,
    lack_different_candles,
    merge_candles,
    pick_better,
)
from binance_assets.model.markets import SPOT
from binance_assets.model.partitions import Partition
from binance_assets.model.results import (
    ACCEPTED,
    VERDICT_ORDER,
    PartitionResult,
    Provenance,
    Verdict,
    quality_rank,
)
from binance_assets.model.timestamps import DAY, MINUTE
from binance_assets.settings import Source

PARTITION = Partition(0, DAY)
ARCHIVE = Provenance("archive", "BTCUSDT-1m-1970-01-01.zip", "ab" * 32, 5)
REST = Provenance("rest")


def candles_at(*minutes: int, price: float = 1.0) -> pl.DataFrame:
    names = columns(SPOT)
    rows = [[minute * MINUTE, *[price] * (len(names) - 1)] for minute in minutes]
    return pl.DataFrame(rows, schema=list(names), orient="row").cast(dict(names))  # type: ignore[arg-type]


def result_of(
    verdict: Verdict, *missing: int, provenance: Provenance = REST, candles: pl.DataFrame | None = None
) -> PartitionResult:
    """A result that lacks the candles of the minutes ``missing``."""
    spans = tuple((minute * MINUTE, (minute + 1) * MINUTE) for minute in missing)
    table = candles_at() if candles is None else candles
    return PartitionResult(PARTITION, verdict, table, spans, f"why {verdict}", provenance)


verdicts = st.sampled_from(get_args(Verdict))
results = st.builds(result_of, verdicts, st.integers(0, 9))


def test_accepted_verdicts_rank_before_refused_ones() -> None:
    assert len(set(VERDICT_ORDER)) == len(VERDICT_ORDER)
    ranks = {verdict: quality_rank(result_of(verdict)) for verdict in get_args(Verdict)}
    worst_accepted = max(rank for verdict, rank in ranks.items() if verdict in ACCEPTED)
    assert all(rank > worst_accepted for verdict, rank in ranks.items() if verdict not in ACCEPTED)


def test_verdict_outside_the_order_ranks_last() -> None:
    for verdict in get_args(Verdict):
        is_last = quality_rank(result_of(verdict))[0] == len(VERDICT_ORDER)
        assert is_last == (verdict in ("unfinished", "unreachable"))


def test_of_equal_verdicts_the_one_with_less_missing_ranks_first() -> None:
    assert quality_rank(result_of("lost", 1)) < quality_rank(result_of("lost", 1, 2))
    assert quality_rank(result_of("outage", 1, 2)) < quality_rank(result_of("lost", 1))


@pytest.mark.parametrize("verdict", ["complete", "listing", "delisted", "before_listing", "unproved"])
def test_conclusive_second_result_wins_and_its_reason_says_why_it_was_needed(verdict: Verdict) -> None:
    second = pick_better(result_of("lost", 3), result_of(verdict, provenance=ARCHIVE))
    assert (second.verdict, second.provenance) == (verdict, ARCHIVE)
    assert second.reason == "from archive (BTCUSDT-1m-1970-01-01.zip), because of rest: why lost"


def test_a_file_that_the_archive_does_not_have_is_nothing_to_remark() -> None:
    absent = replace(result_of("unreachable", provenance=ARCHIVE), has_no_file=True)
    second = result_of("complete")
    assert pick_better(absent, second) is second
    assert pick_better(replace(absent, has_no_file=False), second).reason.endswith(": why unreachable")


def test_conclusive_merged_result_wins_and_names_both_sources() -> None:
    first, second = result_of("lost", 3), result_of("lost", 5, provenance=ARCHIVE)
    merged = pick_better(first, second, result_of("complete"))
    assert merged.verdict == "complete"
    assert merged.reason.startswith("from rest and archive (BTCUSDT-1m-1970-01-01.zip) together")


@given(results, results, st.none() | results)
def test_best_inconclusive_result_wins_and_its_reason_comes_first(
    first: PartitionResult, second: PartitionResult, merged: PartitionResult | None
) -> None:
    candidates = [result for result in (first, second, merged) if result is not None]
    better = pick_better(first, second, merged)
    if any(result.is_conclusive for result in candidates[1:]):
        assert better.is_conclusive
    else:
        assert any(
            replace(better, reason=candidate.reason) == candidate and better.reason.startswith(candidate.reason)
            for candidate in candidates
        )
        assert quality_rank(better) == min(map(quality_rank, candidates))
        if better.is_accepted or all(candidate.verdict != "invalid" for candidate in candidates):
            assert any(better is candidate for candidate in candidates)


@pytest.mark.parametrize("verdict", ["lost", "unreachable", "unfinished"])
def test_reason_of_a_refused_result_names_what_is_invalid_in_the_other_source(verdict: Verdict) -> None:
    empty, defective = result_of("lost", 3), result_of("invalid", provenance=ARCHIVE)
    for first, second in ((empty, defective), (defective, empty)):
        better = pick_better(first, second)
        assert better.verdict == "lost"
        assert better.reason == "why lost; archive (BTCUSDT-1m-1970-01-01.zip): why invalid"
        assert pick_better(better, defective).reason == better.reason, "each reason is there once"
        assert pick_better(better, result_of(verdict, 3, 4)) is better
    assert pick_better(result_of("outage", 3), defective).reason == "why outage"
    assert pick_better(defective, result_of("complete")).reason.startswith("from rest, because of archive")


def test_first_of_equal_results_wins() -> None:
    first, second = result_of("outage", 3), result_of("outage", 3, provenance=ARCHIVE)
    assert pick_better(first, second) is first
    assert pick_better(first, second, result_of("outage", 4)) is first


def test_results_are_merged_only_if_each_may_fill_gaps_of_the_other() -> None:
    assert lack_different_candles(result_of("lost", 3), result_of("lost", 5))
    assert not lack_different_candles(result_of("lost", 3), result_of("lost", 3))
    assert not lack_different_candles(result_of("unbalanced"), result_of("lost", 3))
    assert not lack_different_candles(result_of("lost", 3), result_of("invalid"))


@pytest.mark.parametrize(("first_source", "second_source"), [(REST, ARCHIVE), (ARCHIVE, REST)])
def test_merged_candles_are_sorted_and_those_of_the_second_result_win(
    first_source: Provenance, second_source: Provenance
) -> None:
    first = result_of("lost", 1, provenance=first_source, candles=candles_at(0, 2, price=1))
    second = result_of("lost", 2, provenance=second_source, candles=candles_at(0, 1, price=2))
    candles, provenance = merge_candles(first, second)
    assert candles["open_time"].to_physical().to_list() == [0, MINUTE, 2 * MINUTE]
    assert candles["open"].to_list() == [2, 2, 1]
    assert provenance.source == f"{first_source.source}+{second_source.source}"
    assert (provenance.file, provenance.sha256, provenance.modified) == (ARCHIVE.file, ARCHIVE.sha256, 5)


def test_results_of_one_source_keep_its_name_when_merged() -> None:
    _, provenance = merge_candles(result_of("lost", 1), result_of("lost", 2))
    assert provenance == REST


def test_every_source_has_a_chain_that_ends_with_another_source() -> None:
    assert set(SOURCE_CHAINS) == set(get_args(Source))
    for chain in SOURCE_CHAINS.values():
        assert chain[0].applies_to(result_of("complete"))
        assert chain[-1].applies_to(result_of("lost", 1))
        assert not chain[-1].applies_to(result_of("complete"))
        assert chain[-1].step is not chain[0].step


def test_a_source_that_is_merged_twice_is_named_once() -> None:
    first = result_of("lost", 1, provenance=ARCHIVE, candles=candles_at(0, 2))
    second = result_of("lost", 0, candles=candles_at(1, 2))
    candles, provenance = merge_candles(first, second)
    third = result_of("lost", provenance=provenance, candles=candles)
    assert merge_candles(third, second)[1].source == "archive+rest"
    assert merge_candles(second, third)[1].source == "rest+archive"
