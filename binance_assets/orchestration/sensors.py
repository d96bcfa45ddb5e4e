"""Sensors: derived days, coverage, reissued files of the archive, and runs whose process was killed.

Dagster's own asset sensor sees only the latest materialization since its last tick; a backfill produces hundreds.
These sensors read the event log from a cursor, so that no materialization is lost.

Here belongs what reacts to events, and to processes that report none anymore. What does not belong here: what runs by
the clock (``schedules``, ``catch_up``).
"""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Iterator, Mapping, Sequence
from typing import Final

import dagster as dg

from binance_assets.exchange.archive_files import ArchiveFile
from binance_assets.exchange.errors import ExchangeError, NoFile
from binance_assets.exchange.session import Exchange
from binance_assets.model.markets import Market
from binance_assets.model.outside import printable
from binance_assets.model.series import Series, by_market
from binance_assets.model.timestamps import to_date, to_ms
from binance_assets.orchestration.alerts import alert_sensors
from binance_assets.orchestration.coverage import coverage_key
from binance_assets.orchestration.dagster_internals.code_location import AssetJob
from binance_assets.orchestration.dagster_internals.event_reads import newest_materializations
from binance_assets.orchestration.event_cursor import last_settled_event
from binance_assets.orchestration.interrupted import fail_runs_of_dead_processes
from binance_assets.orchestration.jobs import job_name
from binance_assets.orchestration.keys import asset_key
from binance_assets.orchestration.lake_state import lake_state_sensor
from binance_assets.orchestration.partitions import partition_kind, partition_ranges, range_tags
from binance_assets.settings import ConfigurationError, Settings
from binance_assets.storage.lake import Lake
from binance_assets.storage.universe import Derived

_EVENTS_PER_READ: Final = 1_000
# The most events of one series that one tick reads; the next tick continues from there.
_MAX_EVENTS: Final = 5_000
# Coverage is refreshed after this long without an event; during a long backfill, after the second limit at the latest.
_QUIET_SECONDS: Final = 30
_MAX_WAIT_SECONDS: Final = 600
_RECENT_PARTITIONS: Final = 60
# Dagster ends a tick after a minute.
_TICK_SECONDS: Final = 40


def derived_candles_sensor(derived: Sequence[Derived]) -> dg.SensorDefinition:
    """Return the sensor ``derived_candles``: new or repaired days of a base series launch the same derived days.

    The cursor is a JSON object: for each base series, the storage id of the last event that was read.
    """
    by_base: dict[Series, list[Series]] = {}
    for entry in derived:
        by_base.setdefault(entry.base, []).append(entry.series)

    @dg.sensor(
        name="derived_candles",
        asset_selection=dg.AssetSelection.assets(*(asset_key(entry.series) for entry in derived)),
        minimum_interval_seconds=15,
        default_status=dg.DefaultSensorStatus.RUNNING,
        description="Derives the candles of days that were fetched, or fetched again. Sends no request.",
    )
    def derived_candles(context: dg.SensorEvaluationContext) -> dg.SensorResult:
        seen: dict[str, int] = json.loads(context.cursor) if context.cursor else {}
        requests = []
        deadline = time.monotonic() + _TICK_SECONDS
        newest = newest_materializations(context.instance, [asset_key(base) for base in by_base])
        settled = last_settled_event(context.instance, min((seen.get(str(base), 0) for base in by_base), default=0))
        for base, targets in by_base.items():
            if newest.get(asset_key(base), 0) <= seen.get(str(base), 0):
                continue
            if time.monotonic() > deadline:
                break  # the next tick has nothing to read for the first series, so it gets further
            keys, last = _partitions_between(context.instance, asset_key(base), seen.get(str(base), 0), settled)
            seen[str(base)] = last
            for first_key, last_key in partition_ranges(keys):
                requests.append(
                    dg.RunRequest(
                        run_key=f"{base}:{last}:{first_key}",
                        asset_selection=[asset_key(target) for target in targets],
                        tags=range_tags(first_key, last_key),
                    )
                )
        return dg.SensorResult(
            run_requests=requests,
            skip_reason=None if requests else dg.SkipReason("no new days of the base series"),
            cursor=json.dumps(seen),
        )

    return derived_candles


def new_partitions(instance: dg.DagsterInstance, key: dg.AssetKey, after: int) -> tuple[list[str], int]:
    """Return the partitions of an asset that were materialized after an event, and the storage id of the last event.

    Args:
        instance: The instance that holds the events.
        key: The asset.
        after: Storage id of the last event that was read; 0 before the first.

    Returns:
        Partition keys in the order of their events, and the value of ``after`` for the next call. On Postgres, an event
        is returned only once no older one can appear anymore, so that the cursor passes none.
    """
    return _partitions_between(instance, key, after, last_settled_event(instance, after))


def _partitions_between(
    instance: dg.DagsterInstance, key: dg.AssetKey, after: int, settled: int | None
) -> tuple[list[str], int]:
    """Return what :func:`new_partitions` does, given the storage id of the last event to read; None to read all."""
    keys: list[str] = []
    while len(keys) < _MAX_EVENTS:
        records_filter = dg.AssetRecordsFilter(
            key, after_storage_id=after, before_storage_id=None if settled is None else settled + 1
        )
        result = instance.fetch_materializations(records_filter, limit=_EVENTS_PER_READ, ascending=True)
        for record in result.records:
            after = record.storage_id
            if record.partition_key:
                keys.append(record.partition_key)
        if not result.has_more:
            break
    return keys, after


def coverage_sensor(series: Mapping[Market, Sequence[Series]]) -> dg.SensorDefinition:
    """Return the sensor ``coverage``: it refreshes a market's coverage once its series have no more events.

    The cursor is a JSON object: for each market, the storage id of the last event for which a refresh was requested
    (``seen``), and since when newer events wait (``waits_since``, Unix seconds; 0 if none waits).
    """

    @dg.sensor(
        name="coverage",
        asset_selection=dg.AssetSelection.assets(*(coverage_key(market) for market in series)),
        minimum_interval_seconds=15,
        default_status=dg.DefaultSensorStatus.RUNNING,
        description="Refreshes the coverage of a market after materializations. Sends no request.",
    )
    def coverage(context: dg.SensorEvaluationContext) -> dg.SensorResult:
        state: dict[str, dict[str, float]] = json.loads(context.cursor) if context.cursor else {}
        requests, now = [], time.time()
        for market, members in series.items():
            known = state.setdefault(market.name, {"seen": 0, "waits_since": 0})
            newest, newest_at = _newest_event(context.instance, members)
            if newest <= known["seen"]:
                continue
            known["waits_since"] = known["waits_since"] or now
            # Without `abs`, a clock that is set back would make the sensor wait until it catches up.
            if abs(now - newest_at) < _QUIET_SECONDS and abs(now - known["waits_since"]) < _MAX_WAIT_SECONDS:
                continue
            state[market.name] = {"seen": newest, "waits_since": 0}
            requests.append(dg.RunRequest(run_key=f"{market}:{newest}", asset_selection=[coverage_key(market)]))
        return dg.SensorResult(
            run_requests=requests,
            skip_reason=None if requests else dg.SkipReason("no new events, or more are still coming"),
            cursor=json.dumps(state),
        )

    return coverage


def _newest_event(instance: dg.DagsterInstance, series: Sequence[Series]) -> tuple[int, float]:
    """Return storage id and time (Unix seconds) of the newest materialization of ``series``; zeros without one."""
    records = instance.get_asset_records([asset_key(member) for member in series])
    entries = [record.asset_entry for record in records if record.asset_entry.last_materialization_storage_id]
    newest = max(entries, key=lambda entry: entry.last_materialization_storage_id or 0, default=None)
    if newest is None or newest.last_materialization is None:
        return 0, 0.0
    return newest.last_materialization_storage_id or 0, newest.last_materialization.timestamp


def interrupted_runs_sensor() -> dg.SensorDefinition:
    """Return the sensor ``interrupted_runs``: it fails runs whose process was killed, so that they are retried."""

    @dg.sensor(
        name="interrupted_runs",
        minimum_interval_seconds=30,
        default_status=dg.DefaultSensorStatus.RUNNING,
        description="Fails the runs whose process was killed, so that Dagster starts them again. Sends no request.",
    )
    def interrupted_runs(context: dg.SensorEvaluationContext) -> dg.SkipReason:
        ended = fail_runs_of_dead_processes(context.instance)
        return dg.SkipReason(f"runs whose process was killed: {ended}" if ended else "no run was interrupted")

    return interrupted_runs


def reissued_archives_sensor(
    jobs: Sequence[AssetJob], series: Sequence[Series], settings: Settings
) -> dg.SensorDefinition:
    """Return the sensor ``reissued_archives``: it compares recent hashes and fetches changed partitions again."""
    lake = Lake(settings.lake)

    @dg.sensor(
        name="reissued_archives",
        jobs=jobs,
        minimum_interval_seconds=6 * 3600,
        default_status=dg.DefaultSensorStatus.STOPPED,
        description=f"Compares the SHA-256 of the archive files behind the last {_RECENT_PARTITIONS} partitions of "
        "each series with the archive's current checksums, and fetches the partitions of reissued files again.",
    )
    def reissued_archives(context: dg.SensorEvaluationContext) -> dg.SensorResult:
        requests: list[dg.RunRequest] = []
        deadline = time.monotonic() + _TICK_SECONDS
        # If there are too many series for one tick, the next tick continues after the last series of this one.
        start = int(context.cursor or 0) % max(1, len(series))
        checked = 0
        for member in (*series[start:], *series[:start]):
            if time.monotonic() > deadline:
                break
            checked += 1
            try:
                requests += _requests_for(member, _reissued(lake, settings, member))
            except (ExchangeError, ConfigurationError) as error:
                context.log.warning(f"{member}: the archive could not be checked: {printable(error)}")
        return dg.SensorResult(
            run_requests=requests,
            skip_reason=None if requests else dg.SkipReason("no file was reissued"),
            cursor=str(start + checked),
        )

    return reissued_archives


def _requests_for(series: Series, changed: Mapping[str, str]) -> Iterator[dg.RunRequest]:
    """Yield runs that fetch again the partitions whose file has a new hash.

    Args:
        series: The series.
        changed: The new SHA-256 of the file by partition key.
    """
    keys = sorted(changed)
    for first, last in [(key, key) for key in keys] if series.interval.is_multi_day else partition_ranges(keys):
        digest = hashlib.sha256("".join(changed[key] for key in keys if first <= key <= last).encode()).hexdigest()
        yield dg.RunRequest(
            run_key=f"{series}:{first}:{last}:{digest}",
            job_name=job_name(series.market, partition_kind(series.interval)),
            asset_selection=[asset_key(series)],
            tags=range_tags(first, last),
        )


def _reissued(lake: Lake, settings: Settings, series: Series) -> dict[str, str]:
    """Return the recent partitions whose archive file was reissued: the new SHA-256 of the file by partition key.

    Raises:
        ExchangeError: The archive could not be reached, or refused the request.
    """
    stored_hashes = _stored_hashes(lake, series)
    if not stored_hashes:
        return {}
    exchange = Exchange(series.market, settings)
    try:
        responses = dict(exchange.archive.checksums(list(stored_hashes)))
    finally:
        exchange.close()
    current = {}
    for file, response in responses.items():
        if isinstance(response, str):
            current[file] = response
        elif not isinstance(response, NoFile):  # a withdrawn file is skipped; it may be reissued later
            raise response
    return {
        key: sha256
        for file, sha256 in current.items()
        for key, stored_sha256 in stored_hashes[file].items()
        if stored_sha256 != sha256
    }


def _stored_hashes(lake: Lake, series: Series) -> dict[ArchiveFile, dict[str, str]]:
    """Return the archive files of the recent partitions, each with the stored SHA-256 by partition key.

    The partitions of one file can have different hashes: the file may have been reissued between two fetches.
    """
    stored = lake.stored_partitions(series)
    recent = list(stored)[-_RECENT_PARTITIONS:]
    # A monthly file is reissued as a whole, so all partitions of its month are compared.
    since = to_ms(to_date(recent[0].start).replace(day=1)) if recent else 0
    hashes: dict[ArchiveFile, dict[str, str]] = {}
    for partition, entry in stored.items():
        if partition.start >= since and entry.archive_file is not None and entry.archive_sha256 is not None:
            file = ArchiveFile.named(series, entry.archive_file)
            hashes.setdefault(file, {})[partition.key] = entry.archive_sha256
    return hashes


def candle_sensors(
    jobs: Sequence[AssetJob],
    series: Sequence[Series],
    derived: Sequence[Derived],
    settings: Settings,
) -> list[dg.SensorDefinition]:
    """Return the sensors that have work to do for the fetched and derived series."""
    if not series:
        return []
    markets = by_market([*series, *(entry.series for entry in derived)])
    sensors = [coverage_sensor(markets), lake_state_sensor(markets, Lake(settings.lake))]
    if derived:
        sensors.append(derived_candles_sensor(derived))
    return [
        *sensors,
        reissued_archives_sensor(jobs, series, settings),
        interrupted_runs_sensor(),
        *alert_sensors(markets, settings),
    ]
