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
    lake.prepare(exchange.venue)
    for result in ba.download(exchange, series, partitions, options):
        if result.is_accepted:
            stored = lake.write(series, result)
            print(f"{result.partition} {result.verdict}: {stored.rows} candles in {stored.path}")
        else:
            print(f"{result.partition} {result.verdict}: {result.reason}")
