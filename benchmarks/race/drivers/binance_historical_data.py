"""binance-historical-data: ``dump_data``, pointed at the sandbox by its attribute ``_base_url``.

Three addresses have no setting: the country look-up, exchangeInfo, and the page that names the archive's listing. The
driver overrides the two methods that use them.
"""

from __future__ import annotations

import json
import urllib.request

from binance_historical_data import BinanceDataDumper

from benchmarks.race.drivers.task import Task, finish, read_task


class SandboxDumper(BinanceDataDumper):  # type: ignore[misc]  # the package has no annotations
    """The dumper with other addresses."""

    def __init__(self, task: Task) -> None:
        """Choose the 1m candles of the task's market."""
        super().__init__(".", asset_class="spot" if task.market == "spot" else "um")
        self._task = task
        self._base_url = f"{task.url}/data"

    def get_list_all_trading_pairs(self) -> list[str]:
        """Return all symbols, as the overridden method does, without asking another site for the country."""
        api = "/api/v3" if self._task.market == "spot" else "/fapi/v1"
        with urllib.request.urlopen(f"{self._task.url}{api}/exchangeInfo") as response:  # noqa: S310 the sandbox
            return [entry["symbol"] for entry in json.load(response)["symbols"]]

    def _get_list_all_available_files(self, prefix: str = "") -> list[str]:
        archive, self._base_url = self._base_url, f"{self._task.listing_url}/page/data"
        try:
            keys: list[str] = super()._get_list_all_available_files(prefix)
        finally:
            self._base_url = archive
        return keys


if __name__ == "__main__":
    task = read_task()
    SandboxDumper(task).dump_data(tickers=[task.symbol], date_start=task.start, date_end=task.last_day)
    finish()
