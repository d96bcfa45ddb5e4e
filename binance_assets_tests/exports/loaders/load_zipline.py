"""Ingest the CSV files as a bundle, and print the bars of an asset that its readers find."""

import json
import sys
import tempfile

import pandas as pd
from zipline.data.bundles import ingest, load, register
from zipline.data.bundles.csvdir import csvdir_equities

FIELDS = ["open", "high", "low", "close", "volume"]


def main() -> None:
    folder, symbol, frequency, first, last = sys.argv[1:6]
    environment = {"ZIPLINE_ROOT": tempfile.mkdtemp()}
    start, end = pd.Timestamp(first), pd.Timestamp(last)
    register(
        "binance", csvdir_equities([frequency], folder),
        calendar_name="24/7", start_session=start, end_session=end, minutes_per_day=1440,
    )  # fmt: skip
    ingest("binance", environ=environment, show_progress=False)
    bundle = load("binance", environ=environment)
    (asset,) = [found for found in bundle.asset_finder.retrieve_all(bundle.asset_finder.sids) if found.symbol == symbol]
    if frequency == "daily":
        reader, times = bundle.equity_daily_bar_reader, None
        sessions = reader.trading_calendar.sessions_in_range(start, end)
        times = sessions
        arrays = reader.load_raw_arrays(FIELDS, start, end, [asset.sid])
    else:
        reader = bundle.equity_minute_bar_reader
        times = reader.trading_calendar.sessions_minutes(start, end)
        arrays = reader.load_raw_arrays(FIELDS, times[0], times[-1], [asset.sid])
    for place, time in enumerate(times):
        values = [float(array[place][0]) for array in arrays]
        label = pd.Timestamp(time).tz_localize(None).value // 1_000_000
        print(json.dumps([label, *(None if value != value else value for value in values)]))


main()
