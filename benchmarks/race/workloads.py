"""The ranges that the tools download, the candles that are right, and the holes that are planted."""

from __future__ import annotations

import datetime as dt
import json
from dataclasses import dataclass
from functools import lru_cache
from typing import Final

import polars as pl

from benchmarks.race.drivers.task import KLINE_COLUMNS
from binance_assets.model.intervals import parse_interval
from binance_assets.model.markets import parse_market
from binance_assets.model.timestamps import DAY, MINUTE, to_ms
from binance_assets.sandbox import Fault, SandboxOptions
from binance_assets.sandbox.sandbox_exchange import SandboxExchange

INTERVAL: Final = "1m"
SYMBOL: Final = "BTCUSDT"
_YEAR: Final = 2024
_PAGE: Final = 1000
_SPOILED_DAY: Final = dt.date(_YEAR, 2, 10)
_INTEGERS: Final = ("open_time", "close_time", "trades")


@dataclass(frozen=True)
class Workload:
    """1m candles of BTCUSDT, from one day to another, the end excluded.

    Attributes:
        title: Its name in the table.
        market: ``spot`` or ``usdm``.
        start: First day.
        end: The day after the last one.
    """

    title: str
    market: str
    start: dt.date
    end: dt.date

    @property
    def range_ms(self) -> tuple[int, int]:
        """Start and end, the end excluded, ms UTC."""
        return to_ms(self.start), to_ms(self.end)

    @property
    def days(self) -> list[dt.date]:
        """All days of the range."""
        return [self.start + dt.timedelta(days=number) for number in range((self.end - self.start).days)]

    @property
    def months(self) -> int:
        """How many months begin in the range."""
        return sum(day.day == 1 for day in self.days)


def months(market: str, count: int) -> Workload:
    """Return the first ``count`` months of the year (1 to 12)."""
    end = dt.date(_YEAR + 1, 1, 1) if count == 12 else dt.date(_YEAR, count + 1, 1)
    length = {1: "one month", 12: "one year"}.get(count, f"{count} months")
    name = "spot" if market == "spot" else "USD-M futures"
    return Workload(f"{name}, {length}", market, dt.date(_YEAR, 1, 1), end)


API_RANGE: Final = Workload("spot, three days", "spot", dt.date(_YEAR, 1, 1), dt.date(_YEAR, 1, 4))
ARCHIVE_RANGE: Final = months("spot", 3)


@dataclass(frozen=True)
class Hole:
    """A hole that is planted into the sandbox.

    Attributes:
        title: Its name in the table.
        workload: What is downloaded around it.
        faults: The faults of the sandbox that make it.
        withheld: First and last moment of the archive's files that are not there at all, ms UTC; None for no file.
        lost: First and last moment of candles that no source has, ms UTC; None if another source has them all.
    """

    title: str
    workload: Workload
    faults: tuple[Fault, ...]
    withheld: tuple[int, int] | None = None
    lost: tuple[int, int] | None = None

    @property
    def is_repairable(self) -> bool:
        """Whether another source has what is missing."""
        return self.lost is None

    def truth(self) -> pl.DataFrame:
        """Return the candles that a complete download has."""
        candles = truth_of(self.workload)
        return candles if self.lost is None else candles.filter(~pl.col("open_time").is_between(*self.lost))


def truth_of(workload: Workload) -> pl.DataFrame:
    """Return the candles of the range, from the closed form of the sandbox: all kline columns but the last."""
    return _truth(workload.market, *workload.range_ms)


@lru_cache(8)
def _truth(market: str, start: int, end: int) -> pl.DataFrame:
    exchange = SandboxExchange(SandboxOptions())
    text = exchange.all_rows(parse_market(market), SYMBOL, parse_interval(INTERVAL), start, end)
    schema = {name: pl.Int64 if name in _INTEGERS else pl.String for name in KLINE_COLUMNS}
    candles = pl.DataFrame(json.loads(text), schema=schema, orient="row")
    return candles.drop("ignore").with_columns(pl.col(pl.String).cast(pl.Float64))


def api_holes() -> list[Hole]:
    """Return the holes in the API, both in the last page of the range.

    A page of the real API has as many candles as the limit asks for, whatever is missing between them. The sandbox
    removes rows of a page, so only the last page, which is short anyway, looks as it does on Binance.
    """
    return [
        Hole("a candle is missing in the API", API_RANGE, (_absent("klines", _minute_of_last_page(traded=True)),)),
        _outage(API_RANGE, _minute_of_last_page(traded=False)),
    ]


def archive_holes() -> list[Hole]:
    """Return the holes in the archive: in February, which all tools but one take as one file."""
    begins = to_ms(_SPOILED_DAY)
    day, noon = (begins, begins + DAY - 1), begins + DAY // 2
    gone = Fault("status", start=day[0], end=day[1], value=404, path="archive", interval=INTERVAL)
    short = Fault("truncated_file", start=day[0], end=day[1], value=noon, path="archive", interval=INTERVAL)
    return [
        Hole("a file is missing in the archive", ARCHIVE_RANGE, (gone,), withheld=day),
        Hole("a file is short, its checksum right", ARCHIVE_RANGE, (short,)),
        _outage(ARCHIVE_RANGE, _quiet_minute(_SPOILED_DAY)),
    ]


def _absent(path: str, opens_at: int) -> Fault:
    return Fault("missing_row", start=opens_at, end=opens_at + MINUTE, path=path, interval=INTERVAL)


def _outage(workload: Workload, opens_at: int) -> Hole:
    faults = (_absent("klines", opens_at), _absent("archive", opens_at))
    return Hole("the exchange was down for a minute", workload, faults, lost=(opens_at, opens_at))


def _minute_of_last_page(traded: bool) -> int:
    """Return a minute of the last page of :data:`API_RANGE` with, or without, trades (ms UTC)."""
    candles = truth_of(API_RANGE)
    last_page = candles.tail(candles.height % _PAGE)
    return _middle_open_time(last_page.filter(pl.col("trades") > 0 if traded else pl.col("trades") == 0))


def _quiet_minute(day: dt.date) -> int:
    candles = truth_of(Workload("", "spot", day, day + dt.timedelta(days=1)))
    return _middle_open_time(candles.filter(pl.col("trades") == 0))


def _middle_open_time(candles: pl.DataFrame) -> int:
    times: list[int] = candles.get_column("open_time").to_list()
    if not times:
        raise ValueError("the sandbox has no such minute in this range")
    return times[len(times) // 2]
