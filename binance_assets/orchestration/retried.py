"""What was already written before a retry, so that it goes on instead of starting again.

Here belongs what the automatic retry of a run leaves out, and that of a step whose connection to Postgres was lost.
What does not belong here: when Dagster retries a run, which ``run_retries`` in ``dagster.yaml`` says, and what a user
re-executes, who wants all partitions fetched again.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Set
from contextlib import contextmanager
from functools import lru_cache
from typing import Final

import dagster as dg
from sqlalchemy.exc import DBAPIError

from binance_assets.exchange.rate_limit.ledger import LedgerConnectionLost

Partitions = Mapping[dg.AssetKey, Set[str]]
"""The keys of partitions, by asset."""

RETRY_TAG: Final = "dagster/retry_number"
"""The tag of a run that Dagster's daemon started because another one failed; it is documented."""

_MAX_RETRIES: Final = 20
# A step begins again this often. The retries of Dagster do not help when Postgres ends a connection within a statement,
# and they end after some seconds.
_MAX_STEP_RETRIES: Final = 5
_STEP_RETRY_SECONDS: Final = 2


def materialized_before(instance: dg.DagsterInstance, run: dg.DagsterRun, attempt: int) -> Partitions:
    """Return the partitions that the attempts before this one have materialized; none unless this is a retry.

    Args:
        instance: The instance.
        run: The run of a step.
        attempt: How often the step was begun before in this run.
    """
    before = _of_failed_runs(instance, run.parent_run_id) if RETRY_TAG in run.tags and run.parent_run_id else {}
    own = _materialized_by(instance, [run.run_id]) if attempt else {}
    return {asset: before.get(asset, frozenset()) | own.get(asset, frozenset()) for asset in {*before, *own}}


@contextmanager
def step_retried_if_disconnected() -> Iterator[None]:
    """Begin a step again whose connection to Postgres was lost, as by a restart of the server.

    Such an error says nothing about the candles. Without this, the run fails because of a step, and is not retried.
    """
    try:
        yield
    except Exception as error:
        if not is_lost_connection(error):
            raise
        raise dg.RetryRequested(_MAX_STEP_RETRIES, _STEP_RETRY_SECONDS) from error


def is_lost_connection(error: Exception) -> bool:
    """Return whether a connection to Postgres was lost within a statement, or could not be made for some seconds.

    The error for the latter is of dagster-postgres, which only the extra ``postgres`` installs.
    """
    if isinstance(error, DBAPIError):
        return error.connection_invalidated
    return isinstance(error, LedgerConnectionLost) or type(error).__name__ == "DagsterPostgresException"


@lru_cache(maxsize=1)  # each step of a run asks, and a run that has failed does not change
def _of_failed_runs(instance: dg.DagsterInstance, run_id: str) -> Partitions:
    """Return what a failed run, and those that it retried, have materialized."""
    return _materialized_by(instance, _chain(instance, run_id))


def _materialized_by(instance: dg.DagsterInstance, runs: Iterable[str]) -> Partitions:
    done: dict[dg.AssetKey, set[str]] = {}
    for run in runs:
        for entry in instance.all_logs(run, of_type=dg.DagsterEventType.ASSET_MATERIALIZATION):
            event = entry.dagster_event
            if event is not None and event.asset_key is not None and event.partition is not None:
                done.setdefault(event.asset_key, set()).add(event.partition)
    return done


def _chain(instance: dg.DagsterInstance, run_id: str) -> Iterator[str]:
    """Yield a run, the run that it retried, and so on."""
    for _ in range(_MAX_RETRIES):
        yield run_id
        run = instance.get_run_by_id(run_id)
        if run is None or run.parent_run_id is None or RETRY_TAG not in run.tags:
            return
        run_id = run.parent_run_id
