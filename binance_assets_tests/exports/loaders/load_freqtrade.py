"""Load a pair with freqtrade's data handler, as its backtests do."""

import json
import sys
from pathlib import Path

from freqtrade.data.history import load_pair_history
from freqtrade.data.history.datahandlers import get_datahandler
from freqtrade.enums import CandleType, TradingMode


def main() -> None:
    folder, pair, timeframe, kind, fill = Path(sys.argv[1]), *sys.argv[2:6]
    candle_type = CandleType(kind)
    mode = TradingMode.SPOT if kind == "spot" else TradingMode.FUTURES
    available = get_datahandler(folder, "feather").ohlcv_get_available_data(folder, mode)
    assert (pair, timeframe, candle_type) in available, available
    table = load_pair_history(
        pair=pair, timeframe=timeframe, datadir=folder, data_format="feather", candle_type=candle_type,
        fill_up_missing=fill == "fill", drop_incomplete=False,
    )  # fmt: skip
    for row in table.itertuples(index=False):
        print(json.dumps([row.date.value // 1_000_000, row.open, row.high, row.low, row.close, row.volume]))


main()
