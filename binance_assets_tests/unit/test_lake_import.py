"""Fast imports: code that only reads the lake must not wait for Pandera or Dagster."""

from __future__ import annotations

import subprocess
import sys

import pytest


@pytest.mark.parametrize(
    "module", ["model.results", "candles.columns", "candles.parsing", "settings", "storage.lake", "storage.coverage"]
)
def test_module_loads_neither_pandera_nor_dagster(module: str) -> None:
    code = f"import sys, binance_assets.{module}; print(*sorted({{'pandera', 'dagster'}} & set(sys.modules)))"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    assert result.stdout.split() == []
