"""Sensors: derived days after their source's, coverage after anything, re-issued files of the archive.

Dagster's own asset sensor sees the last materialization since its last tick and no other; a backfill brings hundreds.
These read the event log from a cursor on, so that none is lost.
"""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Final

import dagster as dg

from binance_assets.exchange.archive_files import ArchiveFile
from binance_assets.exchange.errors import ExchangeError, NoFile
from binance_assets.exchange.session import Exchange
from binance_assets.model.markets import Market
from binance_assets.model.series import Series, by_market
from binance_assets.model.timestamps import to_date, to_ms
from binance_assets.orchestration.assets import asset_key
from binance_assets.orchestration.coverage import coverage_key
from binance_assets.orchestration.jobs import job_name
from binance_assets.orchestration.partitions import partition_kind, partition_ranges, range_tags
from binance_assets.settings import ConfigurationError, Settings
from binance_assets.storage.lake import Lake
from binance_assets.storage.universe import Derived

if TYPE_CHECKING:
    from dagster._core.definitions.unresolved_asset_job_definition import UnresolvedAssetJobDefinition

_EVENTS_AT_ONCE: Final = 1_000
# What one tick reads of one series at the most; the next tick goes on from there.
_MOST_EVENTS: Final = 5_000
# Coverage waits until nothing has happened for so long, but not for ever while a long backfill goes on.
_QUIET_SECONDS: Final = 30
_LONGEST_WAIT_SECONDS: Final = 600
_RECENT_DAYS: Final = 60
# Dagster ends a tick after a minute.
_TICK_SECONDS: Final = 40


def derived_candles_sensor(derived: Sequence[Derived]) -> dg.SensorDefinition:
    """The sensor ``derived_candles``: new or repaired days of a source launch the derived days that they touch.

    The cursor holds, of each source, the number of the last event that was seen.
    """
    by_source: dict[Series, list[Series]] = {}
    for one in derived:
        by_source.setdefault(one.source, []).append(one.series)

    @dg.sensor(
        name="derived_candles",
        asset_selection=dg.AssetSelection.assets(*(asset_key(one.series) for one in derived)),
        minimum_interval_seconds=15,
        default_status=dg.DefaultSensorStatus.RUNNING,
        description="Makes the derived candles of days that were fetched, or fetched again. Sends no request.",
    )
    def derived_candles(context: dg.SensorEvaluationContext) -> dg.SensorResult:
        seen: dict[str, int] = json.loads(context.cursor) if context.cursor else {}
        requests = []
        deadline = time.monotonic() + _TICK_SECONDS
        for source, targets in by_source.items():
            if time.monotonic() > deadline:
                break  # the next tick finds these up to date and comes further
            keys, last = new_partitions(context.instance, asset_key(source), seen.get(str(source), 0))
            seen[str(source)] = last
            for first_key, last_key in partition_ranges(keys):
                requests.append(
                    dg.RunRequest(
                        run_key=f"{source}:{last}:{first_key}",
                        asset_selection=[asset_key(target) for target in targets],
                        tags=range_tags(first_key, last_key),
                    )
                )
        return dg.SensorResult(
            run_requests=requests,
            skip_reason=None if requests else dg.SkipReason("no new days of the sources"),
            cursor=json.dumps(seen),
        )

    return derived_candles


def new_partitions(instance: dg.DagsterInstance, key: dg.AssetKey, after: int) -> tuple[list[str], int]:
    """The partitions of an asset that were materialized since an event, and the number of the last event.

    Args:
        instance: Where the events are.
        key: The asset.
        after: Number of the last event that was seen; 0 for none.

    Returns:
        Partition keys in the order of their events, and what to pass as ``after`` the next time.
    """
    keys: list[str] = []
    while len(keys) < _MOST_EVENTS:
        filter_ = dg.AssetRecordsFilter(key, after_storage_id=after)
        result = instance.fetch_materializations(filter_, limit=_EVENTS_AT_ONCE, ascending=True)
        for record in result.records:
            after = record.storage_id
            if record.partition_key:
                keys.append(record.partition_key)
        if not result.has_more:
            break
    return keys, after


def coverage_sensor(series: Mapping[Market, Sequence[Series]]) -> dg.SensorDefinition:
    """The sensor ``coverage``: refreshes a market's coverage when its series have come to rest.

    The cursor holds, of each market, the number of the last event that a refresh was asked for, and since when newer
    ones wait.
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
            newest, at = _newest_event(context.instance, members)
            if newest <= known["seen"]:
                continue
            known["waits_since"] = known["waits_since"] or now
            if now - at < _QUIET_SECONDS and now - known["waits_since"] < _LONGEST_WAIT_SECONDS:
                continue
            state[market.name] = {"seen": newest, "waits_since": 0}
            requests.append(dg.RunRequest(run_key=f"{market}:{newest}", asset_selection=[coverage_key(market)]))
        return dg.SensorResult(
            run_requests=requests,
            skip_reason=None if requests else dg.SkipReason("nothing new, or more is still coming"),
            cursor=json.dumps(state),
        )

    return coverage


def _newest_event(instance: dg.DagsterInstance, series: Sequence[Series]) -> tuple[int, float]:
    """Number and time (seconds) of the newest materialization of any of ``series``."""
    records = instance.get_asset_records([asset_key(one) for one in series])
    entries = [record.asset_entry for record in records if record.asset_entry.last_materialization_storage_id]
    newest = max(entries, key=lambda entry: entry.last_materialization_storage_id or 0, default=None)
    if newest is None or newest.last_materialization is None:
        return 0, 0.0
    return newest.last_materialization_storage_id or 0, newest.last_materialization.timestamp


def reissued_archives_sensor(
    jobs: Sequence[UnresolvedAssetJobDefinition], series: Sequence[Series], settings: Settings
) -> dg.SensorDefinition:
    """The sensor ``reissued_archives``: compares recent hashes with the archive's, and fetches changed days again."""
    lake = Lake(settings.lake)

    @dg.sensor(
        name="reissued_archives",
        jobs=jobs,
        minimum_interval_seconds=6 * 3600,
        default_status=dg.DefaultSensorStatus.STOPPED,
        description=f"Compares the hashes of the archive's files behind the last {_RECENT_DAYS} partitions of each "
        "series with what the archive says now, and fetches again the days of those that were issued anew.",
    )
    def reissued_archives(context: dg.SensorEvaluationContext) -> dg.SensorResult:
        requests: list[dg.RunRequest] = []
        deadline = time.monotonic() + _TICK_SECONDS
        # Where there are too many series for a tick, the next one goes on behind the last that was looked at.
        begin = int(context.cursor or 0) % max(1, len(series))
        looked_at = 0
        for one in (*series[begin:], *series[:begin]):
            if time.monotonic() > deadline:
                break
            looked_at += 1
            try:
                requests += _requests_for(one, _reissued(lake, settings, one))
            except (ExchangeError, ConfigurationError) as error:
                context.log.warning(f"{one}: the archive could not be asked: {error}")
        return dg.SensorResult(
            run_requests=requests,
            skip_reason=None if requests else dg.SkipReason("no file was issued anew"),
            cursor=str(begin + looked_at),
        )

    return reissued_archives


def _requests_for(series: Series, changed: Mapping[str, str]) -> Iterator[dg.RunRequest]:
    """Runs that fetch the partitions again whose file has a new hash."""
    keys = sorted(changed)
    for first, last in [(key, key) for key in keys] if series.interval.is_multi_day else partition_ranges(keys):
        new = hashlib.sha256("".join(changed[key] for key in keys if first <= key <= last).encode()).hexdigest()
        yield dg.RunRequest(
            run_key=f"{series}:{first}:{last}:{new}",
            job_name=job_name(series.market, partition_kind(series.interval)),
            asset_selection=[asset_key(series)],
            tags=range_tags(first, last),
        )


def _reissued(lake: Lake, settings: Settings, series: Series) -> dict[str, str]:
    """The recent partitions whose file in the archive has another hash now, with that hash."""
    kept: dict[ArchiveFile, dict[str, str]] = {}  # a month's file may have been issued anew between two of its days
    partitions = lake.partitions(series)
    recent = partitions[-_RECENT_DAYS:]
    # A month's file is issued anew as a whole.
    since = to_ms(to_date(recent[0].start).replace(day=1)) if recent else 0
    for partition in (partition for partition in partitions if partition.start >= since):
        stored = lake.stored(series, partition)
        if stored is None or stored.archive_file is None or stored.archive_sha256 is None:
            continue
        file = ArchiveFile.named(series, stored.archive_file)
        kept.setdefault(file, {})[partition.key] = stored.archive_sha256
    if not kept:
        return {}
    exchange = Exchange(series.market, settings)
    try:
        now = dict(exchange.archive.checksums(list(kept)))
    finally:
        exchange.close()
    for error in (response for response in now.values() if isinstance(response, ExchangeError)):
        if not isinstance(error, NoFile):  # withdrawn, perhaps to be issued anew
            raise error
    hashes = {file: message for file, message in now.items() if isinstance(message, str)}
    return {key: message for file, message in hashes.items() for key, sha256 in kept[file].items() if sha256 != message}


def candle_sensors(
    jobs: Sequence[UnresolvedAssetJobDefinition],
    series: Sequence[Series],
    derived: Sequence[Derived],
    settings: Settings,
) -> list[dg.SensorDefinition]:
    """The sensors that a universe calls for."""
    if not series:
        return []
    every = [*series, *(one.series for one in derived)]
    sensors = [coverage_sensor(by_market(every))]
    if derived:
        sensors.append(derived_candles_sensor(derived))
    return [*sensors, reissued_archives_sensor(jobs, series, settings)]
