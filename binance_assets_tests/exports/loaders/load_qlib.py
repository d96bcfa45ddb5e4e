"""Load the fields of an instrument with qlib's data provider; a time without a candle has NaN."""

import json
import sys

import qlib
from qlib.data import D


def main() -> None:
    folder, instrument, frequency = sys.argv[1:4]
    qlib.init(provider_uri=folder, region="us", logging_level=40, kernels=1)
    assert instrument in D.list_instruments(D.instruments("all"), freq=frequency, as_list=True)
    fields = ["$open", "$high", "$low", "$close", "$volume", "$amount", "$vwap", "$factor"]
    table = D.features([instrument], fields, freq=frequency, disk_cache=0)
    for (_, time), row in table.iterrows():
        values = [None if value != value else float(value) for value in row]
        print(json.dumps([time.tz_localize("UTC").value // 1_000_000, *values]))


main()
