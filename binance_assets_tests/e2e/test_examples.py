"""The programs in ``examples/`` work with the commands that a user runs."""

from __future__ import annotations

import importlib.util
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType

import dagster as dg
import pytest

from binance_assets.model.series import parse_series
from binance_assets.sandbox import Sandbox
from binance_assets.storage.lake import Lake
from binance_assets.storage.universe_editor import track
from binance_assets_tests.support.environment import CHECKOUT, cli_environment, environment_of
from binance_assets_tests.support.lakes import keys
from binance_assets_tests.support.warm_python import WarmPython

EXAMPLES = CHECKOUT / "examples"
README = CHECKOUT / "README.md"
DOWNSTREAM = EXAMPLES / "downstream.py"
SERIES = "spot/BTCUSDT/1m"
ONE_LINERS = re.findall(r"^\| (?:Polars|DuckDB|pyarrow)\b.*\| `(.+)` \|$", README.read_text(), re.MULTILINE)
DAYS = ("2023-03-01", "2023-03-02", "2023-03-03")  # the first days of the demo, whose candles the README shows
QUIET = {"loggers": {"console": {"config": {"log_level": "CRITICAL"}}}}


def run_python(sandbox: Sandbox, folder: Path, *arguments: str) -> str:
    """Run the interpreter in ``folder`` against the sandbox and return what it prints."""
    environment = cli_environment(sandbox, folder) | {"PYTHONPATH": str(CHECKOUT)}
    result = subprocess.run(
        [sys.executable, *arguments], cwd=folder, env=environment, capture_output=True, text=True, check=False
    )
    assert result.returncode == 0, result.stderr
    return result.stdout


@pytest.fixture
def list_assets(sandbox: Sandbox, tmp_path: Path, warm_python: WarmPython) -> Callable[..., list[str]]:
    """Returns the asset keys that Dagster's command line lists for a target, such as ``-m module``."""

    def run(*target: str) -> list[str]:
        environment = cli_environment(sandbox, tmp_path) | {"PYTHONPATH": str(CHECKOUT)}
        result = warm_python.run(["-m", "dagster", "asset", "list", *target], tmp_path, environment, timeout=60)
        assert result.returncode == 0, result.stderr
        return result.stdout.split()

    return run


def load(path: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[path.stem] = module
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def three_days(shared_sandbox: Sandbox, warm_python: WarmPython, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with three days of candles in the lake, and their series in the universe."""
    folder = tmp_path_factory.mktemp("downloaded")
    days = ("--start", DAYS[0], "--end", "2023-03-04")
    command = ["-m", "binance_assets", "download", "BTCUSDT", "--market", "spot", "--interval", "1m", *days]
    result = warm_python.run(command, folder, cli_environment(shared_sandbox, folder), timeout=120)
    assert result.returncode == 0, result.stderr
    return folder


@pytest.fixture
def downloaded(three_days: Path, tmp_path: Path) -> None:
    """A copy of the three days in the folder of the test."""
    shutil.copytree(three_days, tmp_path, dirs_exist_ok=True)


@pytest.fixture
def downstream(sandbox: Sandbox, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[ModuleType]:
    """The module ``examples/downstream.py``, loaded against the sandbox."""
    for name, value in environment_of(sandbox, tmp_path).items():
        monkeypatch.setenv(name, value)
    yield load(DOWNSTREAM)
    del sys.modules[DOWNSTREAM.stem]


@pytest.mark.parametrize("option", ["-f", "-m"])
def test_dagster_lists_the_users_own_asset_beside_the_candles(
    option: str, list_assets: Callable[..., list[str]], tmp_path: Path
) -> None:
    track(tmp_path / "universe.yaml", [parse_series(SERIES)])
    shutil.copy(DOWNSTREAM, tmp_path / "my_assets.py")
    target = str(DOWNSTREAM) if option == "-f" else "my_assets"
    assert list_assets(option, target) == ["all_time_high", "daily_range", SERIES, "spot/coverage"]


def test_a_module_that_imports_defs_by_name_loses_its_own_assets(
    list_assets: Callable[..., list[str]], tmp_path: Path
) -> None:
    """The reason for ``candle_definitions``: Dagster 1.13 takes a ``LazyDefinitions`` first, imported or not."""
    track(tmp_path / "universe.yaml", [parse_series(SERIES)])
    code = DOWNSTREAM.read_text()
    trap = code.replace("import binance_assets as ba", "from binance_assets.definitions import defs as candles")
    trap = trap.replace("ba.candle_definitions()", "candles()")
    (tmp_path / "trap.py").write_text(trap)
    assert trap != code
    assert list_assets("-m", "trap") == [SERIES, "spot/coverage"]


@pytest.mark.filterwarnings("ignore:Parameter `backfill_policy`")
@pytest.mark.usefixtures("downloaded")
def test_the_downstream_asset_reads_the_days_that_its_sensor_finds(
    downstream: ModuleType, instance: dg.DagsterInstance
) -> None:
    defs: dg.Definitions = downstream.defs
    repository = defs.get_repository_def()
    for key in DAYS:
        instance.report_runless_asset_event(dg.AssetMaterialization(SERIES.split("/"), partition=key))
    context = dg.build_sensor_context(instance=instance, repository_def=repository)
    (request,) = repository.get_sensor_def("new_days").evaluate_tick(context).run_requests or []
    job = defs.resolve_implicit_global_asset_job_def()
    result = job.execute_in_process(
        instance=instance, tags=request.tags, asset_selection=[dg.AssetKey("daily_range")], run_config=QUIET
    )
    assert result.success
    assert instance.get_materialized_partitions(dg.AssetKey("daily_range")) == set(DAYS)
    selection = [dg.AssetKey("all_time_high")]
    assert job.execute_in_process(instance=instance, asset_selection=selection, run_config=QUIET).success


@pytest.mark.usefixtures("downloaded")
def test_the_lake_is_read_with_polars_duckdb_and_pyarrow_and_prints_what_the_readme_shows(
    sandbox: Sandbox, tmp_path: Path
) -> None:
    pytest.importorskip("duckdb")
    pytest.importorskip("pyarrow")
    printed = run_python(sandbox, tmp_path, str(EXAMPLES / "reading.py"))
    candles = printed[printed.index("┌") : printed.index("┘") + 1]
    assert candles in README.read_text()
    assert f"│ spot    │ BTCUSDT │    {len(DAYS) * 1440} │" in printed
    assert printed.endswith(f"\n{len(DAYS) * 1440:,} candles in 1 files\n72 hours, 0 of them filled\n")


def test_the_readme_shows_a_line_for_each_reader() -> None:
    assert len(ONE_LINERS) == 4


@pytest.mark.parametrize("line", ONE_LINERS)
@pytest.mark.usefixtures("downloaded")
def test_the_lines_of_the_readme_read_the_lake(line: str, sandbox: Sandbox, tmp_path: Path) -> None:
    for reader in ("duckdb", "pyarrow"):
        pytest.importorskip(reader)
    printed = run_python(sandbox, tmp_path, "-c", line)
    assert re.search(r"\b4[,_]?320\b", printed)


def test_candles_are_downloaded_without_dagster_as_the_readme_shows(sandbox: Sandbox, tmp_path: Path) -> None:
    printed = run_python(sandbox, tmp_path, str(EXAMPLES / "without_dagster.py"))
    assert printed.splitlines() == [
        "spot/BTCUSDT/1m: 3 of 3 days, 4,320 new candles",
        "72 hours from 2024-01-01 00:00 on",
    ]
    assert f"```\n{printed}```\n" in README.read_text()
    assert keys(Lake(tmp_path / "lake"), parse_series(SERIES)) == ["2024-01-01", "2024-01-02", "2024-01-03"]
