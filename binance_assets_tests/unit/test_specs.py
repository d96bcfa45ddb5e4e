"""A snapshot of everything that the code location declares, so that a review shows every change.

After an intended change, write it again:
``UPDATE_SNAPSHOT=1 python -m pytest binance_assets_tests/unit/test_specs.py``.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import dagster as dg
import pytest

from binance_assets.definitions import build_defs, candle_definitions
from binance_assets.model.intervals import parse_derived_interval
from binance_assets.model.markets import COINM, SPOT, USDM
from binance_assets.model.series import derived_series, parse_series
from binance_assets.orchestration.assets import pool_name
from binance_assets.settings import read_settings
from binance_assets.storage.universe import Derived, Tracked, Universe

SNAPSHOT = Path(__file__).with_name("specs.json")
NAMES = ("spot/BTCUSDT/1s", "spot/BTCUSDT/1m", "spot/BTCUSDT/1mo", "usdm/币安人生USDT/1d", "coinm/BTCUSD_PERP/3d")


def declared() -> dict[str, Any]:
    derived = [derived_series(SPOT, "BTCUSDT", parse_derived_interval(text)) for text in ("45m", "1h")]
    universe = Universe(
        tuple(Tracked(parse_series(name)) for name in NAMES),
        tuple(Derived(series, parse_series("spot/BTCUSDT/1m")) for series in derived),
    )
    repository = build_defs(read_settings({"BINANCE_ASSETS_LAKE": "/lake"}), universe).get_repository_def()
    repository.load_all_definitions()
    graph = repository.asset_graph
    assets = {}
    for spec in sorted(repository.assets_defs_by_key[key].get_asset_spec(key) for key in graph.get_all_asset_keys()):
        assets[spec.key.to_user_string()] = {
            "group": spec.group_name,
            "kinds": sorted(spec.kinds),
            "tags": {name: value for name, value in sorted(spec.tags.items()) if not name.startswith("dagster/kind")},
            "description": spec.description,
            "partitions": str(spec.partitions_def),
            "upstream": sorted(dep.asset_key.to_user_string() for dep in spec.deps),
            "fresh": repr(spec.freshness_policy),
            **{name: spec.metadata[name] for name in ("dagster/uri", "series") if name in spec.metadata},
            "columns": [f"{column.name}: {column.type}" for column in columns_of(spec)],
            "checks": [
                {"name": check.name, "blocking": check.blocking}
                for check in repository.assets_defs_by_key[spec.key].check_specs
            ],
            "backfill": str(repository.assets_defs_by_key[spec.key].backfill_policy),
        }
    jobs = {
        job.name: sorted(key.to_user_string() for key in job.asset_layer.selected_asset_keys)
        for job in repository.get_all_jobs()
        if not job.name.startswith("__")
    }
    schedules = {
        schedule.name: {
            "cron": schedule.cron_schedule,
            "job": schedule.job_name,
            "status": schedule.default_status.value,
        }
        for schedule in repository.schedule_defs
    }
    sensors = {sensor.name: sensor.default_status.value for sensor in repository.sensor_defs}
    resources = sorted(repository.get_top_level_resources())
    return {"assets": assets, "jobs": jobs, "schedules": schedules, "sensors": sensors, "resources": resources}


def test_no_description_shows_the_markup_of_docstrings() -> None:
    defs = build_defs(read_settings({}), Universe((Tracked(parse_series("spot/BTCUSDT/1m")),)))
    texts = [resource.description or "" for resource in defs.get_repository_def().get_top_level_resources().values()]
    assert len(texts) == 3
    for text in [*texts, json.dumps(declared())]:
        assert not re.search(r":(class|func|meth|data):|``|Attributes:|Args:", text)


def test_pages_show_owners_where_the_code_is_and_a_uri_that_can_be_pasted() -> None:
    series = parse_series("spot/BTCUSDT/1m")
    derived = derived_series(SPOT, "BTCUSDT", parse_derived_interval("1h"))
    owners = ("team:data",)
    universe = Universe((Tracked(series, owners=owners),), (Derived(derived, series, owners),))
    defs = build_defs(read_settings({"BINANCE_ASSETS_LAKE": "/lake"}), universe).get_repository_def().assets_defs_by_key
    assets = {name: defs[dg.AssetKey.from_user_string(name)] for name in ("spot/BTCUSDT/1m", "spot/BTCUSDT/1h")}
    for asset in assets.values():
        (spec,) = asset.specs
        assert spec.metadata["dagster/uri"].startswith("file:///lake/market=spot/symbol=BTCUSDT/interval=")
        assert "dagster/code_references" in spec.metadata
        assert list(spec.owners) == ["team:data"]
    # Only what sends requests is in the pool of their limit.
    pools = {name: asset.op.pool for name, asset in assets.items()}
    assert pools == {"spot/BTCUSDT/1m": "binance_spot", "spot/BTCUSDT/1h": None}
    assert {pool_name(market) for market in (USDM, COINM)} == {"binance_futures"}


def test_a_wrong_source_is_refused_before_a_run_and_the_right_ones_are_named() -> None:
    defs = build_defs(read_settings({}), Universe((Tracked(parse_series("spot/BTCUSDT/1m")),)))
    config = {"ops": {"spot__BTCUSDT__1m": {"config": {"source": "rets"}}}}
    with pytest.raises(dg.DagsterInvalidConfigError, match="rest_or_archive_or_auto got rets"):
        dg.validate_run_config(defs.resolve_job_def("spot_daily"), config)


def columns_of(spec: dg.AssetSpec) -> Sequence[dg.TableColumn]:
    schema = spec.metadata.get("dagster/column_schema")
    return schema.columns if schema else []


def test_the_code_location_matches_the_snapshot() -> None:
    declarations = declared()
    if os.environ.get("UPDATE_SNAPSHOT"):
        SNAPSHOT.write_text(json.dumps(declarations, indent=1, ensure_ascii=False) + "\n")
    assert declarations == json.loads(SNAPSHOT.read_text())


def test_every_asset_key_is_the_series_name_in_ascii() -> None:
    for name in declared()["assets"]:
        assert dg.AssetKey.from_user_string(name).path[0] in {"spot", "usdm", "coinm"}
        assert name.isascii()


def test_a_location_is_built_again_only_if_something_changed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    universe = tmp_path / "universe.yaml"
    universe.write_text("series: [{market: spot, symbols: [BTCUSDT], intervals: [1m]}]")
    first = candle_definitions()
    assert candle_definitions() is first
    universe.write_text("series: [{market: spot, symbols: [BTCUSDT], intervals: [1h]}]")
    second = candle_definitions()
    keys = {spec.key.to_user_string() for spec in second.resolve_all_asset_specs()}
    assert keys == {"spot/BTCUSDT/1h", "spot/coverage"}
    monkeypatch.setenv("BINANCE_ASSETS_LAKE", "elsewhere")
    assert candle_definitions() is not second
