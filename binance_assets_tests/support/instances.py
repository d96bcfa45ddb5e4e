"""Dagster instances and runs for tests."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cache
from pathlib import Path

import dagster as dg

from binance_assets.model.series import Series
from binance_assets.orchestration.assets import asset_key
from binance_assets.orchestration.partitions import partition_ranges, range_tags
from binance_assets.storage.universe import Derived, Tracked, Universe


@contextmanager
def new_instance(folder: Path) -> Iterator[dg.DagsterInstance]:
    """A real instance on SQLite files in ``folder``: those of an empty one, because making them takes a second."""
    shutil.copytree(_empty_instance().name, folder)
    with dg.DagsterInstance.local_temp(str(folder)) as opened:
        yield opened


@cache
def _empty_instance() -> tempfile.TemporaryDirectory[str]:
    folder = tempfile.TemporaryDirectory()
    with dg.DagsterInstance.local_temp(folder.name):
        return folder


def universe_of(*series: Series, derived: Sequence[Derived] = ()) -> Universe:
    return Universe(tuple(Tracked(one) for one in series), tuple(derived))


def execute(
    definitions: dg.Definitions, instance: dg.DagsterInstance, request: dg.RunRequest, job: str = ""
) -> dg.ExecuteInProcessResult:
    """Do what a schedule or a sensor asks for."""
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
    """Materialize days of series, a run for each contiguous range of them."""
    chosen = list(series)
    results = []
    for first, last in partition_ranges(list(keys)):
        run_config = {"ops": {"__".join(one.key): {"config": dict(config)} for one in chosen}} if config else {}
        selection = [asset_key(one) for one in chosen]
        request = dg.RunRequest(asset_selection=selection, tags=range_tags(first, last), run_config=run_config)
        results.append(execute(definitions, instance, request, "__ASSET_JOB"))
    return results
