"""The commands, and runs of Dagster, over a lake in a bucket: as over a folder."""

from __future__ import annotations

import datetime as dt
import json
from pathlib import Path

import dagster as dg
import polars as pl
import pytest

from binance_assets.definitions import build_defs
from binance_assets.model.bucket_paths import BucketPath
from binance_assets.model.series import parse_series
from binance_assets.model.timestamps import HOUR, to_ms
from binance_assets.orchestration.instance import open_instance
from binance_assets.orchestration.keys import asset_key
from binance_assets.sandbox import Fault, Sandbox
from binance_assets.settings import read_settings
from binance_assets.storage.lake import Lake
from binance_assets.storage.universe import Tracked, Universe
from binance_assets_tests.support.environment import Run, environment_of, without_progress
from binance_assets_tests.support.lakes import keys
from binance_assets_tests.support.s3_proxy import s3_proxy
from binance_assets_tests.support.s3_server import SECRET, S3Server

pytestmark = [pytest.mark.services, pytest.mark.usefixtures("new_state")]

NAME = "spot/BTCUSDT/1h"
HOURS = parse_series(NAME)
DOWNLOAD = ("download", "BTCUSDT", "--market", "spot", "--interval", "1h", "--start", "2024-01-01", "--end")
LOST_DAY = "2024-01-03"


@pytest.fixture
def root(s3_server: S3Server) -> BucketPath:
    return s3_server.new_lake()


@pytest.fixture
def variables(s3_server: S3Server, root: BucketPath) -> dict[str, str]:
    return {**s3_server.environment(), "BINANCE_ASSETS_LAKE": str(root)}


def candle_requests(sandbox: Sandbox) -> int:
    return sum("klines" in request.path or "/data/" in request.path for request in sandbox.requests)


def test_the_commands_work_over_a_bucket_and_a_second_download_fetches_nothing(
    run_cli: Run, sandbox: Sandbox, tmp_path: Path, s3_server: S3Server, root: BucketPath, variables: dict[str, str]
) -> None:
    lost = to_ms(dt.date(2024, 1, 3)) + 5 * HOUR
    for path in ("klines", "archive"):
        sandbox.faults.add(Fault("missing_row", start=lost, end=lost + HOUR, path=path, interval="1h"))
    assert run_cli(*DOWNLOAD, "2024-01-11", **variables).returncode == 1
    lake = Lake(root, s3_server.environment())
    assert LOST_DAY not in keys(lake, HOURS)
    assert len(keys(lake, HOURS)) == 9

    accepted = run_cli("accept", NAME, LOST_DAY, "--reason", "it is gone", **variables)
    assert accepted.returncode == 0, accepted.stderr
    sandbox.requests.clear()
    again = run_cli(*DOWNLOAD, "2024-01-11", "--json", **variables)
    assert again.returncode == 0, again.stderr
    assert json.loads(again.stdout)[NAME]["days_present"] == 10
    assert candle_requests(sandbox) == 0

    printed = run_cli("status", "--json", **variables)
    assert (printed.returncode, without_progress(printed.stderr)) == (0, [])
    (status,) = json.loads(printed.stdout).values()
    assert (status["partitions"], status["refused"]) == (10, 0)
    shown = json.loads(run_cli("show", NAME, LOST_DAY, "--json", **variables).stdout)
    assert (shown["verdict"], shown["file"]) == ("lost", "market=spot/symbol=BTCUSDT/interval=1h/2024.parquet")
    verified = run_cli("verify", NAME, **variables)
    assert (verified.returncode, "10 partitions of 1 series" in verified.stdout) == (0, True), verified.stdout
    migrated = run_cli("migrate", **variables)
    assert (migrated.returncode, migrated.stdout) == (0, f"{root} has layout 2; files written: 0, series: 0\n")
    exported = run_cli("export", NAME, "--to", "csv", "-o", "out", **variables)
    assert exported.returncode == 0, exported.stderr
    assert pl.read_csv(tmp_path / "out" / "spot-BTCUSDT-1h.csv").height == 239
    refused = run_cli("export", NAME, "--to", "csv", "-o", f"{root}/out", **variables)
    assert refused.returncode == 2
    assert without_progress(refused.stderr) == [f"error: {root}/out is not a folder of this machine"]
    assert {path.name for path in tmp_path.iterdir()}.isdisjoint({"lake", "lake.state", "s3:"})
    other = run_cli("status", "spot/BTCUSTD/1h", **variables)
    assert other.stderr.endswith(f"spot/BTCUSTD/1h: no partitions in the lake (did you mean {NAME}?)\n")


def test_days_that_a_bucket_has_lost_are_missing(
    run_cli: Run, s3_server: S3Server, root: BucketPath, variables: dict[str, str]
) -> None:
    assert run_cli(*DOWNLOAD, "2024-01-04", **variables).returncode == 0
    obstore = pytest.importorskip("obstore")
    obstore.delete(s3_server.client(), f"{root.key}/market=spot/symbol=BTCUSDT/interval=1h/2024.parquet")
    (status,) = json.loads(run_cli("status", "--json", **variables).stdout).values()
    assert (status["partitions"], status["missing"], status["refused"]) == (0, 3, 0)


def test_a_wrong_secret_ends_a_command_in_one_line_before_anything_is_fetched(
    run_cli: Run, sandbox: Sandbox, variables: dict[str, str]
) -> None:
    result = run_cli(*DOWNLOAD, "2024-01-11", **variables | {"AWS_SECRET_ACCESS_KEY": "wrong-word"})
    (line,) = without_progress(result.stderr)
    assert result.returncode == 2
    assert "(403 SignatureDoesNotMatch); check the variables AWS_*" in line
    assert not {"wrong-word", SECRET} & set(result.stderr.split())
    assert candle_requests(sandbox) == 0


def test_a_bucket_that_dies_during_a_run_ends_it_and_the_next_one_fetches_only_the_rest(
    run_cli: Run, sandbox: Sandbox, s3_server: S3Server, root: BucketPath, variables: dict[str, str]
) -> None:
    with s3_proxy(s3_server.port) as proxy:
        through = variables | {"AWS_ENDPOINT_URL": proxy.endpoint}
        assert run_cli(*DOWNLOAD, "2024-01-11", **through).returncode == 0

        def die() -> None:
            proxy.dead = True

        proxy.before = (r"PUT .*2024\.parquet", die)
        result = run_cli(*DOWNLOAD, "2024-01-21", **through)
    assert result.returncode in (1, 2)
    assert f"{proxy.endpoint} cannot be reached" in result.stderr
    assert "Traceback" not in result.stderr
    sandbox.requests.clear()
    outcome = json.loads(run_cli(*DOWNLOAD, "2024-01-21", "--json", **variables).stdout)[NAME]
    assert outcome["days_present"] == 20
    assert candle_requests(sandbox) > 0
    assert len(keys(Lake(root, s3_server.environment()), HOURS)) == 20


def test_assets_io_manager_coverage_and_pages_use_the_bucket(
    run_cli: Run,
    sandbox: Sandbox,
    tmp_path: Path,
    root: BucketPath,
    variables: dict[str, str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert run_cli(*DOWNLOAD, "2024-01-04", **variables).returncode == 0
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    settings = read_settings(environment_of(sandbox, tmp_path) | {"BINANCE_ASSETS_LAKE": str(root)})
    definitions = build_defs(settings, Universe((Tracked(HOURS, None),)))
    monkeypatch.chdir(tmp_path)
    repository = definitions.get_repository_def()
    node = repository.asset_graph.get(asset_key(HOURS))
    assert node.metadata["dagster/uri"] == f"{root}/market=spot/symbol=BTCUSDT/interval=1h"

    @dg.asset(ins={"candles": dg.AssetIn(asset_key(HOURS), input_manager_key="candles")})
    def rows(candles: pl.LazyFrame) -> int:
        return int(candles.select(pl.len()).collect().item())

    merged = dg.Definitions.merge(definitions, dg.Definitions(assets=[rows]))
    with open_instance(tmp_path, {}) as instance:
        event = instance.get_latest_materialization_event(asset_key(HOURS))
        assert event is not None
        assert event.asset_materialization is not None
        path = event.asset_materialization.metadata["path"].value
        assert path == f"{root}/market=spot/symbol=BTCUSDT/interval=1h/2024.parquet"
        for asset, expected in ((dg.AssetKey("rows"), 72), (dg.AssetKey(["spot", "coverage"]), None)):
            job = merged.resolve_implicit_global_asset_job_def().get_subset(asset_selection={asset})
            result = job.execute_in_process(instance=instance)
            assert result.success
            if expected is not None:
                assert result.output_for_node("rows") == expected
    coverage = pl.read_parquet(
        f"{root}.state/coverage/spot.parquet",
        storage_options={name.lower(): value for name, value in variables.items() if name.startswith("AWS_")},
        credential_provider=None,
    )
    assert coverage["partitions"].to_list() == [3]
