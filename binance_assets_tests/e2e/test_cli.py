"""The command line as a process of its own: what it prints, what it leaves behind, with which code it ends."""

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
from pathlib import Path

import dagster as dg
import polars as pl
import pytest

from binance_assets.model.timestamps import DAY, HOUR, MINUTE, to_ms
from binance_assets.orchestration.instance import open_instance
from binance_assets.orchestration.partitions import DAILY
from binance_assets.sandbox import Fault, Sandbox
from binance_assets_tests.support.environment import Run, cli_environment

JANUARY = ("--start", "2024-01-01", "--end", "2024-02-01")
THE_3RD = to_ms(dt.date(2024, 1, 3))
BTC = dg.AssetKey(["spot", "BTCUSDT", "1m"])


def download(run_cli: Run, *arguments: str) -> subprocess.CompletedProcess[str]:
    return run_cli("download", *arguments)


def runs_in(folder: Path) -> list[dg.DagsterRun]:
    with contextlib.chdir(folder), open_instance(folder, {}) as instance:
        return list(instance.get_runs())


def materialized_in(folder: Path, key: dg.AssetKey = BTC) -> set[str]:
    with contextlib.chdir(folder), open_instance(folder, {}) as instance:
        return set(instance.get_materialized_partitions(key))


def keys_in(folder: Path, series: str = "market=spot/symbol=BTCUSDT/interval=1m") -> list[str]:
    return sorted(path.stem for path in (folder / "lake" / series).glob("*.parquet"))


def lose_a_minute(sandbox: Sandbox) -> None:
    """From now on neither source has the first minute of the 3rd's second hour."""
    begin = THE_3RD + HOUR
    for path in ("klines", "archive"):
        sandbox.faults.add(Fault("missing_row", start=begin, end=begin + MINUTE, path=path, interval="1m"))


def test_a_day_that_was_there_stays_green_inside_a_run_that_fails(
    run_cli: Run, sandbox: Sandbox, tmp_path: Path
) -> None:
    minutes = ("BTCUSDT", "--market", "spot", "--interval", "1m")
    assert download(run_cli, *minutes, "--start", "2024-01-02", "--end", "2024-01-03").returncode == 0
    lose_a_minute(sandbox)
    assert download(run_cli, *minutes, "--start", "2024-01-01", "--end", "2024-01-05").returncode == 1
    with contextlib.chdir(tmp_path), open_instance(tmp_path, {}) as instance:
        days = [f"2024-01-0{day}" for day in range(1, 5)]
        found = instance.get_status_by_partition(BTC, days, DAILY) or {}
    message = {day: status.value if status else "" for day, status in found.items()}
    assert message == dict.fromkeys(days, "MATERIALIZED") | {"2024-01-03": "FAILED"}


def test_a_month_lands_in_lake_universe_and_dagster(run_cli: Run, tmp_path: Path) -> None:
    result = download(run_cli, "BTCUSDT", "--market", "spot", "--interval", "1m", *JANUARY, "--json",
                      "--source", "rest")  # fmt: skip
    assert result.returncode == 0, result.stderr
    message = json.loads(result.stdout)["spot/BTCUSDT/1m"]
    assert (message["days_asked"], message["days_present"], message["refused"]) == (31, 31, [])
    assert (message["rows"], message["requests"]) == (44_640, 48)  # and the time, the limit, the days' sums
    assert message["workers"] >= 1
    assert message["rtt_ms"] > 0
    assert len(keys_in(tmp_path)) == len(materialized_in(tmp_path)) == 31
    (run,) = runs_in(tmp_path)
    assert (run.job_name, run.status) == ("spot_daily", dg.DagsterRunStatus.SUCCESS)
    assert "spot/BTCUSDT/1m is now tracked" in result.stderr
    assert "reload" in result.stderr
    assert "dagster" not in result.stderr.lower().replace(str(tmp_path).lower(), "")


@pytest.mark.parametrize("source", [["--source", "archive"], ["--source", "auto"], []])
def test_a_month_that_is_over_is_one_file_of_the_archive_and_costs_no_weight(
    run_cli: Run, sandbox: Sandbox, source: list[str]
) -> None:
    result = download(run_cli, "BTCUSDT", "--market", "spot", "--interval", "1m", *JANUARY, "--json", *source)
    assert result.returncode == 0, result.stderr
    message = json.loads(result.stdout)["spot/BTCUSDT/1m"]
    assert (message["days_present"], message["rows"], message["refused"]) == (31, 44_640, [])
    zips = [request.path for request in sandbox.requests if request.path.endswith(".zip")]
    assert zips == ["/data/spot/monthly/klines/BTCUSDT/1m/BTCUSDT-1m-2024-01.zip"]
    asked = [request.params["interval"] for request in sandbox.requests if request.path.endswith("/klines")]
    assert asked.count("1m") == (0 if source[-1:] == ["archive"] else 1)  # whether there is such a symbol
    assert message["weight"] == 1 + 2  # the time and the days' sums


def test_the_table_says_the_same_to_people(run_cli: Run) -> None:
    result = download(run_cli, "BTCUSDT", "--market", "spot", "--interval", "1m", *JANUARY)
    assert result.returncode == 0
    header, row = result.stdout.strip().splitlines()
    assert header.split()[0] == "series"
    assert row.split()[:5] == ["spot/BTCUSDT/1m", "31", "31", "0", "44,640"]


def test_what_is_there_is_not_asked_again(run_cli: Run, sandbox: Sandbox, tmp_path: Path) -> None:
    download(run_cli, "BTCUSDT", "--market", "spot", "--interval", "1m", *JANUARY)
    sandbox.requests.clear()
    again = download(run_cli, "BTCUSDT", "--market", "spot", "--interval", "1m", *JANUARY, "--json")
    assert again.returncode == 0
    assert json.loads(again.stdout)["spot/BTCUSDT/1m"]["days_present"] == 31
    assert list(sandbox.requests) == []
    assert len(runs_in(tmp_path)) == 1


def test_one_run_over_the_hull_fetches_only_what_is_missing(run_cli: Run, sandbox: Sandbox, tmp_path: Path) -> None:
    download(run_cli, "BTCUSDT", "--market", "spot", "--interval", "1m", *JANUARY)
    folder = tmp_path / "lake/market=spot/symbol=BTCUSDT/interval=1m"
    for day in ("05", "06", "20"):
        (folder / f"2024-01-{day}.parquet").unlink()
    (folder / "2024-01-25.parquet").write_bytes(b"torn")
    untouched = (folder / "2024-01-10.parquet").stat().st_mtime_ns
    sandbox.requests.clear()
    result = download(run_cli, "BTCUSDT", "--market", "spot", "--interval", "1m", *JANUARY, "--json")
    assert result.returncode == 0
    assert json.loads(result.stdout)["spot/BTCUSDT/1m"]["rows"] == 4 * 1440
    assert (folder / "2024-01-10.parquet").stat().st_mtime_ns == untouched
    run = runs_in(tmp_path)[0]
    assert run.tags["dagster/asset_partition_range_start"] == "2024-01-05"
    assert run.tags["dagster/asset_partition_range_end"] == "2024-01-25"
    assert run.run_config["ops"]["spot__BTCUSDT__1m"]["config"] == {"only_missing": True}


def test_refresh_fetches_again(run_cli: Run, tmp_path: Path) -> None:
    week = ("--start", "2024-01-01", "--end", "2024-01-08")
    download(run_cli, "BTCUSDT", "--market", "spot", "--interval", "1m", *week)
    again = download(run_cli, "BTCUSDT", "--market", "spot", "--interval", "1m", *week, "--refresh", "--json")
    assert json.loads(again.stdout)["spot/BTCUSDT/1m"]["rows"] == 7 * 1440
    assert len(runs_in(tmp_path)) == 2


def test_days_that_dagster_does_not_know_are_reported_to_it(run_cli: Run, tmp_path: Path) -> None:
    download(run_cli, "BTCUSDT", "--market", "spot", "--interval", "1m", *JANUARY)
    shutil.rmtree(tmp_path / ".dagster")
    result = download(run_cli, "BTCUSDT", "--market", "spot", "--interval", "1m", *JANUARY)
    assert result.returncode == 0
    assert len(materialized_in(tmp_path)) == 31
    assert runs_in(tmp_path) == []


def test_a_refused_day_is_named_and_the_code_is_1(run_cli: Run, sandbox: Sandbox, tmp_path: Path) -> None:
    lose_a_minute(sandbox)
    result = download(run_cli, "BTCUSDT", "--market", "spot", "--interval", "1m", *JANUARY, "--json")
    assert result.returncode == 1
    message = json.loads(result.stdout)["spot/BTCUSDT/1m"]
    assert message["days_present"] == 30
    (refused,) = message["refused"]
    assert (refused["day"], refused["verdict"]) == ("2024-01-03", "lost")
    assert refused["missing"] == [["2024-01-03T01:00:00Z", "2024-01-03T01:01:00Z"]]
    assert "2024-01-03" not in keys_in(tmp_path)
    assert "2024-01-03" not in materialized_in(tmp_path)
    (run,) = runs_in(tmp_path)
    assert run.status == dg.DagsterRunStatus.FAILURE
    assert "Traceback" not in result.stderr


def test_several_series_and_intervals_in_one_call(run_cli: Run, tmp_path: Path) -> None:
    result = download(run_cli, "btcusdt", "ETHUSDT", "--market", "usdm", "--interval", "1h", "--interval", "1M",
                      "--start", "2024-01-01", "--end", "2024-03-01", "--json")  # fmt: skip
    assert result.returncode == 0, result.stderr
    message = json.loads(result.stdout)
    assert {name: found["days_present"] for name, found in message.items()} == {
        "usdm/BTCUSDT/1h": 60, "usdm/BTCUSDT/1mo": 2, "usdm/ETHUSDT/1h": 60, "usdm/ETHUSDT/1mo": 2,
    }  # fmt: skip
    assert sorted(run.job_name for run in runs_in(tmp_path)) == ["usdm_daily", "usdm_monthly"]


def test_from_the_first_candle_to_the_last_finished_one(run_cli: Run, sandbox: Sandbox) -> None:
    result = download(run_cli, "ARBUSDT", "--market", "spot", "--interval", "1M", "--json")
    assert result.returncode == 0, result.stderr
    message = json.loads(result.stdout)["spot/ARBUSDT/1mo"]
    now = dt.datetime.fromtimestamp(sandbox.now_ms() / 1_000, dt.UTC)
    months = (now.year - 2023) * 12 + now.month - 3
    assert message["days_asked"] == message["days_present"] == months


def test_a_dry_run_writes_nothing(run_cli: Run, tmp_path: Path) -> None:
    wanted = ("BTCUSDT", "--market", "usdm", "--interval", "1m", "--start", "2024-01-01", "--end", "2024-02-03")
    for source, requests, weight, files in (("rest", 96, 192, 0), ("auto", 4, 0, 2), ("archive", 4, 0, 2)):
        result = download(run_cli, *wanted, "--dry-run", "--json", "--source", source)
        assert result.returncode == 0
        message = json.loads(result.stdout)["usdm/BTCUSDT/1m"]
        assert (message["days_asked"], message["days_present"], len(message["days_missing"])) == (33, 0, 33)
        assert (message["requests"], message["weight"], message["files"]) == (requests, weight, files)
        table = download(run_cli, *wanted, "--dry-run", "--source", source).stdout.splitlines()
        assert table[0].split()[-3:] == ["requests", "weight", "files"]
        assert table[1].split() == [
            "usdm/BTCUSDT/1m", "2024-01-01", "2024-02-02", "33", "0", "33", f"{requests}", f"{weight}", f"{files}",
        ]  # fmt: skip
    assert {path.name.split("-")[0] for path in tmp_path.iterdir()} <= {"ledger.sqlite"}


def test_a_dry_run_weighs_what_the_archive_has_not_yet(run_cli: Run) -> None:
    first = (TODAY - dt.timedelta(40)).replace(day=1)
    wanted = ("BTCUSDT", "--market", "spot", "--interval", "1m", "--start", f"{first}", "--dry-run", "--json")
    message = json.loads(download(run_cli, *wanted, "--source", "auto").stdout)["spot/BTCUSDT/1m"]
    assert message["files"] >= 1
    assert message["days_asked"] == len(message["days_missing"]) == (TODAY - first).days
    assert message["weight"] == 2 * (message["requests"] - 2 * message["files"])


TODAY = dt.datetime.now(dt.UTC).date()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["NOPEUSDT", "--market", "spot", "--interval", "1m", *JANUARY], "there is no symbol NOPEUSDT"),
        (["NOPEUSDT", "--market", "coinm", "--interval", "1m"], "there is no symbol NOPEUSDT"),
        (["BTC/USDT", "--market", "spot", "--interval", "1m"], "not a symbol"),
        (["BTCUSDT", "--market", "moon", "--interval", "1m"], "no market 'moon'"),
        (["BTCUSDT", "--market", "spot", "--interval", "7m"], "no interval '7m'"),
        (["BTCUSDT", "--market", "usdm", "--interval", "1s"], "no candles of 1s"),
        (["BTCUSDT", "--market", "spot", "--interval", "1m", "--start", "2024-02-30"], "not a day"),
        (["BTCUSDT", "--market", "spot", "--interval", "1w", "--start", "2024-01-02"], "first of a month"),
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
def test_bad_input_is_one_line_and_nothing_is_written(
    run_cli: Run, tmp_path: Path, arguments: list[str], message: str
) -> None:
    result = download(run_cli, *arguments)
    assert result.returncode == 2
    (line,) = result.stderr.strip().splitlines()
    assert line.startswith("error: ")
    assert message in line
    assert result.stdout == ""
    assert {path.name.split("-")[0] for path in tmp_path.iterdir()} <= {"ledger.sqlite"}


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
def test_bad_configuration_is_one_line(run_cli: Run, environment: dict[str, str], message: str) -> None:
    result = run_cli("download", "BTCUSDT", "--market", "spot", "--interval", "1m", "--start", "2024-01-01",
                     "--end", "2024-01-02", **environment)  # fmt: skip
    assert result.returncode == 2, result.stderr
    assert message in result.stderr
    assert "Traceback" not in result.stderr


def test_an_unusable_instance_is_told_before_anything_is_written(run_cli: Run, tmp_path: Path) -> None:
    (tmp_path / "dagster.yaml").write_text("storage: [")
    result = download(run_cli, "BTCUSDT", "--market", "spot", "--interval", "1m", *JANUARY)
    assert result.returncode == 2
    assert len(result.stderr.strip().splitlines()) == 1
    assert "the Dagster instance in" in result.stderr
    assert not (tmp_path / "universe.yaml").exists()
    assert not (tmp_path / "lake").exists()


def test_a_range_without_a_finished_partition_is_bad_input(run_cli: Run, tmp_path: Path) -> None:
    this_month = TODAY.replace(day=1)
    for arguments in (["--start", f"{this_month}"], ["--end", "2017-08-01"]):
        result = download(run_cli, "BTCUSDT", "--market", "spot", "--interval", "1M", *arguments)
        assert result.returncode == 2, result.stderr
        assert "nothing to fetch" in result.stderr or "not before today" in result.stderr
    assert not (tmp_path / "universe.yaml").exists()


def test_a_port_that_is_taken_is_one_line(run_cli: Run, sandbox: Sandbox) -> None:
    result = run_cli("sandbox", "--port", sandbox.url.rpartition(":")[2])
    assert result.returncode == 2
    assert len(result.stderr.strip().splitlines()) == 1


def test_an_interrupt_of_the_whole_process_group_is_one_line(sandbox: Sandbox, tmp_path: Path) -> None:
    hang = THE_3RD + 60 * DAY
    (tmp_path / "universe.yaml").write_text("series: [{market: spot, symbols: [BTCUSDT], intervals: [1m]}]")
    sandbox.faults.add(Fault("hang", start=hang, end=hang + 1, interval="1m"))
    process = subprocess.Popen(
        [sys.executable, "-m", "binance_assets", "download", "BTCUSDT", "--market", "spot", "--interval", "1m",
         "--start", "2024-01-01", "--end", "2024-04-01", "--source", "rest"],
        cwd=tmp_path, env=cli_environment(sandbox, tmp_path), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        start_new_session=True,
    )  # fmt: skip
    deadline = time.monotonic() + 60
    while len(keys_in(tmp_path)) < 20 and time.monotonic() < deadline:
        time.sleep(0.05)
    os.killpg(process.pid, signal.SIGINT)  # as a terminal does
    time.sleep(0.1)
    os.killpg(process.pid, signal.SIGINT)  # and once more by an impatient hand
    _, message = process.communicate(timeout=20)
    assert process.returncode == 130
    (line,) = message.strip().splitlines()
    assert line.startswith("error: interrupted")
    (run,) = runs_in(tmp_path)
    assert run.status == dg.DagsterRunStatus.CANCELED


def test_a_broken_universe_is_one_line(run_cli: Run, tmp_path: Path) -> None:
    (tmp_path / "universe.yaml").write_text("series: [")
    for command in (["series"], ["download", "BTCUSDT", "--market", "spot", "--interval", "1m", *JANUARY]):
        result = run_cli(*command)
        assert result.returncode == 2
        assert "universe.yaml is not YAML" in result.stderr
        assert len(result.stderr.strip().splitlines()) == 1


def test_a_lake_of_real_candles_refuses_the_sandbox(run_cli: Run, tmp_path: Path) -> None:
    (tmp_path / "lake").mkdir()
    (tmp_path / "lake" / "_lake.json").write_text('{"origin": "binance", "layout": 1}')
    result = download(run_cli, "BTCUSDT", "--market", "spot", "--interval", "1m", *JANUARY)
    assert result.returncode == 2
    assert "origin 'binance'" in result.stderr
    assert not (tmp_path / "universe.yaml").exists()


def test_an_exchange_that_is_not_there_is_one_line_and_code_1(run_cli: Run) -> None:
    result = run_cli("download", "BTCUSDT", "--market", "spot", "--interval", "1m", *JANUARY,
                     BINANCE_SPOT_URL="http://127.0.0.1:9")  # fmt: skip
    assert result.returncode == 1
    (line,) = result.stderr.strip().splitlines()
    assert "no connection" in line


def test_settings_of_a_dotenv_file_count(run_cli: Run, sandbox: Sandbox, tmp_path: Path) -> None:
    (tmp_path / ".env").write_text(f"BINANCE_ASSETS_LAKE={tmp_path}/elsewhere\n")
    result = download(run_cli, "BTCUSDT", "--market", "spot", "--interval", "1h", "--start", "2024-01-01",
                      "--end", "2024-01-02")  # fmt: skip
    assert result.returncode == 0
    assert len(list((tmp_path / "elsewhere").rglob("*.parquet"))) == 1


def test_tracking_by_hand(run_cli: Run, tmp_path: Path) -> None:
    assert run_cli("track", "BTCUSDT", "ETHUSDT", "--market", "spot", "--interval", "1m").returncode == 0
    listed = run_cli("series")
    assert [line.split()[0] for line in listed.stdout.splitlines()] == ["spot/BTCUSDT/1m", "spot/ETHUSDT/1m"]
    assert run_cli("untrack", "BTCUSDT", "--market", "spot", "--interval", "1m").returncode == 0
    assert "spot/BTCUSDT/1m" not in run_cli("series").stdout
    again = run_cli("untrack", "BTCUSDT", "--market", "spot", "--interval", "1m")
    assert (again.returncode, "was not tracked" in again.stdout) == (1, True)


@pytest.mark.parametrize("signal_", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_an_interrupt_ends_it_within_two_seconds_even_while_a_socket_hangs(
    sandbox: Sandbox, tmp_path: Path, signal_: signal.Signals
) -> None:
    (tmp_path / "universe.yaml").write_text("series: [{market: spot, symbols: [BTCUSDT], intervals: [1m]}]")
    hang = THE_3RD + 60 * DAY
    sandbox.faults.add(Fault("hang", start=hang, end=hang + 1, interval="1m"))
    process = subprocess.Popen(
        [sys.executable, "-m", "binance_assets", "download", "BTCUSDT", "--market", "spot", "--interval", "1m",
         "--start", "2024-01-01", "--end", "2024-04-01", "--source", "rest"],
        cwd=tmp_path, env=cli_environment(sandbox, tmp_path), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    deadline = time.monotonic() + 60
    while len(keys_in(tmp_path)) < 20 and time.monotonic() < deadline:
        time.sleep(0.05)
    finished = keys_in(tmp_path)
    assert len(finished) >= 20
    began = time.monotonic()
    process.send_signal(signal_)
    _, message = process.communicate(timeout=20)
    assert time.monotonic() - began < 2.5  # two seconds, and what a loaded machine adds
    assert process.returncode == 130
    assert message.strip().splitlines()[-1].startswith("error: interrupted")
    assert "Traceback" not in message
    (run,) = runs_in(tmp_path)
    assert run.status == dg.DagsterRunStatus.CANCELED
    assert set(keys_in(tmp_path)) >= set(finished)
    assert materialized_in(tmp_path) >= set(finished)
    assert list((tmp_path / "lake" / ".incoming").iterdir()) == []


def test_an_interrupt_ends_it_within_two_seconds_while_the_days_sums_hang(sandbox: Sandbox, tmp_path: Path) -> None:
    sandbox.faults.add(Fault("hang", interval="1d"))
    process = subprocess.Popen(
        [sys.executable, "-m", "binance_assets", "download", "BTCUSDT", "--market", "spot", "--interval", "1m",
         *JANUARY],
        cwd=tmp_path, env=cli_environment(sandbox, tmp_path), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    deadline = time.monotonic() + 60
    while not any(one.params.get("interval") == "1d" for one in sandbox.requests) and time.monotonic() < deadline:
        time.sleep(0.05)
    began = time.monotonic()
    process.send_signal(signal.SIGINT)
    _, message = process.communicate(timeout=20)
    assert time.monotonic() - began < 2.5  # two seconds, and what a loaded machine adds
    assert process.returncode == 130
    assert message.strip().splitlines()[-1].startswith("error: interrupted")
    (run,) = runs_in(tmp_path)
    assert run.status == dg.DagsterRunStatus.CANCELED


def test_after_an_interrupt_the_same_command_goes_on(run_cli: Run, sandbox: Sandbox, tmp_path: Path) -> None:
    test_an_interrupt_ends_it_within_two_seconds_even_while_a_socket_hangs(sandbox, tmp_path, signal.SIGINT)
    sandbox.faults.clear()
    sandbox.requests.clear()
    result = download(run_cli, "BTCUSDT", "--market", "spot", "--interval", "1m", "--start", "2024-01-01",
                      "--end", "2024-04-01", "--json")  # fmt: skip
    assert result.returncode == 0, result.stderr
    message = json.loads(result.stdout)["spot/BTCUSDT/1m"]
    assert message["days_present"] == 91
    assert message["rows"] <= 71 * 1440


def test_help_is_quick_and_knows_every_command(run_cli: Run) -> None:
    message = run_cli("--help").stdout
    assert all(name in message for name in ("download", "track", "untrack", "series", "sandbox", "demo"))
    assert os.linesep in run_cli("download", "--help").stdout


# -- accepting a refused day ----------------------------------------------------------------------------------------

LAKE_OF_BTC = "lake/market=spot/symbol=BTCUSDT/interval=1m"


def file_of(folder: Path, day: str) -> Path:
    return folder / LAKE_OF_BTC / f"2024-01-{day}.parquet"


def parquets(folder: Path) -> list[Path]:
    return sorted(folder.rglob("*.parquet"))


def test_a_lost_day_that_somebody_accepts_is_there_with_its_hole_and_says_so(
    run_cli: Run, sandbox: Sandbox, tmp_path: Path
) -> None:
    days = ("BTCUSDT", "--market", "spot", "--interval", "1m", "--start", "2024-01-01", "--end", "2024-01-06")
    lose_a_minute(sandbox)
    refused = download(run_cli, *days)
    assert refused.returncode == 1
    assert "2024-01-03 is lost" in refused.stderr
    assert not file_of(tmp_path, "03").exists()

    accepted = run_cli("accept", "spot/BTCUSDT/1m", "2024-01-03", "--reason", "asked the exchange, it is gone")
    assert accepted.returncode == 0, accepted.stderr
    (line,) = accepted.stdout.strip().splitlines()
    assert line.startswith("spot/BTCUSDT/1m 2024-01-03 is lost, and accepted by ")
    metadata = pl.read_parquet_metadata(file_of(tmp_path, "03"))
    assert (metadata["verdict"], metadata["accepted_because"]) == ("lost", "asked the exchange, it is gone")
    assert metadata["accepted_by"] in line
    assert metadata["accepted_by"]
    assert json.loads(metadata["missing"]) == [["2024-01-03T01:00:00Z", "2024-01-03T01:01:00Z"]]
    assert pl.read_parquet(file_of(tmp_path, "03"), hive_partitioning=False).height == 1_439
    assert "2024-01-03" in materialized_in(tmp_path)
    with contextlib.chdir(tmp_path), open_instance(tmp_path, {}) as instance:
        event = instance.get_latest_materialization_event(BTC)
        assert event is not None
        assert event.asset_materialization is not None
        said = event.asset_materialization.metadata
        assert (said["verdict"].value, said["accepted_because"].value) == ("lost", "asked the exchange, it is gone")

    again = download(run_cli, *days, "--json")
    assert again.returncode == 0, again.stderr
    assert json.loads(again.stdout)["spot/BTCUSDT/1m"]["days_present"] == 5
    looked = run_cli("verify", "spot/BTCUSDT/1m")
    assert (looked.returncode, "5 partitions of 1 series" in looked.stdout) == (0, True), looked.stdout


def test_of_a_good_day_nothing_has_to_be_accepted(run_cli: Run, tmp_path: Path) -> None:
    result = run_cli("accept", "spot/BTCUSDT/1m", "2024-01-03", "--reason", "to be sure")
    assert result.returncode == 0, result.stderr
    assert "is complete; it was written, and nothing had to be accepted" in result.stdout
    metadata = pl.read_parquet_metadata(file_of(tmp_path, "03"))
    assert (metadata["verdict"], metadata["accepted_by"], metadata["accepted_because"]) == ("complete", "", "")
    assert materialized_in(tmp_path) == {"2024-01-03"}


def test_an_invalid_day_cannot_be_accepted(run_cli: Run, sandbox: Sandbox, tmp_path: Path) -> None:
    for path in ("klines", "archive"):
        sandbox.faults.add(Fault("bad_prices", start=THE_3RD, end=THE_3RD + MINUTE, path=path, interval="1m"))
    result = run_cli("accept", "spot/BTCUSDT/1m", "2024-01-03", "--reason", "never mind")
    assert result.returncode == 1
    (line,) = result.stderr.strip().splitlines()
    assert "is invalid and cannot be accepted: broken rules: " in line
    assert parquets(tmp_path) == []


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["spot/BTCUSDT/1m", f"{TODAY}", "--reason", "now"], 1, "unfinished and cannot be accepted"),
        (["spot/BTCUSDT/1m", "2099-01-01", "--reason", "now"], 1, "unfinished and cannot be accepted"),
        (["spot/NOPEUSDT/1m", "2024-01-03", "--reason", "now"], 1, "there is no symbol NOPEUSDT"),
        (["spot/BTCUSDT/1m", "2017-06-30", "--reason", "now"], 2, "is no partition"),
        (["spot/BTCUSDT/1M", "2024-01-03", "--reason", "now"], 2, "kept by months"),
        (["spot/BTCUSDT/1m", "soon", "--reason", "now"], 2, "not a day"),
        (["spot/BTCUSDT/1m", "2024-01-03", "--reason", "  "], 2, "--reason"),
        (["spot/BTCUSDT/1m", "2024-01-03"], 2, "--reason"),
        (["BTCUSDT", "2024-01-03", "--reason", "now"], 2, "not a series"),
        (["spot/BTCUSDT/7m", "2024-01-03", "--reason", "now"], 2, "7m"),
    ],
)
def test_what_cannot_be_accepted_is_one_line_and_nothing_is_written(
    run_cli: Run, tmp_path: Path, arguments: list[str], code: int, message: str
) -> None:
    result = run_cli("accept", *arguments)
    assert result.returncode == code, result.stderr
    (line,) = result.stderr.strip().splitlines()
    assert line.startswith("error: ")
    assert message in line
    assert result.stdout == ""
    assert parquets(tmp_path) == []


# -- looking again --------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def week(shared_sandbox: Sandbox, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder in which the first week of January was downloaded."""
    folder = tmp_path_factory.mktemp("week")
    shared_sandbox.faults.clear()
    subprocess.run(
        [sys.executable, "-m", "binance_assets", "download", "BTCUSDT", "--market", "spot", "--interval", "1m",
         "--start", "2024-01-01", "--end", "2024-01-08"],
        cwd=folder, env=cli_environment(shared_sandbox, folder), check=True,
    )  # fmt: skip
    return folder


@pytest.fixture
def lake_of_a_week(run_cli: Run, week: Path, tmp_path: Path) -> Run:
    """Runs commands on a copy of that week."""
    shutil.copytree(week / "lake", tmp_path / "lake")
    shutil.copy(week / "universe.yaml", tmp_path)
    return run_cli


def rewrite(path: Path, change: pl.Expr | None = None, **metadata: str) -> None:
    """Write a file again with other candles or other metadata, as a hand may."""
    kept = {name: text for name, text in pl.read_parquet_metadata(path).items() if name != "ARROW:schema"}
    candles = pl.read_parquet(path, hive_partitioning=False)
    changed = candles if change is None else candles.with_columns(change)
    changed.write_parquet(path, metadata=kept | metadata)


def fiftieth(column: str, factor: float) -> pl.Expr:
    """A column whose fiftieth value is another one."""
    return pl.when(pl.int_range(pl.len()) == 50).then(pl.col(column) * factor).otherwise(pl.col(column)).alias(column)


@pytest.mark.parametrize("more", [[], ["--against", "rest"], ["--against", "archive"]])
def test_a_good_lake_is_as_it_should_be(lake_of_a_week: Run, sandbox: Sandbox, tmp_path: Path, more: list[str]) -> None:
    sandbox.requests.clear()
    before = {path: path.read_bytes() for path in parquets(tmp_path)}
    for names in (["spot/BTCUSDT/1m"], []) if not more else (["spot/BTCUSDT/1m"],):
        looked = lake_of_a_week("verify", *names, *more)
        assert looked.returncode == 0, looked.stdout + looked.stderr
        assert looked.stdout.strip() == "7 partitions of 1 series are as they should be"
    assert {path: path.read_bytes() for path in parquets(tmp_path)} == before
    files = [request.path for request in sandbox.requests if request.path.endswith(".zip")]
    pages = [request for request in sandbox.requests if request.params.get("interval") == "1m"]
    assert (len(files), bool(pages)) == ((1, False) if more[1:] == ["archive"] else (0, True))


def test_whatever_is_wrong_with_a_file_is_found_and_named(lake_of_a_week: Run, tmp_path: Path) -> None:
    file_of(tmp_path, "02").unlink()
    whole = file_of(tmp_path, "03").read_bytes()
    file_of(tmp_path, "03").write_bytes(whole[: len(whole) // 2])
    rewrite(file_of(tmp_path, "04"), fiftieth("volume", 1.001))
    rewrite(file_of(tmp_path, "05"), series="spot/ETHUSDT/1m")
    rewrite(file_of(tmp_path, "06"), rows="1439")
    rewrite(file_of(tmp_path, "07"), fiftieth("high", 0.5))
    looked = lake_of_a_week("verify", "spot/BTCUSDT/1m")
    assert looked.returncode == 1
    header, *lines = looked.stdout.strip().splitlines()
    assert header.split()[:2] == ["series", "partition"]
    message = {line.split()[1]: " ".join(line.split()[2:]) for line in lines if line.startswith("spot/BTCUSDT/1m")}
    assert set(message) == {f"2024-01-0{n}" for n in range(2, 8)}
    assert message["2024-01-02"] == "there is no file"
    assert "metadata" in message["2024-01-03"] or "cannot be read" in message["2024-01-03"]
    assert "it was complete and is unbalanced" in message["2024-01-04"]
    assert "metadata" in message["2024-01-05"]
    assert "it has 1,440 candles, and its metadata says 1,439" in message["2024-01-06"]
    assert "it was complete and is invalid" in message["2024-01-07"]
    assert "Traceback" not in looked.stderr


@pytest.mark.parametrize("against", ["rest", "archive"])
def test_a_price_that_was_changed_is_found_by_comparing_every_candle(
    lake_of_a_week: Run, tmp_path: Path, against: str
) -> None:
    between = pl.col("close") + (pl.col("high") - pl.col("close")) / 2
    change = pl.when(pl.int_range(pl.len()) == 50).then(between).otherwise(pl.col("close")).alias("close")
    rewrite(file_of(tmp_path, "05"), change)
    looked = lake_of_a_week("verify", "spot/BTCUSDT/1m", "--against", against)
    assert looked.returncode == 1
    (line,) = looked.stdout.strip().splitlines()[1:]
    assert line.split()[:2] == ["spot/BTCUSDT/1m", "2024-01-05"]
    assert f"1 candles differ from those of {against}, the first at 2024-01-05 00:50" in line


def test_a_candle_that_was_taken_out_is_found(lake_of_a_week: Run, tmp_path: Path) -> None:
    path = file_of(tmp_path, "04")
    kept = {name: text for name, text in pl.read_parquet_metadata(path).items() if name != "ARROW:schema"}
    fewer = pl.read_parquet(path, hive_partitioning=False).filter(pl.int_range(pl.len()) != 700)
    fewer.write_parquet(path, metadata=kept | {"rows": "1439"})
    looked = lake_of_a_week("verify")
    assert looked.returncode == 1
    assert "it was complete and is lost: no candles for 2024-01-04 11:40 to 11:41" in looked.stdout


def test_only_what_is_asked_for_is_looked_at(lake_of_a_week: Run, tmp_path: Path) -> None:
    file_of(tmp_path, "02").unlink()
    part = ("--start", "2024-01-03", "--end", "2024-01-06")
    looked = lake_of_a_week("verify", "spot/BTCUSDT/1m", *part)
    assert (looked.returncode, looked.stdout.strip()) == (0, "3 partitions of 1 series are as they should be")
    nothing = lake_of_a_week("verify", "spot/ETHUSDT/1m")
    assert "nothing of it is in the lake" in nothing.stderr
    bad = lake_of_a_week("verify", "spot/ETHUSDT")
    assert (bad.returncode, len(bad.stderr.strip().splitlines())) == (2, 1)


def test_without_the_exchange_nothing_can_be_proved_and_that_is_one_line(lake_of_a_week: Run, sandbox: Sandbox) -> None:
    for path in ("klines", "time"):
        sandbox.faults.add(Fault("status", value=451, path=path))
    looked = lake_of_a_week("verify")
    assert looked.returncode == 1
    (line,) = looked.stderr.strip().splitlines()
    assert "nothing can be proved now" in line
