"""What ``--json`` prints: of every command that prints a table, exactly these keys and types."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Literal

import pytest
from click.testing import CliRunner
from pydantic import BaseModel, ConfigDict, TypeAdapter

from binance_assets.cli.main import cli
from binance_assets.model.results import Verdict
from binance_assets.orchestration.instance import open_instance
from binance_assets.sandbox import Fault, SandboxOptions, running_sandbox
from binance_assets_tests.support.environment import cli_environment
from binance_assets_tests.support.instances import copy_state_of_working_folder

Printed = Callable[..., str]
Downloaded = tuple[Path, dict[str, str | None], str]

NAME = "spot/BTCUSDT/1h"
HOURS = ("BTCUSDT", "--market", "spot", "--interval", "1h", "--start", "2024-01-01", "--end", "2024-01-04")
LOST = 1_704_164_400_000  # 2024-01-02 03:00


class Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)


class Refused(Strict):
    day: str
    verdict: Verdict
    missing: list[list[str]]
    reason: str


class Outcome(Strict):
    days_asked: int
    days_present: int
    verdicts: dict[Verdict, int]
    refused: list[Refused]
    requests: int
    weight: int
    warmup: int
    workers: int
    rtt_ms: float | None
    rows: int
    seconds: float
    waited: float


class Plan(Strict):
    days_asked: int
    days_present: int
    days_missing: list[str]
    requests: int
    weight: int
    files: int


Held = TypeAdapter(dict[str, dict[Literal["partitions", "from", "to"], int | str | None]])


class Run(Strict):
    id: str
    status: Literal["SUCCESS", "FAILURE"]
    started: str
    ended: str


Status = TypeAdapter(
    dict[
        str,
        dict[
            Literal["from", "to", "partitions", "verdicts", "missing", "refused", "rows", "bytes", "last_run"],
            str | int | dict[Verdict, int] | Run | None,
        ],
    ]
)


class Provenance(Strict):
    source: str
    archive_file: str | None
    archive_sha256: str | None
    archive_modified: str | None
    derived_from: str | None
    accepted_by: str | None
    accepted_because: str | None
    version: str | None


class Candles(Strict):
    head: list[dict[str, str | float | int]]
    tail: list[dict[str, str | float | int]]


class Shown(Strict):
    series: str
    day: str
    stored: Literal[True]
    verdict: Verdict
    reason: str
    missing: list[list[str]]
    provenance: Provenance
    file: str
    content_hash: str
    rows: int
    bytes: int
    candles: Candles


class ShownRefused(Strict):
    series: str
    day: str
    stored: Literal[False]
    verdict: Verdict | Literal["missing"]
    missing: str
    reason: str


class Difference(Strict):
    day: str
    difference: str


class Verified(Strict):
    days_verified: int
    differences: list[Difference]


class ExportedSeries(Strict):
    interval: str
    rows: int
    first: str
    last: str
    files: list[str]


class Exported(Strict):
    target: str
    folder: str
    missing: Literal["keep", "null", "flat", "raise"]
    files: dict[str, int]
    series: dict[str, ExportedSeries]
    load: str


class Automation(Strict):
    kind: Literal["schedule", "sensor"]
    on: bool


@pytest.fixture(scope="module")
def downloaded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Downloaded]:
    """A folder with three days, of which one is refused; the environment; and what the download printed."""
    folder = tmp_path_factory.mktemp("json")
    copy_state_of_working_folder(folder)
    with running_sandbox(SandboxOptions()) as sandbox, pytest.MonkeyPatch.context() as patch:
        for path in ("klines", "archive"):
            sandbox.faults.add(Fault("missing_row", start=LOST, end=LOST + 1, path=path, interval="1h"))
        patch.chdir(folder)
        environment: dict[str, str | None] = dict(cli_environment(sandbox, folder))
        result = CliRunner().invoke(cli, ["download", *HOURS, "--json"], env=environment)
        assert result.exit_code == 1, result.output
        yield folder, environment, result.stdout


@pytest.fixture
def printed(downloaded: Downloaded, monkeypatch: pytest.MonkeyPatch) -> Printed:
    monkeypatch.chdir(downloaded[0])

    def run(*arguments: str, code: int = 0) -> str:
        result = CliRunner().invoke(cli, [*arguments, "--json"], env=downloaded[1])
        assert result.exit_code == code, result.output
        return result.stdout

    return run


def test_download(downloaded: Downloaded) -> None:
    outcome = TypeAdapter(dict[str, Outcome]).validate_json(downloaded[2])[NAME]
    assert (outcome.days_present, [day.day for day in outcome.refused]) == (2, ["2024-01-02"])


def test_dry_run(printed: Printed) -> None:
    plan = TypeAdapter(dict[str, Plan]).validate_json(printed("download", *HOURS, "--dry-run"))[NAME]
    assert plan.days_missing == ["2024-01-02"]


def test_series(printed: Printed) -> None:
    assert Held.validate_json(printed("series")) == {NAME: {"partitions": 2, "from": "2024-01-01", "to": "2024-01-03"}}


def test_status(printed: Printed) -> None:
    status = Status.validate_json(printed("status", NAME))[NAME]
    assert len(status) == 9
    assert (status["from"], status["to"], status["partitions"]) == ("2024-01-01", "2024-01-03", 2)
    assert (status["verdicts"], status["refused"]) == ({"complete": 2}, 1)
    assert isinstance(status["last_run"], Run)
    assert status["last_run"].status == "FAILURE"


def test_status_of_a_series_without_partitions(printed: Printed) -> None:
    status = json.loads(printed("status", "spot/ETHUSDT/1h"))["spot/ETHUSDT/1h"]
    assert (status["from"], status["partitions"], status["last_run"]) == (None, 0, None)


def test_show(printed: Printed) -> None:
    shown = Shown.model_validate_json(printed("show", NAME, "20240101", "--rows", "2"))
    opened = [row["open_time"] for row in (*shown.candles.head, *shown.candles.tail)]
    assert opened == [f"2024-01-01T{hour}:00:00.000Z" for hour in ("00", "01", "22", "23")]
    assert (shown.verdict, shown.rows, shown.provenance.source) == ("complete", 24, "rest")


def test_show_of_a_refused_and_of_an_unknown_partition(printed: Printed) -> None:
    refused = ShownRefused.model_validate_json(printed("show", NAME, "2024-01-02", code=1))
    assert (refused.verdict, refused.missing) == ("lost", "2024-01-02 03:00 to 04:00")
    assert "their trades are missing" in refused.reason
    unknown = ShownRefused.model_validate_json(printed("show", NAME, "2022", code=1))
    assert (unknown.day, unknown.verdict) == ("2022-01-01", "missing")


def test_verify(printed: Printed) -> None:
    verified = TypeAdapter(dict[str, Verified]).validate_json(printed("verify", code=1))[NAME]
    assert [difference.day for difference in verified.differences] == ["2024-01-02"]


def test_export(printed: Printed) -> None:
    arguments = ("export", NAME, "--to", "freqtrade", "--allow-missing", "-o", "out")
    exported = Exported.model_validate_json(printed(*arguments))
    series = exported.series[NAME]
    assert (series.rows, series.first, series.last) == (48, "2024-01-01T00:00:00Z", "2024-01-03T23:00:00Z")
    assert {Path("out", name).stat().st_size for name in series.files} == set(exported.files.values())


def test_schedules_are_turned_on_in_the_instance(printed: Printed, downloaded: Downloaded) -> None:
    schema = TypeAdapter(dict[str, Automation])
    automations = schema.validate_json(printed("schedules", "on", "spot_catch_up", "reissued_archives"))
    on = {name for name, automation in automations.items() if automation.on}
    assert on >= {"spot_catch_up", "reissued_archives", "coverage", "interrupted_runs"}
    assert not automations["spot_daily_schedule"].on
    with open_instance(Path.cwd(), {}) as instance:
        running = {state.instigator_name for state in instance.all_instigator_state() if state.is_running}
    assert running == {"spot_catch_up", "reissued_archives"}
