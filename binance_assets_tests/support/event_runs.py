"""Runs whose events the tests of the event log compare: an asset of days that reports them as the candles assets do.

``python -m binance_assets_tests.support.event_runs FOLDER FIRST LAST [own] [kill POINT]`` executes a run in a process
of its own, which kills itself at a point of a batch: ``before`` its transactions, ``within`` them, or ``between`` the
two commits.
"""

# No `from __future__ import annotations` here: Dagster reads the types of an asset's arguments when it is defined.
import os
import signal
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import dagster as dg
import sqlalchemy as db
from pydantic import Field

from binance_assets.orchestration.checks import CHECK_NAME, gap_free_spec
from binance_assets.orchestration.dagster_internals.event_writes import log_materializations
from binance_assets.orchestration.event_log import BatchingEventLog
from binance_assets.orchestration.partitions import DAILY, range_tags

DAYS = dg.AssetKey(["spot", "BTCUSDT", "1m"])
OP = DAYS.to_python_identifier()
BATCH = 4
"""How many days the asset reports at once."""

Watch = Callable[[dg.AssetExecutionContext], None]


class DaysConfig(dg.Config):
    """How a run over days ends.

    Attributes:
        refused: Keys that are not reported; the check names them.
        fails_at: The key at which the step fails.
    """

    refused: list[str] = Field(default_factory=list)
    fails_at: str = ""


def days_asset(watch: Watch | None = None) -> dg.AssetsDefinition:
    """Return the asset; ``watch`` is called within its step, after the last event of a day."""

    @dg.asset(
        key=DAYS,
        partitions_def=DAILY,
        backfill_policy=dg.BackfillPolicy.single_run(),
        check_specs=[gap_free_spec(DAYS)],
        output_required=False,
    )
    def days(context: dg.AssetExecutionContext, config: DaysConfig) -> Iterator[dg.DagsterEvent | dg.AssetCheckResult]:
        keys = [key for key in context.partition_keys if key not in config.refused]
        for start in range(0, len(keys), BATCH):
            batch = keys[start : start + BATCH]
            yield from log_materializations(
                context,
                [dg.AssetMaterialization(DAYS, partition=key, metadata={"rows": len(key)}) for key in batch],
            )
            if config.fails_at in batch:
                raise dg.Failure("the disk is full", allow_retries=False)
        if watch is not None:
            watch(context)
        passed = not config.refused
        yield dg.AssetCheckResult(passed=passed, check_name=CHECK_NAME, metadata={"refused": config.refused})

    return days


def daily_job() -> dg.JobDefinition:
    """Return the job over the asset, as another process would load it."""
    return _job(None)


def _job(watch: Watch | None) -> dg.JobDefinition:
    job = dg.define_asset_job("spot_daily", dg.AssetSelection.assets(DAYS))
    definitions = dg.Definitions(assets=[days_asset(watch)], jobs=[job], executor=dg.in_process_executor)
    return definitions.resolve_job_def("spot_daily")


def run_days(
    instance: dg.DagsterInstance, first: str, last: str, watch: Watch | None = None, **config: Sequence[str] | str
) -> dg.ExecuteInProcessResult:
    """Run the asset over a range; ``config`` is its configuration."""
    return _job(watch).execute_in_process(
        instance=instance,
        tags=range_tags(first, last) if first != last else {"dagster/partition": first},
        run_config={
            "ops": {OP: {"config": config}},
            "loggers": {"console": {"config": {"log_level": "CRITICAL"}}},
        },
        raise_on_error=False,
    )


def _kill_at(point: str) -> None:
    """Kill this process in the first batch of materializations.

    Python reports no access to a database, so SQLAlchemy's own events show the place.
    """
    original = BatchingEventLog.store_event_batch

    def store_event_batch(self: BatchingEventLog, events: Sequence[Any]) -> None:
        if not events[0].get_dagster_event().is_step_materialization:
            original(self, events)
            return
        if point == "before":
            _kill()
        commits: list[object] = []
        inserts: list[object] = []

        def on_commit(connection: object) -> None:
            commits.append(connection)
            if point == "between" and len(commits) == 2:
                _kill()

        def on_execute(*arguments: object) -> None:
            inserts.append(arguments)
            if point == "within" and len(inserts) == 4:  # two statements store the batch in each database
                _kill()

        db.event.listen(db.Engine, "commit", on_commit)
        db.event.listen(db.Engine, "before_cursor_execute", on_execute)
        original(self, events)

    BatchingEventLog.store_event_batch = store_event_batch  # type: ignore[method-assign]


def _kill() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def main() -> None:
    """Execute the run that the arguments describe."""
    from binance_assets_tests.support.instances import instance_in

    folder, first, last, *more = sys.argv[1:]
    if "kill" in more:
        _kill_at(more[-1])
    with instance_in(Path(folder), dagsters_own="own" in more) as instance:
        if not run_days(instance, first, last).success:
            sys.exit(1)


if __name__ == "__main__":
    main()
