"""Dagster instances and runs for tests."""

from __future__ import annotations

import contextlib
import shutil
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cache
from pathlib import Path

import dagster as dg

from binance_assets.exchange.retry import Retrier
from binance_assets.model.series import Series
from binance_assets.orchestration.dagster_internals.instance import NO_COMPUTE_LOGS
from binance_assets.orchestration.event_log import SqliteStorage
from binance_assets.orchestration.instance import open_instance
from binance_assets.orchestration.keys import asset_key, op_name
from binance_assets.orchestration.partitions import partition_ranges, range_tags
from binance_assets.orchestration.resources import BinanceResource, Exchanges
from binance_assets.sandbox import Sandbox
from binance_assets.settings import Settings, read_settings
from binance_assets.storage.universe import Derived, Tracked, Universe
from binance_assets_tests.support.environment import environment_of
from binance_assets_tests.support.exchange import quick_retrier

SQLITE_STORAGE = {"module": SqliteStorage.__module__, "class": SqliteStorage.__name__}


@contextmanager
def new_instance(folder: Path, prepared: Path | None = None) -> Iterator[dg.DagsterInstance]:
    """Open a real instance on SQLite files in ``folder``, a copy of a prepared one.

    Args:
        folder: Where the copy goes; it must not exist.
        prepared: The folder to copy; None for an empty instance. Creating its databases takes more than a second.
    """
    shutil.copytree(prepared or _empty_instance().name, folder)
    with instance_in(folder) as opened:
        yield opened


def instance_in(folder: Path, dagsters_own: bool = False) -> dg.DagsterInstance:
    """Return an instance on the SQLite files in ``folder``, with the storage of ``dagster.yaml`` or Dagster's own."""
    own = {"storage": {"sqlite": {"base_dir": str(folder)}}}
    ours = {"storage": {"custom": {**SQLITE_STORAGE, "config": {"base_dir": str(folder)}}}}
    return dg.DagsterInstance.local_temp(
        str(folder), {"compute_logs": NO_COMPUTE_LOGS, **(own if dagsters_own else ours)}
    )


def postgres_instance(folder: Path, url: str) -> dg.DagsterInstance:
    """Return an instance whose runs and events are in a database of a Postgres server; ``folder`` has the rest."""
    storage = {"postgres": {"postgres_url": url}}
    return dg.DagsterInstance.local_temp(str(folder), {"compute_logs": NO_COMPUTE_LOGS, "storage": storage})


@cache
def _empty_instance() -> tempfile.TemporaryDirectory[str]:
    folder = tempfile.TemporaryDirectory()
    with dg.DagsterInstance.local_temp(folder.name):
        return folder


def copy_state_of_working_folder(folder: Path) -> None:
    """Copy the databases of an empty instance to where ``open_instance`` creates them for a working folder."""
    shutil.copytree(_empty_working_folder().name, folder, dirs_exist_ok=True)


@cache
def _empty_working_folder() -> tempfile.TemporaryDirectory[str]:
    folder = tempfile.TemporaryDirectory()
    with contextlib.chdir(folder.name), open_instance(Path(folder.name), {}):
        return folder


def prepare(folder: Path, sandbox: Sandbox, fill: Callable[[Settings, dg.DagsterInstance], object]) -> Path:
    """Fill a lake and an instance in ``folder`` once, for many tests; each test works on a copy.

    Args:
        folder: Where the lake and the instance go.
        sandbox: The exchange.
        fill: Receives settings whose lake is in the folder, and the instance.
    """
    with new_instance(folder / "dagster") as instance:
        fill(read_settings(environment_of(sandbox, folder)), instance)
    return folder


@contextmanager
def copy_of(prepared: Path, folder: Path) -> Iterator[dg.DagsterInstance]:
    """Copy the lake and the instance of :func:`prepare` to ``folder``, and open the instance."""
    for name in ("lake", "lake.state"):
        shutil.copytree(prepared / name, folder / name)
    with new_instance(folder / "dagster", prepared / "dagster") as opened:
        yield opened


def universe_of(*series: Series, derived: Sequence[Derived] = ()) -> Universe:
    """Return a universe of fetched and derived series."""
    return Universe(tuple(Tracked(member) for member in series), tuple(derived))


class QuickBinanceResource(BinanceResource):
    """The resource with the same attempts and shorter delays."""

    def _retrier(self) -> Retrier:
        return quick_retrier()


def with_quick_retries(
    definitions: dg.Definitions, settings: Settings, exchanges: Exchanges | None = None
) -> dg.Definitions:
    """Return the definitions of ``build_defs(settings, …)`` with shorter delays before the retries of runs."""
    binance = QuickBinanceResource(settings=settings, shared=exchanges)
    return dg.Definitions(
        assets=definitions.assets,
        jobs=definitions.jobs,
        schedules=definitions.schedules,
        sensors=definitions.sensors,
        resources={**(definitions.resources or {}), "binance": binance},
        executor=definitions.executor,
    )


def execute(
    definitions: dg.Definitions, instance: dg.DagsterInstance, request: dg.RunRequest, job: str = ""
) -> dg.ExecuteInProcessResult:
    """Execute what a schedule or a sensor requests; ``job`` is the job of the schedule."""
    return definitions.resolve_job_def(request.job_name or job).execute_in_process(
        instance=instance,
        tags=request.tags,
        run_config=request.run_config,
        asset_selection=request.asset_selection and list(request.asset_selection),
        raise_on_error=False,
    )


def fetch(
    definitions: dg.Definitions,
    instance: dg.DagsterInstance,
    series: Iterable[Series],
    keys: Iterable[str],
    config: Mapping[str, object] | None = None,
) -> list[dg.ExecuteInProcessResult]:
    """Materialize partitions of series, one run per contiguous range; ``config`` is the configuration of each step."""
    chosen = list(series)
    results = []
    for first, last in partition_ranges(list(keys)):
        run_config = {"ops": {op_name(member): {"config": dict(config)} for member in chosen}} if config else {}
        selection = [asset_key(member) for member in chosen]
        request = dg.RunRequest(asset_selection=selection, tags=range_tags(first, last), run_config=run_config)
        results.append(execute(definitions, instance, request, "__ASSET_JOB"))
    return results
