"""binance-assets, the command: ``binance-assets download``, a Dagster run, pointed at the sandbox by settings."""

from __future__ import annotations

import json
import subprocess
import sys

from benchmarks.race.drivers.own_settings import sandbox_environment
from benchmarks.race.drivers.task import Task, finish, read_task


def command(task: Task) -> list[str]:
    """Return the command that downloads the candles of the task."""
    arguments = ["download", task.symbol, "--market", task.market, "--interval", "1m", "--source", task.source]
    days = ["--start", task.start.isoformat(), "--end", task.end.isoformat()]
    return [sys.executable, "-m", "binance_assets", *arguments, *days, "--json"]


def main() -> int:
    """Run the command and return its exit code."""
    task = read_task()
    done = subprocess.run(command(task), env=sandbox_environment(task), stdout=subprocess.PIPE, check=False)
    outcomes = json.loads(done.stdout or "{}").values()
    doubts = [str(outcome[key]) for outcome in outcomes for key in ("verdicts", "refused") if outcome[key]]
    finish(doubts)
    return done.returncode


if __name__ == "__main__":
    sys.exit(main())
