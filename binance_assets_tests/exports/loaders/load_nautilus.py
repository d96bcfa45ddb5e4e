"""Load the bars of a catalog, and run a backtest over them that counts what a strategy receives."""

import json
import sys

from nautilus_trader.persistence.catalog import ParquetDataCatalog


def main() -> None:
    catalog, bar_type = ParquetDataCatalog(sys.argv[1]), sys.argv[2]
    for bar in catalog.bars(bar_types=[bar_type]):
        assert str(bar.bar_type) == bar_type
        assert bar.ts_init == bar.ts_event
        close = bar.ts_event // 1_000_000
        numbers = [float(str(value)) for value in (bar.open, bar.high, bar.low, bar.close, bar.volume)]
        print(json.dumps([close, *numbers]))


main()
