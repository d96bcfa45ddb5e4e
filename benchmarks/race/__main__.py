"""Race this project against other tools: ``python -m benchmarks.race [--only TOOL] [--months N]``; see the package."""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

from benchmarks.environments import Environments, InstallError
from benchmarks.race.contestants import CONTESTANTS, Contestant
from benchmarks.race.exchange import running_exchange
from benchmarks.race.measured_process import TIMED_OUT
from benchmarks.race.report import conditions_now, describe, insert_report, report
from benchmarks.race.runner import LIMIT_SECONDS, HoleRun, Run, Runner
from benchmarks.race.workloads import ARCHIVE_RANGE, Hole, Workload, api_holes, archive_holes, months

_PROJECT: Final = Path(__file__).resolve().parents[2]
_CACHE: Final = _PROJECT / ".race"
_PAGE: Final = _PROJECT / "docs" / "race.md"
_PICTURE: Final = _PROJECT / "docs" / "pictures" / "race.png"
_PLOT: Final = Path(__file__).with_name("plot.py")
_PLOT_PACKAGE: Final = "matplotlib"
_DEFAULT_RANGES: Final = {"spot": (1, 12), "usdm": (1,)}


def main() -> None:
    """Race, print the report, and write it into the docs if everybody took part."""
    options = _options()
    contestants = [contestant for contestant in CONTESTANTS if not options.only or contestant.key in options.only]
    conditions = conditions_now()
    environments = Environments(_CACHE / "environments", options.upgrade)
    contestants, versions = _installed(contestants, environments)
    workloads = [months(market, count) for market, count in options.ranges]
    with tempfile.TemporaryDirectory(prefix="race-") as folder, running_exchange(Path(folder)) as exchange:
        _say("the sandbox builds its files ...")
        for workload in [*workloads, *([ARCHIVE_RANGE] if options.holes else [])]:
            exchange.prepare(workload)
        runner = Runner(exchange, environments, options.limit)
        runs = [run for workload in workloads for run in _race(runner, contestants, workload)]
        holes = _race_with_holes(runner, contestants, runs) if options.holes else []
    text = report(conditions, runs, holes, versions)
    print(f"\n{text}\n")
    if options.write:
        _write(text, runs, environments)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.race", description=__doc__)
    keys = [contestant.key for contestant in CONTESTANTS]
    parser.add_argument("--only", action="append", choices=keys, help="race only this tool (repeatable)")
    parser.add_argument(
        "--months", action="append", type=int, choices=range(1, 13), metavar="N",
        help="length of the range in months, 1 to 12 (repeatable; default: 1 and 12, of USD-M 1)",
    )  # fmt: skip
    parser.add_argument("--market", choices=("spot", "usdm"), help="race only in this market (default: both)")
    parser.add_argument("--no-holes", dest="holes", action="store_false", help="plant no holes")
    parser.add_argument("--upgrade", action="store_true", help="install newer releases of the tools first")
    parser.add_argument("--limit", type=float, default=LIMIT_SECONDS, help="seconds for one run (default: 180)")
    options = parser.parse_args()
    options.write = options.only is None and options.months is None and options.market is None and options.holes
    options.ranges = ranges(options.market, options.months)
    return options


def ranges(market: str | None, months: Sequence[int] | None) -> list[tuple[str, int]]:
    """Return which markets are raced over how many months, by what the user chose; None stands for no choice."""
    chosen = [(name, count) for name in _DEFAULT_RANGES for count in months or _DEFAULT_RANGES[name]]
    return [(name, count) for name, count in chosen if market in (None, name)]


def _say(text: str) -> None:
    print(text, flush=True)


def _installed(
    contestants: Sequence[Contestant], environments: Environments
) -> tuple[list[Contestant], dict[str, str]]:
    """Return the contestants that could be installed, and the versions of their packages."""
    versions: dict[str, str] = {}
    for package in dict.fromkeys(contestant.package for contestant in contestants):
        try:
            versions[package] = environments.version(package)
        except InstallError as error:
            _say(f"{package} could not be installed: {error}")
    return [contestant for contestant in contestants if contestant.package in versions], versions


def _race(runner: Runner, contestants: Sequence[Contestant], workload: Workload) -> list[Run]:
    _say(f"{workload.title}:")
    runs = []
    for contestant in contestants:
        if workload.market in contestant.markets and workload.months <= contestant.max_months:
            runs.append(runner.race(contestant, workload))
            _say(_summary(runs[-1]))
    return runs


def _race_with_holes(runner: Runner, contestants: Sequence[Contestant], runs: Sequence[Run]) -> list[HoleRun]:
    raced = {run.contestant.key for run in runs}
    results = []
    for contestant in contestants:
        for hole in _holes_for(contestant) if contestant.key in raced else []:
            results.append(runner.race_with_hole(contestant, hole))
            _say(f"{_summary(results[-1].run)}; {hole.title}: {results[-1].response}")
            for line in [*results[-1].run.measured.reports, *results[-1].alarms][:2]:
                _say(f"      {line[:160]}")
    return results


def _holes_for(contestant: Contestant) -> list[Hole]:
    if not contestant.meets_holes:
        return []
    return api_holes() if contestant.source == "rest" else archive_holes()


def _summary(run: Run) -> str:
    measured, counters = run.measured, run.counters
    end = "ended at the limit, " if measured.exit_code == TIMED_OUT else ""
    code = f"exit code {measured.exit_code}, " if measured.exit_code > 0 else ""
    return (
        f"  {run.contestant.line}: {measured.seconds:.1f} s, CPU {measured.cpu:.1f} s, {measured.megabytes:.0f} MB, "
        f"{counters.requests} requests, {counters.rejections} rejected, {end}{code}{describe(run.comparison)}"
    )


def _write(text: str, runs: Sequence[Run], environments: Environments) -> None:
    _PAGE.write_text(insert_report(_PAGE.read_text(), text))
    _say(f"written: {_PAGE.relative_to(_PROJECT)}")
    results = _CACHE / "results.json"
    results.write_text(json.dumps(panels(runs)))
    try:
        python = environments.python(_PLOT_PACKAGE)
    except InstallError as error:
        sys.exit(f"error: the plot needs {_PLOT_PACKAGE}: {error}")
    subprocess.run([python, str(_PLOT), str(results), str(_PICTURE)], check=True)
    _say(f"written: {_PICTURE.relative_to(_PROJECT)}")


def panels(runs: Sequence[Run]) -> list[dict[str, Any]]:
    """Return what the plot shows: per workload, the wall and CPU time of each tool."""
    return [
        {"title": workload.title, "runs": [_bars(run) for run in runs if run.workload == workload]}
        for workload in dict.fromkeys(run.workload for run in runs)
    ]


def _bars(run: Run) -> dict[str, Any]:
    measured = run.measured
    is_exact = not measured.exit_code and run.comparison is not None and run.comparison.is_exact
    bars = {"line": run.contestant.line, "own": not run.contestant.package, "exact": is_exact}
    return {**bars, "seconds": measured.seconds, "cpu": measured.cpu}


if __name__ == "__main__":
    main()
