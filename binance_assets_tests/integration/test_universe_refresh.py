"""The listing of the archive and the refresh of the universe, over HTTP against the sandbox at several moments."""

from __future__ import annotations

import datetime as dt
import json
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import dagster as dg
import pytest
from click.testing import CliRunner, Result

from binance_assets.cli.main import cli
from binance_assets.definitions import candle_definitions
from binance_assets.exchange.errors import ExchangeError
from binance_assets.exchange.listing import ArchiveListing, TradedDays
from binance_assets.ingest.universe_refresh import Refresh, RefreshRefused, refresh_universe
from binance_assets.model.markets import COINM, MARKETS, SPOT, USDM, Market
from binance_assets.orchestration.universe_refresh import universe_refresh_sensor
from binance_assets.sandbox import Sandbox, SandboxOptions, running_sandbox
from binance_assets.sandbox.archive import PublishedArchive, parse_path
from binance_assets.sandbox.faults import Fault
from binance_assets.sandbox.listing import ArchiveListing as ServedListing
from binance_assets.sandbox.sandbox_exchange import SandboxExchange
from binance_assets.settings import ConfigurationError, Settings
from binance_assets.storage.universe import read_universe
from binance_assets.storage.universe_lock import lock_path, read_lock
from binance_assets_tests.support.environment import cli_environment, environment_of
from binance_assets_tests.support.exchange import quick_retrier

RULES = """\
series:
  - {market: spot, symbols: {quote: USDT, match: "[^S].*|S[A-Z].*", top: 12, delisted: true}, intervals: [1d]}
  - {market: usdm, symbols: {quote: USDT, contract: PERPETUAL, match: "BTC.*"}, intervals: [1d]}
"""
AT = "2022-10-01"

Refresher = Callable[..., Refresh]


def offset_to(day: str) -> int:
    noon = dt.datetime.combine(dt.date.fromisoformat(day), dt.time(12), dt.UTC)
    return int((noon.timestamp() - time.time()) * 1000)


@pytest.fixture(scope="module")
def options() -> SandboxOptions:
    return SandboxOptions(clock_offset_ms=offset_to(AT))


@pytest.fixture(scope="module")
def shared_sandbox(options: SandboxOptions) -> Iterator[Sandbox]:
    with running_sandbox(options) as running:
        yield running


@pytest.fixture
def refresh(options: SandboxOptions, settings: Settings, sandbox: Sandbox) -> Refresher:
    """Refreshes the universe at a day of the sandbox's clock; a clock that jumps needs a ledger of its own."""
    settings.universe.write_text(RULES)

    def refresh_at(day: str = AT, source: str = "auto", dry_run: bool = False, accept_loss: bool = False) -> Refresh:
        options.clock_offset_ms = offset_to(day)
        sandbox.requests.clear()
        ledger = settings.universe.with_name(f"ledger-{day}.sqlite")
        own = settings.model_copy(update={"ledger": ledger, "source": source})
        return refresh_universe(settings.universe, own, dry_run, accept_loss, retrier=quick_retrier())

    return refresh_at


def kinds(refresh: Refresh) -> dict[str, str]:
    return {change.symbol: change.kind for change in refresh.changes}


# The listing


def test_the_listing_names_every_symbol_with_its_days_in_few_requests(
    options: SandboxOptions, sandbox: Sandbox, settings: Settings
) -> None:
    options.clock_offset_ms = offset_to("2026-11-20")
    expected: dict[Market, dict[str, tuple[str, str] | None]] = {
        SPOT: {
            "BTCUSDT": ("2017-08-17", "2026-11-19"),
            "SRMUSDT": ("2020-08-11", "2022-11-28"),
            "NOPEUSDT": None,
        },
        USDM: {"BTCUSDT_210326": ("2020-12-25", "2021-03-26"), "币安人生USDT": ("2025-10-07", "2026-11-19")},
        COINM: {"BTCUSD_210326": ("2020-09-25", "2021-03-26")},
    }
    for market, symbols in expected.items():
        listing = ArchiveListing(market, settings, retrier=quick_retrier())
        try:
            named = set(listing.symbols())
            days = dict(listing.days(list(symbols)))
        finally:
            listing.close()
        for symbol, span in symbols.items():
            assert (symbol in named) == (span is not None)
            assert days[symbol] == (span and TradedDays(*map(dt.date.fromisoformat, span)))
        assert listing.venue == "sandbox"
    # Nine years of days are seven pages, of which the first and the last are read, and the months in between.
    about_bitcoin = [r for r in sandbox.requests if "/BTCUSDT/" in r.params["prefix"]]
    assert len(about_bitcoin) == 3


@pytest.mark.parametrize("market", MARKETS.values(), ids=str)
def test_the_served_listing_names_exactly_the_files_that_the_archive_serves(market: Market) -> None:
    exchange = SandboxExchange(SandboxOptions(clock_offset_ms=offset_to("2024-03-05")))
    listing, archive, now = ServedListing(exchange), PublishedArchive(exchange), exchange.now_ms()
    symbols = {SPOT: ["USDCUSDT", "SRMUSDT"], USDM: ["N001USDT", "BTCUSDT_210326"], COINM: ["BTCUSD_210326"]}[market]
    for symbol in symbols:
        for frequency, interval, name in (("daily", "1d", "%Y-%m-%d"), ("monthly", "1w", "%Y-%m")):
            folder = f"data/{market.archive}/{frequency}/klines/{symbol}/{interval}/"
            listed, marker = set(), ""
            for _ in range(20):
                page = listing.page({"prefix": folder} | ({"marker": marker} if marker else {}), now)
                assert len(page.names) <= 1000
                assert list(page.names) == sorted(page.names, key=str.encode)
                listed |= set(page.names)
                if not page.truncated:
                    break
                marker = page.names[-1]
            days = (
                dt.date(2018, 12, 1) + dt.timedelta(days=n) for n in range(0, 1950, 1 if frequency == "daily" else 28)
            )
            for day in list(days)[::7] if frequency == "daily" else days:
                path = f"{folder}{symbol}-{interval}-{day.strftime(name)}.zip"
                parsed = parse_path("/" + path)
                assert parsed is not None
                assert (path in listed, f"{path}.CHECKSUM" in listed) == (archive.exists(parsed[0], now),) * 2


# The refresh


def test_symbols_are_added_delisted_and_returned_and_none_is_lost(refresh: Refresher, settings: Settings) -> None:
    first = refresh("2022-10-01")
    assert set(kinds(first).values()) == {"added"}
    lock = read_lock(lock_path(settings.universe))
    spot, usdm = (rule.symbols for rule in lock.rules)
    assert lock.refreshed == dt.date(2022, 10, 1)
    assert spot["BTCUSDT"].first == dt.date(2017, 8, 17)
    assert (spot["USDCUSDT"].listed, spot["USDCUSDT"].last) == (False, dt.date(2022, 9, 28))  # in a break since 09-29
    assert list(usdm) == ["BTCUSDT"]
    assert len(spot) == 13

    again = refresh("2022-10-02")
    assert again.changes == ()

    returned = refresh("2023-04-01")
    assert kinds(returned) == {"USDCUSDT": "returned", "SRMUSDT": "added"}
    lock = read_lock(lock_path(settings.universe))
    spot = lock.rules[0].symbols
    assert (spot["USDCUSDT"].listed, spot["USDCUSDT"].last, spot["USDCUSDT"].since) == (
        True,
        None,
        dt.date(2022, 10, 1),
    )
    assert (spot["SRMUSDT"].listed, spot["SRMUSDT"].last) == (False, dt.date(2022, 11, 28))
    assert returned.rules[0].kept == ("USDCUSDT",)  # it is none of the twelve largest

    settled = refresh("2023-04-02")
    assert (settled.changes, read_universe(settings.universe).notes) == ((), ())


def test_a_tracked_symbol_that_is_delisted_stays_and_ends_by_itself(refresh: Refresher, settings: Settings) -> None:
    settings.universe.write_text("series: [{market: spot, symbols: {match: 'S[A-Z].*USDT'}, intervals: [1d]}]")
    assert kinds(refresh("2022-10-01"))["SRMUSDT"] == "added"
    delisted = refresh("2022-11-30")
    assert kinds(delisted) == {"SRMUSDT": "delisted"}
    ended = {str(series): day for series, day in read_universe(settings.universe).ended.items()}
    assert ended == {"spot/SRMUSDT/1d": dt.date(2022, 11, 28)}


def test_a_dry_run_and_a_refresh_without_rules_write_nothing(refresh: Refresher, settings: Settings) -> None:
    outcome = refresh(dry_run=True)
    assert (bool(outcome.changes), outcome.written) == (True, False)
    settings.universe.write_text("series: [{market: spot, symbols: [BTCUSDT], intervals: [1d]}]")
    assert (refresh().rules, refresh().written) == ((), False)
    assert not lock_path(settings.universe).exists()


@pytest.mark.parametrize(
    ("fault", "error"),
    [
        (Fault("status", path="exchangeInfo", value=404), ExchangeError),
        (Fault("truncated_json", path="exchangeInfo"), ExchangeError),
        (Fault("status", path="ticker/24hr", value=403), ExchangeError),
        (Fault("status", path="archive/listing", value=403), ExchangeError),
        (Fault("not_a_zip", path="archive/listing"), ExchangeError),
        (Fault("cut_xml", path="archive/listing"), ExchangeError),
        (Fault("entities", path="archive/listing"), ExchangeError),
        (Fault("repeated_marker", path="archive/listing"), ExchangeError),
        (Fault("few_symbols", path="exchangeInfo"), RefreshRefused),
        (Fault("few_symbols", path="archive/listing"), RefreshRefused),
        (Fault("status", path="exchangeInfo", value=451), ConfigurationError),  # `top` needs the API
    ],
    ids=lambda value: f"{value.path} {value.kind} {value.value}" if isinstance(value, Fault) else "",
)
def test_a_source_that_fails_or_lost_most_symbols_changes_nothing(
    refresh: Refresher, settings: Settings, sandbox: Sandbox, fault: Fault, error: type[Exception]
) -> None:
    refresh()
    before = lock_path(settings.universe).read_bytes()
    sandbox.faults.add(fault)
    with pytest.raises(error, match=r"^[^\n]+$"):
        refresh()
    assert lock_path(settings.universe).read_bytes() == before


def test_without_its_last_rule_the_lock_file_is_emptied_without_a_request(
    refresh: Refresher, settings: Settings, sandbox: Sandbox
) -> None:
    added = {change.symbol for change in refresh().changes}
    settings.universe.write_text("series: []\n")
    outcome = refresh()
    assert outcome.written
    assert {change.symbol for change in outcome.changes if change.kind == "removed"} == added
    assert not sandbox.requests
    assert read_lock(lock_path(settings.universe)).rules == ()
    assert not refresh().written


def test_a_loss_that_a_user_accepts_is_believed(refresh: Refresher, settings: Settings, sandbox: Sandbox) -> None:
    before = refresh()
    sandbox.faults.add(Fault("few_symbols", path="exchangeInfo", market="spot"))
    after = refresh(accept_loss=True)
    assert set(kinds(after).values()) == {"delisted", "added"}
    assert set(before.rules[0].locked.symbols) <= set(after.rules[0].locked.symbols)


@pytest.mark.parametrize("restricted", [True, False])
def test_the_listing_alone_suffices_for_a_rule_that_names_and_days_can_answer(
    refresh: Refresher, settings: Settings, sandbox: Sandbox, restricted: bool
) -> None:
    settings.universe.write_text(
        "series: [{market: spot, symbols: {quote: USDT, match: '(BTC|SRM|USDC)USDT', delisted: true}, intervals: [1d]}]"
    )
    if restricted:
        for path in ("exchangeInfo", "klines", "ticker/24hr"):
            sandbox.faults.add(Fault("status", path=path, value=451))
    symbols = refresh("2022-12-15", "auto" if restricted else "archive").rules[0].locked.symbols
    assert {name: (r.first and str(r.first), r.last and str(r.last)) for name, r in symbols.items()} == {
        "BTCUSDT": ("2017-08-17", None),
        "SRMUSDT": ("2020-08-11", "2022-11-28"),
        "USDCUSDT": ("2018-12-15", "2022-09-28"),
    }


def test_an_edit_during_a_refresh_is_not_overwritten(refresh: Refresher, settings: Settings) -> None:
    def edit(line: str) -> None:
        settings.universe.write_text(RULES.replace("top: 12", "top: 3"))

    with pytest.raises(RefreshRefused, match="changed meanwhile; run the command again"):
        refresh_universe(settings.universe, settings, report=edit, retrier=quick_retrier())
    assert not lock_path(settings.universe).exists()


def test_archive_and_api_of_two_exchanges_are_not_mixed(refresh: Refresher, settings: Settings) -> None:
    mixed = settings.model_copy(update={"archive_url": "https://data.binance.vision"})
    with pytest.raises(ConfigurationError, match="set BINANCE_ARCHIVE_URL"):
        refresh_universe(settings.universe, mixed, retrier=quick_retrier())
    other = mixed.model_copy(update={"spot_url": "https://api.binance.us", "source": "archive"})
    settings.universe.write_text("series: [{market: spot, symbols: {quote: USDT}, intervals: [1d]}]")
    with pytest.raises(ConfigurationError, match="set BINANCE_ARCHIVE_URL"):
        refresh_universe(settings.universe, other, retrier=quick_retrier())


def test_the_days_of_a_delisted_symbol_never_come_from_the_archive_of_another_exchange(
    refresh: Refresher, settings: Settings, options: SandboxOptions
) -> None:
    settings.universe.write_text("series: [{market: spot, symbols: {match: SRMUSDT}, intervals: [1d]}]")
    refresh("2022-10-01")
    options.clock_offset_ms = offset_to("2022-12-20")
    mixed = {"archive_url": "https://data.binance.vision", "ledger": settings.universe.with_name("mixed.sqlite")}
    outcome = refresh_universe(settings.universe, settings.model_copy(update=mixed), retrier=quick_retrier())
    assert [(change.kind, change.record.last) for change in outcome.changes] == [("delisted", None)]


# Definitions, schedules, sensor


def test_definitions_are_built_from_the_lock_without_a_request(
    refresh: Refresher, settings: Settings, sandbox: Sandbox, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    refresh("2023-04-01")
    sandbox.requests.clear()
    for name, value in environment_of(sandbox, tmp_path).items():
        monkeypatch.setenv(name, value)
    repository = candle_definitions().get_repository_def()
    repository.load_all_definitions()
    keys = {key.to_user_string() for key in repository.asset_graph.get_all_asset_keys()}
    assert {"spot/SRMUSDT/1d", "spot/BTCUSDT/1d", "usdm/BTCUSDT/1d"} <= keys
    assert sandbox.requests == []
    assert repository.get_sensor_def("universe_refresh").default_status == dg.DefaultSensorStatus.STOPPED
    ended = repository.assets_defs_by_key[dg.AssetKey(["spot", "SRMUSDT", "1d"])].get_asset_spec()
    assert (ended.freshness_policy, ended.metadata["last day"]) == (None, "2022-11-28")


def test_schedules_do_not_ask_for_days_after_the_last_or_before_the_first(
    refresh: Refresher,
    settings: Settings,
    sandbox: Sandbox,
    instance: dg.DagsterInstance,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    settings.universe.write_text(
        "series: [{market: spot, symbols: {match: '(SRM|ARB)USDT', delisted: true}, intervals: [1d]}]"
    )
    refresh("2023-04-01")
    for name, value in environment_of(sandbox, tmp_path).items():
        monkeypatch.setenv(name, value)
    repository = candle_definitions().get_repository_def()

    def requested(schedule: str, day: str) -> set[tuple[str, str | None]]:
        moment = dt.datetime.combine(dt.date.fromisoformat(day), dt.time(1), dt.UTC)
        context = dg.build_schedule_context(instance, scheduled_execution_time=moment, repository_def=repository)
        requests = repository.get_schedule_def(schedule).evaluate_tick(context).run_requests or []
        return {
            (key.path[1], request.partition_key or request.tags["dagster/asset_partition_range_start"])
            for request in requests
            for key in request.asset_selection or []
        }

    assert requested("spot_daily_schedule", "2022-11-29") == {("SRMUSDT", "2022-11-28"), ("ARBUSDT", "2022-11-28")}
    assert requested("spot_daily_schedule", "2022-11-30") == {("ARBUSDT", "2022-11-29")}
    assert requested("spot_catch_up", "2023-03-27") == {("ARBUSDT", "2023-03-23")}
    assert requested("spot_catch_up", "2022-12-05") == {("SRMUSDT", "2022-11-21")}


def test_the_sensor_refreshes_and_says_that_the_code_location_must_be_reloaded(
    settings: Settings, sandbox: Sandbox, options: SandboxOptions, instance: dg.DagsterInstance
) -> None:
    options.clock_offset_ms = offset_to(AT)
    settings.universe.write_text(RULES)
    sensor = universe_refresh_sensor(settings)

    def tick() -> str:
        with dg.build_sensor_context(instance) as context:
            message = sensor.evaluate_tick(context).skip_message
        assert message is not None
        return message

    assert "reload the code location to see the changes of the universe: spot/ADAUSDT added" in tick()
    assert tick() == "the universe is as it was"
    sandbox.faults.add(Fault("invalid_symbol", path="exchangeInfo"))
    with pytest.raises(Exception) as failed:  # noqa: PT011 (Dagster's own error around it)
        tick()
    assert "the universe was not refreshed: " in str(failed.value.__cause__ or failed.value)
    late = universe_refresh_sensor(settings, seconds=0.0)
    with dg.build_sensor_context(instance) as context, pytest.raises(Exception) as failed:  # noqa: PT011
        late.evaluate_tick(context)
    assert "run `binance-assets universe refresh` once" in str(failed.value.__cause__ or failed.value)


# The command line


@pytest.fixture
def invoke(
    sandbox: Sandbox, options: SandboxOptions, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Callable[..., Result]:
    """Runs ``binance-assets`` in this process, in a folder of its own, against the sandbox of December 2022."""
    monkeypatch.chdir(tmp_path)
    options.clock_offset_ms = offset_to("2022-12-15")

    def run(*arguments: str, **variables: str) -> Result:
        return CliRunner().invoke(cli, arguments, env={**cli_environment(sandbox, tmp_path), **variables})

    return run


def test_the_command_prints_the_difference_and_what_to_do(invoke: Callable[..., Result], tmp_path: Path) -> None:
    (tmp_path / "universe.yaml").write_text(RULES)
    dry = invoke("universe", "refresh", "--dry-run", "--json")
    assert dry.exit_code == 0, dry.stderr
    printed = json.loads(dry.stdout)
    assert printed["written"] is False
    assert {
        "market": "spot",
        "symbol": "SRMUSDT",
        "change": "added",
        "listed": False,
        "first": "2020-08-11",
        "last": "2022-11-28",
    } in printed["changes"]
    assert [(rule["entry"], rule["market"], rule["symbols"], rule["delisted"]) for rule in printed["rules"]] == [
        (1, "spot", 14, 2),
        (2, "usdm", 1, 0),
    ]
    done = invoke("universe", "refresh")
    assert done.exit_code == 0
    assert "spot/SRMUSDT" in done.stdout
    assert done.stdout.splitlines()[-1] == "15 changes; universe.lock.yaml is written"
    assert "reload the code location" in done.stderr
    assert invoke("universe", "refresh").stdout.splitlines()[-1] == "no change; universe.lock.yaml is written"
    assert "spot/SRMUSDT/1d" in invoke("series").stdout
    selected = (tmp_path / "universe.lock.yaml").read_bytes()
    (tmp_path / "universe.yaml").write_text(RULES.replace('quote: USDT, match: "[', 'quote: USDTT, match: "['))
    refused = invoke("universe", "refresh")
    assert (refused.exit_code, refused.stdout) == (1, "")
    assert "entry 1 of series: spot has no symbol with quote=USDTT" in refused.stderr
    assert "(did you mean USDT?)" in refused.stderr
    assert (tmp_path / "universe.lock.yaml").read_bytes() == selected
    assert "spot/SRMUSDT/1d" in invoke("series").stdout
    assert invoke("universe", "refresh", "--accept-loss").exit_code == 0
    assert "spot/SRMUSDT/1d" not in invoke("series").stdout
    assert invoke("universe", "refresh").exit_code == 0  # what a user accepted is not asked again


def test_symbols_lists_what_a_market_has_and_had(invoke: Callable[..., Result]) -> None:
    query = ("symbols", "SPOT", "--quote", "usdt", "--match", "(BTC|SRM|ETH)USDT", "--delisted")
    printed = json.loads(invoke(*query, "--json").stdout)
    common: dict[str, str | None] = {"quote": "USDT", "contract": None}
    listed = common | {"state": "listed", "status": "TRADING", "first": "2017-08-17", "last": None}
    ended = common | {"state": "delisted", "status": None, "first": "2020-08-11", "last": "2022-11-28"}
    states = {"BTCUSDT": listed, "ETHUSDT": listed, "SRMUSDT": ended}
    assert printed["symbols"] == [{"symbol": symbol, **state} for symbol, state in states.items()]
    table = invoke(*query)
    assert "3 symbols: 2 listed, 1 delisted" in table.stderr
    top = json.loads(
        invoke(
            "symbols", "usdm", "--quote", "USDT", "--contract", "perpetual", "--top", "2", "--no-days", "--json"
        ).stdout
    )
    assert [entry["symbol"] for entry in top["symbols"]] == ["BTCUSDT", "ETHUSDT"]
    assert top["symbols"][0]["quote_volume"] > top["symbols"][1]["quote_volume"]
    bad = invoke("symbols", "spot", "--top", "2")
    assert (bad.exit_code, "--top: needs quote" in bad.stderr) == (2, True)
    none = invoke("symbols", "spot", "--quote", "USDTT", "--no-days", "--json")
    assert (none.exit_code, json.loads(none.stdout)["symbols"]) == (1, [])
    assert none.stderr.splitlines()[-1] == "error: spot has no symbol with quote=USDTT (did you mean USDT?)"
    assert invoke("symbols", "spot", "--quote", "USDTT", "--no-days").stdout == ""


def test_track_takes_queries_and_files_and_names_all_unknown_symbols_at_once(
    invoke: Callable[..., Result], tmp_path: Path
) -> None:
    daily = ("--market", "spot", "--interval", "1d")
    bad = invoke("track", "BTCUSTD", "eth/usdt", "QQQQ", *daily)
    assert bad.exit_code == 2
    assert "there are no symbols BTCUSTD (did you mean BTCUSDT" in bad.stderr
    assert "QQQQ" in bad.stderr
    assert not (tmp_path / "universe.yaml").exists()
    (tmp_path / "quote=mine.txt").write_text("# mine\nBTC/USDT, srmusdt # delisted\n")
    assert invoke("track", "--symbols-from", "quote=mine.txt", *daily).exit_code == 0
    assert invoke("track", "--symbols-from", "quote=USDT top=3", *daily).exit_code == 0
    tracked = {str(series) for series in read_universe(tmp_path / "universe.yaml").series}
    assert tracked == {f"spot/{symbol}USDT/1d" for symbol in ("BTC", "ETH", "BNB", "SRM")}
    assert "use --market coinm" in invoke("track", "BTCUSD_PERP", "--market", "usdm", "--interval", "1d").stderr
    for wrong in ("none.txt", "quote=", "quote=NOPE"):
        assert invoke("track", "--symbols-from", wrong, *daily).exit_code == 2
    assert invoke("track", *daily).exit_code == 2


def test_download_names_all_unknown_symbols_at_once(invoke: Callable[..., Result]) -> None:
    result = invoke("download", "BTCUSTD", "NOPEUSDT", "BTCUSDT", "--market", "spot", "--interval", "1d", "--dry-run")
    assert result.exit_code == 2
    assert "there are no symbols BTCUSTD (did you mean BTCUSDT" in result.stderr
    assert "NOPEUSDT" in result.stderr
