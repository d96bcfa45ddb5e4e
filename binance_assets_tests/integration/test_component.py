"""The component: a ``defs.yaml`` becomes the definitions of its series."""

from __future__ import annotations

from pathlib import Path
from textwrap import indent

import dagster as dg
import pytest
from dagster.components.testing import create_defs_folder_sandbox

from binance_assets import BinanceCandlesComponent, ConfigurationError
from binance_assets.sandbox import Sandbox
from binance_assets_tests.support.environment import CHECKOUT, environment_of

# What Dagster 1.13 itself uses while it loads a `defs.yaml`.
pytestmark = [
    pytest.mark.filterwarnings("ignore:`parse_obj_as` is deprecated:DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::dagster.BetaWarning"),
]

ENTRY = {"market": "spot", "symbols": ["BTCUSDT"], "intervals": ["1m"]}
QUIET = {"loggers": {"console": {"config": {"log_level": "CRITICAL"}}}}


@pytest.fixture(autouse=True)
def _settings(shared_sandbox: Sandbox, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in environment_of(shared_sandbox, tmp_path).items():
        monkeypatch.setenv(name, value)
    monkeypatch.delenv("BINANCE_ASSETS_UNIVERSE")
    monkeypatch.chdir(tmp_path)


def definitions_of(*documents: str) -> dg.Definitions:
    """Return the definitions of a project whose only ``defs.yaml`` has these documents."""
    with create_defs_folder_sandbox() as project:
        folder = project.defs_folder_path / "candles"
        folder.mkdir()
        (folder / "defs.yaml").write_text("---\n".join(documents))
        with project.build_all_defs() as definitions:
            return definitions


def component(attributes: str) -> str:
    text = "type: binance_assets.BinanceCandlesComponent\n"
    return text + ("attributes:\n" + indent(attributes, "  ") + "\n" if attributes else "")


def keys(definitions: dg.Definitions) -> set[str]:
    return {key.to_user_string() for key in definitions.resolve_all_asset_keys()}


def test_the_example_adds_its_series_and_what_runs_them() -> None:
    definitions = definitions_of((CHECKOUT / "examples" / "defs.yaml").read_text())
    fetched = {"spot/BTCUSDT/1m", "spot/ETHUSDT/1m"}
    assert keys(definitions) == {*fetched, "spot/BTCUSDT/1h", "spot/ETHUSDT/1h", "spot/coverage"}
    assert definitions.resolve_schedule_def("spot_catch_up")
    assert definitions.resolve_sensor_def("derived_candles")


def test_a_job_of_the_component_fetches_a_day_in_one_process_and_other_runs_keep_the_projects_executor(
    instance: dg.DagsterInstance, tmp_path: Path
) -> None:
    definitions = definitions_of((CHECKOUT / "examples" / "defs.yaml").read_text())
    job = definitions.resolve_job_def("spot_daily")
    assert job.executor_def is dg.in_process_executor
    assert definitions.executor is None
    assert job.execute_in_process(instance=instance, partition_key="2024-01-01", run_config=QUIET).success
    assert len(list((tmp_path / "lake").glob("market=spot/*/interval=1m/2024-01.parquet"))) == 2


def test_a_template_may_stand_for_a_symbol(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COIN", "ETH")
    definitions = definitions_of(
        component("series: [{market: spot, symbols: ['{{ env.COIN }}USDT'], intervals: [1h]}]")
    )
    assert keys(definitions) == {"spot/ETHUSDT/1h", "spot/coverage"}


@pytest.mark.parametrize("attributes", ["", "{}"])
def test_without_series_the_universe_file_counts(attributes: str, tmp_path: Path) -> None:
    (tmp_path / "universe.yaml").write_text("series: [{market: usdm, symbols: [BTCUSDT], intervals: [1w]}]")
    assert keys(definitions_of(component(attributes))) == {"usdm/BTCUSDT/1w", "usdm/coverage"}


def root_cause(documents: list[str]) -> BaseException:
    with pytest.raises(Exception) as failed:  # noqa: PT011 - the chain begins with an error of Dagster
        definitions_of(*documents)
    error: BaseException = failed.value
    while error.__cause__ is not None:
        error = error.__cause__
    return error


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        ("{market: spot, symbols: [BTCUSDT], intervals: [7m]}", "there is no interval '7m'"),
        ("{market: spot, symbols: [BTCUSDT], intervals: [1m], nonsense: 3}", "nonsense"),
        ("{market: spot, intervals: [1m]}", "symbols"),
        ("{market: spot, symbols: [BTCUSDT], intervals: [5m], derive: [12m]}", "entry 1 of series, derive: 12m cannot"),
        (
            "{market: spot, symbols: {quote: USDT}, intervals: [1m]}",
            "entry 1 of series in defs.yaml has a rule for symbols, which only the universe file can have; move the",
        ),
        ("{market: spot, symbols: [BTCUSDT, BTCUSDT], intervals: [5m]}", "spot/BTCUSDT/5m is listed twice"),
    ],
)
def test_an_entry_that_universe_yaml_could_not_have_is_refused(entry: str, message: str) -> None:
    assert message in str(root_cause([component(f"series: [{entry}]")]))


def test_a_project_has_one_such_component() -> None:
    spot, usdm = (f"series: [{{market: {name}, symbols: [BTCUSDT], intervals: [1m]}}]" for name in ("spot", "usdm"))
    error = root_cause([component(spot), component(usdm)])
    assert isinstance(error, ConfigurationError)
    assert str(error) == "the project has 2 components BinanceCandlesComponent; list all series in one of them"


def test_python_builds_the_component_from_the_same_entries() -> None:
    built = BinanceCandlesComponent(series=[ENTRY])
    loaded = BinanceCandlesComponent.from_attributes_dict(attributes={"series": [ENTRY]})
    assert built == loaded
