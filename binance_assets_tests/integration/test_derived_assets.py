"""Derived assets: computed from the lake without a request, day by day, with the verdict of their base series."""

from __future__ import annotations

import csv
import datetime as dt
from collections.abc import Iterator, Sequence
from pathlib import Path

import dagster as dg
import polars as pl
import pytest

from binance_assets.definitions import build_defs
from binance_assets.exchange.session import Exchange
from binance_assets.ingest.derive import derive_partitions
from binance_assets.ingest.options import DownloadOptions
from binance_assets.ingest.override import override
from binance_assets.model.intervals import parse_derived_interval, parse_interval
from binance_assets.model.partitions import partition_for_key
from binance_assets.model.series import Series, derived_series, parse_series
from binance_assets.model.timestamps import DAY, MINUTE, to_ms
from binance_assets.orchestration.keys import asset_key, op_name
from binance_assets.sandbox import Fault, Sandbox, SandboxOptions, running_sandbox
from binance_assets.settings import Settings
from binance_assets.storage.lake import Lake
from binance_assets.storage.parquet_files import to_parquet
from binance_assets.storage.universe import Derived
from binance_assets_tests.support.exchange import ALL_SOURCES, expected_candles, pointed_to
from binance_assets_tests.support.instances import copy_of, execute, fetch, prepare, universe_of
from binance_assets_tests.support.lakes import keys, local, read, stored

pytestmark = pytest.mark.usefixtures("without_plot")

BTC, COIN = parse_series("spot/BTCUSDT/1m"), parse_series("coinm/BTCUSD_PERP/1m")
DAYS = ["2024-03-01", "2024-03-02"]


def derived_from(base: Series, *intervals: str) -> list[Derived]:
    parsed = [parse_derived_interval(text) for text in intervals]
    return [Derived(derived_series(base.market, base.symbol, interval), base) for interval in parsed]


FIVE, UNCOMMON, HOUR, WHOLE_DAY = derived_from(BTC, "5m", "45m", "1h", "1d")
FROM_COIN = derived_from(COIN, "5m", "1h", "1d")


@pytest.fixture(scope="module")
def prepared(shared_sandbox: Sandbox, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A lake and an instance with two days of both base series."""
    shared_sandbox.faults.clear()
    return prepare(
        tmp_path_factory.mktemp("prepared"),
        shared_sandbox,
        lambda settings, instance: fetch(build_defs(settings, universe_of(BTC, COIN)), instance, [BTC, COIN], DAYS),
    )


@pytest.fixture
def filled(prepared: Path, tmp_path: Path) -> Iterator[dg.DagsterInstance]:
    """A copy of the prepared instance; the prepared lake is copied to where the settings expect it."""
    with copy_of(prepared, tmp_path) as opened:
        yield opened


@pytest.fixture
def definitions(settings: Settings) -> dg.Definitions:
    return build_defs(settings, universe_of(BTC, COIN, derived=[FIVE, UNCOMMON, HOUR, WHOLE_DAY, *FROM_COIN]))


@pytest.fixture
def lake(settings: Settings) -> Lake:
    return Lake(settings.lake)


def events(instance: dg.DagsterInstance, series: Series) -> list[str | None]:
    """Return the partition keys of the materializations of a series, oldest first."""
    result = instance.fetch_materializations(asset_key(series), limit=1_000, ascending=True)
    return [record.partition_key for record in result.records]


def lose(sandbox: Sandbox, key: str) -> None:
    """Remove the first ten candles after noon of a day from both sources."""
    noon = to_ms(dt.date.fromisoformat(key)) + DAY // 2
    for path in ALL_SOURCES:
        lost = Fault("missing_row", start=noon, end=noon + 10 * MINUTE, path=path, interval="1m", symbol="BTCUSDT")
        sandbox.faults.add(lost)


def test_derived_days_equal_the_candles_of_the_exchange(
    definitions: dg.Definitions, filled: dg.DagsterInstance, lake: Lake, sandbox: Sandbox
) -> None:
    targets = [derived.series for derived in (FIVE, HOUR, WHOLE_DAY, *FROM_COIN)]
    (result,) = fetch(definitions, filled, targets, DAYS)
    assert result.success
    assert not sandbox.requests
    for series in targets:
        assert keys(lake, series) == DAYS
        for key in DAYS:
            start = to_ms(dt.date.fromisoformat(key))
            assert read(lake, series, key).equals(expected_candles(sandbox, str(series), start, start + DAY)), (
                series,
                key,
            )
        assert all(check.passed for check in result.get_asset_check_evaluations())
        assert events(filled, series) == DAYS
    (newest,) = filled.fetch_materializations(asset_key(HOUR.series), limit=1).records
    assert newest.asset_materialization is not None
    lineage = newest.asset_materialization.metadata["dagster/column_lineage"].value
    assert isinstance(lineage, dg.TableColumnLineage)
    assert lineage.deps_by_column["high"] == [dg.TableColumnDep(asset_key(HOUR.base), "high")]


def test_an_interval_that_binance_lacks_can_be_derived(
    definitions: dg.Definitions, filled: dg.DagsterInstance, lake: Lake
) -> None:
    fetch(definitions, filled, [UNCOMMON.series], DAYS[:1])
    candles, minutes = read(lake, UNCOMMON.series, DAYS[0]), read(lake, BTC, DAYS[0])
    assert candles.height == 32
    assert candles["trades"].sum() == minutes["trades"].sum()
    assert candles["close"].to_list() == minutes["close"].gather_every(45, 44).to_list()


@pytest.mark.usefixtures("plot")
def test_a_derived_file_is_stored_like_a_fetched_one(
    definitions: dg.Definitions, instance: dg.DagsterInstance, lake: Lake
) -> None:
    fetch(definitions, instance, [BTC], DAYS[:1])
    (result,) = fetch(definitions, instance, [UNCOMMON.series], DAYS[:1])
    (event,) = result.asset_materializations_for_node(op_name(UNCOMMON.series))
    assert {"preview", "chart", "dagster/column_lineage"} <= event.metadata.keys()
    folder = local(lake.root) / "market=spot" / "symbol=BTCUSDT"
    files = [folder / "interval=45m" / "2024.parquet", folder / "interval=1m" / "2024-03.parquet"]
    derived_file, base_file = map(pl.read_parquet_metadata, files)
    assert derived_file.keys() == base_file.keys()
    assert (derived_file["series"], derived_file["venue"]) == ("spot/BTCUSDT/45m", base_file["venue"])
    assert read(lake, UNCOMMON.series, DAYS[0]).schema == read(lake, BTC, DAYS[0]).schema
    derived = stored(lake, UNCOMMON.series, DAYS[0])
    assert (derived.path, derived.size) == (files[0], files[0].stat().st_size)
    assert (derived.source, derived.derived_from) == ("derived", str(BTC))
    assert (derived.verdict, derived.missing) == ("complete", [])
    (event,) = result.asset_materializations_for_node("spot__BTCUSDT__45m")
    assert event.metadata["derived_from"].value == str(BTC)
    assert event.metadata["dagster/partition_row_count"].value == 32
    hive = pl.scan_parquet(local(lake.root) / "market=spot", hive_partitioning=True).collect()
    assert hive.group_by("interval").len().sort("interval").rows() == [("1m", 1440), ("45m", 32)]


def test_the_asset_names_its_base_series(definitions: dg.Definitions) -> None:
    graph = definitions.resolve_asset_graph()
    node = graph.get(asset_key(UNCOMMON.series))
    assert node.parent_keys == {asset_key(BTC)}
    assert node.partitions_def == graph.get(asset_key(BTC)).partitions_def
    assert node.backfill_policy == dg.BackfillPolicy.single_run()
    assert node.group_name == "spot"
    assert (node.metadata["series"], node.metadata["derived_from"]) == ("spot/BTCUSDT/45m", str(BTC))
    assert node.metadata["dagster/column_schema"] == graph.get(asset_key(BTC)).metadata["dagster/column_schema"]
    assert {(key.asset_key, key.name) for key in node.check_keys} == {(asset_key(UNCOMMON.series), "gap_free")}


# The verdicts of the base series.


def test_an_overridden_day_is_derived_with_its_missing_candles_and_its_verdict(
    definitions: dg.Definitions, settings: Settings, instance: dg.DagsterInstance, lake: Lake, sandbox: Sandbox
) -> None:
    lose(sandbox, "2024-03-02")
    exchange, partition = Exchange(BTC.market, settings), partition_for_key("2024-03-02", BTC.interval)
    options = DownloadOptions("rest", listing_cache=lake)
    (outcome,) = override(lake, exchange, BTC, [partition], options, who="a user", reason="no other source")
    exchange.close()
    assert (outcome.verdict, outcome.stored is not None) == ("lost", True)
    (run,) = fetch(definitions, instance, [FIVE.series, HOUR.series], ["2024-03-02"])
    assert run.success
    five = stored(lake, FIVE.series, "2024-03-02")
    assert (five.verdict, five.accepted_by, five.accepted_because) == ("lost", "a user", "no other source")
    assert five.missing == [["2024-03-02T12:00:00Z", "2024-03-02T12:10:00Z"]]
    assert read(lake, FIVE.series, "2024-03-02").height == 286
    hour = stored(lake, HOUR.series, "2024-03-02")
    assert (hour.verdict, hour.missing) == ("lost", [])  # the other fifty minutes make a candle
    assert read(lake, HOUR.series, "2024-03-02").height == 24


def test_the_day_before_the_listing_and_the_day_of_the_listing_keep_their_verdicts(
    settings: Settings, instance: dg.DagsterInstance, lake: Lake, sandbox: Sandbox
) -> None:
    base = parse_series("spot/ARBUSDT/1m")  # listed on 2023-03-23 at 15:00
    (target,) = derived_from(base, "4h")
    definitions = build_defs(settings, universe_of(base, derived=[target]))
    days = ["2023-03-22", "2023-03-23"]
    fetch(definitions, instance, [base], days)
    fetch(definitions, instance, [target.series], days)
    assert [stored(lake, target.series, key).verdict for key in days] == ["before_listing", "listing"]
    assert read(lake, target.series, days[0]).is_empty()
    start = to_ms(dt.date(2023, 3, 23))
    assert read(lake, target.series, days[1]).equals(expected_candles(sandbox, str(target.series), start, start + DAY))


def test_an_outage_removes_the_derived_candles_that_it_covers_completely(
    settings: Settings, instance: dg.DagsterInstance, lake: Lake, sandbox: Sandbox, tmp_path: Path
) -> None:
    start = to_ms(dt.date(2024, 3, 1))
    stop, resume = start + 12 * 60 * MINUTE + 3 * MINUTE, start + 14 * 60 * MINUTE + MINUTE
    rows = sandbox.rows("spot", "BTCUSDT", "1m", start, start + DAY)
    (tmp_path / "recorded" / "spot").mkdir(parents=True)
    with (tmp_path / "recorded" / "spot" / "BTCUSDT-1m-2024-03-01.csv").open("w", newline="") as file:
        csv.writer(file).writerows(row for row in rows if not stop <= row[0] < resume)
    with running_sandbox(SandboxOptions(replay=tmp_path / "recorded")) as replay:
        from_api = pointed_to(settings, replay.url).model_copy(update={"source": "rest"})
        definitions = build_defs(from_api, universe_of(BTC, derived=[FIVE, HOUR, WHOLE_DAY]))
        fetch(definitions, instance, [BTC], DAYS[:1])
    (result,) = fetch(definitions, instance, [FIVE.series, HOUR.series, WHOLE_DAY.series], DAYS[:1])
    assert result.success
    missing = {
        FIVE: [["2024-03-01T12:05:00Z", "2024-03-01T14:00:00Z"]],
        HOUR: [["2024-03-01T13:00:00Z", "2024-03-01T14:00:00Z"]],
        WHOLE_DAY: [],
    }
    for derived, spans in missing.items():
        entry = stored(lake, derived.series, DAYS[0])
        assert (entry.verdict, entry.missing) == ("outage", spans)
        assert "nothing was traded" in str(entry.note)
    heights = [read(lake, derived.series, DAYS[0]).height for derived in missing]
    assert heights == [288 - 23, 23, 1]


# Refused days.


def test_a_day_without_its_base_day_is_refused_and_the_others_are_written(
    definitions: dg.Definitions, instance: dg.DagsterInstance, lake: Lake
) -> None:
    fetch(definitions, instance, [BTC], ["2024-03-01", "2024-03-03"])
    (result,) = fetch(definitions, instance, [HOUR.series], ["2024-03-01", "2024-03-02", "2024-03-03"])
    assert not result.success
    assert keys(lake, HOUR.series) == events(instance, HOUR.series) == ["2024-03-01", "2024-03-03"]
    (check,) = result.get_asset_check_evaluations()
    assert not check.passed
    assert check.blocking
    assert f"2024-03-02 unreachable: {BTC} 2024-03-02: it is not in the lake" in str(check.description)
    assert check.metadata["days_accepted"].value == 2
    refused = check.metadata["refused"]
    assert isinstance(refused, dg.TableMetadataValue)
    assert [record.data["day"] for record in refused.records] == ["2024-03-02"]


def test_of_a_damaged_base_file_no_day_is_derived_and_the_earlier_derived_file_stays(
    definitions: dg.Definitions, filled: dg.DagsterInstance, lake: Lake
) -> None:
    partitions = [partition_for_key(key, HOUR.series.interval) for key in DAYS]
    fetch(definitions, filled, [HOUR.series], DAYS[:1])
    derived_file, base_file = local(lake.path(HOUR.series, partitions[0])), local(lake.path(BTC, partitions[0]))
    assert lake.path(BTC, partitions[1]) == base_file  # it holds both days
    before, content = derived_file.read_bytes(), base_file.read_bytes()
    half = len(content) // 2
    base_file.write_bytes(content[:half])
    for result in derive_partitions(lake, HOUR, partitions):
        assert (result.verdict, result.is_accepted) == ("unreachable", False)
        assert result.reason.startswith(f"{BTC} {result.partition}: {base_file} cannot be read: ")
    assert not fetch(definitions, filled, [HOUR.series], DAYS)[0].success
    base_file.write_bytes(b"\0" * half + content[half:])  # the footer is readable, the candles are not
    for result in derive_partitions(lake, HOUR, partitions):
        assert (result.verdict, result.is_accepted) == ("invalid", False)
        assert result.reason.startswith(f"{BTC} {result.partition}: it cannot be read: ")
    assert not fetch(definitions, filled, [HOUR.series], DAYS)[0].success
    assert derived_file.read_bytes() == before


def test_days_that_were_derived_before_an_error_are_written_and_reported(
    settings: Settings, instance: dg.DagsterInstance, lake: Lake
) -> None:
    definitions = build_defs(settings, universe_of(BTC, derived=[HOUR]))
    days = ["2024-02-28", "2024-02-29", "2024-03-01"]
    fetch(definitions, instance, [BTC], days)
    march = local(stored(lake, BTC, "2024-03-01").path)
    metadata = pl.read_parquet_metadata(march) | {"layout": "3"}
    march.write_bytes(to_parquet(pl.read_parquet(march, hive_partitioning=False), metadata))
    (result,) = fetch(definitions, instance, [HOUR.series], days)
    assert not result.success
    (failure,) = [event.step_failure_data for event in result.all_events if event.is_step_failure]
    assert "layout 3, which this version cannot read" in str(failure.user_failure_data)
    assert keys(lake, HOUR.series) == events(instance, HOUR.series) == days[:2]


# Base and derived series in one run.


def test_a_fetched_day_has_one_event_if_nothing_is_derived_in_the_same_run(filled: dg.DagsterInstance) -> None:
    assert events(filled, BTC) == DAYS


def test_base_and_derived_series_in_one_run(
    definitions: dg.Definitions, instance: dg.DagsterInstance, lake: Lake, sandbox: Sandbox
) -> None:
    (result,) = fetch(definitions, instance, [BTC, FIVE.series, UNCOMMON.series], DAYS)
    assert result.success
    for series in (BTC, FIVE.series, UNCOMMON.series):
        assert keys(lake, series) == DAYS
    assert events(instance, FIVE.series) == DAYS
    start = to_ms(dt.date.fromisoformat(DAYS[0]))
    assert read(lake, FIVE.series, DAYS[0]).equals(expected_candles(sandbox, str(FIVE.series), start, start + DAY))


def test_a_fetched_day_has_its_metadata_also_if_something_is_derived_in_the_same_run(
    definitions: dg.Definitions, instance: dg.DagsterInstance
) -> None:
    fetch(definitions, instance, [BTC, HOUR.series], DAYS[:1])
    (newest,) = instance.fetch_materializations(asset_key(BTC), limit=1).records
    assert newest.asset_materialization is not None
    assert {"verdict", "path", "dagster/partition_row_count", "preview"} <= newest.asset_materialization.metadata.keys()


def test_with_a_refused_base_day_nothing_is_derived_in_the_same_run(
    definitions: dg.Definitions, instance: dg.DagsterInstance, lake: Lake, sandbox: Sandbox
) -> None:
    lose(sandbox, DAYS[1])
    (result,) = fetch(definitions, instance, [BTC, FIVE.series], DAYS)
    assert not result.success
    assert keys(lake, BTC) == DAYS[:1]
    assert keys(lake, FIVE.series) == events(instance, FIVE.series) == []
    started = [event.step_key for event in result.all_events if event.event_type == dg.DagsterEventType.STEP_START]
    assert started == ["spot__BTCUSDT__1m"]


# What the sensor launches.


def tick(
    definitions: dg.Definitions, instance: dg.DagsterInstance, cursor: str | None
) -> tuple[Sequence[dg.RunRequest], str | None]:
    repository = definitions.get_repository_def()
    context = dg.build_sensor_context(instance=instance, repository_def=repository, cursor=cursor)
    data = repository.get_sensor_def("derived_candles").evaluate_tick(context)
    return data.run_requests or [], data.cursor


def test_the_runs_of_the_sensor_derive_every_series_of_the_new_days(
    definitions: dg.Definitions, filled: dg.DagsterInstance, lake: Lake, sandbox: Sandbox
) -> None:
    requests, cursor = tick(definitions, filled, None)
    assert len(requests) == 2
    for request in requests:
        assert execute(definitions, filled, request).success
    for derived in (FIVE, UNCOMMON, HOUR, WHOLE_DAY, *FROM_COIN):
        assert keys(lake, derived.series) == DAYS
    assert not sandbox.requests
    assert tick(definitions, filled, cursor)[0] == []


def test_a_repaired_day_is_derived_again(
    settings: Settings, instance: dg.DagsterInstance, lake: Lake, sandbox: Sandbox
) -> None:
    definitions = build_defs(settings, universe_of(BTC, derived=[HOUR]))
    lose(sandbox, DAYS[1])
    fetch(definitions, instance, [BTC], DAYS)
    requests, cursor = tick(definitions, instance, None)
    assert [request.tags["dagster/asset_partition_range_end"] for request in requests] == DAYS[:1]
    execute(definitions, instance, requests[0])
    sandbox.faults.clear()
    fetch(definitions, instance, [BTC], DAYS[1:])
    (request,), cursor = tick(definitions, instance, cursor)
    execute(definitions, instance, request)
    assert keys(lake, HOUR.series) == DAYS
    assert tick(definitions, instance, cursor)[0] == []


def test_a_base_series_can_be_coarser_than_a_minute(
    settings: Settings, instance: dg.DagsterInstance, lake: Lake, sandbox: Sandbox
) -> None:
    base = Series(BTC.market, "ETHUSDT", parse_interval("1h"))
    (target,) = derived_from(base, "12h")
    definitions = build_defs(settings, universe_of(base, derived=[target]))
    fetch(definitions, instance, [base], DAYS)
    fetch(definitions, instance, [target.series], DAYS)
    start = to_ms(dt.date.fromisoformat(DAYS[0]))
    days = pl.concat(read(lake, target.series, key) for key in DAYS)
    assert days.equals(expected_candles(sandbox, str(target.series), start, start + 2 * DAY))
