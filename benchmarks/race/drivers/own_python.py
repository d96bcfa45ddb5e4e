"""binance-assets without Dagster: the call of ``examples/without_dagster.py``, pointed at the sandbox by settings."""

from __future__ import annotations

import binance_assets as ba
from benchmarks.race.drivers.own_settings import sandbox_environment
from benchmarks.race.drivers.task import Task, finish, read_task


def download(task: Task) -> list[str]:
    """Write the candles of the task into a lake; return the partitions that are not complete."""
    settings = ba.read_settings(sandbox_environment(task))
    name = f"{task.market}/{task.symbol}/1m"
    (done,) = ba.download(name, task.start, task.end, settings=settings)
    stored = ba.Lake(settings.lake).stored_partitions(ba.parse_series(name), task.start, task.end)
    verdicts = {partition: entry.verdict for partition, entry in stored.items()}
    verdicts |= {result.partition: result.verdict for result in done.refused}
    return [f"{partition} {verdict}" for partition, verdict in sorted(verdicts.items()) if verdict != "complete"]


if __name__ == "__main__":
    finish(download(read_task()))
