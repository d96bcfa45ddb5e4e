"""binance-bulk-downloader: ``run_download`` of monthly files, pointed at the sandbox by its class attributes.

The package takes no range: it downloads every file that the listing names. The listing therefore names only those of
the task.
"""

from __future__ import annotations

from binance_bulk_downloader.downloader import BinanceBulkDownloader

from benchmarks.race.drivers.task import Task, finish, read_task


class SandboxDownloader(BinanceBulkDownloader):  # type: ignore[misc]  # the package has no annotations
    """The downloader with other addresses."""

    def __init__(self, task: Task) -> None:
        """Choose the monthly 1m files of the task's symbol."""
        asset = "spot" if task.market == "spot" else "um"
        super().__init__(asset=asset, timeperiod_per_file="monthly", symbols=task.symbol)
        self._BINANCE_DATA_S3_BUCKET_URL = task.listing_url
        self._BINANCE_DATA_DOWNLOAD_BASE_URL = task.url


if __name__ == "__main__":
    SandboxDownloader(read_task()).run_download()
    finish()
