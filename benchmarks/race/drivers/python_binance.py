"""python-binance: ``get_historical_klines``, pointed at the sandbox by the URL attributes of its client."""

from __future__ import annotations

from binance.client import Client
from binance.enums import HistoricalKlinesType

from benchmarks.race.drivers.task import finish, read_task, write_rows


def main() -> None:
    """Download the candles of the task."""
    task = read_task()
    client = Client(ping=False)
    client.API_URL = f"{task.url}/api"
    client.FUTURES_URL = f"{task.url}/fapi"
    kind = HistoricalKlinesType.SPOT if task.market == "spot" else HistoricalKlinesType.FUTURES
    rows = client.get_historical_klines(task.symbol, "1m", task.start_ms, task.end_ms - 1, klines_type=kind)
    finish()
    write_rows(rows)


if __name__ == "__main__":
    main()
