"""binance-assets without Dagster: the loop of ``examples/without_dagster.py``, pointed at the sandbox by settings."""

from __future__ import annotations

from contextlib import closing

import binance_assets as ba
from benchmarks.race.drivers.own_settings import sandbox_environment
from benchmarks.race.drivers.task import Task, finish, read_task


def download(task: Task) -> list[str]:
    """Write the candles of the task into a lake; return the partitions that are not complete."""
    settings = ba.read_settings(sandbox_environment(task))
    series = ba.parse_series(f"{task.market}/{task.symbol}/1m")
    partitions = ba.partitions_between(task.start, task.end, series.interval)
    options, lake = ba.DownloadOptions(source=settings.source, strict=settings.strict), ba.Lake(settings.lake)
    doubts = []
    with closing(ba.Exchange(series.market, settings)) as exchange:
        lake.prepare(exchange.venue, exchange.hosts)
        writer = ba.PartitionWriter(lake, series)
        for result in ba.download(exchange, series, partitions, options):
            if result.is_accepted:
                writer.add(result)
            if result.verdict != "complete":
                doubts.append(f"{result.partition} {result.verdict}")
        writer.flush()
    return doubts


if __name__ == "__main__":
    finish(download(read_task()))
