"""Alerts: the sensors ``run_failures`` and ``check_failures``, which post what failed to a webhook.

Both read events after a cursor, which moves past an event only once its alert was delivered. So a hook that is down
loses nothing: the next ticks try again, from the oldest alert on, as long as it takes. Only an alert that the hook
refuses by its form is given up after some ticks, with an error in the log of the tick, so that it does not block the
others. A process that is killed between the two delivers an alert twice.

Here belongs what is an alert, and when it is delivered. What does not belong here: how it is sent (``webhook``).
"""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable, Iterator, Mapping, Sequence, Set
from dataclasses import asdict, dataclass, field
from typing import Any, Final, Literal, NamedTuple

import dagster as dg
from pydantic import SecretStr

from binance_assets.model.markets import Market
from binance_assets.model.outside import from_markdown, printable
from binance_assets.model.series import Series
from binance_assets.model.wording import name_some
from binance_assets.orchestration import checks, freshness
from binance_assets.orchestration.coverage import coverage_key
from binance_assets.orchestration.dagster_internals.event_reads import check_evaluations_after, newest_check_evaluation
from binance_assets.orchestration.dagster_internals.runs import WILL_RETRY_TAG
from binance_assets.orchestration.event_cursor import last_settled_event
from binance_assets.orchestration.keys import asset_key
from binance_assets.orchestration.partitions import tagged_range
from binance_assets.orchestration.webhook import Undelivered, post
from binance_assets.settings import Settings

MOST_REFUSED: Final = 20
"""After how many ticks an alert is given up that the hook refuses by its form."""

_MAX_EVENTS: Final = 500
# Dagster ends a tick after a minute, and a delivery takes up to five seconds.
_TICK_SECONDS: Final = 40.0
_MAX_REASON: Final = 1_000
_MAX_NAMED: Final = 5
_MAX_PARTITIONS: Final = 100
_NO_HOOK: Final = "BINANCE_ASSETS_ALERT_URL is not set, so there is nowhere to send alerts"
_STEP_FAILURE: Final = dg.DagsterEventType.STEP_FAILURE
_RUN_FAILURE: Final = dg.DagsterEventType.RUN_FAILURE


@dataclass(frozen=True, slots=True)
class Alert:
    """What a hook receives.

    Attributes:
        kind: What failed.
        job: The job; None if no run evaluated the check.
        run_id: The run; None as above.
        asset: The asset; of a run over several, the first few.
        check: The check; None for a run.
        reason: Why it failed, in one line.
        partitions: Keys of partitions that are not there, or the range ``first...last`` of a run; the first hundred.
            For ``fresh``, the series that are too old.
    """

    kind: Literal["run_failure", "check_failure"]
    job: str | None
    run_id: str | None
    asset: str | None
    check: str | None
    reason: str
    partitions: tuple[str, ...] = ()

    def payload(self) -> dict[str, object]:
        """Return the JSON object, with the line ``text`` that Slack shows."""
        subject = f"{self.asset}: {self.check} failed" if self.check else f"run {self.run_id} of {self.job} failed"
        partitions = f" ({', '.join(self.partitions)})" if self.partitions and not self.check else ""
        return {"text": _for_slack(f"{subject}{partitions}: {self.reason}"), **asdict(self)}


def _for_slack(text: str) -> str:
    """Return a text with the three characters escaped of which Slack makes links and mentions."""
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")


@dataclass(slots=True)
class _Cursor:
    """Until where a sensor has delivered.

    Attributes:
        after: Storage id of the last event whose alert was delivered, or that needed none.
        refused: How many ticks have failed because the hook refuses the next alert.
        failed: The failed checks, each with the digest of what its last alert named.
    """

    after: int
    refused: int = 0
    failed: dict[str, str] = field(default_factory=dict)


class _Event(NamedTuple):
    """An event that was read: its alert, None if it needs none, and the new state of its check, "" if passed."""

    storage_id: int
    alert: Alert | None
    check: str = ""
    digest: str = ""


def alert_sensors(series: Mapping[Market, Sequence[Series]], settings: Settings) -> list[dg.SensorDefinition]:
    """Return the sensors ``run_failures`` and ``check_failures``.

    Args:
        series: The fetched and derived series of each market.
        settings: Name the hook.
    """
    watched = {asset_key(member).to_user_string() for members in series.values() for member in members}
    watched |= {coverage_key(market).to_user_string() for market in series}

    def failed_checks(instance: dg.DagsterInstance, cursor: _Cursor) -> Iterator[_Event]:
        return _check_events(instance, cursor, watched)

    return [
        _sensor(
            "run_failures",
            "Posts each failed run of this instance to the hook BINANCE_ASSETS_ALERT_URL, unless Dagster retries it.",
            settings.alert_url,
            _newest_failure,
            _run_events,
        ),
        _sensor(
            "check_failures",
            "Posts to the hook BINANCE_ASSETS_ALERT_URL when a check `gap_free` or `fresh` fails, and when what it "
            "names changes.",
            settings.alert_url,
            newest_check_evaluation,
            failed_checks,
        ),
    ]


def _sensor(
    name: str,
    description: str,
    url: SecretStr | None,
    newest: Callable[[dg.DagsterInstance], int],
    read: Callable[[dg.DagsterInstance, _Cursor], Iterator[_Event]],
) -> dg.SensorDefinition:
    """Return a sensor; its first tick remembers the newest event, so that nothing of the past is an alert."""

    @dg.sensor(
        name=name,
        minimum_interval_seconds=30,
        default_status=dg.DefaultSensorStatus.STOPPED,
        description=description,
    )
    def alerts(context: dg.SensorEvaluationContext) -> dg.SensorResult | dg.SkipReason:
        if url is None:
            return dg.SkipReason(_NO_HOOK)
        if context.cursor:
            cursor = _Cursor(**json.loads(context.cursor))
            outcome = _deliver(context, url, cursor, read(context.instance, cursor))
        else:
            cursor = _Cursor(newest(context.instance))
            outcome = "alerts begin with what fails from now on"
        return dg.SensorResult(skip_reason=dg.SkipReason(outcome), cursor=json.dumps(asdict(cursor)))

    return alerts


def _deliver(context: dg.SensorEvaluationContext, url: SecretStr, cursor: _Cursor, events: Iterator[_Event]) -> str:
    """Send the alerts of events in order, until one is not delivered; move the cursor; return what happened."""
    delivered, deadline = 0, time.monotonic() + _TICK_SECONDS
    for event in events:
        if time.monotonic() > deadline:
            break  # the next tick goes on from here
        problem = post(url, event.alert.payload()) if event.alert else None
        if problem and not _is_given_up(cursor, problem):
            message = f"an alert was not delivered and is sent again: {problem.reason}; delivered before: {delivered}"
            context.log.warning(message)
            return message
        if problem and event.alert:
            context.log.error(f"given up after {MOST_REFUSED} ticks, {problem.reason}: {event.alert.payload()['text']}")
        delivered += event.alert is not None and problem is None
        _move(cursor, event)
    return f"alerts delivered: {delivered}" if delivered else "nothing new failed"


def _is_given_up(cursor: _Cursor, problem: Undelivered) -> bool:
    cursor.refused = cursor.refused + 1 if problem.is_refused else 0
    return cursor.refused >= MOST_REFUSED


def _move(cursor: _Cursor, event: _Event) -> None:
    cursor.after, cursor.refused = event.storage_id, 0
    if event.digest:
        cursor.failed[event.check] = event.digest
    else:
        cursor.failed.pop(event.check, None)


def _end_of_events(instance: dg.DagsterInstance, cursor: _Cursor) -> int | None:
    """Return before which event to read, so that the cursor passes no event that appears later; None to read all."""
    settled = last_settled_event(instance, cursor.after)
    return None if settled is None else settled + 1


def _newest_failure(instance: dg.DagsterInstance) -> int:
    return max((record.storage_id for record in instance.fetch_run_status_changes(_RUN_FAILURE, 1).records), default=0)


def _run_events(instance: dg.DagsterInstance, cursor: _Cursor) -> Iterator[_Event]:
    records_filter = dg.RunStatusChangeRecordsFilter(
        _RUN_FAILURE, after_storage_id=cursor.after, before_storage_id=_end_of_events(instance, cursor)
    )
    for record in instance.fetch_run_status_changes(records_filter, _MAX_EVENTS, ascending=True).records:
        run = instance.get_run_by_id(record.run_id)  # None if the run was deleted
        # Dagster starts such a run again; only the failure of the last attempt is an alert. The tag follows the event
        # within milliseconds; a tick in between posts an attempt too many.
        is_final = run is not None and run.tags.get(WILL_RETRY_TAG) != "true"
        alert = run_alert(instance, run, record.event_log_entry.message) if run is not None and is_final else None
        yield _Event(record.storage_id, alert)


def run_alert(instance: dg.DagsterInstance, run: dg.DagsterRun, message: str) -> Alert:
    """Return the alert of a failed run.

    Args:
        instance: The instance, which has the failure of the run's step.
        run: The run.
        message: Why it failed, if no step did.
    """
    names = sorted(key.to_user_string() for key in run.asset_selection or ())
    covered = tagged_range(run.tags)
    return Alert(
        kind="run_failure",
        job=printable(run.job_name),
        run_id=run.run_id,
        asset=name_some(map(printable, names), _MAX_NAMED) if names else None,
        check=None,
        reason=printable(_reason_of_step(instance, run.run_id) or message, _MAX_REASON),
        partitions=tuple(map(printable, ("...".join(dict.fromkeys(covered)),))) if covered else (),
    )


def _reason_of_step(instance: dg.DagsterInstance, run_id: str) -> str:
    """Return why the first failed step of a run failed: the description of its failure, or its error."""
    for record in instance.get_records_for_run(run_id, of_type=_STEP_FAILURE, limit=1).records:
        data: Any = record.event_log_entry.get_dagster_event().event_specific_data
        described = data.user_failure_data.description if data.user_failure_data else None
        error = data.error.cause or data.error if data.error else None
        return str(described or (error.message if error else ""))
    return ""


def _check_events(instance: dg.DagsterInstance, cursor: _Cursor, watched: Set[str]) -> Iterator[_Event]:
    """Yield the evaluations after the cursor; each is compared with the cursor as it is then."""
    before = _end_of_events(instance, cursor)
    for storage_id, run_id, evaluation in check_evaluations_after(instance, cursor.after, _MAX_EVENTS, before):
        asset, check = evaluation.asset_key.to_user_string(), evaluation.check_name
        if asset not in watched or check not in (checks.CHECK_NAME, freshness.CHECK_NAME):
            yield _Event(storage_id, None)
            continue
        name, digest = f"{asset}:{check}", digest_of(evaluation)
        is_new = bool(digest) and digest != cursor.failed.get(name)
        run = instance.get_run_by_id(run_id) if is_new else None
        yield _Event(storage_id, check_alert(evaluation, run) if is_new else None, name, digest)


def check_alert(evaluation: dg.AssetCheckEvaluation, run: dg.DagsterRun | None) -> Alert:
    """Return the alert of a failed check; ``run`` has evaluated it, None if it was evaluated outside a run."""
    return Alert(
        kind="check_failure",
        job=printable(run.job_name) if run else None,
        run_id=run.run_id if run else None,
        asset=evaluation.asset_key.to_user_string(),
        check=evaluation.check_name,
        reason=printable(from_markdown(evaluation.description or "no reason is recorded"), _MAX_REASON),
        partitions=tuple(_named(evaluation)[:_MAX_PARTITIONS]),
    )


def digest_of(evaluation: dg.AssetCheckEvaluation) -> str:
    """Return a digest of what a failed evaluation names; "" if the check passed.

    That of ``gap_free`` covers all absent partitions, of which its tables may name only the first.
    """
    if evaluation.passed:
        return ""
    named = checks.named_digest(evaluation)
    text = "\n".join(_named(evaluation)) if named is None else named
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def _named(evaluation: dg.AssetCheckEvaluation) -> list[str]:
    """Return the partitions, or the series, in the tables of an evaluation."""
    tables = [(evaluation.metadata.get(name), column) for name, column in _TABLES]
    return sorted(
        {
            printable(record.data.get(column, ""))
            for table, column in tables
            if isinstance(table, dg.TableMetadataValue)
            for record in table.records
        }
    )


# The metadata of the checks `gap_free` and `fresh` that name what fails, each with the column of the names.
_TABLES: Final = (("refused", "day"), ("absent", "day"), ("series", "series"))
