"""What a run in another process has recorded: of a step that began again, and of a run that was started again."""

import dagster as dg

from binance_assets.candles.columns import empty_candles
from binance_assets.model.partitions import Partition, partition_for_key
from binance_assets.model.results import PartitionResult, Verdict
from binance_assets.model.series import parse_series
from binance_assets.orchestration.events import refusal
from binance_assets.orchestration.keys import asset_key
from binance_assets.orchestration.metrics import RunMetrics
from binance_assets.orchestration.partitions import DAILY
from binance_assets.orchestration.recorded_outcome import RecordedOutcome, read_outcome

BTC = parse_series("spot/BTCUSDT/1h")
FIRST, SECOND = (partition_for_key(key, BTC.interval) for key in ("2024-01-01", "2024-01-02"))


def refused(day: Partition, verdict: Verdict = "lost") -> PartitionResult:
    return PartitionResult(day, verdict, empty_candles(BTC.market), reason="no candles")


def outcome(*days: Partition, is_at_its_end: bool) -> RecordedOutcome:
    metrics = {BTC: RunMetrics(1, 1, 1, 0, None, 24, 1.0)} if is_at_its_end else {}
    return RecordedOutcome(metrics, {BTC: {day: refused(day) for day in days}} if days else {}, [])


def test_a_step_that_begins_again_has_the_refusals_of_its_last_beginning(instance: dg.DagsterInstance) -> None:
    """As one whose connection to Postgres was lost: it fetches again what it had refused."""

    @dg.asset(key=asset_key(BTC), partitions_def=DAILY)
    def hours(context: dg.AssetExecutionContext) -> None:
        again = context.retry_number > 0
        for day in (SECOND,) if again else (FIRST, SECOND):
            context.log_event(refusal(asset_key(BTC), refused(day)))
        if not again:
            raise dg.RetryRequested

    result = dg.materialize([hours], instance=instance, partition_key="2024-01-02")
    assert result.success
    assert list(read_outcome(instance, result.run_id, [BTC]).refused[BTC]) == [SECOND]


def test_another_attempt_replaces_what_it_has_fetched_again() -> None:
    crashed = outcome(FIRST, SECOND, is_at_its_end=False)
    assert list(crashed.followed_by(outcome(SECOND, is_at_its_end=True)).refused[BTC]) == [SECOND]
    assert crashed.followed_by(outcome(is_at_its_end=True)).refused == {}


def test_another_attempt_that_crashed_as_well_adds_to_what_is_known() -> None:
    crashed = outcome(FIRST, is_at_its_end=False).followed_by(outcome(FIRST, SECOND, is_at_its_end=False))
    assert list(crashed.refused[BTC]) == [FIRST, SECOND]


def test_a_series_that_was_done_before_the_crash_keeps_its_outcome() -> None:
    before = outcome(FIRST, is_at_its_end=True)
    after = before.followed_by(RecordedOutcome())
    assert (after.metrics, list(after.refused[BTC])) == (before.metrics, [FIRST])
