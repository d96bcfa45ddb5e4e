"""What a monitor scrapes, after a download with a refused day and a block: as a parser of Prometheus reads it."""

from __future__ import annotations

import datetime as dt
import json
import os
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families

from binance_assets.cli.main import cli
from binance_assets.model.exposition import exposition
from binance_assets.model.rules import make_rule
from binance_assets.model.series import parse_series
from binance_assets.model.timestamps import HOUR, to_ms
from binance_assets.orchestration.scrape import scrape
from binance_assets.sandbox import Fault, Sandbox
from binance_assets.storage.lake import Lake
from binance_assets.storage.universe_lock import LockedRule, LockedSymbol, UniverseLock, write_lock
from binance_assets_tests.support.environment import Run, environment_of
from binance_assets_tests.support.results import result_of

SERIES = {"market": "spot", "symbol": "BTCUSDT", "interval": "1h"}
DOWNLOAD = ("download", "BTCUSDT", "--market", "spot", "--interval", "1h", "--source", "rest")
Metrics = dict[str, list[tuple[dict[str, str], float]]]


def parsed(text: str) -> Metrics:
    return {
        family.name.removeprefix("binance_assets_"): [(sample.labels, sample.value) for sample in family.samples]
        for family in text_string_to_metric_families(text)
    }


def test_metrics_after_a_download_with_a_refused_day_and_a_block(
    run_cli: Run, sandbox: Sandbox, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lost = to_ms(dt.date(2024, 1, 3)) + 5 * HOUR
    for path in ("klines", "archive"):
        sandbox.faults.add(Fault("missing_row", start=lost, end=lost + HOUR, path=path, interval="1h"))
    assert run_cli(*DOWNLOAD, "--start", "2024-01-01", "--end", "2024-01-08").returncode == 1
    counted = sum(request.weight for request in sandbox.requests)
    sandbox.faults.add(Fault("status", value=429, seconds=2_000))
    blocked = run_cli(*DOWNLOAD, "--start", "2024-02-01", "--end", "2024-02-03")
    assert blocked.returncode == 1, blocked.stderr
    before = len(sandbox.requests)

    printed = run_cli("metrics")
    assert printed.returncode == 0, printed.stderr
    found = parsed(printed.stdout)

    assert found["partitions"] == [({**SERIES, "verdict": "complete"}, 6)]
    ((labels, refused),) = found["partitions_refused"]
    assert (labels, refused) == (SERIES, 3)  # the lost day, and the two days of the blocked run
    assert found["candles"] == [(SERIES, 6 * 24)]
    assert found["last_candle_timestamp_seconds"] == [(SERIES, to_ms(dt.date(2024, 1, 8)) / 1_000)]
    assert found["series_stale"] == [(SERIES, 1)]
    assert ({"status": "failure"}, 2) in found["runs"]
    group = {"exchange": sandbox.url.removeprefix("http://"), "egress": "", "group": "spot"}
    assert found["weight_limit"] == [(group, 6000)]
    used = sum(value for _, value in found["weight_used"])
    assert {labels["minute"] for labels, _ in found["weight_used"]} == {"current", "previous"}
    assert 0 < used <= counted + 100
    ((labels, seconds),) = found["blocked_seconds"]
    assert labels == group
    assert 1_800 < seconds <= 2_000
    assert (found["banned"], found["blocks_in_a_row"]) == ([(group, 0)], [(group, 1)])
    assert {value for _, value in found["source_up"]} == {1}
    assert len(sandbox.requests) == before  # nothing asks the exchange

    # A source that cannot be read costs its own metrics only.
    monkeypatch.chdir(tmp_path)
    (tmp_path / "no-ledger").write_text(
        "this is no ledger, but a text that is longer than the header of a database" * 9
    )
    environment = environment_of(sandbox, tmp_path) | {"BINANCE_ASSETS_LEDGER": "no-ledger"}
    result = scrape(tmp_path, environment | {"BINANCE_ASSETS_UNIVERSE": os.fspath(tmp_path / "universe.yaml")})
    assert list(result.problems) == ["ledger"]
    rest = parsed(exposition(result.metrics))
    assert "weight_used" not in rest
    assert rest["partitions"] == found["partitions"]
    assert ({"source": "ledger"}, 0) in rest["source_up"]


def test_after_the_last_day_of_a_delisted_symbol_neither_status_nor_metrics_miss_a_day(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    over, live = parse_series("spot/SRMUSDT/1d"), parse_series("spot/BTCUSDT/1d")
    Path("universe.yaml").write_text("series: [{market: spot, symbols: {delisted: true}, intervals: [1d]}]\n")
    since, first, last = dt.date(2024, 1, 1), dt.date(2022, 11, 26), dt.date(2022, 11, 28)
    records = {"SRMUSDT": LockedSymbol(since, first, last, False), "BTCUSDT": LockedSymbol(since, first, None, True)}
    rule = LockedRule(over.market, make_rule({"delisted": True}), records)
    write_lock(Path("universe.lock.yaml"), UniverseLock(since, (rule,)))
    lake = Lake(Path("lake"))
    lake.prepare("sandbox")
    for series in (over, live):
        lake.write_all(series, [result_of(series, key) for key in ("2022-11-26", "2022-11-28")])

    cli.main(["status", "--json"])
    missing = {name: status["missing"] for name, status in json.loads(capsys.readouterr().out).items()}
    assert (missing[str(over)], missing[str(live)] > 365) == (1, True)
    found = parsed(exposition(scrape(tmp_path, {"BINANCE_ASSETS_LEDGER": "ledger.sqlite"}).metrics))
    of_symbol = {labels["symbol"]: value for labels, value in found["partitions_missing"]}
    assert (of_symbol["SRMUSDT"], of_symbol["BTCUSDT"] > 365) == (1, True)


def test_without_lake_ledger_and_history_there_is_nothing_to_measure_and_nothing_is_created(
    sandbox: Sandbox, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    environment = environment_of(sandbox, tmp_path)
    del environment["BINANCE_ASSETS_UNIVERSE"]
    result = scrape(tmp_path, environment)
    assert result.problems == {}
    assert [metric.name for metric in result.metrics if metric.samples] == [
        "binance_assets_info",
        "binance_assets_source_up",
    ]
    assert list(tmp_path.iterdir()) == []
