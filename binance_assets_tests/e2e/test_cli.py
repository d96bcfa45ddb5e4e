"""The command line: what it prints, what it writes, and the exit code it ends with.

Most tests run the command in this process through click's ``CliRunner``. A test of the process itself (signals, exit
codes of ``python -m``, output streams that Dagster redirects) starts one.
"""

from __future__ import annotations

import contextlib
import datetime as dt
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import dagster as dg
import polars as pl
import pytest
from click.testing import CliRunner, Result

from binance_assets.candles.columns import columns
from binance_assets.cli.main import cli
from binance_assets.model.partitions import partition_for_key
from binance_assets.model.results import PartitionResult
from binance_assets.model.series import parse_series
from binance_assets.model.timestamps import DAY, HOUR, MINUTE, to_ms
from binance_assets.orchestration.instance import open_instance
from binance_assets.orchestration.partitions import DAILY
from binance_assets.sandbox import Fault, Sandbox
from binance_assets.storage.lake import Lake
from binance_assets_tests.support.environment import Run, cli_environment, without_progress
from binance_assets_tests.support.lakes import change, keys, local, read, remove, stored, temporary_files
from binance_assets_tests.support.loaded_machine import at_most
from binance_assets_tests.support.polling import until
from binance_assets_tests.support.results import result_of
from binance_assets_tests.support.warm_python import WarmProcess, WarmPython

pytestmark = pytest.mark.usefixtures("without_plot")

Invoke = Callable[..., Result]

MINUTES = ("BTCUSDT", "--market", "spot", "--interval", "1m")
JANUARY = ("--start", "2024-01-01", "--end", "2024-02-01")
THE_3RD = to_ms(dt.date(2024, 1, 3))
TODAY = dt.datetime.now(dt.UTC).date()
BTC = dg.AssetKey(["spot", "BTCUSDT", "1m"])
SERIES = parse_series("spot/BTCUSDT/1m")


@pytest.fixture
def invoke(sandbox: Sandbox, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Invoke:
    """Runs ``binance-assets`` in this process, in a folder of its own, against the sandbox."""
    monkeypatch.chdir(tmp_path)

    def run(*arguments: str, **variables: str) -> Result:
        environment: dict[str, str | None] = {**cli_environment(sandbox, tmp_path), **variables}
        inherited = {name: None for name in os.environ if name.startswith(("BINANCE_", "DAGSTER_"))}
        return CliRunner().invoke(cli, arguments, env=inherited | environment)

    return run


@dataclass(frozen=True)
class Download:
    """A download that has ended: the folder in which it ran, and its process."""

    folder: Path
    process: subprocess.CompletedProcess[str]

    def copy_to(self, folder: Path) -> None:
        shutil.copytree(self.folder, folder, dirs_exist_ok=True)


@pytest.fixture(scope="module")
def january(shared_sandbox: Sandbox, warm_python: WarmPython, tmp_path_factory: pytest.TempPathFactory) -> Download:
    """January 2024 of spot/BTCUSDT/1m, downloaded by a process."""
    folder = tmp_path_factory.mktemp("january")
    shared_sandbox.faults.clear()
    command = ["-m", "binance_assets", "download", *MINUTES, *JANUARY, "--json"]
    return Download(folder, warm_python.run(command, folder, cli_environment(shared_sandbox, folder), timeout=120))


Start = Callable[..., "WarmProcess | subprocess.Popen[str]"]
# A request that hangs does so for longer than a test: nothing but the interrupt ends its download.
PATIENT = {"BINANCE_ASSETS_READ_TIMEOUT": "300"}


@pytest.fixture
def start_download(sandbox: Sandbox, tmp_path: Path, warm_python: WarmPython) -> Start:
    """Starts a download as a process."""

    def start(*arguments: str) -> WarmProcess:
        command = ["-m", "binance_assets", "download", *MINUTES, *arguments]
        return warm_python.start(command, cwd=tmp_path, env=cli_environment(sandbox, tmp_path) | PATIENT)

    return start


@pytest.fixture
def start_download_in_own_group(sandbox: Sandbox, tmp_path: Path) -> Start:
    """Starts a download as a process that has imported nothing yet and leads a process group."""

    def start(*arguments: str) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [sys.executable, "-m", "binance_assets", "download", *MINUTES, *arguments],
            cwd=tmp_path, env=cli_environment(sandbox, tmp_path) | PATIENT, stdout=subprocess.PIPE,
            stderr=subprocess.PIPE, text=True, start_new_session=True,
        )  # fmt: skip

    return start


def runs_in(folder: Path) -> list[dg.DagsterRun]:
    with contextlib.chdir(folder), open_instance(folder, {}) as instance:
        return list(instance.get_runs())


def materialized_in(folder: Path, key: dg.AssetKey = BTC) -> set[str]:
    with contextlib.chdir(folder), open_instance(folder, {}) as instance:
        return set(instance.get_materialized_partitions(key))


def keys_in(folder: Path) -> list[str]:
    return keys(lake_in(folder), SERIES)


def lake_in(folder: Path) -> Lake:
    return Lake(folder / "lake")


def january_file(folder: Path) -> Path:
    return folder / "lake/market=spot/symbol=BTCUSDT/interval=1m/2024-01.parquet"


def parquets(folder: Path) -> list[Path]:
    return sorted(folder.rglob("*.parquet"))


def error_line(result: Result, code: int) -> str:
    """Return the one line, besides progress, of a command that failed with ``code`` and printed nothing else."""
    assert result.exit_code == code, result.output
    (line,) = without_progress(result.stderr)
    assert line.startswith("error: ")
    assert result.stdout == ""
    return line


def assert_nothing_is_written(folder: Path) -> None:
    """Only the ledger may exist, because requests for the symbol or for the time may have been sent."""
    assert {path.name.split("-")[0] for path in folder.iterdir()} <= {"ledger.sqlite"}


def lose_a_minute(sandbox: Sandbox) -> None:
    """Remove the first minute of the 3rd's second hour from both sources."""
    start = THE_3RD + HOUR
    for path in ("klines", "archive"):
        sandbox.faults.add(Fault("missing_row", start=start, end=start + MINUTE, path=path, interval="1m"))


# -- download -------------------------------------------------------------------------------------------------------


def test_a_month_lands_in_lake_universe_and_dagster(january: Download) -> None:
    process = january.process
    assert process.returncode == 0, process.stderr
    outcome = json.loads(process.stdout)["spot/BTCUSDT/1m"]
    assert (outcome["days_asked"], outcome["days_present"], outcome["refused"]) == (31, 31, [])
    assert outcome["rows"] == 44_640
    assert len(keys_in(january.folder)) == len(materialized_in(january.folder)) == 31
    (run,) = runs_in(january.folder)
    assert (run.job_name, run.status) == ("spot_daily", dg.DagsterRunStatus.SUCCESS)
    assert "spot/BTCUSDT/1m is now tracked" in process.stderr
    assert "reload" in process.stderr
    others = "\n".join(without_progress(process.stderr))
    assert "dagster" not in others.lower().replace(str(january.folder).lower(), "")


@pytest.mark.usefixtures("new_state")
def test_a_month_from_rest_takes_the_fewest_pages(invoke: Invoke) -> None:
    result = invoke("download", *MINUTES, *JANUARY, "--json", "--source", "rest")
    assert result.exit_code == 0, result.stderr
    outcome = json.loads(result.stdout)["spot/BTCUSDT/1m"]
    assert (outcome["days_asked"], outcome["days_present"], outcome["refused"]) == (31, 31, [])
    assert (outcome["rows"], outcome["requests"]) == (44_640, 48)  # 45 pages, the time, the limit, the control totals
    assert outcome["workers"] >= 1
    assert outcome["rtt_ms"] > 0


@pytest.mark.parametrize("source", [["--source", "archive"], ["--source", "auto"], []])
@pytest.mark.usefixtures("new_state")
def test_a_past_month_is_one_file_of_the_archive_and_costs_no_weight(
    invoke: Invoke, sandbox: Sandbox, source: list[str]
) -> None:
    result = invoke("download", *MINUTES, *JANUARY, "--json", *source)
    assert result.exit_code == 0, result.stderr
    outcome = json.loads(result.stdout)["spot/BTCUSDT/1m"]
    assert (outcome["days_present"], outcome["rows"], outcome["refused"]) == (31, 44_640, [])
    zips = [request.path for request in sandbox.requests if request.path.endswith(".zip")]
    assert zips == ["/data/spot/monthly/klines/BTCUSDT/1m/BTCUSDT-1m-2024-01.zip"]
    intervals = [request.params["interval"] for request in sandbox.requests if request.path.endswith("/klines")]
    assert intervals.count("1m") == (0 if source[-1:] == ["archive"] else 1)  # checks that the symbol exists
    assert outcome["weight"] == 1 + 2  # the time and the control totals


@pytest.mark.usefixtures("new_state")
def test_the_table_has_the_numbers_of_the_json_output(invoke: Invoke) -> None:
    result = invoke("download", *MINUTES, *JANUARY)
    assert result.exit_code == 0
    header, row = result.stdout.strip().splitlines()
    assert header.split()[0] == "series"
    assert row.split()[:5] == ["spot/BTCUSDT/1m", "31", "31", "0", "44,640"]


def test_partitions_in_the_lake_are_not_fetched_again(
    invoke: Invoke, january: Download, sandbox: Sandbox, tmp_path: Path
) -> None:
    january.copy_to(tmp_path)
    again = invoke("download", *MINUTES, *JANUARY, "--json")
    assert again.exit_code == 0
    assert json.loads(again.stdout)["spot/BTCUSDT/1m"]["days_present"] == 31
    assert list(sandbox.requests) == []
    assert len(runs_in(tmp_path)) == 1


def test_one_run_over_the_covering_range_fetches_only_what_is_missing(
    invoke: Invoke, january: Download, tmp_path: Path
) -> None:
    january.copy_to(tmp_path)
    lake = lake_in(tmp_path)
    before = lake.read(SERIES, list(lake.stored_partitions(SERIES)))
    remove(lake, SERIES, "2024-01-05", "2024-01-06", "2024-01-20", "2024-01-25")
    result = invoke("download", *MINUTES, *JANUARY, "--json")
    assert result.exit_code == 0
    assert json.loads(result.stdout)["spot/BTCUSDT/1m"]["rows"] == 4 * 1440
    assert lake.read(SERIES, list(lake.stored_partitions(SERIES))).equals(before)
    run = runs_in(tmp_path)[0]
    assert run.tags["dagster/asset_partition_range_start"] == "2024-01-05"
    assert run.tags["dagster/asset_partition_range_end"] == "2024-01-25"
    assert run.run_config["ops"] == {"spot__BTCUSDT__1m": {"config": {"only_missing": True}}}


def test_the_partitions_of_a_torn_file_are_fetched_again(invoke: Invoke, january: Download, tmp_path: Path) -> None:
    january.copy_to(tmp_path)
    january_file(tmp_path).write_bytes(b"torn")
    result = invoke("download", *MINUTES, *JANUARY, "--json")
    assert result.exit_code == 0
    assert json.loads(result.stdout)["spot/BTCUSDT/1m"]["rows"] == 31 * 1440
    assert len(keys_in(tmp_path)) == 31
    copy = tmp_path / "lake.state" / "damaged" / january_file(tmp_path).relative_to(tmp_path / "lake")
    assert copy.read_bytes() == b"torn"


def test_refresh_fetches_again(invoke: Invoke, january: Download, tmp_path: Path) -> None:
    january.copy_to(tmp_path)
    again = invoke("download", *MINUTES, "--start", "2024-01-01", "--end", "2024-01-08", "--refresh", "--json")
    assert json.loads(again.stdout)["spot/BTCUSDT/1m"]["rows"] == 7 * 1440
    assert len(runs_in(tmp_path)) == 2


def lose_totals_of_the_3rd(sandbox: Sandbox) -> None:
    for path in ("klines", "archive"):
        sandbox.faults.add(Fault("missing_row", start=THE_3RD, end=THE_3RD + 1, path=path, interval="1d"))


@pytest.mark.usefixtures("new_state")
def test_verdicts_other_than_complete_are_counted(invoke: Invoke, sandbox: Sandbox) -> None:
    lose_totals_of_the_3rd(sandbox)
    days = ("--start", "2024-01-02", "--end", "2024-01-05", "--refresh")
    result = invoke("download", *MINUTES, *days, "--json")
    assert (result.exit_code, json.loads(result.stdout)["spot/BTCUSDT/1m"]["verdicts"]) == (0, {"unproved": 1})
    header, row = invoke("download", *MINUTES, *days).stdout.strip().splitlines()
    assert header.endswith("not complete")
    assert row.endswith("1 unproved")
    sandbox.faults.clear()
    result = invoke("download", *MINUTES, *days, "--json")
    assert (result.exit_code, json.loads(result.stdout)["spot/BTCUSDT/1m"]["verdicts"]) == (0, {})


def candle_requests(sandbox: Sandbox) -> list[str]:
    """Return the requests for 1m candles, by REST and from the archive, that came since the last look.

    A request for one row only shows whether a day without a 1d candle has candles at all.
    """
    found = [
        request.path
        for request in sandbox.requests
        if (request.params.get("interval") == "1m" and request.params.get("limit") != "1") or "/1m/" in request.path
    ]
    sandbox.requests.clear()
    return found


@pytest.mark.usefixtures("new_state")
def test_a_partition_in_doubt_is_proved_by_the_next_download_without_a_request_for_candles(
    invoke: Invoke, sandbox: Sandbox, tmp_path: Path
) -> None:
    lose_totals_of_the_3rd(sandbox)
    days = (*MINUTES, "--start", "2024-01-02", "--end", "2024-01-05", "--json")
    assert invoke("download", *days).exit_code == 0
    lake, sent = lake_in(tmp_path), candle_requests(sandbox)
    before, candles = stored(lake, SERIES, "2024-01-03"), read(lake, SERIES, "2024-01-03")
    assert (before.verdict, bool(sent)) == ("unproved", True)

    again = invoke("download", *days)  # the evidence is still absent
    outcome = json.loads(again.stdout)["spot/BTCUSDT/1m"]
    assert (again.exit_code, outcome["verdicts"], outcome["days_present"]) == (0, {"unproved": 1}, 3)
    assert candle_requests(sandbox) == []
    assert stored(lake, SERIES, "2024-01-03") == before

    sandbox.faults.clear()
    proved = invoke("download", *days)
    outcome = json.loads(proved.stdout)["spot/BTCUSDT/1m"]
    assert (proved.exit_code, outcome["verdicts"], outcome["refused"]) == (0, {}, [])
    assert candle_requests(sandbox) == []
    entry = stored(lake, SERIES, "2024-01-03")
    assert (entry.verdict, entry.note, entry.replaced and entry.replaced.verdict) == ("complete", None, "unproved")
    assert (entry.source, entry.archive_file, entry.archive_sha256, entry.archive_modified, entry.content_hash) == (
        before.source, before.archive_file, before.archive_sha256, before.archive_modified, before.content_hash,
    )  # fmt: skip
    assert read(lake, SERIES, "2024-01-03").equals(candles)

    runs = len(runs_in(tmp_path))
    assert invoke("download", *days).exit_code == 0
    assert (list(sandbox.requests), len(runs_in(tmp_path))) == ([], runs)


@pytest.mark.usefixtures("new_state")
def test_a_partition_in_doubt_that_fresh_totals_refute_is_fetched_again(
    invoke: Invoke, sandbox: Sandbox, tmp_path: Path
) -> None:
    lose_totals_of_the_3rd(sandbox)
    days = (*MINUTES, "--start", "2024-01-03", "--end", "2024-01-04", "--json")
    strict = {"BINANCE_ASSETS_STRICT": "1"}
    assert invoke("download", *days, **strict).exit_code == 0
    good = read(lake_in(tmp_path), SERIES, "2024-01-03")
    change(lake_in(tmp_path), SERIES, "2024-01-03", fiftieth("trades", 2))
    sandbox.faults.clear()
    result = invoke("download", *days, **strict)
    assert (result.exit_code, json.loads(result.stdout)["spot/BTCUSDT/1m"]["verdicts"]) == (0, {})
    assert read(lake_in(tmp_path), SERIES, "2024-01-03").equals(good)


def test_a_refresh_with_a_worse_result_keeps_the_lake_and_the_exit_code_is_1(
    invoke: Invoke, january: Download, sandbox: Sandbox, tmp_path: Path
) -> None:
    january.copy_to(tmp_path)
    before = read(lake_in(tmp_path), SERIES, "2024-01-03")
    lose_totals_of_the_3rd(sandbox)
    result = invoke("download", *MINUTES, "--start", "2024-01-02", "--end", "2024-01-05", "--refresh", "--json")
    assert result.exit_code == 1
    outcome = json.loads(result.stdout)["spot/BTCUSDT/1m"]
    (refused,) = outcome["refused"]
    assert (refused["day"], refused["verdict"]) == ("2024-01-03", "unproved")
    assert "the stored partition is better and is kept, it is complete" in refused["reason"]
    assert (outcome["days_present"], outcome["verdicts"]) == (3, {})
    assert stored(lake_in(tmp_path), SERIES, "2024-01-03").verdict == "complete"
    assert read(lake_in(tmp_path), SERIES, "2024-01-03").equals(before)


def test_partitions_that_dagster_does_not_know_are_reported_to_it(
    invoke: Invoke, january: Download, tmp_path: Path
) -> None:
    january.copy_to(tmp_path)
    shutil.rmtree(tmp_path / ".dagster")
    result = invoke("download", *MINUTES, *JANUARY)
    assert result.exit_code == 0
    assert len(materialized_in(tmp_path)) == 31
    assert runs_in(tmp_path) == []


@pytest.mark.usefixtures("new_state")
def test_a_refused_partition_is_named_and_the_exit_code_is_1(invoke: Invoke, sandbox: Sandbox, tmp_path: Path) -> None:
    lose_a_minute(sandbox)
    result = invoke("download", *MINUTES, *JANUARY, "--json")
    assert result.exit_code == 1
    outcome = json.loads(result.stdout)["spot/BTCUSDT/1m"]
    assert outcome["days_present"] == 30
    (refused,) = outcome["refused"]
    assert (refused["day"], refused["verdict"]) == ("2024-01-03", "lost")
    assert refused["missing"] == [["2024-01-03T01:00:00Z", "2024-01-03T01:01:00Z"]]
    assert "2024-01-03" not in keys_in(tmp_path)
    assert "2024-01-03" not in materialized_in(tmp_path)
    (run,) = runs_in(tmp_path)
    assert run.status == dg.DagsterRunStatus.FAILURE
    assert "Traceback" not in result.stderr


@pytest.mark.usefixtures("new_state")
def test_a_stored_partition_stays_materialized_inside_a_failed_run(
    invoke: Invoke, sandbox: Sandbox, tmp_path: Path
) -> None:
    assert invoke("download", *MINUTES, "--start", "2024-01-02", "--end", "2024-01-03").exit_code == 0
    lose_a_minute(sandbox)
    assert invoke("download", *MINUTES, "--start", "2024-01-01", "--end", "2024-01-05").exit_code == 1
    with open_instance(tmp_path, {}) as instance:
        keys = [f"2024-01-0{day}" for day in range(1, 5)]
        statuses = instance.get_status_by_partition(BTC, keys, DAILY) or {}
    names = {key: status.value if status else "" for key, status in statuses.items()}
    assert names == dict.fromkeys(keys, "MATERIALIZED") | {"2024-01-03": "FAILED"}


@pytest.mark.usefixtures("new_state")
def test_one_command_downloads_several_series_and_intervals(invoke: Invoke, tmp_path: Path) -> None:
    result = invoke("download", "btcusdt", "ETHUSDT", "--market", "usdm", "--interval", "1h", "--interval", "1M",
                    "--start", "2024-01-01", "--end", "2024-03-01", "--json")  # fmt: skip
    assert result.exit_code == 0, result.stderr
    assert {name: outcome["days_present"] for name, outcome in json.loads(result.stdout).items()} == {
        "usdm/BTCUSDT/1h": 60, "usdm/BTCUSDT/1mo": 2, "usdm/ETHUSDT/1h": 60, "usdm/ETHUSDT/1mo": 2,
    }  # fmt: skip
    assert sorted(run.job_name for run in runs_in(tmp_path)) == ["usdm_daily", "usdm_monthly"]


@pytest.mark.usefixtures("new_state")
def test_the_default_range_is_from_the_first_candle_to_the_last_finished_one(invoke: Invoke, sandbox: Sandbox) -> None:
    result = invoke("download", "ARBUSDT", "--market", "spot", "--interval", "1M", "--json")
    assert result.exit_code == 0, result.stderr
    outcome = json.loads(result.stdout)["spot/ARBUSDT/1mo"]
    now = dt.datetime.fromtimestamp(sandbox.now_ms() / 1_000, dt.UTC)
    months = (now.year - 2023) * 12 + now.month - 3
    assert outcome["days_asked"] == outcome["days_present"] == months


def test_settings_are_read_from_a_dotenv_file(run_cli: Run, tmp_path: Path) -> None:
    (tmp_path / ".env").write_text(f"BINANCE_ASSETS_LAKE={tmp_path}/elsewhere\n")
    result = run_cli("download", "BTCUSDT", "--market", "spot", "--interval", "1h", "--start", "2024-01-01",
                     "--end", "2024-01-02")  # fmt: skip
    assert result.returncode == 0
    assert len(parquets(tmp_path / "elsewhere")) == 1


def test_a_dry_run_writes_nothing(invoke: Invoke, tmp_path: Path) -> None:
    days = ("BTCUSDT", "--market", "usdm", "--interval", "1m", "--start", "2024-01-01", "--end", "2024-02-03")
    for source, requests, weight, files in (("rest", 96, 192, 0), ("auto", 4, 0, 2), ("archive", 4, 0, 2)):
        result = invoke("download", *days, "--dry-run", "--json", "--source", source)
        assert result.exit_code == 0
        plan = json.loads(result.stdout)["usdm/BTCUSDT/1m"]
        assert (plan["days_asked"], plan["days_present"], len(plan["days_missing"])) == (33, 0, 33)
        assert (plan["requests"], plan["weight"], plan["files"]) == (requests, weight, files)
        table = invoke("download", *days, "--dry-run", "--source", source).stdout.splitlines()
        assert table[0].split()[-3:] == ["requests", "weight", "files"]
        assert table[1].split() == [
            "usdm/BTCUSDT/1m", "2024-01-01", "2024-02-02", "33", "0", "33", f"{requests}", f"{weight}", f"{files}",
        ]  # fmt: skip
    assert_nothing_is_written(tmp_path)


def test_a_dry_run_weighs_what_the_archive_does_not_have_yet(invoke: Invoke) -> None:
    first = (TODAY - dt.timedelta(40)).replace(day=1)
    result = invoke("download", *MINUTES, "--start", f"{first}", "--dry-run", "--json", "--source", "auto")
    plan = json.loads(result.stdout)["spot/BTCUSDT/1m"]
    assert plan["files"] >= 1
    assert plan["days_asked"] == len(plan["days_missing"]) == (TODAY - first).days
    assert plan["weight"] == 2 * (plan["requests"] - 2 * plan["files"])


@pytest.mark.parametrize(
    ("symbol", "market", "interval"), [("SRMUSDT", "spot", "1h"), ("BTCUSDT_210326", "usdm", "1d")]
)
@pytest.mark.usefixtures("new_state")
def test_a_dry_run_of_a_symbol_that_only_the_archive_has_names_the_most_requests_that_follow(
    invoke: Invoke, sandbox: Sandbox, symbol: str, market: str, interval: str
) -> None:
    asked = ("download", symbol, "--market", market, "--interval", interval)
    plan = json.loads(invoke(*asked, "--dry-run", "--json").stdout)[f"{market}/{symbol}/{interval}"]
    assert plan["weight"] == 0
    assert "Its candles come from the archive" in invoke(*asked, "--dry-run").stderr
    sandbox.requests.clear()
    assert invoke(*asked).exit_code == 0
    sent = [request for request in sandbox.requests if request.path.startswith("/data/")]
    assert plan["requests"] / 4 < len(sent) <= plan["requests"]
    assert len([request for request in sent if request.path.endswith(".zip")]) > 0


@pytest.mark.usefixtures("new_state")
def test_a_dry_run_prices_the_archive_for_a_known_symbol_that_the_api_does_not_serve(
    invoke: Invoke, sandbox: Sandbox
) -> None:
    hours = ("--market", "spot", "--interval", "1h")
    assert invoke("download", "SRMUSDT", *hours, "--start", "2022-09-01", "--end", "2022-09-03").exit_code == 0
    asked = ("download", "SRMUSDT", "BTCUSDT", *hours, "--start", "2022-09-01", "--end", "2022-09-06")
    plans = json.loads(invoke(*asked, "--dry-run", "--json").stdout)
    assert (plans["spot/SRMUSDT/1h"]["days_present"], plans["spot/SRMUSDT/1h"]["weight"]) == (2, 0)
    assert "spot/SRMUSDT/1h: Binance's API does not serve SRMUSDT here" in invoke(*asked, "--dry-run").stderr
    assert "BTCUSDT here" not in invoke(*asked, "--dry-run").stderr
    plan = json.loads(invoke(*asked[:2], *hours, "--end", "2022-09-06", "--dry-run", "--json").stdout)
    assert plan["spot/SRMUSDT/1h"]["weight"] == 0
    # Nothing to fetch, nothing to ask.
    sandbox.requests.clear()
    assert invoke(*asked[:2], *hours, "--start", "2022-09-01", "--end", "2022-09-03", "--dry-run").exit_code == 0
    assert [request.path for request in sandbox.requests] == []


# -- bad input and configuration ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["NOPEUSDT", "--market", "spot", "--interval", "1m", *JANUARY], "there is no symbol NOPEUSDT"),
        (["NOPEUSDT", "--market", "coinm", "--interval", "1m"], "there is no symbol NOPEUSDT"),
        (["BTC?USDT", "--market", "spot", "--interval", "1m"], "not a symbol"),
        (["BTCUSD_PERP", "--market", "usdm", "--interval", "1m"], "use --market coinm"),
        (["BTCUSDT", "--market", "moon", "--interval", "1m"], "no market 'moon'"),
        (["BTCUSDT", "--market", "spot", "--interval", "7m"], "no interval '7m'"),
        (["BTCUSDT", "--market", "usdm", "--interval", "1s"], "no candles of 1s"),
        (["BTCUSDT", "--market", "spot", "--interval", "1m", "--start", "2024-02-30"], "not a date"),
        (["BTCUSDT", "--market", "spot", "--interval", "1w", "--start", "2024-01-02"], "first day of a month"),
        (["BTCUSDT", "--market", "spot", "--interval", "1m", "--start", "2024-02-01", "--end", "2024-02-01"], "after"),
        (["BTCUSDT", "--market", "spot", "--interval", "1m", "--start", "2010-01-01"], "2017-07-01"),
        (["BTCUSDT", "--market", "spot", "--interval", "1m", "--start", f"{TODAY}"], "not before today"),
        (
            ["BTCUSDT", "--market", "spot", "--interval", "1m", "--end", f"{TODAY + dt.timedelta(2)}"],
            "later than today",
        ),
        (["BTCUSDT", "--market", "spot", "--interval", "1m", "--source", "attic", *JANUARY], "attic"),
        (["BTCUSDT", "--market", "spot"], "--interval"),
        (["--market", "spot", "--interval", "1m"], "SYMBOL"),
        (["BTCUSDT", "--market", "spot", "--interval", "1m", "--sauce"], "--sauce"),
    ],
)
def test_bad_input_is_an_error_in_one_line_and_nothing_is_written(
    invoke: Invoke, tmp_path: Path, arguments: list[str], message: str
) -> None:
    assert message in error_line(invoke("download", *arguments), code=2)
    assert_nothing_is_written(tmp_path)


def test_a_process_with_bad_input_ends_with_exit_code_2_and_one_line(run_cli: Run, tmp_path: Path) -> None:
    result = run_cli("download", "BTCUSDT", "--market", "moon", "--interval", "1m")
    assert result.returncode == 2
    (line,) = result.stderr.strip().splitlines()
    assert line.startswith("error: ")
    assert "no market 'moon'" in line
    assert result.stdout == ""
    assert_nothing_is_written(tmp_path)


@pytest.mark.parametrize(
    ("environment", "message"),
    [
        ({"BINANCE_SPOT_URL": "https://api.binance.com/api"}, "BINANCE_SPOT_URL"),
        ({"BINANCE_ASSETS_WARMUP": "none"}, "BINANCE_ASSETS_WARMUP"),
        ({"DAGSTER_HOME": "/does/not/exist"}, "DAGSTER_HOME"),
        ({"BINANCE_ASSETS_LEDGER": "/proc/nowhere/ledger"}, "BINANCE_ASSETS_LEDGER"),
        ({"BINANCE_ASSETS_LAKE": "/proc/nowhere/lake"}, "cannot be written"),
    ],
)
def test_bad_configuration_is_an_error_without_a_traceback(
    invoke: Invoke, environment: dict[str, str], message: str
) -> None:
    result = invoke("download", *MINUTES, "--start", "2024-01-01", "--end", "2024-01-02", **environment)
    assert result.exit_code == 2, result.stderr
    assert message in result.stderr
    assert "Traceback" not in result.stderr


def test_an_unusable_instance_is_an_error_before_anything_is_written(invoke: Invoke, tmp_path: Path) -> None:
    (tmp_path / "dagster.yaml").write_text("storage: [")
    assert "the Dagster instance in" in error_line(invoke("download", *MINUTES, *JANUARY), code=2)
    assert not (tmp_path / "universe.yaml").exists()
    assert not (tmp_path / "lake").exists()


def test_a_range_without_a_finished_partition_is_bad_input(invoke: Invoke, tmp_path: Path) -> None:
    this_month = TODAY.replace(day=1)
    for arguments in (["--start", f"{this_month}"], ["--end", "2017-08-01"]):
        result = invoke("download", "BTCUSDT", "--market", "spot", "--interval", "1M", *arguments)
        assert result.exit_code == 2, result.stderr
        assert "nothing to fetch" in result.stderr or "not before today" in result.stderr
    assert not (tmp_path / "universe.yaml").exists()


def test_a_broken_universe_is_an_error_in_one_line(invoke: Invoke, tmp_path: Path) -> None:
    (tmp_path / "universe.yaml").write_text("series: [")
    for command in (["series"], ["download", *MINUTES, *JANUARY]):
        assert "universe.yaml is not YAML" in error_line(invoke(*command), code=2)


def test_a_lake_of_real_candles_refuses_those_of_the_sandbox(invoke: Invoke, tmp_path: Path) -> None:
    lake_in(tmp_path).prepare("binance")
    result = invoke("download", *MINUTES, *JANUARY)
    assert result.exit_code == 2
    assert "venue 'binance'" in result.stderr
    assert not (tmp_path / "universe.yaml").exists()


def test_an_absent_exchange_is_an_error_in_one_line_and_exit_code_1(invoke: Invoke) -> None:
    result = invoke("download", *MINUTES, *JANUARY, BINANCE_SPOT_URL="http://127.0.0.1:9")
    assert "no connection" in error_line(result, code=1)


def test_a_port_in_use_is_an_error_in_one_line(run_cli: Run, sandbox: Sandbox) -> None:
    result = run_cli("sandbox", "--port", sandbox.url.rpartition(":")[2])
    assert result.returncode == 2
    assert len(result.stderr.strip().splitlines()) == 1


def test_without_a_command_the_help_is_printed_and_the_exit_code_is_2(invoke: Invoke) -> None:
    result = invoke()
    assert (result.exit_code, "Commands:" in result.stdout, result.stderr) == (2, True, "")


@pytest.mark.parametrize("unbuffered", ["", "1"])
def test_a_full_device_is_reported_in_one_line(sandbox: Sandbox, tmp_path: Path, unbuffered: str) -> None:
    (tmp_path / "universe.yaml").write_text("series: [{market: spot, symbols: [BTCUSDT], intervals: [1m]}]")
    with Path("/dev/full").open("w") as full:
        result = subprocess.run(
            [sys.executable, "-m", "binance_assets", "series"], cwd=tmp_path,
            env=cli_environment(sandbox, tmp_path) | {"PYTHONUNBUFFERED": unbuffered},
            stdout=full, stderr=subprocess.PIPE, text=True, check=False,
        )  # fmt: skip
    (line,) = without_progress(result.stderr)  # a loaded machine is so slow that progress is shown
    assert (result.returncode, line) == (1, "error: no space is left on the device to which the command writes")


def test_a_pipe_that_nobody_reads_any_more_ends_the_command_without_a_message(sandbox: Sandbox, tmp_path: Path) -> None:
    (tmp_path / "universe.yaml").write_text("series: [{market: spot, symbols: [BTCUSDT], intervals: [1m]}]")
    reader, writer = os.pipe()
    os.close(reader)
    with os.fdopen(writer, "w") as pipe:
        result = subprocess.run(
            [sys.executable, "-m", "binance_assets", "series"], cwd=tmp_path, env=cli_environment(sandbox, tmp_path),
            stdout=pipe, stderr=subprocess.PIPE, text=True, check=False,
        )  # fmt: skip
    assert (result.returncode, without_progress(result.stderr)) == (1, [])


@pytest.mark.parametrize(
    ("command", "code", "line"),
    [
        ("show BTC/USDT yesterday >&-", 2, "error: 'BTC/USDT' is not a series; "),
        ("series >&-", 0, "universe.yaml: entry 2 of series has a rule that selects nothing yet"),
    ],
)  # fmt: skip
def test_a_closed_standard_output_changes_no_message_and_no_exit_code(
    command: str, code: int, line: str, sandbox: Sandbox, tmp_path: Path
) -> None:
    entries = (
        "{market: spot, symbols: [BTCUSDT], intervals: [1d]}, {market: usdm, symbols: {match: B.*}, intervals: [1d]}"
    )
    (tmp_path / "universe.yaml").write_text(f"series: [{entries}]")
    result = subprocess.run(
        ["sh", "-c", f'"$0" -m binance_assets {command}', sys.executable], cwd=tmp_path,
        env=cli_environment(sandbox, tmp_path), stderr=subprocess.PIPE, text=True, check=False,
    )  # fmt: skip
    (found,) = without_progress(result.stderr)
    assert (result.returncode, found.startswith(line)) == (code, True), found


# -- interrupts -----------------------------------------------------------------------------------------------------

LONG_RANGE = ("--start", "2024-01-01", "--end", "2024-02-16")  # 46 days


def start_download_that_hangs(start: Start, sandbox: Sandbox, folder: Path) -> WarmProcess | subprocess.Popen[str]:
    """Start a download that hangs in its second month; return it as soon as Dagster knows 20 partitions."""
    hang = THE_3RD + 35 * DAY
    (folder / "universe.yaml").write_text("series: [{market: spot, symbols: [BTCUSDT], intervals: [1m]}]")
    sandbox.faults.add(Fault("hang", start=hang, end=hang + 1, interval="1m"))
    process = start(*LONG_RANGE, "--source", "rest")
    until(100, lambda: len(keys_in(folder)) >= 20)
    until(100, lambda: len(materialized_in(folder)) >= 20)
    return process


def test_an_interrupt_of_the_whole_process_group_is_reported_in_one_line(
    start_download_in_own_group: Start, sandbox: Sandbox, tmp_path: Path
) -> None:
    process = start_download_that_hangs(start_download_in_own_group, sandbox, tmp_path)
    os.killpg(process.pid, signal.SIGINT)  # as a terminal does
    time.sleep(0.1)
    os.killpg(process.pid, signal.SIGINT)  # an impatient user presses Ctrl-C twice
    _, errors = process.communicate(timeout=250)
    assert process.returncode == 130
    (line,) = without_progress(errors)
    assert line.startswith("error: interrupted")
    (run,) = runs_in(tmp_path)
    assert run.status == dg.DagsterRunStatus.CANCELED


@pytest.fixture(scope="module")
def seconds_to_end() -> list[float]:
    """How long each interrupted download took to end."""
    return []


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
@pytest.mark.usefixtures("new_state")
def test_an_interrupt_ends_a_hanging_download_and_the_same_command_continues(
    start_download: Start,
    sandbox: Sandbox,
    invoke: Invoke,
    tmp_path: Path,
    number: signal.Signals,
    seconds_to_end: list[float],
) -> None:
    process = start_download_that_hangs(start_download, sandbox, tmp_path)
    finished = materialized_in(tmp_path)
    assert len(finished) >= 20
    start = time.monotonic()
    process.send_signal(number)
    _, errors = process.communicate(timeout=250)  # the request hangs for longer
    seconds_to_end.append(time.monotonic() - start)
    assert process.returncode == 130
    assert errors.strip().splitlines()[-1].startswith("error: interrupted")
    assert "Traceback" not in errors
    (run,) = runs_in(tmp_path)
    assert run.status == dg.DagsterRunStatus.CANCELED
    assert set(keys_in(tmp_path)) >= materialized_in(tmp_path) >= finished
    assert temporary_files(lake_in(tmp_path)) == []

    sandbox.faults.clear()
    result = invoke("download", *MINUTES, *LONG_RANGE, "--json")
    assert result.exit_code == 0, result.stderr
    outcome = json.loads(result.stdout)["spot/BTCUSDT/1m"]
    assert outcome["days_present"] == 46
    assert outcome["rows"] <= 26 * 1440
    assert len(materialized_in(tmp_path)) == 46  # also those that were written, but not yet reported


@pytest.mark.usefixtures("new_state")
def test_an_interrupt_ends_a_download_while_the_control_totals_hang_and_the_quickest_end_takes_two_seconds_at_most(
    start_download: Start, sandbox: Sandbox, tmp_path: Path, seconds_to_end: list[float]
) -> None:
    sandbox.faults.add(Fault("hang", interval="1d"))
    process = start_download(*JANUARY)
    until(100, lambda: any(request.params.get("interval") == "1d" for request in sandbox.requests))
    start = time.monotonic()
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=250)
    seconds_to_end.append(time.monotonic() - start)
    assert at_most(2, seconds_to_end), seconds_to_end
    assert process.returncode == 130
    assert errors.strip().splitlines()[-1].startswith("error: interrupted")
    (run,) = runs_in(tmp_path)
    assert run.status == dg.DagsterRunStatus.CANCELED


# -- track, untrack, series, help -----------------------------------------------------------------------------------


def test_tracked_series_are_listed_until_they_are_untracked(invoke: Invoke) -> None:
    assert invoke("track", "BTCUSDT", "ETHUSDT", "--market", "spot", "--interval", "1m").exit_code == 0
    listed = invoke("series")
    assert [line.split()[0] for line in listed.stdout.splitlines()] == ["spot/BTCUSDT/1m", "spot/ETHUSDT/1m"]
    assert invoke("untrack", *MINUTES).exit_code == 0
    assert "spot/BTCUSDT/1m" not in invoke("series").stdout
    again = invoke("untrack", *MINUTES)
    assert (again.exit_code, "was not tracked" in again.stdout) == (1, True)


def test_help_lists_every_command(run_cli: Run, invoke: Invoke) -> None:
    printed = run_cli("--help").stdout.partition("Commands:")[2].splitlines()
    names = {"download", "track", "untrack", "series", "status", "show", "verify", "accept", "migrate"}
    names |= {"symbols", "universe", "init", "ui", "schedules", "sandbox", "demo", "plot", "export", "metrics"}
    assert {line.split()[0] for line in printed if line.strip()} == names
    assert "--dry-run" in invoke("download", "--help").stdout


def test_help_and_series_import_neither_dagster_nor_pandera(sandbox: Sandbox, tmp_path: Path) -> None:
    code = (
        "import sys; from binance_assets.cli.main import cli; cli.main(sys.argv[1:]); "
        "sys.exit(f'imported: {heavy}' if (heavy := {'dagster', 'pandera'} & set(sys.modules)) else 0)"
    )
    for arguments in (["download", "--help"], ["series"]):
        result = subprocess.run(
            [sys.executable, "-c", code, *arguments], cwd=tmp_path, env=cli_environment(sandbox, tmp_path), check=False
        )
        assert result.returncode == 0


# -- accept ---------------------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("new_state")
def test_an_accepted_lost_partition_is_stored_with_its_gap_and_its_reason(
    invoke: Invoke, sandbox: Sandbox, tmp_path: Path
) -> None:
    days = (*MINUTES, "--start", "2024-01-01", "--end", "2024-01-06")
    lose_a_minute(sandbox)
    refused = invoke("download", *days)
    assert refused.exit_code == 1
    assert "2024-01-03 is lost" in refused.stderr
    assert "2024-01-03" not in keys_in(tmp_path)

    accepted = invoke("accept", "spot/BTCUSDT/1m", "2024-01-03", "--reason", "asked the exchange, it is gone")
    assert accepted.exit_code == 0, accepted.stderr
    (line,) = accepted.stdout.strip().splitlines()
    assert line.startswith("spot/BTCUSDT/1m 2024-01-03 is lost, and accepted by ")
    entry = stored(lake_in(tmp_path), SERIES, "2024-01-03")
    assert (entry.verdict, entry.accepted_because) == ("lost", "asked the exchange, it is gone")
    assert entry.accepted_by
    assert entry.accepted_by in line
    assert entry.missing == [["2024-01-03T01:00:00Z", "2024-01-03T01:01:00Z"]]
    assert read(lake_in(tmp_path), SERIES, "2024-01-03").height == 1_439
    assert "2024-01-03" in materialized_in(tmp_path)
    with open_instance(tmp_path, {}) as instance:
        event = instance.get_latest_materialization_event(BTC)
        assert event is not None
        assert event.asset_materialization is not None
        shown = event.asset_materialization.metadata
        assert (shown["verdict"].value, shown["accepted_because"].value) == ("lost", "asked the exchange, it is gone")

    again = invoke("download", *days, "--json")
    assert again.exit_code == 0, again.stderr
    assert json.loads(again.stdout)["spot/BTCUSDT/1m"]["days_present"] == 5
    verified = invoke("verify", "spot/BTCUSDT/1m")
    assert (verified.exit_code, "5 partitions of 1 series" in verified.stdout) == (0, True), verified.stdout


def test_accepting_a_complete_partition_writes_it_as_usual(run_cli: Run, tmp_path: Path) -> None:
    result = run_cli("accept", "spot/BTCUSDT/1m", "2024-01-03", "--reason", "to be sure")
    assert result.returncode == 0, result.stderr
    assert "is complete; it was written, and nothing had to be accepted" in result.stdout
    entry = stored(lake_in(tmp_path), SERIES, "2024-01-03")
    assert (entry.verdict, entry.accepted_by, entry.accepted_because) == ("complete", None, None)
    assert materialized_in(tmp_path) == {"2024-01-03"}


@pytest.mark.usefixtures("new_state")
def test_an_accepted_invalid_partition_is_stored_as_the_exchange_has_it_and_marked(
    invoke: Invoke, sandbox: Sandbox, tmp_path: Path
) -> None:
    for path in ("klines", "archive"):
        sandbox.faults.add(Fault("bad_prices", start=THE_3RD, end=THE_3RD + MINUTE, path=path, interval="1m"))
    days = (*MINUTES, "--start", "2024-01-02", "--end", "2024-01-05")
    assert invoke("download", *days).exit_code == 1
    accepted = invoke("accept", "spot/BTCUSDT/1m", "2024-01-03", "--reason", "the exchange has it so")
    assert accepted.exit_code == 0, accepted.stderr
    assert "is invalid, and accepted by " in accepted.stdout
    lake = lake_in(tmp_path)
    entry, candles = stored(lake, SERIES, "2024-01-03"), read(lake, SERIES, "2024-01-03")
    assert (entry.verdict, entry.accepted_because, entry.rows) == ("invalid", "the exchange has it so", 1440)
    assert candles.filter(pl.col("low") > pl.col("high")).height == 1
    assert dict(candles.schema) == columns(SERIES.market)

    again = invoke("download", *days, "--json")
    outcome = json.loads(again.stdout)["spot/BTCUSDT/1m"]
    assert (again.exit_code, outcome["days_present"], outcome["verdicts"]) == (0, 3, {"invalid": 1})
    verified = invoke("verify", "spot/BTCUSDT/1m")
    assert verified.exit_code == 0, verified.stdout

    sandbox.faults.clear()
    assert invoke("download", *days, "--refresh").exit_code == 0
    entry = stored(lake, SERIES, "2024-01-03")
    assert (entry.verdict, entry.accepted_by, entry.replaced and entry.replaced.verdict) == (
        "complete", None, "invalid",
    )  # fmt: skip


@pytest.mark.usefixtures("new_state")
def test_a_range_is_accepted_with_one_fetch_and_each_partition_says_who_and_why(
    invoke: Invoke, sandbox: Sandbox, tmp_path: Path
) -> None:
    lose_a_minute(sandbox)
    day = "2024-01-0{}".format
    assert invoke("download", *MINUTES, "--start", day(5), "--end", day(6)).exit_code == 0
    start = THE_3RD + DAY
    for path in ("klines", "archive"):
        sandbox.faults.add(Fault("missing_row", start=start, end=start + 2 * MINUTE, path=path, interval="1m"))
    before = read(lake_in(tmp_path), SERIES, day(5))
    sandbox.requests.clear()
    accepted = invoke("accept", "spot/BTCUSDT/1m", f"{day(2)}..{day(7)}", "--reason", "both are gone")
    assert accepted.exit_code == 0, accepted.stderr
    lines = accepted.stdout.strip().splitlines()
    assert [line.split()[1] for line in lines] == [day(3), day(4), "3"]
    assert lines[2] == "spot/BTCUSDT/1m: 3 more partitions were written, and nothing had to be accepted"
    assert len([request for request in sandbox.requests if request.params.get("interval") == "1d"]) <= 2
    lake = lake_in(tmp_path)
    entries = {key: stored(lake, SERIES, key) for key in keys_in(tmp_path)}
    assert list(entries) == [day(number) for number in range(2, 8)]
    assert {key: entry.accepted_because for key, entry in entries.items() if entry.accepted_by} == dict.fromkeys(
        [day(3), day(4)], "both are gone"
    )
    assert [entry.verdict for entry in entries.values()].count("lost") == 2
    assert read(lake, SERIES, day(5)).equals(before)
    assert materialized_in(tmp_path) == set(entries)
    nothing = invoke("accept", "spot/BTCUSDT/1m", f"{day(2)}..{day(7)}", "--reason", "again")
    assert (nothing.exit_code, "all partitions of this range are in the lake" in nothing.stdout) == (0, True)


@pytest.mark.usefixtures("new_state")
def test_of_a_range_each_partition_that_cannot_be_accepted_is_an_error_and_the_others_are_written(
    invoke: Invoke, sandbox: Sandbox, tmp_path: Path
) -> None:
    lose_a_minute(sandbox)
    for path, status in (("klines", 400), ("archive", 404)):
        sandbox.faults.add(
            Fault("status", value=status, start=THE_3RD + DAY, end=THE_3RD + 2 * DAY, path=path, interval="1m")
        )
    result = invoke("accept", "spot/BTCUSDT/1m", "2024-01-03..2024-01-04", "--reason", "gone")
    assert result.exit_code == 1
    (error,) = without_progress(result.stderr)
    assert error.startswith("error: spot/BTCUSDT/1m 2024-01-04 is ")
    assert "cannot be accepted: " in error
    assert keys_in(tmp_path) == ["2024-01-03"]


@pytest.mark.usefixtures("new_state")
def test_a_single_partition_that_a_person_accepts_replaces_a_better_one(
    invoke: Invoke, sandbox: Sandbox, tmp_path: Path
) -> None:
    day = (*MINUTES, "--start", "2024-01-03", "--end", "2024-01-04")
    assert invoke("download", *day).exit_code == 0
    lose_a_minute(sandbox)
    assert invoke("accept", "spot/BTCUSDT/1m", "2024-01-03", "--reason", "wash trades were removed").exit_code == 0
    entry = stored(lake_in(tmp_path), SERIES, "2024-01-03")
    assert (entry.verdict, entry.rows, entry.replaced and entry.replaced.verdict) == ("lost", 1439, "complete")


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["spot/BTCUSDT/1m", f"{TODAY}", "--reason", "now"], 1, "unfinished and cannot be accepted"),
        (["spot/BTCUSDT/1m", "2099-01-01", "--reason", "now"], 1, "unfinished and cannot be accepted"),
        (["spot/NOPEUSDT/1m", "2024-01-03", "--reason", "now"], 1, "there is no symbol NOPEUSDT"),
        (["spot/BTCUSDT/1m", "2017-06-30", "--reason", "now"], 2, "is not a partition"),
        (["spot/BTCUSDT/1M", "2024-01-03", "--reason", "now"], 2, "give the first day of a month"),
        (["spot/BTCUSDT/1m", "soon", "--reason", "now"], 2, "not a date"),
        (["spot/BTCUSDT/1m", "2024-01-03..", "--reason", "now"], 2, "not a date"),
        (["spot/BTCUSDT/1m", "2024-01-03..2024-01-02", "--reason", "now"], 2, "ends before it begins"),
        (["spot/BTCUSDT/1w", "2024-01-01..2024-01-31", "--reason", "now"], 2, "give the first day of a month"),
        (["spot/BTCUSDT/1m", "2024-01-03", "--reason", "  "], 2, "--reason"),
        (["spot/BTCUSDT/1m", "2024-01-03"], 2, "--reason"),
        (["BTCUSDT", "2024-01-03", "--reason", "now"], 2, "not a series"),
        (["spot/BTCUSDT/7m", "2024-01-03", "--reason", "now"], 2, "7m"),
    ],
)
def test_what_cannot_be_accepted_is_an_error_in_one_line_and_nothing_is_written(
    invoke: Invoke, tmp_path: Path, arguments: list[str], code: int, message: str
) -> None:
    assert message in error_line(invoke("accept", *arguments), code)
    assert parquets(tmp_path) == []


# -- verify ---------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def first_week(january: Download, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder that :func:`week` copies."""
    folder = tmp_path_factory.mktemp("week")
    shutil.copytree(january.folder / "lake", folder / "lake")
    shutil.copytree(january.folder / "lake.state", folder / "lake.state")
    shutil.copy(january.folder / "universe.yaml", folder)
    remove(lake_in(folder), SERIES, *(f"2024-01-{day:02}" for day in range(8, 32)))
    return folder


@pytest.fixture
def week(first_week: Path, tmp_path: Path) -> Path:
    """A folder with the first week of January."""
    shutil.copytree(first_week, tmp_path, dirs_exist_ok=True)
    return tmp_path


def fiftieth(column: str, factor: float) -> pl.Expr:
    """A column with its fiftieth value multiplied by ``factor``."""
    return pl.when(pl.int_range(pl.len()) == 50).then(pl.col(column) * factor).otherwise(pl.col(column)).alias(column)


@pytest.mark.parametrize("more", [[], ["--against", "rest"], ["--against", "archive"]])
def test_a_good_lake_has_no_differences(invoke: Invoke, sandbox: Sandbox, week: Path, more: list[str]) -> None:
    before = {path: path.read_bytes() for path in parquets(week)}
    for names in (["spot/BTCUSDT/1m"], []) if not more else (["spot/BTCUSDT/1m"],):
        verified = invoke("verify", *names, *more)
        assert verified.exit_code == 0, verified.output
        assert verified.stdout.strip() == "7 partitions of 1 series are as they should be"
    assert {path: path.read_bytes() for path in parquets(week)} == before
    files = [request.path for request in sandbox.requests if request.path.endswith(".zip")]
    pages = [request for request in sandbox.requests if request.params.get("interval") == "1m"]
    assert (len(files), bool(pages)) == ((1, False) if more[1:] == ["archive"] else (0, True))


def test_verify_finds_and_names_whatever_is_wrong_with_a_partition(run_cli: Run, week: Path) -> None:
    lake = lake_in(week)
    remove(lake, SERIES, "2024-01-02")
    change(lake, SERIES, "2024-01-04", fiftieth("trades", 2))
    change(lake, SERIES, "2024-01-06", rows=1439)
    change(lake, SERIES, "2024-01-07", fiftieth("high", 0.5))
    verified = run_cli("verify", "spot/BTCUSDT/1m")
    assert verified.returncode == 1
    header, *lines = verified.stdout.strip().splitlines()
    assert header.split()[:2] == ["series", "partition"]
    findings = {line.split()[1]: " ".join(line.split()[2:]) for line in lines if line.startswith("spot/BTCUSDT/1m")}
    assert set(findings) == {"2024-01-02", "2024-01-04", "2024-01-06", "2024-01-07"}
    assert findings["2024-01-02"] == "it is not in the lake"
    assert "it was complete and is unbalanced" in findings["2024-01-04"]
    assert "it has 1,440 candles, and its metadata says 1,439" in findings["2024-01-06"]
    assert "it was complete and is invalid" in findings["2024-01-07"]
    assert "Traceback" not in verified.stderr


@pytest.mark.parametrize(
    ("content", "message"), [("half", "cannot be read"), ("another series", "holds spot/ETHUSDT/1m")]
)
def test_verify_names_every_partition_of_a_damaged_file(invoke: Invoke, week: Path, content: str, message: str) -> None:
    path = january_file(week)
    if content == "half":
        path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    else:
        other = parse_series("spot/ETHUSDT/1m")
        lake_of_other = Lake(week.parent / "other")
        lake_of_other.prepare("sandbox")
        lake_of_other.write(other, result_of(other, "2024-01-01"))
        path.write_bytes(local(lake_of_other.path(other, partition_for_key("2024-01-01", other.interval))).read_bytes())
    verified = invoke("verify", "spot/BTCUSDT/1m")
    assert verified.exit_code == 1
    lines = [line for line in verified.stdout.splitlines() if line.startswith("spot/BTCUSDT/1m")]
    assert [line.split()[1] for line in lines] == [f"2024-01-{day:02}" for day in range(1, 32)]
    assert message in " ".join(verified.stdout.split())


@pytest.mark.parametrize("against", ["rest", "archive"])
def test_a_comparison_of_every_candle_finds_a_changed_price(invoke: Invoke, week: Path, against: str) -> None:
    between = pl.col("close") + (pl.col("high") - pl.col("close")) / 2
    price = pl.when(pl.int_range(pl.len()) == 50).then(between).otherwise(pl.col("close")).alias("close")
    change(lake_in(week), SERIES, "2024-01-05", price)
    verified = invoke("verify", "spot/BTCUSDT/1m", "--against", against)
    assert verified.exit_code == 1
    (line,) = verified.stdout.strip().splitlines()[1:]
    assert line.split()[:2] == ["spot/BTCUSDT/1m", "2024-01-05"]
    assert f"1 candles differ from those of {against}, the first at 2024-01-05 00:50" in line


def test_verify_finds_a_flipped_byte_that_polars_reads_as_other_prices(invoke: Invoke, week: Path) -> None:
    path = january_file(week)
    intact, content = pl.read_parquet(path), path.read_bytes()
    changed = intact
    for position in range(len(content) // 3, len(content), 97):
        path.write_bytes(content[:position] + bytes([content[position] ^ 0x10]) + content[position + 1 :])
        with contextlib.suppress(pl.exceptions.PolarsError, pl.exceptions.PanicException):
            changed = pl.read_parquet(path)
        if not changed.equals(intact):
            break
    assert changed.height == intact.height
    verified = invoke("verify", "spot/BTCUSDT/1m")
    assert verified.exit_code == 1
    lines = [line for line in verified.stdout.splitlines() if line.startswith("spot/BTCUSDT/1m")]
    assert 0 < len(lines) < 7
    assert "are not those that were written: their hash" in " ".join(verified.stdout.split())


@pytest.mark.parametrize("strict", ["0", "1"])
def test_verify_judges_as_a_download_does(invoke: Invoke, week: Path, strict: str) -> None:
    lake = lake_in(week)
    change(lake, SERIES, "2024-01-02", verdict="unproved")  # the totals prove it now
    change(lake, SERIES, "2024-01-03", fiftieth("trades", 2), verdict="unproved")
    change(lake, SERIES, "2024-01-04", fiftieth("trades", 2), verdict="unbalanced")
    change(lake, SERIES, "2024-01-05", fiftieth("trades", 2), verdict="unbalanced", accepted_by="ada")
    change(lake, SERIES, "2024-01-06", verdict="unbalanced")  # the totals agree now
    verified = invoke("verify", "spot/BTCUSDT/1m", "--against", "rest", BINANCE_ASSETS_STRICT=strict)
    assert verified.exit_code == 1
    text = " ".join(verified.stdout.split())
    days = [line.split()[1] for line in verified.stdout.splitlines() if "it was" in line or "it is" in line]
    assert days == (["2024-01-03", "2024-01-04"] if strict == "1" else ["2024-01-03"])
    assert "it was unproved and is unbalanced: no candle is missing, but the totals differ" in text
    assert ("it is unbalanced, which is refused now: no candle is missing" in text) == (strict == "1")
    assert without_progress(verified.stderr) == ["not complete, by their stored verdicts: 3 unbalanced, 2 unproved"]


@pytest.mark.parametrize("verdict", ["unproved", "unbalanced"])
def test_verify_counts_verdicts_other_than_complete(invoke: Invoke, week: Path, verdict: str) -> None:
    change(lake_in(week), SERIES, "2024-01-02", verdict=verdict)
    verified = invoke("verify", "spot/BTCUSDT/1m")
    assert verified.exit_code == 0, verified.stdout
    assert verified.stdout.strip() == f"7 partitions of 1 series are as they should be (1 {verdict})"


def test_verify_finds_a_removed_candle(invoke: Invoke, week: Path) -> None:
    lake = lake_in(week)
    entry = stored(lake, SERIES, "2024-01-04")
    fewer = read(lake, SERIES, "2024-01-04").filter(pl.int_range(pl.len()) != 700)
    partition = partition_for_key("2024-01-04", SERIES.interval)
    lake.write(SERIES, PartitionResult(partition, entry.verdict, fewer))
    verified = invoke("verify", str(SERIES), "spot/ETHUSDT/1m")  # one of which the lake has nothing hides no finding
    assert verified.exit_code == 1
    assert "it was complete and is lost: no candles for 2024-01-04 11:40 to 11:41" in verified.stdout
    assert "spot/ETHUSDT/1m: no partitions in the lake" in verified.stderr


def test_verify_reads_only_the_requested_partitions(invoke: Invoke, week: Path) -> None:
    remove(lake_in(week), SERIES, "2024-01-02")
    verified = invoke("verify", "spot/BTCUSDT/1m", "--start", "2024-01-03", "--end", "2024-01-06")
    assert (verified.exit_code, verified.stdout.strip()) == (0, "3 partitions of 1 series are as they should be")
    absent = invoke("verify", "spot/ETHUSDT/1m")
    assert "no partitions in the lake" in absent.stderr
    error_line(invoke("verify", "spot/ETHUSDT"), code=2)


def test_verify_without_the_exchange_fails_with_one_line(invoke: Invoke, sandbox: Sandbox, week: Path) -> None:
    for path in ("klines", "time"):
        sandbox.faults.add(Fault("status", value=451, path=path))
    assert "cannot be verified now" in error_line(invoke("verify"), code=1)
