"""The programs in ``examples/`` work with the commands that a user runs; ``test_documentation`` runs the others."""

from __future__ import annotations

import importlib.util
import shutil
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType

import dagster as dg
import pytest

from binance_assets.model.series import parse_series
from binance_assets.sandbox import Sandbox
from binance_assets.storage.universe_editor import track
from binance_assets_tests.support.environment import CHECKOUT, cli_environment, environment_of
from binance_assets_tests.support.warm_python import WarmPython

EXAMPLES = CHECKOUT / "examples"
DOWNSTREAM = EXAMPLES / "downstream.py"
SERIES = "spot/BTCUSDT/1m"
DAYS = ("2023-03-01", "2023-03-02", "2023-03-03")
QUIET = {"loggers": {"console": {"config": {"log_level": "CRITICAL"}}}}


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
