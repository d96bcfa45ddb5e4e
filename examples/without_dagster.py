"""Download three days of candles into the lake, without Dagster."""

import datetime as dt
import os
from contextlib import closing

import binance_assets as ba

settings = ba.read_settings(os.environ)
series = ba.parse_series("spot/BTCUSDT/1m")
partitions = ba.partitions_between(dt.date(2024, 1, 1), dt.date(2024, 1, 4), series.interval)
options = ba.DownloadOptions(source=settings.source, strict=settings.strict)
lake = ba.Lake(settings.lake)

with closing(ba.Exchange(series.market, settings)) as exchange:
    lake.prepare(exchange.venue, exchange.hosts)
    # Partitions of a month share a file. The writer collects them for up to a second, so it rarely writes it twice.
    writer = ba.PartitionWriter(lake, series)
    for result in ba.download(exchange, series, partitions, options):
        if result.is_accepted:
            writer.add(result)
        else:
            print(f"{result.partition} {result.verdict}: {result.reason}")
    writer.flush()

for partition, stored in lake.stored_partitions(series).items():
    print(f"{partition} {stored.verdict}: {stored.rows} candles in {stored.path}")
