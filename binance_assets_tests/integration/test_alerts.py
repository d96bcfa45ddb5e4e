"""The alerts of failed runs and checks: a real hook on the loopback interface receives what a real instance holds."""

from __future__ import annotations

import datetime as dt
import logging
from collections.abc import Iterator
from pathlib import Path

import dagster as dg
import pytest
from pydantic import SecretStr

from binance_assets.definitions import build_defs
from binance_assets.model.series import parse_series
from binance_assets.model.timestamps import HOUR, to_ms
from binance_assets.orchestration.alerts import MOST_REFUSED, Alert
from binance_assets.orchestration.coverage import coverage_key
from binance_assets.orchestration.keys import asset_key
from binance_assets.orchestration.webhook import post
from binance_assets.sandbox import Fault, Sandbox
from binance_assets.settings import Settings
from binance_assets_tests.support.alert_hook import SECRET, Hook, serving_hook
from binance_assets_tests.support.exchange import ALL_SOURCES
from binance_assets_tests.support.hostile_server import hostile_server
from binance_assets_tests.support.instances import execute, fetch, universe_of

pytestmark = pytest.mark.usefixtures("without_plot")

BTC = parse_series("spot/BTCUSDT/1h")


@pytest.fixture
def hook() -> Iterator[Hook]:
    with serving_hook() as running:
        yield running


@pytest.fixture
def definitions(settings: Settings, hook: Hook) -> dg.Definitions:
    update = {"source": "rest", "alert_url": hook.url}
    return build_defs(settings.model_copy(update=update), universe_of(BTC))


class Ticks:
    """The ticks of a sensor, each in a new context, as after a restart of the daemon."""

    def __init__(self, definitions: dg.Definitions, instance: dg.DagsterInstance, name: str) -> None:
        self._repository, self._instance, self._name = definitions.get_repository_def(), instance, name
        self.cursor: str | None = None

    def next(self) -> str:
        """Evaluate the sensor; return what its tick reports."""
        with dg.build_sensor_context(self._instance, self.cursor, repository_def=self._repository) as context:
            data = self._repository.get_sensor_def(self._name).evaluate_tick(context)
        self.cursor = data.cursor
        assert not data.run_requests
        return str(data.skip_message)


def lose(sandbox: Sandbox, day: int) -> None:
    """Remove the candle at noon of a day of March 2024 from both sources."""
    noon = to_ms(dt.date(2024, 3, day)) + 12 * HOUR
    for path in ALL_SOURCES:
        sandbox.faults.add(
            Fault("missing_row", symbol="BTCUSDT", start=noon, end=noon + HOUR, path=path, interval="1h")
        )


REASON = "lost: no candles for 2024-03-02 12:00 to 13:00"


def test_a_failed_run_is_posted_once_also_when_the_hook_was_down(
    definitions: dg.Definitions,
    instance: dg.DagsterInstance,
    sandbox: Sandbox,
    hook: Hook,
    caplog: pytest.LogCaptureFixture,
    capfd: pytest.CaptureFixture[str],
) -> None:
    caplog.set_level(logging.DEBUG)
    lose(sandbox, 2)
    assert not fetch(definitions, instance, [BTC], ["2024-03-02"])[0].success  # before the sensor was turned on
    ticks = Ticks(definitions, instance, "run_failures")
    assert ticks.next() == "alerts begin with what fails from now on"
    (run,) = fetch(definitions, instance, [BTC], ["2024-03-01", "2024-03-02"])

    reports = []
    for hook.status in (500, 302, 404, 429):
        reports.append(ticks.next())
        assert f"responds with status {hook.status}" in reports[-1]
    assert (hook.received, hook.refused) == ([], 4)
    hook.status = 200
    assert [ticks.next(), ticks.next()] == ["alerts delivered: 1", "nothing new failed"]

    (alert,) = hook.received
    assert REASON in alert["reason"]
    text = f"run {run.run_id} of __ASSET_JOB failed (2024-03-01...2024-03-02): {alert['reason']}"
    assert alert == {
        "text": text,
        "kind": "run_failure",
        "job": "__ASSET_JOB",
        "run_id": run.run_id,
        "asset": "spot/BTCUSDT/1h",
        "check": None,
        "reason": alert["reason"],
        "partitions": ["2024-03-01...2024-03-02"],
    }
    out, err = capfd.readouterr()
    events = "".join(str(record.event_log_entry) for record in instance.get_records_for_run(run.run_id).records)
    for shown in (out, err, caplog.text, events, str(ticks.cursor), *reports):
        assert SECRET not in shown


def test_a_run_that_dagster_starts_again_is_no_alert_before_its_last_attempt(
    definitions: dg.Definitions, hook: Hook, tmp_path: Path
) -> None:
    retries = {"run_retries": {"enabled": True, "max_retries": 1}}
    with dg.DagsterInstance.local_temp(str(tmp_path), retries) as instance:
        ticks = Ticks(definitions, instance, "run_failures")
        ticks.next()
        job = definitions.resolve_job_def("spot_daily")
        first = instance.create_run_for_job(job)
        instance.report_run_failed(first, "the first attempt")
        assert ticks.next() == "nothing new failed"
        last = instance.create_run_for_job(job, tags={"dagster/max_retries": "0"})
        instance.report_run_failed(last, "the last attempt")
        assert ticks.next() == "alerts delivered: 1"
    assert [(alert["run_id"], alert["reason"]) for alert in hook.received] == [(last.run_id, "the last attempt")]


def test_a_failed_check_is_posted_when_it_fails_and_when_what_is_absent_changes(
    definitions: dg.Definitions, instance: dg.DagsterInstance, sandbox: Sandbox, hook: Hook
) -> None:
    ticks = Ticks(definitions, instance, "check_failures")
    ticks.next()
    lose(sandbox, 2)
    (run,) = fetch(definitions, instance, [BTC], ["2024-03-01", "2024-03-02"])
    assert ticks.next() == "alerts delivered: 1"
    alert = hook.received[0]
    assert REASON in alert["text"]
    assert "\n" not in alert["text"]
    named = {name: alert[name] for name in ("kind", "run_id", "asset", "check", "partitions")}
    assert named == {
        "kind": "check_failure",
        "run_id": run.run_id,
        "asset": "spot/BTCUSDT/1h",
        "check": "gap_free",
        "partitions": ["2024-03-02"],
    }

    fetch(definitions, instance, [BTC], ["2024-03-03"])  # evaluates the check again: the same day is absent
    assert (ticks.next(), len(hook.received)) == ("nothing new failed", 1)
    lose(sandbox, 4)
    fetch(definitions, instance, [BTC], ["2024-03-04"])
    assert ticks.next() == "alerts delivered: 1"
    assert hook.received[1]["partitions"] == ["2024-03-02", "2024-03-04"]
    sandbox.faults.clear()
    fetch(definitions, instance, [BTC], ["2024-03-02", "2024-03-04"])
    ticks.next()

    selection = [coverage_key(BTC.market)]
    for _ in range(2):  # the candles are two years old in both
        execute(definitions, instance, dg.RunRequest(asset_selection=selection), "__ASSET_JOB")
    already = len(hook.received)
    assert ticks.next() == "alerts delivered: 1"
    assert (len(hook.received), hook.received[-1]["check"]) == (already + 1, "fresh")
    assert hook.received[-1]["partitions"] == ["spot/BTCUSDT/1h"]


def evaluation(passed: bool, day: str) -> dg.AssetCheckEvaluation:
    return dg.AssetCheckEvaluation(
        asset_key(BTC), "gap_free", passed, metadata={"absent_digest": day}, description=f"{day} <!channel> \\[x\\]"
    )


def test_an_alert_that_the_hook_refuses_by_its_form_does_not_block_the_next(
    definitions: dg.Definitions, instance: dg.DagsterInstance, hook: Hook
) -> None:
    ticks = Ticks(definitions, instance, "check_failures")
    ticks.next()
    for entry in (evaluation(False, "first"), evaluation(True, ""), evaluation(False, "second")):
        instance.report_runless_asset_event(entry)
    hook.status = 400
    for _ in range(MOST_REFUSED - 1):
        assert "status 400" in ticks.next()
    hook.status = 503  # the hook is down: nothing is given up, and the refusals are counted from the start
    ticks.next()
    hook.status = 400
    for _ in range(MOST_REFUSED):
        assert "status 400" in ticks.next()
    hook.status = 200
    assert ticks.next() == "alerts delivered: 1"
    (alert,) = hook.received
    assert alert["text"] == "spot/BTCUSDT/1h: gap_free failed: second &lt;!channel&gt; [x]"
    assert (alert["reason"], alert["run_id"], alert["job"]) == ("second <!channel> [x]", None, None)


@pytest.mark.parametrize("name", ["run_failures", "check_failures"])
def test_without_the_setting_a_tick_names_it(settings: Settings, instance: dg.DagsterInstance, name: str) -> None:
    ticks = Ticks(build_defs(settings, universe_of(BTC)), instance, name)
    assert ticks.next().startswith("BINANCE_ASSETS_ALERT_URL is not set")


def test_a_hook_that_nobody_serves_is_named_by_its_host_only() -> None:
    with serving_hook() as gone:
        pass
    alert = Alert("run_failure", "job", "run", None, None, "reason")
    problem = post(gone.url, alert.payload())
    assert problem is not None
    assert problem.reason.startswith("127.0.0.1:")
    assert (SECRET in problem.reason, problem.is_refused) == (False, False)


def test_a_response_without_bound_is_no_delivery() -> None:
    """Headers without end; a body is not read at all."""
    endless = b"HTTP/1.1 200 OK\r\n" + b"X: " + b"x" * 60_000 + b"\r\n" + b"Y: " + b"y" * 60_000 + b"\r\n\r\n"
    alert = Alert("run_failure", "job", "run", None, None, "reason")
    with hostile_server(lambda _: endless) as server:
        problem = post(SecretStr(f"{server.url}/{SECRET}"), alert.payload())
    assert problem is not None
    assert "TooManyBytes" in problem.reason
