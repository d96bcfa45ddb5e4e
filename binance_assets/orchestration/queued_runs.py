"""Runs in the queue of the instance: submitted here, executed by whatever its launcher starts, followed to their end.

A download of many series becomes a run for each series, or for some of them together if their range is short, so that
several workers share it. A run that is under way already for the same partitions is followed instead of a second one.

Here belongs which runs are submitted, how they are followed, and how they are canceled. What does not belong here: runs
in this process (``runs``), and what a run has recorded (``recorded_outcome``).
"""

from __future__ import annotations

import threading
import time
import uuid
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field
from typing import Any, Final

import dagster as dg

from binance_assets.ingest.request import DownloadPlan
from binance_assets.model.outside import MESSAGE, printable, reason_of
from binance_assets.model.series import Series
from binance_assets.model.wording import name_some
from binance_assets.orchestration.backfill import report_known, runs_for
from binance_assets.orchestration.checks import refresh_checks
from binance_assets.orchestration.dagster_internals.code_location import LaunchTarget, launch_target
from binance_assets.orchestration.dagster_internals.event_reads import partitions_reported
from binance_assets.orchestration.dagster_internals.instance import seconds_since_daemon
from binance_assets.orchestration.dagster_internals.runs import AUTO_RETRY_RUN_ID_TAG, MAX_RETRIES_TAG, WILL_RETRY_TAG
from binance_assets.orchestration.jobs import job_name
from binance_assets.orchestration.keys import asset_key, op_name
from binance_assets.orchestration.partitions import partition_kind, range_tags, tagged_range
from binance_assets.orchestration.progress import Follower
from binance_assets.orchestration.recorded_outcome import RecordedOutcome, read_outcome
from binance_assets.orchestration.runs import RangeRun
from binance_assets.settings import ConfigurationError, Source
from binance_assets.storage.lake import Lake
from binance_assets.waiting import Wait, phase, waits

LAUNCH_TAG: Final = "binance_assets/launch"
"""The tag of the runs that a command has put into the queue; all runs of a command have the same value."""

MOST_TOGETHER: Final = 100
"""The most partitions of a run over several series, counted over all of them. The start of a run takes about 2.5
seconds, in which its process could fetch as many."""

# Dagster's daemon reports every thirty seconds; while it launches runs, it may be late.
SILENCE_SECONDS: Final = 120.0
_POLL_SECONDS: Final = 0.5
_RUNS_PER_READ: Final = 500
# Thousands of runs take a second to read. Between two reads, the command rests several times as long.
_RESTS_PER_READ: Final = 5
_LONGEST_REST_SECONDS: Final = 10.0
# A database that restarts is back within seconds. The runs wait for it as well, so they are not canceled at once.
_AWAY_SECONDS: Final = 60.0
# Beyond it, some days would be requested twice, of which the second run skips what is there.
_MOST_UNDER_WAY: Final = 10_000
# Dagster decides right after a failure whether it starts the run again, and does so within seconds.
_DECISION_SECONDS: Final = 5.0
_RETRY_SECONDS: Final = 60.0
_CANCEL_SECONDS: Final = 10.0
_MAX_NAMED: Final = 3

_QUEUED: Final = (dg.DagsterRunStatus.NOT_STARTED, dg.DagsterRunStatus.QUEUED)
# Not those that were created only: a process that was killed may have left them.
_UNDER_WAY: Final = [dg.DagsterRunStatus.QUEUED, dg.DagsterRunStatus.STARTING, dg.DagsterRunStatus.STARTED]


@dataclass(slots=True)
class QueuedRun:
    """A run that is followed, with the runs that Dagster starts in its place after a crash.

    Attributes:
        series: The series of this command that the run fetches.
        partitions: How many partitions this command lacks of them.
        attempts: The ids of its runs; the last one counts.
        is_own: Whether this command has submitted it, and so cancels it.
        run: The last run as it was read last; None if it was deleted, or not read yet.
        failed_at: When its failure was first seen, monotonic seconds.
        is_over: Whether it has ended and is not started again.
        done: How many partitions it had written or refused when it was read last.
    """

    series: tuple[Series, ...]
    partitions: int
    attempts: list[str]
    is_own: bool
    run: dg.DagsterRun | None = None
    failed_at: float | None = None
    is_over: bool = False
    done: int = 0

    @property
    def run_id(self) -> str:
        """The id of the last run."""
        return self.attempts[-1]

    def update(self, run: dg.DagsterRun | None, has_retries: bool, now: float) -> None:
        """Take over what was read of the last run; the next attempt follows a crash.

        Args:
            run: The last run; None if it was deleted.
            has_retries: Whether the instance starts runs again.
            now: Monotonic seconds.
        """
        self.run = run
        if run is None or not run.is_finished:
            self.is_over = run is None
            return
        will_retry, next_attempt = run.tags.get(WILL_RETRY_TAG), run.tags.get(AUTO_RETRY_RUN_ID_TAG)
        if run.status == dg.DagsterRunStatus.FAILURE and has_retries and next_attempt:
            self.attempts.append(next_attempt)
            self.failed_at = None
        elif run.status != dg.DagsterRunStatus.FAILURE or not has_retries or will_retry == "false":
            self.is_over = True
        else:
            self.failed_at = self.failed_at or now
            self.is_over = now - self.failed_at > (_RETRY_SECONDS if will_retry == "true" else _DECISION_SECONDS)


@dataclass(slots=True)
class Download:
    """The runs of a command, and how many partitions they are asked for."""

    instance: dg.DagsterInstance
    total: int
    runs: list[QueuedRun] = field(default_factory=list)

    @property
    def left(self) -> list[QueuedRun]:
        """The runs that are not over."""
        return [queued for queued in self.runs if not queued.is_over]

    @property
    def done(self) -> int:
        """How many partitions the runs have written or refused."""
        return min(self.total, sum(queued.done for queued in self.runs))

    def read(self) -> None:
        """Read the state of the runs that are not over, and what they have done."""
        left = self.left
        ids = [queued.run_id for queued in left]
        found: dict[str, dg.DagsterRun] = {}
        for start in range(0, len(ids), _RUNS_PER_READ):
            some = dg.RunsFilter(run_ids=ids[start : start + _RUNS_PER_READ])
            found |= {run.run_id: run for run in self.instance.get_runs(some)}
        for queued in left:
            queued.update(found.get(queued.run_id), self.instance.run_retries_enabled, time.monotonic())
        for start in range(0, len(left), _RUNS_PER_READ):
            self._count(left[start : start + _RUNS_PER_READ])

    def _count(self, runs: Sequence[QueuedRun]) -> None:
        """Count what runs have done of their series; one that is followed may have done more than was asked for."""
        attempts = [run_id for queued in runs for run_id in queued.attempts]
        assets = {asset_key(member) for queued in runs for member in queued.series}
        reported = partitions_reported(self.instance, attempts, assets)
        for queued in runs:
            queued.done = min(queued.partitions, sum(reported.get(run_id, 0) for run_id in queued.attempts))


def check_queue(instance: dg.DagsterInstance) -> None:
    """Check that the instance has a queue, and that a daemon takes runs from it.

    Raises:
        ConfigurationError: It has none, or no daemon runs.
    """
    if not isinstance(instance.run_coordinator, dg.QueuedRunCoordinator):
        raise ConfigurationError(
            "--launch needs the queue of Dagster, and dagster.yaml names another run_coordinator; remove it there, or "
            "download without --launch; nothing was queued"
        )
    silence = seconds_since_daemon(instance)
    if _is_silent(silence):
        raise ConfigurationError(
            f"{_silent(silence)}. Start it (binance-assets ui, or dagster-daemon run), or download without --launch; "
            "nothing was queued"
        )


def _is_silent(silence: float | None) -> bool:
    return silence is None or silence > SILENCE_SECONDS


def _silent(silence: float | None) -> str:
    since = "has never run" if silence is None else f"last reported {silence:,.0f} s ago"
    return f"nothing takes runs from the queue: Dagster's daemon {since}"


def launch_missing(
    instance: dg.DagsterInstance,
    target: Sequence[str],
    lake: Lake,
    plans: Sequence[DownloadPlan],
    refresh: bool,
    source: Source | None,
    follower: Follower,
) -> list[str]:
    """Let other processes fetch the missing partitions of ``plans``; return when they have.

    Args:
        instance: The instance, whose queue and launcher are used; it passed :func:`check_queue`.
        target: The workspace, as arguments of Dagster's command line.
        lake: The lake that the runs write to.
        plans: A plan for each requested series.
        refresh: Whether to fetch present partitions again.
        source: Where the candles come from; None for what the code location names.
        follower: Receives the progress, and what became of each series.

    Returns:
        One line for each run or step that failed for a reason other than refused partitions.

    Raises:
        ConfigurationError: No code location has the series, or it refuses a run.
        KeyboardInterrupt: Interrupted; the runs that this call has submitted are canceled.
    """
    report_known(instance, lake, plans)
    pending = [plan for plan in plans if plan.pending]
    if not pending:
        return []
    download = Download(instance, sum(len(plan.missing) for plan in plans))
    try:
        with ExitStack() as until_submitted:
            with phase("loading the code location"):
                jobs = {asset_key(plan.series): _job(plan.series) for plan in pending}
                location = until_submitted.enter_context(launch_target(instance, target, jobs))
            _submit(download, location, pending, refresh, source, follower)
        with phase("following runs of Dagster"):
            follow(download, follower)
    except BaseException as error:
        is_interrupt = isinstance(error, KeyboardInterrupt)
        with phase("interrupted; canceling runs" if is_interrupt else "canceling runs"):
            done = _canceled(download) if download.runs else ""
        if is_interrupt and done:
            raise KeyboardInterrupt(f"interrupted; {done}") from None
        if done:
            follower.note(done)
        raise
    with phase("reading what the runs recorded"):
        return [failure for queued in download.runs for failure in _conclude(instance, lake, queued, follower)]


def _job(series: Series) -> str:
    return job_name(series.market, partition_kind(series.interval))


def _submit(
    download: Download,
    location: LaunchTarget,
    plans: Sequence[DownloadPlan],
    refresh: bool,
    source: Source | None,
    follower: Follower,
) -> None:
    """Put a run for each series, or for some together, into the queue; leave out what is under way."""
    instance, command = download.instance, str(uuid.uuid4())
    under_way = _runs_under_way(instance)
    followed: dict[str, list[Series]] = {}
    left = []
    for plan in plans:
        candidates = under_way.get(asset_key(plan.series), ())
        run = next((run for run in candidates if covers(run, plan, refresh, source)), None)
        if run is None:
            left.append(plan)
        else:
            followed.setdefault(run.run_id, []).append(plan.series)
    lacked = {plan.series: len(plan.missing) for plan in plans}
    for run_id, series in followed.items():
        follower.note(f"{name_some(series, _MAX_NAMED)}: run {run_id} is under way for the same days; following it")
        partitions = sum(lacked[member] for member in series)
        download.runs.append(QueuedRun(tuple(series), partitions, [run_id], is_own=False))
    runs = list(runs_for(left, not refresh, MOST_TOGETHER, source))
    for number, part in enumerate(runs, 1):
        with phase(f"putting runs into the queue: {number:,} of {len(runs):,}"):
            partitions = sum(lacked[member] for member in part.series)
            queued = QueuedRun(part.series, partitions, [str(uuid.uuid4())], is_own=True)
            download.runs.append(queued)  # before it exists, so that an interrupt does not miss it
            location.submit(queued.run_id, part.job, _keys(part), part.steps_config, _tags(part, command))


def _runs_under_way(instance: dg.DagsterInstance) -> dict[dg.AssetKey, list[dg.DagsterRun]]:
    """Return the runs that are queued or running, by asset."""
    by_asset: dict[dg.AssetKey, list[dg.DagsterRun]] = {}
    for run in instance.get_runs(dg.RunsFilter(statuses=_UNDER_WAY), limit=_MOST_UNDER_WAY):
        for asset in run.asset_selection or ():
            by_asset.setdefault(asset, []).append(run)
    return by_asset


def _keys(run: RangeRun) -> list[dg.AssetKey]:
    return [asset_key(member) for member in run.series]


def _tags(run: RangeRun, command: str) -> dict[str, str]:
    return {**range_tags(run.first.key, run.last.key), LAUNCH_TAG: command}


def covers(run: dg.DagsterRun, plan: DownloadPlan, refresh: bool, source: Source | None) -> bool:
    """Return whether a run fetches all that a plan lacks, from the same source.

    Args:
        run: A run that is queued or running.
        plan: What is lacking.
        refresh: Whether the run has to fetch present partitions again.
        source: The source that was asked for; None for what the code location names.
    """
    covered, pending = tagged_range(run.tags), plan.pending
    if covered is None or asset_key(plan.series) not in (run.asset_selection or ()):
        return False
    config: Mapping[str, Any] = run.run_config
    step = config.get("ops", {}).get(op_name(plan.series), {}).get("config", {})
    is_same_request = step.get("source") == source and not (refresh and step.get("only_missing", False))
    return is_same_request and covered[0] <= pending[0].key and pending[-1].key <= covered[1]


def follow(download: Download, follower: Follower) -> None:
    """Wait until all runs are over, and show how far they are.

    Raises:
        Exception: The storage of Dagster could not be read for a minute.
    """
    shown, read_at = 0, time.monotonic()
    with waits() as announce:
        while True:
            began = time.monotonic()
            try:
                download.read()
                silence, read_at = seconds_since_daemon(download.instance), time.monotonic()
            except Exception as error:  # each storage raises what its database does
                if began - read_at > _AWAY_SECONDS:
                    raise
                announce(Wait(f"the storage of Dagster cannot be read: {reason_of(error)}"))
            else:
                done = download.done
                follower.advance(done - shown)
                shown = done
                if not download.left:
                    return
                announce(Wait(in_words(Counter(map(_state, download.runs)), silence)))
            rest = _RESTS_PER_READ * (time.monotonic() - began)
            time.sleep(min(max(_POLL_SECONDS, rest), _LONGEST_REST_SECONDS))


def _state(queued: QueuedRun) -> str:
    """Return what a run does, in one word of the progress; empty if it is over."""
    if queued.is_over or queued.run is None:
        return ""
    if queued.run.is_finished:
        return "waiting for another attempt"
    if queued.run.status in _QUEUED:
        return "queued"
    return {"STARTED": "running", "STARTING": "starting"}.get(queued.run.status.value, "ending")


def in_words(states: Mapping[str, int], silence: float | None) -> str:
    """Return in one line what a command waits for.

    Args:
        states: How many runs are in each state; those that are over have an empty one.
        silence: How long ago the daemon last reported, in seconds; None if it never did.
    """
    names = ("queued", "starting", "running", "ending", "waiting for another attempt")
    parts = [(states[name], name) for name in names if states.get(name)]
    texts = [f"{count:,} {name}" for count, name in parts]
    if parts:
        count, name = parts[0]
        texts[0] = f"{count:,} run{'s' if count > 1 else ''} {name}"
    text = ", ".join(texts)
    return f"{text}; {_silent(silence)}" if states.get("queued") and _is_silent(silence) else text


def _conclude(instance: dg.DagsterInstance, lake: Lake, queued: QueuedRun, follower: Follower) -> list[str]:
    """Pass on what became of the series of a run that is over; return why the run or its steps failed."""
    outcome = RecordedOutcome()
    for run_id in queued.attempts:
        outcome = outcome.followed_by(read_outcome(instance, run_id, queued.series))
    for series, metrics in outcome.metrics.items():
        follower.finished(series, metrics)
    for series, results in outcome.refused.items():
        for result in results.values():
            follower.partition_declined(series, result)
    run = queued.run
    if run is None:
        return [f"run {queued.run_id} was deleted before it ended"]
    if not run.is_success:
        # Dagster shows each partition that the run did not materialize as failed, also those that are present.
        refresh_checks(instance, lake, queued.series)
    if run.status == dg.DagsterRunStatus.CANCELED:
        return [f"run {run.run_id} was canceled"]
    return [printable(f"run {run.run_id}: {failure}", MESSAGE) for failure in outcome.failures]


def _canceled(download: Download) -> str:
    """Cancel the runs that this command has submitted; return in one line what was done."""
    try:
        return cancel(download)
    except Exception as error:  # each storage raises what its database does
        return f"the runs could not be canceled and continue: {reason_of(error)}"


def cancel(download: Download) -> str:
    """Cancel the runs that this command has submitted, the queued ones first; return in one line what was done.

    A run that is executed elsewhere ends by itself once it has noticed; that takes about two seconds.
    """
    download.read()
    unfinished, asked = [queued for queued in download.left if queued.is_own], set[str]()
    _end(download.instance, unfinished, asked)
    deadline = time.monotonic() + _CANCEL_SECONDS
    while (running := [queued for queued in unfinished if not queued.is_over]) and time.monotonic() < deadline:
        download.read()
        _end(download.instance, running, asked)
        time.sleep(_POLL_SECONDS / 5)
    ended = [queued.run for queued in unfinished if queued.run is not None]
    canceled = sum(run.status == dg.DagsterRunStatus.CANCELED for run in ended)
    return _message(canceled, [queued.run_id for queued in running], download.done, download.total)


def _end(instance: dg.DagsterInstance, runs: Sequence[QueuedRun], asked: set[str]) -> None:
    """Cancel the runs that are queued, then ask the others to end, each once.

    Args:
        instance: The instance.
        runs: The runs, as they were read last.
        asked: The ids of those that were asked; more are added.
    """
    others = []
    for run in (queued.run for queued in runs if queued.run is not None and queued.run.run_id == queued.run_id):
        if run.status in _QUEUED:
            _cancel_queued(instance, run)
        elif run.run_id not in asked:
            others.append(run)
    for run in others:
        asked.add(run.run_id)
        # One that is terminated while its process starts may end as a failure, which Dagster would start again.
        ended_already = {WILL_RETRY_TAG: "false"} if run.is_finished else {}
        instance.add_run_tags(run.run_id, {MAX_RETRIES_TAG: "0", **ended_already})
        if not run.is_finished:
            # In a thread, because the process that executes the run may not respond.
            terminate = _terminating(instance, run.run_id)
            threading.Thread(target=terminate, name="cli-terminate", daemon=True).start()


def _message(canceled: int, left: Sequence[str], done: int, total: int) -> str:
    runs = f"{canceled:,} run was" if canceled == 1 else f"{canceled:,} runs were"
    text = f"{runs} canceled, and {done:,} of {total:,} partitions were done"
    if left:
        text += f"; not ended yet: {name_some((f'run {run_id}' for run_id in left), _MAX_NAMED)}"
    return f"{text}; the same command continues from there"


def _cancel_queued(instance: dg.DagsterInstance, run: dg.DagsterRun) -> None:
    if run.status == dg.DagsterRunStatus.NOT_STARTED:
        instance.report_run_canceled(run, "Interrupted on the command line.")
    else:
        instance.run_coordinator.cancel_run(run.run_id)


def _terminating(instance: dg.DagsterInstance, run_id: str) -> Callable[[], None]:
    def terminate() -> None:
        with suppress(Exception):  # it is named as not ended
            instance.run_coordinator.cancel_run(run_id)

    return terminate
