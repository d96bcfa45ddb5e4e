"""The component in a project of ``dg``, with the commands that a user runs: scaffold, check, list, launch."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from binance_assets.model.series import parse_series
from binance_assets.sandbox import Sandbox
from binance_assets.storage.lake import Lake
from binance_assets_tests.support.dg_project import write_project
from binance_assets_tests.support.environment import CHECKOUT, cli_environment
from binance_assets_tests.support.lakes import keys

DG = Path(sys.executable).with_name("dg")
pytestmark = [
    pytest.mark.servers,
    pytest.mark.skipif(not DG.exists() and not os.environ.get("CI"), reason="the extra test-dg is not installed"),
]

DEFS = "src/mine/defs/candles/defs.yaml"


@pytest.fixture
def dg(shared_sandbox: Sandbox, tmp_path: Path) -> Callable[..., subprocess.CompletedProcess[str]]:
    """Runs ``dg`` in a project that has an asset of its own, and that has the component from ``dg scaffold defs``."""
    write_project(tmp_path)
    folders = {name: str(tmp_path / name.lower()) for name in ("HOME", "DAGSTER_HOME")}
    for folder in folders.values():
        Path(folder).mkdir()
    path = {"PYTHONPATH": f"{tmp_path / 'src'}:{CHECKOUT}", "PATH": f"{DG.parent}:{os.environ['PATH']}"}
    environment = cli_environment(shared_sandbox, tmp_path) | folders | path | {"NO_COLOR": "1"}

    def run(*arguments: str) -> subprocess.CompletedProcess[str]:
        command = [str(DG), *arguments]
        return subprocess.run(
            command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=90, check=False
        )

    scaffolded = run("scaffold", "defs", "binance_assets.BinanceCandlesComponent", "candles")
    assert scaffolded.returncode == 0, scaffolded.stderr
    return run


def test_a_scaffolded_component_passes_the_checks_and_its_day_is_fetched(
    dg: Callable[..., subprocess.CompletedProcess[str]], tmp_path: Path
) -> None:
    for check in ("yaml", "defs"):
        result = dg("check", check)
        assert result.returncode == 0, result.stdout + result.stderr
    listed = json.loads(dg("list", "defs", "--json").stdout)
    assert {asset["asset_key"] for asset in listed["assets"]} == {"own", "spot/BTCUSDT/1m", "spot/coverage"}
    launched = dg("launch", "--assets", "spot/BTCUSDT/1m", "--partition", "2024-01-01")
    assert launched.returncode == 0, launched.stderr
    assert keys(Lake(tmp_path / "lake"), parse_series("spot/BTCUSDT/1m")) == ["2024-01-01"]


def test_the_example_passes_and_a_key_that_entries_lack_is_named_with_its_line(
    dg: Callable[..., subprocess.CompletedProcess[str]], tmp_path: Path
) -> None:
    shutil.copy(CHECKOUT / "examples" / "defs.yaml", tmp_path / DEFS)
    assert dg("check", "yaml").returncode == 0
    with (tmp_path / DEFS).open("a") as file:
        file.write("      symbol: LTCUSDT\n")
    wrong = dg("check", "yaml")
    printed = wrong.stdout + wrong.stderr
    assert wrong.returncode == 1
    # The place and the key; the words around them are those of dg.
    assert re.search(r"defs\.yaml:\d+", printed)
    assert "symbol" in re.findall(r"\battributes\.series\.0\.(\w+)", printed)


def test_dg_lists_the_component(dg: Callable[..., subprocess.CompletedProcess[str]]) -> None:
    assert "binance_assets.BinanceCandlesComponent" in dg("list", "components", "--json").stdout
