"""The README's example of a user's own assets works as it stands there."""

from __future__ import annotations

import importlib.util
import re
import sys
from pathlib import Path
from types import ModuleType

import dagster as dg
import pytest

from binance_assets.sandbox import Sandbox
from binance_assets_tests.support.environment import CHECKOUT, Run, environment_of

README = CHECKOUT / "README.md"
QUIET = {"loggers": {"console": {"config": {"log_level": "CRITICAL"}}}}


def example() -> str:
    blocks = re.findall(r"```python\n(.*?)```", README.read_text(), re.DOTALL)
    (found,) = [block for block in blocks if "daily_range" in block]
    return str(found)


def load(path: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[path.stem] = module
    spec.loader.exec_module(module)
    return module


def test_the_example_of_a_downstream_asset_reads_the_days_that_its_sensor_finds(
    sandbox: Sandbox, tmp_path: Path, run_cli: Run, instance: dg.DagsterInstance, monkeypatch: pytest.MonkeyPatch
) -> None:
    days = ("--start", "2024-01-01", "--end", "2024-01-04")
    brought = run_cli("download", "BTCUSDT", "--market", "spot", "--interval", "1m", *days)
    assert brought.returncode == 0, brought.stderr
    for name, value in environment_of(sandbox, tmp_path).items():
        monkeypatch.setenv(name, value)
    (tmp_path / "readme_example.py").write_text(example())
    defs: dg.Definitions = load(tmp_path / "readme_example.py").defs
    repository = defs.get_repository_def()
    for key in ("2024-01-01", "2024-01-02", "2024-01-03"):
        instance.report_runless_asset_event(dg.AssetMaterialization(["spot", "BTCUSDT", "1m"], partition=key))
    context = dg.build_sensor_context(instance=instance, repository_def=repository)
    (request,) = repository.get_sensor_def("new_days").evaluate_tick(context).run_requests or []
    job = defs.resolve_implicit_global_asset_job_def()
    result = job.execute_in_process(
        instance=instance, tags=request.tags, asset_selection=[dg.AssetKey("daily_range")], run_config=QUIET
    )
    assert result.success
    assert len(instance.get_materialized_partitions(dg.AssetKey("daily_range"))) == 3
