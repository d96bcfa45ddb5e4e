"""What ``--json`` prints: of every command that prints a table, exactly these keys and types."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from pydantic import TypeAdapter

import binance_assets as ba
from binance_assets.cli.json_output import OUTPUTS
from binance_assets.cli.main import cli
from binance_assets.model.series import parse_series
from binance_assets.orchestration.instance import open_instance
from binance_assets.orchestration.losses import record_losses
from binance_assets.sandbox import Fault, SandboxOptions, running_sandbox
from binance_assets.storage.lake import Lake
from binance_assets_tests.support.environment import cli_environment
from binance_assets_tests.support.instances import copy_state_of_working_folder
from binance_assets_tests.support.lakes import local

Printed = Callable[..., str]
Downloaded = tuple[Path, dict[str, str | None], str]

NAME = "spot/BTCUSDT/1h"
HOURS = ("BTCUSDT", "--market", "spot", "--interval", "1h", "--start", "2024-01-01", "--end", "2024-01-04")
# Made once, before a code server is started: making one parses the source of its type.
ADAPTERS = {command: TypeAdapter(output) for command, output in OUTPUTS.items()}
LOST = 1_704_164_400_000  # 2024-01-02 03:00


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


def parse(command: str, text: str) -> Any:
    """Return what a command printed, validated against its documented type."""
    return ADAPTERS[command].validate_json(text)


def test_download(downloaded: Downloaded) -> None:
    outcome = parse("download", downloaded[2])[NAME]
    assert (outcome["days_present"], [day["day"] for day in outcome["refused"]]) == (2, ["2024-01-02"])


def test_dry_run(printed: Printed) -> None:
    plan = parse("download --dry-run", printed("download", *HOURS, "--dry-run"))[NAME]
    assert plan["days_missing"] == ["2024-01-02"]


def test_series(printed: Printed) -> None:
    held = parse("series", printed("series"))
    assert held == {NAME: {"partitions": 2, "from": "2024-01-01", "to": "2024-01-03"}}


def test_status(printed: Printed) -> None:
    status = parse("status", printed("status", NAME))[NAME]
    assert len(status) == 9
    assert (status["from"], status["to"], status["partitions"]) == ("2024-01-01", "2024-01-03", 2)
    assert (status["verdicts"], status["refused"]) == ({"complete": 2}, 1)
    run = status["last_run"]
    assert run["status"] == "FAILURE"
    assert run["started"] <= run["ended"]


def test_a_series_that_the_lake_lacks_is_answered_with_the_one_that_is_meant(
    downloaded: Downloaded, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(downloaded[0])
    for command in (["status"], ["verify"]):
        result = CliRunner().invoke(cli, [*command, "spot/BTCUSTD/1h"], env=downloaded[1])
        assert f"spot/BTCUSTD/1h: no partitions in the lake (did you mean {NAME}?)" in result.stderr
    untracked = CliRunner().invoke(cli, ["untrack", "BTCUSTD", *HOURS[1:5]], env=downloaded[1])
    assert f"spot/BTCUSTD/1h was not tracked (did you mean {NAME}?)" in untracked.stdout
    for read in (ba.load, ba.plot):
        with pytest.raises(ba.MissingPartitions, match="did you mean") as raised:
            read("spot/BTCUSTD/1h", lake=downloaded[0] / "lake")
        assert ("allow_missing" in str(raised.value)) is False


def test_status_of_a_series_without_partitions(printed: Printed) -> None:
    status = json.loads(printed("status", "spot/ETHUSDT/1h"))["spot/ETHUSDT/1h"]
    assert (status["from"], status["partitions"], status["last_run"]) == (None, 0, None)


def test_show(printed: Printed) -> None:
    shown = parse("show", printed("show", NAME, "20240101", "--rows", "2"))
    opened = [row["open_time"] for row in (*shown["candles"]["head"], *shown["candles"]["tail"])]
    assert opened == [f"2024-01-01T{hour}:00:00.000Z" for hour in ("00", "01", "22", "23")]
    assert (shown["verdict"], shown["rows"], shown["provenance"]["source"]) == ("complete", 24, "rest")


def test_show_of_a_refused_and_of_an_unknown_partition(printed: Printed) -> None:
    refused = parse("show", printed("show", NAME, "2024-01-02", code=1))
    assert (refused["stored"], refused["verdict"], refused["missing"]) == (False, "lost", "2024-01-02 03:00 to 04:00")
    assert "their trades are missing" in refused["reason"]
    unknown = parse("show", printed("show", NAME, "2022", code=1))
    assert (unknown["day"], unknown["verdict"]) == ("2022-01-01", "missing")
    assert unknown["reason"].endswith(
        "run binance-assets download BTCUSDT --market spot --interval 1h --start 2022-01-01 --end 2022-01-02"
    )
    misspelled = parse("show", printed("show", "spot/BTCUSTD/1h", "2022", code=1))
    assert f"(did you mean {NAME}?)" in misspelled["reason"]
    today = parse("show", printed("show", NAME, "today", code=1))
    assert today["reason"] == "it is not over yet"


def test_a_lake_that_was_moved_is_absent_and_its_days_are_missing_not_refused(
    downloaded: Downloaded, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, environment, _ = downloaded
    monkeypatch.chdir(folder)
    away = (folder / "lake").rename(folder / "moved")
    try:
        result = CliRunner().invoke(cli, ["status", NAME, "--json"], env=environment)
    finally:
        away.rename(folder / "lake")
    status = parse("status", result.stdout)[NAME]
    assert (status["partitions"], status["missing"], status["refused"]) == (0, 2, 1)
    assert "is absent: Dagster knows 2 partitions of these series, which count as missing" in result.stderr


def test_plot_names_why_a_day_was_refused(printed: Printed) -> None:
    plotted = parse("plot", printed("plot", NAME, "--every", "2h", "--end", "2024-01-05"))
    assert (plotted["interval"], plotted["rows"], plotted["candles"]) == ("2h", 48, 24)
    assert Path(plotted["path"]).stat().st_size > 1_000_000
    assert [(span["kind"], span["from"]) for span in plotted["spans"]] == [
        ("refused", "2024-01-02T00:00:00Z"),
        ("missing", "2024-01-04T00:00:00Z"),
    ]
    assert plotted["spans"][0]["reason"].startswith("lost: no candles for 2024-01-02 03:00")


def test_verify(printed: Printed) -> None:
    verified = parse("verify", printed("verify", code=1))[NAME]
    assert [difference["day"] for difference in verified["differences"]] == ["2024-01-02"]


def test_export(printed: Printed) -> None:
    exported = parse("export", printed("export", NAME, "--to", "freqtrade", "--allow-missing", "-o", "out"))
    series = exported["series"][NAME]
    assert (series["rows"], series["first"], series["last"]) == (48, "2024-01-01T00:00:00Z", "2024-01-03T23:00:00Z")
    assert {Path("out", name).stat().st_size for name in series["files"]} == set(exported["files"].values())


def test_symbols(printed: Printed) -> None:
    found = parse("symbols", printed("symbols", "spot", "--quote", "USDT", "--top", "2"))
    assert (found["market"], len(found["symbols"])) == ("spot", 2)
    found = parse("symbols", printed("symbols", "usdm", "--no-days"))
    assert not any("first" in symbol for symbol in found["symbols"])


def test_refresh(printed: Printed, downloaded: Downloaded, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(downloaded[1], "BINANCE_ASSETS_UNIVERSE", "rules.yaml")
    Path("rules.yaml").write_text("series: [{market: spot, symbols: {match: BTC.*}, intervals: [1d]}]")
    refreshed = parse("universe refresh", printed("universe", "refresh", "--dry-run"))
    assert not refreshed["written"]
    assert {(change["change"], change["listed"]) for change in refreshed["changes"]} == {("added", True)}


def test_schedules_are_turned_on_in_the_instance(printed: Printed, downloaded: Downloaded) -> None:
    automations = parse("schedules", printed("schedules", "on", "spot_catch_up", "reissued_archives"))
    on = {name for name, automation in automations.items() if automation["on"]}
    assert on >= {"spot_catch_up", "reissued_archives", "coverage", "interrupted_runs"}
    assert not automations["spot_daily_schedule"]["on"]
    with open_instance(Path.cwd(), {}) as instance:
        running = {state.instigator_name for state in instance.all_instigator_state() if state.is_running}
    assert running == {"spot_catch_up", "reissued_archives"}


def test_deleted_files_are_missing_and_not_refused_before_and_after_their_loss_is_recorded(
    printed: Printed, downloaded: Downloaded
) -> None:
    lake, series = Lake(downloaded[0] / "lake"), parse_series(NAME)
    (file,) = local(lake.folder(series)).glob("*.parquet")
    aside = file.rename(downloaded[0] / "aside")
    try:
        noticed = parse("status", printed("status", NAME))[NAME]
        with open_instance(Path.cwd(), {}) as instance:
            assert [len(lost) for lost in record_losses(instance, lake, [series]).values()] == [2]
        recorded = parse("status", printed("status", NAME))[NAME]
        held, covered = parse("series", printed("series"))[NAME], ba.coverage(NAME, lake=lake)
    finally:
        aside.rename(file)
    for status in (noticed, recorded):
        assert (status["partitions"], status["missing"], status["refused"]) == (0, 2, 1)
    # Without Dagster, nobody knows what was asked for.
    assert held is None or held["partitions"] == 0
    assert covered.select("partitions", "missing").row(0) == (0, 0)
