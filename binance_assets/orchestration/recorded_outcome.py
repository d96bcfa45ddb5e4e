"""The outcome of a run that another process has executed, as Dagster has recorded it.

Here belongs the translation from events back to results and numbers, which a run in this process passes to a listener
(``progress``). What does not belong here: the events themselves (``events``), and when a run has ended
(``queued_runs``).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import dagster as dg

from binance_assets.model.outside import first_line
from binance_assets.model.partitions import Partition
from binance_assets.model.results import PartitionResult
from binance_assets.model.series import Series
from binance_assets.orchestration.checks import CHECK_NAME
from binance_assets.orchestration.events import refused_result
from binance_assets.orchestration.keys import asset_key, op_name
from binance_assets.orchestration.metrics import RunMetrics
from binance_assets.orchestration.runs import failure_message

_KINDS: Final = {
    dg.DagsterEventType.ASSET_CHECK_EVALUATION,
    dg.DagsterEventType.ASSET_OBSERVATION,
    dg.DagsterEventType.STEP_FAILURE,
    dg.DagsterEventType.STEP_RESTARTED,
    dg.DagsterEventType.ENGINE_EVENT,
    dg.DagsterEventType.RUN_FAILURE,
}
_EVENTS_PER_READ: Final = 1_000


@dataclass(frozen=True, slots=True)
class RecordedOutcome:
    """What a run has recorded.

    Attributes:
        metrics: What it did for each series whose step came to its end.
        refused: The partitions that it did not write, by series; each with its last result.
        failures: One line for each step that failed for a reason other than refused partitions.
    """

    metrics: dict[Series, RunMetrics] = field(default_factory=dict)
    refused: dict[Series, dict[Partition, PartitionResult]] = field(default_factory=dict)
    failures: list[str] = field(default_factory=list)

    def followed_by(self, other: RecordedOutcome) -> RecordedOutcome:
        """Return the outcome of a run and of the next attempt, which executes only the steps that have not succeeded.

        A step that comes to its end in the next attempt has fetched again what was refused before.
        """
        before = {series: of_series for series, of_series in self.refused.items() if series not in other.metrics}
        refused = {
            series: before.get(series, {}) | other.refused.get(series, {}) for series in {**before, **other.refused}
        }
        return RecordedOutcome(self.metrics | other.metrics, refused, other.failures)


def read_outcome(instance: dg.DagsterInstance, run_id: str, series: Sequence[Series]) -> RecordedOutcome:
    """Return what a run that has ended recorded of ``series``."""
    by_key, by_step = {asset_key(member): member for member in series}, {op_name(member): member for member in series}
    outcome, engine = RecordedOutcome(), ""
    for event in _events(instance, run_id):
        member = by_key.get(event.asset_key) if event.asset_key else None
        data: Any = event.event_specific_data
        if event.event_type == dg.DagsterEventType.ASSET_CHECK_EVALUATION:
            member = by_key.get(data.asset_key)
            if member is not None and data.check_name == CHECK_NAME and "requests" in data.metadata:
                outcome.metrics[member] = RunMetrics.from_metadata(data.metadata)
        elif event.event_type == dg.DagsterEventType.ASSET_OBSERVATION:
            result = refused_result(member, data.asset_observation) if member is not None else None
            if member is not None and result is not None:
                outcome.refused.setdefault(member, {})[result.partition] = result
        elif event.event_type == dg.DagsterEventType.STEP_RESTARTED:  # it fetches again what it refused
            if (restarted := by_step.get(event.step_key or "")) is not None:
                outcome.refused.pop(restarted, None)
        elif event.event_type == dg.DagsterEventType.ENGINE_EVENT:
            engine = _engine_message(event)
        elif message := failure_message(event):
            # A process that died cannot report its end. The one that does reports the cause right before.
            is_from_outside = event.event_type == dg.DagsterEventType.RUN_FAILURE and data is None
            outcome.failures.append(f"{message} {engine}".strip() if is_from_outside else message)
    return outcome


def _engine_message(event: dg.DagsterEvent) -> str:
    """Return what Dagster reports about the process of a run: in one line, with the error that it had."""
    error = getattr(event.event_specific_data, "error", None)
    texts = [event.message or "", error.message if error else ""]
    return ": ".join(first_line(text).rstrip(".") for text in texts if text.strip())


def _events(instance: dg.DagsterInstance, run_id: str) -> Iterator[dg.DagsterEvent]:
    cursor, has_more = None, True
    while has_more:
        read = instance.get_records_for_run(run_id, cursor, _KINDS, _EVENTS_PER_READ)
        cursor, has_more = read.cursor, read.has_more
        for record in read.records:
            yield record.event_log_entry.get_dagster_event()
