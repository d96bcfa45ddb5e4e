"""The exchange of the race: the sandbox in a process of its own, and the listing of its files."""

from __future__ import annotations

import re
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

import requests

from benchmarks.race.listing import Listing, running_listing
from benchmarks.race.workloads import INTERVAL, SYMBOL, Hole, Workload
from binance_assets.model.markets import parse_market
from binance_assets.sandbox import Fault

ROUND_TRIP_MS: Final = 100
_TIMEOUT: Final = 60
_BUILDERS: Final = 8
_RETRY_SECONDS: Final = 0.1
_ADDRESS: Final = re.compile(r"http://127\.0\.0\.1:[0-9]+")


@dataclass(frozen=True)
class Counters:
    """What the sandbox has counted.

    Attributes:
        requests: Requests, those for the archive included.
        weight: Request weight of all markets.
        rejections: Responses with the status 429 or 418.
    """

    requests: int
    weight: int
    rejections: int

    def since(self, earlier: Counters) -> Counters:
        """Return what was counted since ``earlier``."""
        return Counters(
            self.requests - earlier.requests, self.weight - earlier.weight, self.rejections - earlier.rejections
        )


class RaceExchange:
    """The running sandbox and listing.

    Attributes:
        url: Address of the sandbox.
        listing: The listing of its archive.
    """

    def __init__(self, url: str, listing: Listing) -> None:
        """Take the address and the listing."""
        self.url = url
        self.listing = listing
        self._session = requests.Session()
        self._session.trust_env = False

    def wait_until_ready(self) -> None:
        """Wait until the sandbox accepts connections: it names its address a moment before.

        Raises:
            RuntimeError: It did not within the timeout.
        """
        deadline = time.monotonic() + _TIMEOUT
        while time.monotonic() < deadline:
            try:
                self.counters()
            except requests.ConnectionError:
                time.sleep(_RETRY_SECONDS)
            else:
                return
        raise RuntimeError("the sandbox did not start")

    def prepare(self, workload: Workload) -> None:
        """Have all files of the range built and its candles rendered, without request weight."""
        paths = [f"/{key}" for key in archive_keys(workload)]
        with ThreadPoolExecutor(_BUILDERS) as builders:
            for _ in builders.map(self._build, paths):
                pass

    def _build(self, path: str) -> None:
        response = requests.head(self.url + path, timeout=_TIMEOUT)
        response.raise_for_status()

    def list_files(self, workload: Workload, hole: Hole | None) -> None:
        """List the files of the range, without those that a hole withholds."""
        withheld = hole.withheld if hole is not None else None
        self.listing.keys = [key for key in archive_keys(workload) if not _is_within(key, withheld)]

    def plant(self, faults: Sequence[Fault]) -> None:
        """Activate these faults and no others."""
        body = [{name: value for name, value in asdict(fault).items() if value is not None} for fault in faults]
        self._session.post(f"{self.url}/sandbox/faults", json=body, timeout=_TIMEOUT).raise_for_status()

    def counters(self) -> Counters:
        """Return what the sandbox has counted since it started."""
        summary: dict[str, Any] = self._session.get(f"{self.url}/sandbox/requests", timeout=_TIMEOUT).json()
        by_status: dict[str, int] = summary["by_status"]
        rejections = by_status.get("429", 0) + by_status.get("418", 0)
        return Counters(summary["count"], sum(summary["weight"].values()), rejections)


@contextmanager
def running_exchange(folder: Path) -> Iterator[RaceExchange]:
    """Start the sandbox and the listing, and stop them at the end; ``folder`` is the sandbox's working folder."""
    command = [sys.executable, "-m", "binance_assets", "sandbox", "--port", "0", "--rtt-ms", str(ROUND_TRIP_MS)]
    process = subprocess.Popen(command, cwd=folder, stdout=subprocess.PIPE, text=True)
    try:
        first_line = process.stdout.readline() if process.stdout is not None else ""
        found = _ADDRESS.search(first_line)
        if found is None:
            raise RuntimeError("the sandbox did not start")
        with running_listing(ROUND_TRIP_MS) as listing:
            exchange = RaceExchange(found[0], listing)
            exchange.wait_until_ready()
            yield exchange
    finally:
        process.terminate()
        process.wait(_TIMEOUT)


def archive_keys(workload: Workload) -> list[str]:
    """Return the keys of the archive's daily and monthly files of the range."""
    folder = f"data/{parse_market(workload.market).archive}"
    days = [("daily", day.isoformat()) for day in workload.days]
    months = [("monthly", f"{day:%Y-%m}") for day in workload.days if day.day == 1]
    return [
        f"{folder}/{frequency}/klines/{SYMBOL}/{INTERVAL}/{SYMBOL}-{INTERVAL}-{date}.zip"
        for frequency, date in (*days, *months)
    ]


def _is_within(key: str, withheld: tuple[int, int] | None) -> bool:
    """Return whether the file of ``key`` holds any of the withheld time."""
    if withheld is None:
        return False
    date = key.removesuffix(".zip").split(f"-{INTERVAL}-")[1]
    days = [to_iso_day(moment) for moment in withheld]
    return any(day.startswith(date) for day in days)


def to_iso_day(moment: int) -> str:
    """Return the UTC day of ``moment`` (ms UTC) as ``2024-01-31``."""
    return time.strftime("%Y-%m-%d", time.gmtime(moment // 1000))
