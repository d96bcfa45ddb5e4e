"""A year of 1m as a Dagster run, by where Dagster keeps its history and where the lake is: ``make bench-scale``.

``python -m benchmarks.scale_out [--runs N]``

How it measures:

- A run is ``binance-assets download`` as a process, from its start to its end: a year of spot 1m by REST from a sandbox
  with round trips of 100 ms and Binance's weight limits, in an empty folder, into an empty history and an empty lake.
- The history is in SQLite files (the default), in Postgres, or in Postgres with batches of 50 events
  (``DAGSTER_EVENT_BATCH_SIZE``). The lake is a folder, or a bucket. All four servers (exchange, Postgres, S3, and their
  disks) are on this machine, so the network costs nothing, and their work takes its share of the cores.
- The variants are measured one after the other, ``--runs`` times; every other time in the opposite order. The table
  shows the smallest CPU time of the download's process, the wall time of the same run, and the ratio of the CPU times
  to that of the default. The CPU time of the servers is not part of it.
- A server that cannot be started here is named, and its variants are left out.
"""

from __future__ import annotations

import argparse
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from rich.console import Console
from rich.table import Table

from benchmarks.run import YEAR_OF_SPOT, BenchmarkError, environment_of, report, sandbox_with, wait_for_minute
from benchmarks.whole_runs import Download, WholeRun
from binance_assets_tests.support.postgres_server import PostgresServer, missing_postgres, running_postgres
from binance_assets_tests.support.s3_server import S3Server, missing_s3, running_s3

_INSTANCE: Final = Path(__file__).parents[1] / "deploy" / "dagster-postgres.yaml"
_BATCH: Final = {"DAGSTER_EVENT_BATCH_SIZE": "50"}

Prepare = Callable[[Path], Mapping[str, str]]
"""Prepares something empty for a run in a folder, and returns the variables that lead to it."""


@dataclass(frozen=True)
class Variant:
    """Where the history and the lake are.

    Attributes:
        history: Where Dagster keeps its history, for people.
        lake: Where the lake is, for people.
        prepare: What prepares both.
    """

    history: str
    lake: str
    prepare: tuple[Prepare, Prepare]


def main() -> None:
    """Measure and print the table."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.scale_out", description="Measure a year of 1m on SQLite and Postgres, local and S3."
    )
    parser.add_argument("--runs", type=int, default=3, help="runs of each variant (default: 3)")
    runs = parser.parse_args().runs
    with ExitStack() as stack:
        variants = list(_variants(stack))
        best = measure(variants, runs)
    _print(variants, best)


def _variants(stack: ExitStack) -> Iterator[Variant]:
    """Start the servers that can be started, and yield what can be measured with them; the default comes first."""
    histories: dict[str, Prepare] = {"SQLite": lambda folder: {}}
    lakes: dict[str, Prepare] = {"local": lambda folder: {}}
    if reason := missing_postgres():
        report(f"without Postgres: {reason}")
    else:
        postgres = stack.enter_context(running_postgres())
        histories["Postgres"] = lambda folder: _on_postgres(postgres, folder)
        histories["Postgres, batches"] = lambda folder: {**_on_postgres(postgres, folder), **_BATCH}
    if reason := missing_s3():
        report(f"without S3: {reason}")
    else:
        s3 = stack.enter_context(running_s3())
        lakes["S3"] = lambda folder: _on_s3(s3)
    for lake, prepare_lake in lakes.items():
        for history, prepare_history in histories.items():
            yield Variant(history, lake, (prepare_history, prepare_lake))


def _on_postgres(server: PostgresServer, folder: Path) -> dict[str, str]:
    home = folder / "home"
    home.mkdir()
    shutil.copy(_INSTANCE, home / "dagster.yaml")
    return {"DAGSTER_HOME": str(home), "DAGSTER_POSTGRES_URL": server.new_database()}


def _on_s3(server: S3Server) -> dict[str, str]:
    return {**server.environment(), "BINANCE_ASSETS_LAKE": str(server.new_lake())}


def measure(variants: list[Variant], runs: int) -> list[WholeRun]:
    """Return the run of each variant that took the least CPU time.

    Raises:
        BenchmarkError: A download failed.
    """
    measured: list[list[WholeRun]] = [[] for _ in variants]
    for number in range(1, runs + 1):
        order = range(len(variants)) if number % 2 else reversed(range(len(variants)))
        for which in order:
            variant = variants[which]
            run = _run(variant)
            report(f"  {number} of {runs}: {variant.history}, {variant.lake}: {run.seconds:.1f} s, CPU {run.cpu:.1f} s")
            measured[which].append(run)
    return [min(of_variant, key=lambda run: run.cpu) for of_variant in measured]


def _run(variant: Variant) -> WholeRun:
    series = YEAR_OF_SPOT.series
    arguments = [series.symbol, "--market", series.market.name, "--interval", str(series.interval), "--source", "rest"]
    arguments += ["--start", YEAR_OF_SPOT.start.isoformat(), "--end", YEAR_OF_SPOT.end.isoformat()]
    with sandbox_with(YEAR_OF_SPOT) as sandbox, tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        environment = environment_of(sandbox.url, folder)
        for prepare in variant.prepare:
            environment |= prepare(folder)
        wait_for_minute()
        run = Download(arguments, environment, folder).wait()
        if run.code:
            last = (folder / "errors.txt").read_text().strip().splitlines()[-1:] or ["no message"]
            raise BenchmarkError(f"{variant.history}, {variant.lake}: the download ended with {run.code}: {last[0]}")
        return run


def _print(variants: list[Variant], best: list[WholeRun]) -> None:
    table = Table(title="a year of spot 1m by REST, as a Dagster run", box=None, pad_edge=False, header_style="bold")
    for name in ("history", "lake"):
        table.add_column(name, no_wrap=True)
    for name in ("CPU, s", "x default", "seconds", "MB"):
        table.add_column(name, justify="right", no_wrap=True)
    for variant, run in zip(variants, best, strict=True):
        ratio = run.cpu / best[0].cpu
        numbers = (f"{run.cpu:.1f}", f"{ratio:.2f}", f"{run.seconds:.1f}", f"{run.megabytes:.0f}")
        table.add_row(variant.history, variant.lake, *numbers)
    Console(width=100).print(table)


if __name__ == "__main__":
    try:
        main()
    except BenchmarkError as error:
        sys.exit(f"error: {error}")
