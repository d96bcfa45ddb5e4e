"""The sensor ``lake_state``: after failed and canceled runs, and losses of files, the pages show what the lake holds.

A run that fails or is canceled may end before its steps evaluate their checks, and it may plan partitions that the lake
holds. Files are deleted, moved, or damaged without any run. Then this sensor evaluates the checks, and refreshes the
coverage. Candles also age while no run happens, so the coverage is refreshed once a day.

Here belongs what reacts to runs that ended without a result, and when losses are looked for. What does not belong here:
what is true (``checks``, ``coverage``, ``losses``), and the refresh after materializations (``sensors``).
"""

from __future__ import annotations

import datetime as dt
import json
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, Final

import dagster as dg

from binance_assets.model.markets import Market
from binance_assets.model.outside import printable
from binance_assets.model.series import Series
from binance_assets.orchestration.checks import refresh_checks
from binance_assets.orchestration.coverage import coverage_key
from binance_assets.orchestration.gaps import LOSSES_JOB
from binance_assets.orchestration.keys import asset_key
from binance_assets.orchestration.losses import record_losses
from binance_assets.settings import ConfigurationError
from binance_assets.storage.lake import Lake

_ENDED: Final = [dg.DagsterRunStatus.FAILURE, dg.DagsterRunStatus.CANCELED]
MAX_RUNS: Final = 1_000
# A process reads the clock a moment before its change of a run can be read by others.
_OVERLAP: Final = dt.timedelta(minutes=1)
# The catch-up retries yesterday until noon.
_DAY_BEGINS: Final = dt.timedelta(hours=12)
# Looking at all files of a large lake takes seconds. The sensor spends a hundredth of its time on it.
_PAUSES_PER_LOOK: Final = 100
_MOST_PAUSE: Final = 3_600


def lake_state_sensor(series: Mapping[Market, Sequence[Series]], lake: Lake) -> dg.SensorDefinition:
    """Return the sensor. It is running by default.

    The cursor is a JSON object: when the last run ended that was read (``since``), the runs that ended in the minute
    before (``seen``), the day of the last daily refresh (``day``), and when to look for losses next (``look``, Unix
    seconds).

    Args:
        series: The fetched and derived series of each market.
        lake: The lake.
    """

    @dg.sensor(
        name="lake_state",
        asset_selection=dg.AssetSelection.assets(*(coverage_key(market) for market in series)),
        minimum_interval_seconds=30,
        default_status=dg.DefaultSensorStatus.RUNNING,
        description="Evaluates the checks of the series of failed and canceled runs again, and of those whose files "
        "were deleted, moved, or damaged. Refreshes the coverage then, and once a day. Sends no request.",
    )
    def lake_state(context: dg.SensorEvaluationContext) -> dg.SensorResult:
        now = dt.datetime.now(dt.UTC)
        cursor: dict[str, Any] = {"since": now.isoformat(), "seen": [], "day": ""}
        cursor = json.loads(context.cursor) if context.cursor else cursor
        ended, position = ended_since(context.instance, cursor)
        # Whoever recorded a loss has refreshed the checks.
        ended = [record for record in ended if record.dagster_run.job_name != LOSSES_JOB]
        look, began = cursor.get("look", 0.0), time.monotonic()
        is_due = is_look_due(now.timestamp(), look)
        requests = {}
        for market, members in series.items():
            touched = _touched(ended, members)
            try:
                lost = record_losses(context.instance, lake, members) if is_due else {}
                refresh_checks(context.instance, lake, [*touched, *(lost.keys() - set(touched))])
            except ConfigurationError as error:
                context.log.warning(f"{market}: the lake could not be read: {printable(error)}")
                lost = {}
            if touched:
                requests[market] = f"{market}:{ended[-1].dagster_run.run_id}"
            elif lost:
                requests[market] = f"{market}:lost:{now.isoformat()}"
        if is_due:
            look = next_look(now.timestamp(), time.monotonic() - began)
        day = (now - _DAY_BEGINS).date().isoformat()
        if day != cursor["day"]:
            requests |= {market: f"{market}:{day}" for market in series}
        return dg.SensorResult(
            run_requests=[
                dg.RunRequest(run_key=key, asset_selection=[coverage_key(market)]) for market, key in requests.items()
            ],
            skip_reason=None if requests else dg.SkipReason("no run failed or was canceled, and no file was lost"),
            cursor=json.dumps({**position, "day": day, "look": look}),
        )

    return lake_state


def next_look(now: float, took: float) -> float:
    """Return when to look for losses again, Unix seconds, after a look at ``now`` that took some seconds."""
    return now + min(_PAUSES_PER_LOOK * took, _MOST_PAUSE)


def is_look_due(now: float, look: float) -> bool:
    """Return whether to look for losses, given the time and that of the next look, Unix seconds.

    If the clock was set back, the next look may be far away; then it is due.
    """
    return now >= look or look - now > _MOST_PAUSE


def ended_since(
    instance: dg.DagsterInstance, cursor: Mapping[str, Any], limit: int = MAX_RUNS
) -> tuple[list[dg.RunRecord], dict[str, Any]]:
    """Return the runs that failed or were canceled since the last tick, in the order in which they ended.

    Args:
        instance: The instance.
        cursor: Until where an earlier tick has read.
        limit: The most runs to read.

    Returns:
        The runs, and until where they were read.
    """
    after = dt.datetime.fromisoformat(cursor["since"]) - _OVERLAP
    records = instance.get_run_records(
        dg.RunsFilter(statuses=_ENDED, updated_after=after),
        limit=limit,
        order_by="update_timestamp",
        ascending=True,
    )
    ended = [record for record in records if record.dagster_run.run_id not in cursor["seen"]]
    if not records:
        return ended, {"since": cursor["since"], "seen": []}
    # With more runs in a minute than are read at once, the next tick goes on where this one stopped.
    last = _utc(records[-1].update_timestamp) + (_OVERLAP if len(records) == limit else dt.timedelta())
    last = max(last, dt.datetime.fromisoformat(cursor["since"]))
    recent = [record.dagster_run.run_id for record in records if _utc(record.update_timestamp) >= last - _OVERLAP]
    return ended, {"since": last.isoformat(), "seen": recent}


def _utc(time: dt.datetime) -> dt.datetime:
    return time if time.tzinfo else time.replace(tzinfo=dt.UTC)


def _touched(ended: Iterable[dg.RunRecord], members: Sequence[Series]) -> list[Series]:
    """Return the series that a run selected; a run without a selection executes its whole job."""
    keys = set(_selected(ended, members))
    return [member for member in members if asset_key(member) in keys]


def _selected(ended: Iterable[dg.RunRecord], members: Sequence[Series]) -> Iterator[dg.AssetKey]:
    for record in ended:
        yield from record.dagster_run.asset_selection or map(asset_key, members)
