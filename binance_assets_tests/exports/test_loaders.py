"""Each export, loaded by the tool that it is for, in the tool's own environment: every candle is that of the lake.

The versions are pinned, because docs/exports.md names them; a test compares the two.
"""

from __future__ import annotations

import json
import os
import struct
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

import binance_assets as ba
from benchmarks.environments import Environments, InstallError
from binance_assets.model.series import parse_series
from binance_assets.model.timestamps import DAY, HOUR, MINUTE
from binance_assets.storage.lake import Lake
from binance_assets_tests.exports.versions import VERSIONS
from binance_assets_tests.support.environment import CHECKOUT
from binance_assets_tests.support.exports import (
    COIN_DELIVERY,
    COINM_HOURS,
    GAP,
    SPOT_HOURS,
    SPOT_MINUTES,
    USDM_HOURS,
    export_lake,
    rows_of,
)
from binance_assets_tests.support.results import result_of

LOADERS = Path(__file__).parent / "loaders"
KEYS = ["2024-03-01", "2024-03-02", "2024-03-03"]
START = 1_709_251_200_000  # 2024-03-01
_LOAD_SECONDS = 240

pytestmark = pytest.mark.timeout(1_200)  # the first use of a tool installs it

Loaded = list[list[float | None]]
Load = Callable[..., Loaded]


@pytest.fixture(scope="module")
def lake(tmp_path_factory: pytest.TempPathFactory) -> Lake:
    return export_lake(tmp_path_factory.mktemp("exports") / "lake")


@pytest.fixture(scope="module")
def environments() -> Environments:
    return Environments(CHECKOUT / ".exports", upgrade=False)


@pytest.fixture
def load(environments: Environments, tmp_path: Path) -> Load:
    """A function that runs the program of a tool with arguments and returns the rows that it prints."""

    def run(tool: str, *arguments: str) -> Loaded:
        try:
            python = environments.python(VERSIONS[tool])
        except InstallError as error:
            if os.environ.get("CI"):
                raise
            pytest.skip(f"{VERSIONS[tool]} cannot be installed: {error}")
        done = subprocess.run(
            [python, str(LOADERS / f"load_{tool}.py"), *arguments],
            capture_output=True, text=True, cwd=tmp_path, timeout=_LOAD_SECONDS, check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr[-3_000:]
        return [json.loads(line) for line in done.stdout.splitlines() if line.startswith("[")]

    return run


def as_lists(rows: list[tuple[int | float | None, ...]]) -> Loaded:
    return [list(row) for row in rows]


def single(number: float | None) -> float | None:
    """Return the Float32 nearest to a number, which is all that qlib keeps."""
    return None if number is None else float(struct.unpack("<f", struct.pack("<f", number))[0])


@pytest.mark.parametrize(("series", "every"), [(SPOT_MINUTES, None), (COINM_HOURS, "2h")])
def test_backtesting_loads_by_the_line_that_the_export_names(
    series: str, every: str | None, lake: Lake, load: Load, tmp_path: Path
) -> None:
    exported = ba.export(series, "backtesting", tmp_path / "out", every=every, lake=lake)
    volume = "base_volume" if series == COINM_HOURS else "volume"
    assert load("backtesting", exported.load) == as_lists(rows_of(lake, series, every, volume=volume))


@pytest.mark.parametrize(
    ("series", "pair", "timeframe", "kind"),
    [
        (SPOT_MINUTES, "BTC/USDT", "1m", "spot"),
        (USDM_HOURS, "ETH/USDT:USDT", "1h", "futures"),
        (COINM_HOURS, "BTC/USD:BTC", "1h", "futures"),
    ],
)
def test_freqtrade_finds_and_loads_a_pair(
    series: str, pair: str, timeframe: str, kind: str, lake: Lake, load: Load, tmp_path: Path
) -> None:
    ba.export(series, "freqtrade", tmp_path, lake=lake)
    volume = "base_volume" if series == COINM_HOURS else "volume"
    assert load("freqtrade", str(tmp_path), pair, timeframe, kind, "keep") == as_lists(
        rows_of(lake, series, volume=volume)
    )


def test_freqtrade_fills_a_gap_as_missing_flat_does(lake: Lake, load: Load, tmp_path: Path) -> None:
    ba.export(SPOT_MINUTES, "freqtrade", tmp_path, lake=lake)
    loaded = load("freqtrade", str(tmp_path), "BTC/USDT", "1m", "spot", "fill")
    assert loaded == as_lists(rows_of(lake, SPOT_MINUTES, missing="flat"))


@pytest.mark.parametrize(
    ("series", "bar_type", "step"),
    [
        (SPOT_MINUTES, "BTCUSDT.BINANCE-1-MINUTE-LAST-EXTERNAL", MINUTE),
        (USDM_HOURS, "ETHUSDT-PERP.BINANCE-1-HOUR-LAST-EXTERNAL", HOUR),
        (COINM_HOURS, "BTCUSD-PERP.BINANCE-1-HOUR-LAST-EXTERNAL", HOUR),
        (COIN_DELIVERY, "BTCUSDT_240628.BINANCE-1-HOUR-LAST-EXTERNAL", HOUR),
    ],
)
def test_nautilus_reads_bars_that_are_labeled_by_their_close(
    series: str, bar_type: str, step: int, lake: Lake, load: Load, tmp_path: Path
) -> None:
    ba.export(series, "nautilus", tmp_path, lake=lake)
    expected = [[int(time or 0) + step - 1, *values] for time, *values in rows_of(lake, series)]
    assert load("nautilus", str(tmp_path), bar_type) == expected


@pytest.mark.parametrize(("every", "frequency"), [(None, "1min"), ("1h", "60min"), ("1d", "day")])
def test_qlib_has_single_precision_values_on_the_whole_calendar(
    every: str | None, frequency: str, lake: Lake, load: Load, tmp_path: Path
) -> None:
    ba.export(SPOT_MINUTES, "qlib", tmp_path, every=every, lake=lake)
    loaded = load("qlib", str(tmp_path), "BTCUSDT", frequency)
    expected = rows_of(lake, SPOT_MINUTES, every, missing="null")
    assert [row[:6] for row in loaded] == [[time, *map(single, values)] for time, *values in expected]
    assert all(row[8] == (None if row[1] is None else 1.0) for row in loaded)


def test_qlib_places_a_series_that_begins_later_in_the_common_calendar(load: Load, tmp_path: Path) -> None:
    late, series = Lake(tmp_path / "lake"), parse_series("spot/ETHUSDT/1h")
    late.prepare("sandbox")
    late.write_all(parse_series(SPOT_HOURS), [result_of(parse_series(SPOT_HOURS), key) for key in KEYS])
    late.write_all(series, [result_of(series, KEYS[2])])
    ba.export([SPOT_HOURS, "spot/ETHUSDT/1h"], "qlib", tmp_path / "out", lake=late)
    loaded = load("qlib", str(tmp_path / "out"), "ETHUSDT", "60min")
    assert [row[0] for row in loaded if row[1] is not None] == list(range(START + 2 * DAY, START + 3 * DAY, HOUR))


@pytest.mark.parametrize(("every", "frequency"), [(None, "minute"), ("1d", "daily")])
def test_zipline_ingests_what_its_own_files_can_keep(
    every: str | None, frequency: str, lake: Lake, load: Load, tmp_path: Path
) -> None:
    """Three decimals of a price, and whole volumes; a minute without a candle has no prices and no volume."""
    ba.export(SPOT_MINUTES, "zipline", tmp_path, every=every, lake=lake)
    loaded = load("zipline", str(tmp_path), "BTCUSDT", frequency, "2024-03-01", "2024-03-03")
    shift = 0 if every else MINUTE
    expected = [
        [(time or 0) + shift, *prices, float(int(volume or 0))]
        for time, *prices, volume in rows_of(lake, SPOT_MINUTES, every, missing="null")
    ]
    rounded = [[value if value is None else round(value, 3) for value in row] for row in loaded]
    assert rounded == expected


def test_the_gap_of_the_lake_is_within_what_is_compared(lake: Lake) -> None:
    minutes = {row[0] for row in rows_of(lake, SPOT_MINUTES)}
    assert not minutes & set(range(START + DAY + GAP[0], START + DAY + GAP[1], MINUTE))
    assert len(minutes) == 3 * 1440 - 60
