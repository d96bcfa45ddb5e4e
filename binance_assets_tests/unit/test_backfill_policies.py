"""Backfill policies: into how many runs Dagster divides a backfill over several series."""

from __future__ import annotations

import warnings
from collections.abc import Sequence

import dagster as dg
import pytest

from binance_assets.definitions import build_defs
from binance_assets.model.intervals import parse_derived_interval
from binance_assets.model.series import Series, derived_series, parse_series
from binance_assets.orchestration.keys import asset_key
from binance_assets.settings import read_settings
from binance_assets.storage.universe import Derived
from binance_assets_tests.support.dagster_internals import runs_of_backfill
from binance_assets_tests.support.instances import universe_of

SERIES = [parse_series(f"spot/{symbol}/1m") for symbol in ("BTCUSDT", "ETHUSDT", "SOLUSDT", "ADAUSDT")]
HOURS = derived_series(SERIES[0].market, "BTCUSDT", parse_derived_interval("1h"))
DAYS = ["2024-01-01", "2024-01-02", "2024-01-03"]


def backfilled(settings: dict[str, str], series: Sequence[Series]) -> list[tuple[list[str], str | None, str | None]]:
    """Return the assets, the first day, and the last day of each run of a backfill."""
    universe = universe_of(*SERIES, derived=[Derived(HOURS, SERIES[0])])
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        definitions = build_defs(read_settings(settings), universe)
        definitions.get_repository_def().load_all_definitions()
    requests = runs_of_backfill(definitions.resolve_asset_graph(), [asset_key(member) for member in series], DAYS)
    return sorted(
        (sorted(key.to_user_string() for key in request.asset_selection or ()), *ends(request)) for request in requests
    )


def ends(request: dg.RunRequest) -> tuple[str | None, str | None]:
    names = ("dagster/asset_partition_range_start", "dagster/asset_partition_range_end")
    first, last = (request.tags.get(name) for name in names)
    return first, last


def test_by_default_a_backfill_over_several_series_is_one_run() -> None:
    assert backfilled({}, SERIES) == [(sorted(str(member) for member in SERIES), DAYS[0], DAYS[-1])]


@pytest.mark.parametrize(("per_run", "sizes"), [("1", [1, 1, 1, 1]), ("2", [2, 2]), ("3", [1, 3]), ("4", [4])])
def test_a_setting_divides_a_backfill_into_runs_over_the_whole_range(per_run: str, sizes: list[int]) -> None:
    runs = backfilled({"BINANCE_ASSETS_SERIES_PER_RUN": per_run}, SERIES)
    assert sorted(len(assets) for assets, _, _ in runs) == sizes
    assert {(first, last) for _, first, last in runs} == {(DAYS[0], DAYS[-1])}


def test_a_derived_series_is_in_the_run_of_its_base() -> None:
    runs = backfilled({"BINANCE_ASSETS_SERIES_PER_RUN": "1"}, [SERIES[1], HOURS, SERIES[0]])
    assert [assets for assets, _, _ in runs] == [["spot/BTCUSDT/1h", "spot/BTCUSDT/1m"], ["spot/ETHUSDT/1m"]]
