"""Coverage: what the lake holds of a market, as a table, as Markdown, and as a picture."""

from __future__ import annotations

import base64
import datetime as dt
import io
import math
import shutil
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import dagster as dg
import polars as pl
import pytest
from PIL import Image

from binance_assets.charts.coverage_chart import draw_coverage, shares
from binance_assets.definitions import build_defs
from binance_assets.exchange.session import Exchange
from binance_assets.ingest.options import DownloadOptions
from binance_assets.ingest.override import override
from binance_assets.ingest.request import DownloadPlan, present_verdicts
from binance_assets.model.intervals import parse_derived_interval
from binance_assets.model.partitions import partition_for_key, partitions_between
from binance_assets.model.series import Series, derived_series, parse_series
from binance_assets.model.timestamps import HOUR, to_ms
from binance_assets.orchestration.coverage import coverage_key
from binance_assets.orchestration.gaps import find_gaps
from binance_assets.orchestration.keys import asset_key
from binance_assets.orchestration.partitions import partitions_def_for, range_tags
from binance_assets.sandbox import Fault, Sandbox
from binance_assets.settings import Settings
from binance_assets.storage.coverage import (
    MOST_ROWS,
    Coverage,
    chart_rows,
    coverage_markdown,
    coverage_table,
    coverages_of,
    most_lacking,
)
from binance_assets.storage.lake import Lake
from binance_assets.storage.locks import LOCK_NAME
from binance_assets.storage.universe import Derived
from binance_assets_tests.support.exchange import ALL_SOURCES
from binance_assets_tests.support.instances import copy_of, execute, fetch, prepare, universe_of
from binance_assets_tests.support.killed_writers import Spec, write
from binance_assets_tests.support.lakes import coverage_of, files_read_in, local, state_folder
from binance_assets_tests.support.results import result_of

pytestmark = pytest.mark.usefixtures("without_plot")

BTC, ETH, ARB = (parse_series(f"spot/{symbol}/1h") for symbol in ("BTCUSDT", "ETHUSDT", "ARBUSDT"))
COIN, WEEKS = parse_series("coinm/BTCUSD_PERP/1h"), parse_series("spot/BTCUSDT/1w")
MINUTES = parse_series("spot/BTCUSDT/1m")
FOUR_HOURS = Derived(derived_series(BTC.market, "BTCUSDT", parse_derived_interval("4h")), BTC)


@pytest.fixture
def settings(settings: Settings) -> Settings:
    return settings.model_copy(update={"source": "rest"})


@pytest.fixture
def lake(settings: Settings) -> Lake:
    return Lake(settings.lake)


def march(*days: int) -> list[str]:
    return [f"2024-03-{day:02}" for day in days]


def lose_noon(sandbox: Sandbox, series: Series, key: str) -> None:
    """Remove the candle at noon of a day from both sources."""
    noon = to_ms(dt.date.fromisoformat(key)) + 12 * HOUR
    for path in ALL_SOURCES:
        lost = Fault("missing_row", symbol=series.symbol, start=noon, end=noon + HOUR, path=path, interval="1h")
        sandbox.faults.add(lost)


def refresh(definitions: dg.Definitions, instance: dg.DagsterInstance, market: str) -> dict[str, dg.MetadataValue]:
    """Materialize the coverage of a market and return the metadata of its page."""
    key = dg.AssetKey([market, "coverage"])
    result = execute(definitions, instance, dg.RunRequest(asset_selection=[key]), "__ASSET_JOB")
    assert result.success
    (event,) = result.asset_materializations_for_node(f"{market}__coverage")
    return dict(event.metadata)


def days_until_today(first: str) -> set[int]:
    """Return the number of days from ``first`` to today; two numbers shortly after midnight."""
    now = dt.datetime.now(dt.UTC)
    moments = (now, now - dt.timedelta(minutes=5))
    return {(moment.date() - dt.date.fromisoformat(first)).days for moment in moments}


def size_of(markdown: str) -> tuple[int, int]:
    """Return width and height of the PNG in a page's Markdown."""
    with Image.open(io.BytesIO(base64.b64decode(markdown.partition("base64,")[2].removesuffix(")")))) as image:
        assert image.format == "PNG"
        return image.size


@pytest.mark.usefixtures("plot")
def test_the_page_of_a_market_shows_what_the_lake_holds(
    settings: Settings, instance: dg.DagsterInstance, lake: Lake, sandbox: Sandbox
) -> None:
    definitions = build_defs(settings, universe_of(BTC, ARB, COIN, derived=[FOUR_HOURS]))
    lose_noon(sandbox, BTC, "2024-03-06")
    fetch(definitions, instance, [BTC], march(1, 2, 3, 5, 6, 7))
    fetch(definitions, instance, [FOUR_HOURS.series], march(1, 2))
    fetch(definitions, instance, [ARB], ["2023-03-22", "2023-03-23", "2023-03-24"])
    metadata = refresh(definitions, instance, "spot")

    path = state_folder(lake) / "coverage" / "spot.parquet"
    assert metadata["path"].value == str(path)
    table = pl.read_parquet(path)
    rows = {row["series"]: row for row in table.iter_rows(named=True)}
    assert list(rows) == [str(ARB), str(BTC), "spot/BTCUSDT/4h"]  # a derived series follows its base series
    arb, btc, derived = rows.values()
    assert (btc["first"], btc["last"], btc["partitions"]) == ("2024-03-01", "2024-03-07", 5)
    assert (btc["complete"], btc["refused"], btc["rows"]) == (5, 1, 5 * 24)
    assert btc["missing"] in {days - 6 for days in days_until_today("2024-03-01")}  # the 4th, and since the 7th
    assert btc["bytes"] == sum(file.stat().st_size for file in local(lake.folder(BTC)).iterdir())
    assert (arb["before_listing"], arb["listing"], arb["complete"], arb["rows"]) == (1, 1, 1, 9 + 24)
    assert (arb["refused"], derived["refused"], derived["partitions"], derived["rows"]) == (0, 0, 2, 12)

    assert metadata["dagster/row_count"].value == 3
    assert metadata["partitions"].value == 10
    assert metadata["refused"].value == 1
    for name in ("missing", "bytes"):
        assert metadata[name].value == table[name].sum()
    assert metadata["candles"].value == table["rows"].sum() == 5 * 24 + 33 + 12

    head, ruler, _, second, *_ = str(metadata["table"].value).splitlines()
    verdicts = "before_listing | complete | listing"
    assert head == f"| series | first | last | partitions | {verdicts} | refused | missing | rows | bytes |"
    assert ruler.count("|") == head.count("|")
    assert second.startswith("| spot/BTCUSDT/1h | 2024-03-01 | 2024-03-07 | 5 | 0 | 5 | 0 | 1 | ")

    assert min(size_of(str(metadata["days by month"].value))) > 100


def test_without_the_extra_the_page_names_it(
    settings: Settings, instance: dg.DagsterInstance, monkeypatch: pytest.MonkeyPatch
) -> None:
    definitions = build_defs(settings, universe_of(BTC))
    fetch(definitions, instance, [BTC], march(1))
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    metadata = refresh(definitions, instance, "spot")
    assert "binance-assets[plot]" in str(metadata["days by month"].value)
    assert metadata["partitions"].value == 1


def test_coverage_depends_on_its_series_and_its_event_does_not_grow_with_them(
    settings: Settings, instance: dg.DagsterInstance
) -> None:
    definitions = build_defs(settings, universe_of(BTC, COIN, derived=[FOUR_HOURS]))
    graph = definitions.resolve_asset_graph()
    assert graph.get(coverage_key(BTC.market)).parent_keys == {asset_key(BTC), asset_key(FOUR_HOURS.series)}
    fetch(definitions, instance, [BTC], march(1))
    refresh(definitions, instance, "spot")
    (record,) = instance.fetch_materializations(coverage_key(BTC.market), limit=1).records
    assert record.asset_materialization is not None
    assert not record.asset_materialization.tags


def test_in_one_run_the_coverage_counts_what_the_fetched_and_derived_series_wrote(
    settings: Settings, instance: dg.DagsterInstance, lake: Lake, sandbox: Sandbox
) -> None:
    """Also if a series failed, and although Dagster would run the coverage before the derived series."""
    lose_noon(sandbox, ETH, "2024-03-02")
    definitions = build_defs(settings, universe_of(BTC, ETH, derived=[FOUR_HOURS]))
    series = [BTC, ETH, FOUR_HOURS.series]
    selection = [*map(asset_key, series), coverage_key(BTC.market)]
    request = dg.RunRequest(asset_selection=selection, tags=range_tags("2024-03-01", "2024-03-03"))
    assert not execute(definitions, instance, request, "__ASSET_JOB").success
    table = pl.read_parquet(state_folder(lake) / "coverage" / "spot.parquet")
    counts = {name: (stored, refused) for name, stored, refused in table["series", "partitions", "refused"].iter_rows()}
    assert [counts[str(member)] for member in series] == [(3, 0), (2, 1), (3, 0)]


def test_coverage_sends_no_request_and_its_file_is_not_read_as_candles(
    settings: Settings, instance: dg.DagsterInstance, lake: Lake, sandbox: Sandbox
) -> None:
    definitions = build_defs(settings, universe_of(BTC, COIN))
    fetch(definitions, instance, [BTC, COIN], march(1))
    sandbox.requests.clear()
    refresh(definitions, instance, "spot")
    refresh(definitions, instance, "coinm")
    assert sandbox.requests == []
    assert pl.scan_parquet(local(lake.root) / "market=spot").collect().height == 24
    assert {path.name for path in local(lake.root).rglob("*") if path.is_file()} == {"2024.parquet", LOCK_NAME}
    for market in ("spot", "coinm"):
        names = pl.read_parquet(state_folder(lake) / "coverage" / f"{market}.parquet")["series"]
        assert [name.split("/")[0] for name in names] == [market]
    assert coverage_key(COIN.market) == dg.AssetKey(["coinm", "coverage"])


def test_the_coverage_of_an_empty_lake(settings: Settings, instance: dg.DagsterInstance, lake: Lake) -> None:
    metadata = refresh(build_defs(settings, universe_of(BTC, ETH)), instance, "spot")
    table = pl.read_parquet(state_folder(lake) / "coverage" / "spot.parquet")
    assert table["first"].to_list() == table["last"].to_list() == [None, None]
    assert table.select(pl.exclude("series", "first", "last").sum()).row(0) == (0,) * (table.width - 3)
    assert str(metadata["table"].value).splitlines()[2] == "| spot/BTCUSDT/1h |  |  | 0 | 0 | 0 | 0 | 0 |"
    assert metadata["days by month"].value == "The lake holds no partition yet."
    assert lake.venue is None  # the lake can still take candles of any venue


def test_a_series_whose_days_were_all_refused_is_counted(
    settings: Settings, instance: dg.DagsterInstance, sandbox: Sandbox
) -> None:
    definitions = build_defs(settings, universe_of(BTC, ETH))
    lose_noon(sandbox, BTC, "2024-03-06")
    lose_noon(sandbox, ETH, "2024-03-06")
    fetch(definitions, instance, [BTC, ETH], march(6))
    fetch(definitions, instance, [ETH], march(8))
    metadata = refresh(definitions, instance, "spot")
    assert metadata["refused"].value == 2
    assert metadata["missing"].value in {days - 1 for days in days_until_today("2024-03-08")}


def test_a_refused_day_that_was_fetched_later_does_not_count_as_refused(
    settings: Settings, instance: dg.DagsterInstance, sandbox: Sandbox
) -> None:
    definitions = build_defs(settings, universe_of(BTC))
    lose_noon(sandbox, BTC, "2024-03-02")
    fetch(definitions, instance, [BTC], march(1, 2, 3))
    assert refresh(definitions, instance, "spot")["refused"].value == 1
    sandbox.faults.clear()
    fetch(definitions, instance, [BTC], march(2))
    metadata = refresh(definitions, instance, "spot")
    assert (metadata["refused"].value, metadata["partitions"].value) == (0, 3)


def test_a_refused_refresh_does_not_count_if_the_lake_has_the_day(
    settings: Settings, instance: dg.DagsterInstance, sandbox: Sandbox
) -> None:
    definitions = build_defs(settings, universe_of(BTC))
    fetch(definitions, instance, [BTC], march(1, 2))
    lose_noon(sandbox, BTC, "2024-03-02")
    fetch(definitions, instance, [BTC], march(2))
    metadata = refresh(definitions, instance, "spot")
    assert (metadata["refused"].value, metadata["partitions"].value) == (0, 2)


def test_an_overridden_day_counts_as_lost(
    settings: Settings, instance: dg.DagsterInstance, lake: Lake, sandbox: Sandbox
) -> None:
    definitions = build_defs(settings, universe_of(BTC))
    lose_noon(sandbox, BTC, "2024-03-02")
    fetch(definitions, instance, [BTC], march(1, 2))
    exchange, partition = Exchange(BTC.market, settings), partition_for_key("2024-03-02", BTC.interval)
    options = DownloadOptions("rest", listing_cache=lake)
    override(lake, exchange, BTC, [partition], options, who="a user", reason="no other source")
    exchange.close()
    metadata = refresh(definitions, instance, "spot")
    assert (metadata["refused"].value, metadata["partitions"].value, metadata["candles"].value) == (0, 2, 47)
    (row,) = pl.read_parquet(state_folder(lake) / "coverage" / "spot.parquet").iter_rows(named=True)
    assert (row["complete"], row["lost"]) == (1, 1)


# Without Dagster.


@pytest.fixture(scope="module")
def prepared(shared_sandbox: Sandbox, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A lake with 27 to 29 February, 1 and 3 March of BTC, February of its weeks, and three days of its minutes."""

    def fill(settings: Settings, instance: dg.DagsterInstance) -> None:
        definitions = build_defs(settings.model_copy(update={"source": "rest"}), universe_of(BTC, WEEKS, MINUTES))
        fetch(definitions, instance, [BTC], ["2024-02-27", "2024-02-28", "2024-02-29", *march(1, 3)])
        fetch(definitions, instance, [WEEKS], ["2024-02-01"])
        fetch(definitions, instance, [MINUTES], ["2024-02-28", "2024-02-29", *march(1)])

    shared_sandbox.faults.clear()
    return prepare(tmp_path_factory.mktemp("prepared"), shared_sandbox, fill)


@pytest.fixture
def filled(prepared: Path, tmp_path: Path) -> Iterator[Lake]:
    """A copy of the prepared lake."""
    with copy_of(prepared, tmp_path / "copy"):
        yield Lake(tmp_path / "copy" / "lake")


def test_missing_days_are_counted_from_the_first_stored_day_to_the_last_finished_day(filled: Lake) -> None:
    for until, missing in ((dt.date(2024, 3, 4), 1), (dt.date(2024, 3, 7), 4), (dt.date(2024, 3, 1), 0)):
        assert coverage_of(filled, BTC, until, frozenset()).missing == missing
    coverage = coverage_of(filled, BTC, dt.date(2024, 3, 7), frozenset(march(4, 5)))
    assert (coverage.refused, coverage.missing) == (2, 2)
    assert coverage.months == {"2024-02": (3, 3), "2024-03": (2, 6)}


def test_after_the_last_day_of_a_delisted_symbol_nothing_is_missing(filled: Lake) -> None:
    index, until = filled.file_index(BTC.market, [BTC]), dt.date(2024, 3, 7)
    for last, missing in ((dt.date(2024, 3, 3), 1), (dt.date(2024, 3, 5), 3), (dt.date(2025, 1, 1), 4)):
        (coverage,) = coverages_of(index, [BTC], until, {}, {BTC: last})
        assert coverage.missing == missing


def test_a_month_is_missing_only_when_its_last_week_has_closed(filled: Lake) -> None:
    # The last week that opens in March 2024 opens on the 25th; the last one of April, on the 29th, closes on 6 May.
    for until, missing in (
        (dt.date(2024, 3, 31), 0),
        (dt.date(2024, 4, 1), 1),
        (dt.date(2024, 5, 1), 1),
        (dt.date(2024, 5, 6), 2),
    ):
        assert coverage_of(filled, WEEKS, until, frozenset()).missing == missing


def test_the_days_of_an_unreadable_file_count_as_missing(filled: Lake) -> None:
    until = dt.date(2024, 3, 4)
    coverage = coverage_of(filled, MINUTES, until, frozenset())
    assert (coverage.missing, coverage.verdicts["complete"], coverage.rows) == (2, 3, 3 * 1_440)
    local(filled.path(MINUTES, partition_for_key("2024-03-01", MINUTES.interval))).write_bytes(b"torn")
    coverage = coverage_of(filled, MINUTES, until, frozenset())
    assert (coverage.missing, coverage.verdicts["complete"], coverage.rows) == (3, 2, 2 * 1_440)
    local(filled.path(MINUTES, partition_for_key("2024-02-28", MINUTES.interval))).write_bytes(b"torn")
    coverage = coverage_of(filled, MINUTES, until, frozenset())
    assert (coverage.first, coverage.missing, coverage.rows) == (None, 0, 0)  # as if nothing had been stored


@pytest.mark.usefixtures("plot")
def test_a_chart_has_a_square_for_each_month_of_each_series(filled: Lake) -> None:
    until = dt.date(2024, 5, 1)
    entries = [coverage_of(filled, series, until, frozenset()) for series in (BTC, WEEKS, ETH)]
    rows = chart_rows(entries)
    assert [row.label for row in rows] == [str(BTC), str(WEEKS), str(ETH)]
    hours, weeks, nothing = shares(rows, ["2024-02", "2024-03", "2024-04"])
    assert (hours[0], hours[2]) == (1, 0)
    assert 0 < hours[1] < 1
    assert weeks[:2] == [1, 0]
    assert all(map(math.isnan, [weeks[2], *nothing]))
    axes = draw_coverage(rows, "title").axes[0]
    assert [text.get_text() for text in axes.get_yticklabels()] == [row.label for row in rows]
    assert [text.get_text() for text in axes.get_xticklabels()] == ["2024-02", "2024-03", "2024-04"]


def test_a_page_of_many_series_names_those_that_lack_the_most(filled: Lake) -> None:
    entry = coverage_of(filled, BTC, dt.date(2024, 3, 4), frozenset())
    entries = [replace(entry, missing=number) for number in range(2_000)]
    assert most_lacking(entries) == entries[-MOST_ROWS:]
    total, *named = chart_rows(entries)
    assert (total.label, len(named)) == ("all 2,000 series", MOST_ROWS)
    assert total.months == {name: (2_000 * stored, 2_000 * all_) for name, (stored, all_) in entry.months.items()}


def test_a_table_without_series_is_a_table(filled: Lake) -> None:
    empty = coverage_table([])
    assert empty.schema == coverage_table([coverage_of(filled, BTC, dt.date(2024, 3, 4), frozenset())]).schema
    assert coverage_markdown(empty).splitlines()[0].startswith("| series | first | last | partitions | refused |")


def test_outages_that_no_table_names_are_counted(lake: Lake) -> None:
    series = parse_series("spot/BTCUSDT/1m")
    named = "no candles for a minute, and nothing was traded (spot outage)"
    reasons = {"2024-03-01": named, "2024-03-02": "and nothing was traded; no known outage explains it"}
    for key, reason in reasons.items():
        lake.write(series, replace(result_of(series, key, verdict="outage"), reason=reason))
    table = coverage_table([coverage_of(lake, series, dt.date(2024, 3, 3), frozenset())])
    assert (table["outage"].item(), table["unnamed_outages"].item()) == (2, 1)
    assert "| outage | unnamed_outages | refused |" in coverage_markdown(table)


def test_the_remembered_index_is_written_only_if_something_changed(lake: Lake) -> None:
    other = parse_series("spot/ETHUSDT/1m")
    members = [MINUTES, other]
    for series in members:
        write(lake.root, series, [Spec("2024-01-01", 1), Spec("2024-02-01", 1)])
    remembered = state_folder(lake) / "files" / f"{MINUTES.market.name}.parquet"

    def refresh() -> int:
        lake.remember_files(MINUTES.market, lake.file_index(MINUTES.market, members))
        return remembered.stat().st_ino

    first = refresh()
    kept = remembered.with_name("first")
    kept.hardlink_to(remembered)  # so that no other file gets its inode
    assert refresh() == first
    write(lake.root, MINUTES, [Spec("2024-01-02", 1)])  # the first series has a new file, the other a known one
    second = refresh()
    assert second != first
    assert refresh() == second


def test_whoever_reads_many_files_remembers_them_for_the_next_process(lake: Lake) -> None:
    other = parse_series("spot/ETHUSDT/1m")
    months = [f"{year}-{month:02}-01" for year in (2021, 2022, 2023) for month in range(1, 13)]
    write(lake.root, MINUTES, [Spec(key, 1) for key in months])
    write(lake.root, other, [Spec("2021-01-01", 1)])
    remembered = state_folder(lake) / "files" / f"{MINUTES.market.name}.parquet"
    with files_read_in(lake) as opened:
        lake.file_index(MINUTES.market, [other])
        assert not remembered.exists()  # a single file is read again faster
        lake.file_index(MINUTES.market, [MINUTES], dt.date(2021, 2, 1))
        opened.clear()
        Lake(lake.root).file_index(MINUTES.market, [MINUTES])
        assert opened == ["2021-01.parquet"]
    local(lake.folder(MINUTES)).joinpath("2021-05.parquet").unlink()
    assert Lake(lake.root).file_index(MINUTES.market, [MINUTES]).height == len(months) - 1


def test_what_a_download_reads_at_its_end_is_not_read_again_for_the_next_one(lake: Lake) -> None:
    months = [f"{year}-{month:02}-01" for year in (2021, 2022, 2023) for month in range(1, 13)]
    write(lake.root, MINUTES, [Spec(key, 1) for key in months])
    asked = tuple(partitions_between(dt.date(2021, 2, 1), dt.date(2023, 12, 1), MINUTES.interval))
    plans = [DownloadPlan(MINUTES, asked, (), asked), DownloadPlan(parse_series("spot/ETHUSDT/1m"), asked, (), asked)]
    with files_read_in(lake) as opened:
        present = present_verdicts(lake, plans)
        assert len(opened) == 34  # of those that were asked for
        opened.clear()
        assert present_verdicts(Lake(lake.root), plans) == present
        assert opened == []
    assert {plan.series: count.total() for plan, count in zip(plans, present.values(), strict=True)} == {
        MINUTES: 34,
        plans[1].series: 0,
    }


def test_a_refresh_reads_only_the_files_that_changed_and_sees_every_change(lake: Lake, tmp_path: Path) -> None:
    other = parse_series("spot/ETHUSDT/1m")
    write(lake.root, MINUTES, [Spec(f"2024-0{month}-01", month) for month in range(1, 6)])
    write(lake.root, other, [Spec("2024-01-01", 1)])
    members, until = [MINUTES, other], dt.date(2024, 6, 1)

    def refresh() -> pl.DataFrame:
        index = lake.file_index(MINUTES.market, members)
        lake.remember_files(MINUTES.market, index)
        return index

    def refreshed() -> list[Coverage]:
        found = coverages_of(refresh(), members, until, {})
        shutil.rmtree(tmp_path / "copy", ignore_errors=True)
        fresh = Lake(shutil.copytree(local(lake.root), tmp_path / "copy"))
        assert found == [coverage_of(fresh, member, until, set()) for member in members]
        return found

    with files_read_in(lake) as opened:
        refresh()
        assert sorted(opened) == [f"2024-0{month}.parquet" for month in (1, 1, 2, 3, 4, 5)]
        opened.clear()
        index = refresh()
        assert opened == []
    before = refreshed()
    write(lake.root, MINUTES, [Spec("2024-02-01", 7), Spec("2024-02-02", 7)])
    (local(lake.folder(MINUTES)) / "2024-03.parquet").unlink()
    damaged = local(lake.folder(MINUTES)) / "2024-04.parquet"
    damaged.write_bytes(damaged.read_bytes()[:-1] + b"x")
    with files_read_in(lake) as opened:
        refresh()
        assert sorted(opened) == ["2024-02.parquet", "2024-04.parquet"]
    after = refreshed()
    assert [coverage.verdicts.total() for coverage in before] == [5, 1]
    assert [coverage.verdicts.total() for coverage in after] == [4, 1]
    assert after[1] == before[1]
    remembered = next(state_folder(lake).rglob(f"files/{MINUTES.market}.parquet"))
    remembered.write_bytes(b"not Parquet")
    assert refreshed() == after
    pl.DataFrame({"series": ["spot/BTCUSDT/1m"]}).write_parquet(remembered)
    assert refreshed() == after
    index.with_columns(version=pl.lit("0.0.1"), partitions=pl.lit([], index.schema["partitions"])).write_parquet(
        remembered
    )
    assert refreshed() == after


def test_the_gaps_are_the_partitions_that_the_page_of_the_asset_shows_as_failed(
    settings: Settings, instance: dg.DagsterInstance, lake: Lake, sandbox: Sandbox
) -> None:
    definitions = build_defs(settings, universe_of(BTC))
    key, definition = dg.AssetKey(list(BTC.key)), partitions_def_for(BTC.interval)

    def shown() -> set[str]:
        statuses = instance.get_status_by_partition(key, definition.get_partition_keys(), definition) or {}
        return {day for day, status in statuses.items() if status is not None and status.value == "FAILED"}

    def gaps() -> set[str]:
        return set(find_gaps(instance, lake, BTC).absent)

    assert gaps() == shown() == set()
    lose_noon(sandbox, BTC, "2024-03-02")
    fetch(definitions, instance, [BTC], march(1, 2, 3))
    assert gaps() == shown() == {"2024-03-02"}
    seen: list[object] = []

    @dg.asset(key=key, partitions_def=definition)
    def again() -> None:
        seen.extend([gaps(), shown()])

    dg.materialize([again], instance=instance, partition_key="2024-03-02")
    assert seen == [set(), set()]  # it is in progress
    assert gaps() == shown() == set()
