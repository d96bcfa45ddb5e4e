"""Load a CSV file by the line of the documentation, run a strategy over it, and print what the strategy saw."""

import json
import sys

import pandas
from backtesting import Backtest, Strategy


class Watch(Strategy):  # type: ignore[misc]
    def init(self) -> None:
        pass

    def next(self) -> None:
        pass


def main() -> None:
    table = eval(sys.argv[1], {"pandas": pandas})  # the line that the export printed
    test = Backtest(table, Watch, cash=1_000_000_000)
    test.run()
    for time, row in test._data.iterrows():
        label = time.tz_localize("UTC").value // 1_000_000
        print(json.dumps([label, row.Open, row.High, row.Low, row.Close, row.Volume]))


main()
