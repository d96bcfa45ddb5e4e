"""binance-vision: ``fetch_data`` with an output file, pointed at the sandbox by the module's ``BASE_URL``.

The package has no setting for the address, so the driver replaces the constant.
"""

from __future__ import annotations

from binance_vision import _core, fetch_data

from benchmarks.race.drivers.task import finish, read_task

if __name__ == "__main__":
    task = read_task()
    _core.BASE_URL = task.url
    result = fetch_data(
        ticker=task.symbol,
        start_date=task.start,
        end_date=task.last_day,
        market=task.market,
        data_type="klines",
        interval="1m",
        output_path="candles.parquet",
    )
    finish([*(f"missing {label}" for label in result.missing), *(f"failed {label}" for label, _ in result.failed)])
