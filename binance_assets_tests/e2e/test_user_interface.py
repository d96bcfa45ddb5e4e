"""The requests that clicks in Dagster's user interface send, to a real ``dagster dev`` with daemon and run workers."""

from __future__ import annotations

import datetime as dt
import time
from collections.abc import Iterator

import pytest

from binance_assets.model.timestamps import DAY, HOUR, MINUTE, to_ms
from binance_assets.sandbox import Fault, Sandbox
from binance_assets_tests.support.dagster_dev import dagster_dev
from binance_assets_tests.support.loaded_machine import at_most
from binance_assets_tests.support.polling import until
from binance_assets_tests.support.user_interface import UserInterface

# The tests share one Dagster, which the first test starts and restarts.
pytestmark = [pytest.mark.servers, pytest.mark.timeout(600)]

UNIVERSE = """\
series:
  - {market: spot, symbols: [BTCUSDT], intervals: [1m], source: rest}
  - {market: spot, symbols: [ETHUSDT], intervals: [1m], source: auto}
"""
CONFIG = "run_queue: {dequeue_interval_seconds: 1}\ntelemetry: {enabled: false}\n"
SYMBOLS = ("BTCUSDT", "ETHUSDT")
MONTHS = [str(dt.date(2022, 1, 1) + dt.timedelta(n)) for n in range(200)]
FEBRUARY = [f"2024-02-{day:02}" for day in range(1, 11)]


@pytest.fixture(scope="module")
def ui(shared_sandbox: Sandbox, tmp_path_factory: pytest.TempPathFactory) -> Iterator[UserInterface]:
    """A ``dagster dev`` that has two backfills in progress and was restarted during the longer one.

    Dagster looks for backfills when it starts and then every thirty seconds (``DEFAULT_DAEMON_INTERVAL_SECONDS``, not
    configurable in 1.13). So the longer backfill is launched first and its result is checked last; the other one is
    launched just before the restart.
    """
    folder = tmp_path_factory.mktemp("ui")
    (folder / "dagster.yaml").write_text(CONFIG)
    (folder / "universe.yaml").write_text(UNIVERSE)
    noon = to_ms(dt.date(2024, 2, 4)) + 12 * HOUR
    for path in ("klines", "archive"):
        shared_sandbox.faults.add(
            Fault("missing_row", symbol="ETHUSDT", start=noon, end=noon + MINUTE, path=path, interval="1m")
        )
    with dagster_dev(shared_sandbox, folder, environment={"BINANCE_ASSETS_READ_TIMEOUT": "300"}) as dev:
        ui = UserInterface(dev)
        dev.wait_until_ready()
        until(120, ui.is_loaded)
        ui.backfill(SYMBOLS, MONTHS)
        until(240, lambda: sum(len(ui.stored(symbol, MONTHS[0], MONTHS[-1])) for symbol in SYMBOLS) > 20)
        assert ui.backfill_status(ui.backfills[0]) == "REQUESTED"
        ui.backfill(SYMBOLS, FEBRUARY)
        dev.stop()
        dev.start()
        dev.wait_until_ready()
        until(120, ui.is_loaded)
        yield ui


def test_a_single_day_is_materialized_by_one_run(ui: UserInterface) -> None:
    assert ui.final_status(ui.launch("BTCUSDT", "2024-01-01", "2024-01-01")) == "SUCCESS"
    assert ui.partitions("BTCUSDT", "2024-01") == [("MATERIALIZED", "2024-01-01", "2024-01-01")]


def test_a_backfill_of_two_assets_with_a_bad_day_fails_only_that_day(ui: UserInterface) -> None:
    until(240, lambda: len(ui.stored("ETHUSDT", FEBRUARY[0], FEBRUARY[-1])) == 9)
    until(120, lambda: ("FAILED", "2024-02-04", "2024-02-04") in ui.partitions("ETHUSDT", "2024-02"))
    assert ui.partitions("ETHUSDT", "2024-02") == [
        ("MATERIALIZED", "2024-02-01", "2024-02-03"),
        ("FAILED", "2024-02-04", "2024-02-04"),
        ("MATERIALIZED", "2024-02-05", "2024-02-10"),
    ]
    assert ui.partitions("BTCUSDT", "2024-02") == [("MATERIALIZED", "2024-02-01", "2024-02-10")]


HANGING = [("BTCUSDT", "klines"), ("ETHUSDT", "archive")]


@pytest.fixture(scope="module")
def seconds_to_end() -> list[float]:
    """How long each terminated run took to end."""
    return []


@pytest.mark.parametrize(("symbol", "path"), HANGING)
def test_terminate_ends_a_run_as_canceled_while_a_socket_hangs_and_keeps_what_was_finished(
    ui: UserInterface, shared_sandbox: Sandbox, symbol: str, path: str, seconds_to_end: list[float]
) -> None:
    hang = to_ms(dt.date(2024, 6, 1)) + 20 * DAY
    shared_sandbox.faults.add(Fault("hang", symbol=symbol, start=hang, end=hang + 1, path=path, interval="1m"))
    run = ui.launch(symbol, "2024-04-01", "2024-06-30")
    until(120, lambda: len(ui.stored(symbol, "2024-04-01", "2024-06-30")) >= 10)
    began = time.monotonic()
    ui.terminate(run)
    assert ui.final_status(run, 100) == "CANCELED"  # the request hangs for longer
    seconds_to_end.append(time.monotonic() - began)
    if len(seconds_to_end) == len(HANGING):
        assert at_most(2.5, seconds_to_end), seconds_to_end
    done = [entry for entry in ui.partitions(symbol, "2024-04") if entry[1] == "2024-04-01"]
    assert done
    assert done[0][0] == "MATERIALIZED"
    assert len(ui.stored(symbol, "2024-04-01", "2024-06-30")) >= 10


def test_a_backfill_over_months_of_two_assets_survives_a_restart_of_the_daemon(ui: UserInterface) -> None:
    months, ended = ui.backfills[0], {"COMPLETED_SUCCESS", "COMPLETED_FAILED", "FAILED", "CANCELED"}
    until(240, lambda: ui.backfill_status(months) in ended)
    for symbol in SYMBOLS:
        assert ui.partitions(symbol, "2022") == [("MATERIALIZED", MONTHS[0], MONTHS[-1])]
        assert ui.stored(symbol, MONTHS[0], MONTHS[-1]) == MONTHS
