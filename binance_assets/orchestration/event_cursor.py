"""Event cursors on Postgres: up to which event a sensor may read without passing one that appears later.

A sensor remembers the number of the last event that it has read. On SQLite, events appear in the order of their
numbers. On Postgres, a process receives the number of its event before others can see the event, so one with a lower
number may appear after one with a higher number. A cursor that has passed it would lose it.

A process that stores an event locks the table of events (``ROW EXCLUSIVE``) before it receives a number and until
others can see the event. So all events up to the newest visible one have settled once the transactions that hold this
lock now have ended. They take milliseconds. If one takes longer, such as a script that deletes old events, the events
have settled up to the first number that is missing.

Here belongs how far to read. What does not belong here: what is read (``sensors``, ``alerts``). Cursors by time need
none of this (``lake_state``).
"""

from __future__ import annotations

import logging
import time
from typing import Final

import dagster as dg
import sqlalchemy as db

from binance_assets.orchestration.dagster_internals.event_reads import rows_of_postgres

# A transaction that stores events takes some milliseconds. Dagster ends a tick after a minute.
_PATIENCE_SECONDS: Final = 2.0
_POLL_SECONDS: Final = 0.02

_NEWEST: Final = db.text("SELECT max(id) FROM event_logs")
_WRITERS: Final = db.text(
    "SELECT virtualtransaction FROM pg_locks WHERE locktype = 'relation' AND mode = 'RowExclusiveLock' AND granted "
    "AND relation = CAST('event_logs' AS regclass) "
    "AND database = (SELECT oid FROM pg_database WHERE datname = current_database())"
)
# The numbers are read in their order, up to the first one that does not follow.
_BEFORE_GAP: Final = db.text(
    "SELECT previous FROM (SELECT id, lag(id, 1, :after) OVER (ORDER BY id) AS previous FROM event_logs "
    "WHERE id > :after) AS numbered WHERE id > previous + 1 ORDER BY id LIMIT 1"
)
_log = logging.getLogger(__name__)


def last_settled_event(instance: dg.DagsterInstance, after: int) -> int | None:
    """Return the storage id up to which no event can appear anymore; read events only after this call.

    Args:
        instance: The instance.
        after: Storage id of the last event that the caller has read.

    Returns:
        The storage id, not less than ``after``; None if events appear in the order of their storage ids.
    """
    rows = rows_of_postgres(instance, _NEWEST)
    if rows is None:
        return None
    newest = int(rows[0][0] or 0)
    deadline = time.monotonic() + _PATIENCE_SECONDS
    writing = _writers(instance)
    while writing and time.monotonic() < deadline:
        time.sleep(_POLL_SECONDS)
        writing &= _writers(instance)
    if not writing:
        return max(newest, after)
    _log.warning("a transaction has been writing to the table event_logs for seconds; newer events are read later")
    return _before_first_gap(instance, after, newest)


def _writers(instance: dg.DagsterInstance) -> set[str]:
    """Return the transactions that may be storing an event; each has a name of its own."""
    return {str(name) for (name,) in rows_of_postgres(instance, _WRITERS) or ()}


def _before_first_gap(instance: dg.DagsterInstance, after: int, newest: int) -> int:
    """Return the last event up to which all have appeared, at most ``newest``."""
    gaps = rows_of_postgres(instance, _BEFORE_GAP, after=after)
    return max(after, min(newest, int(gaps[0][0]))) if gaps else max(newest, after)
