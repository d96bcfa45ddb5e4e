"""When a series begins and ends according to the archive, for symbols that the API does not know or does not serve.

The API forgets some symbols after their end (``BTCUSDT_210326`` is in the archive only), and does not serve every
location. The name of a delivery contract states when it ends. For other symbols, the end is that of the last file, if
no later one exists.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Sequence
from typing import Final

from binance_assets.exchange.archive_files import ArchiveFile, daily_files, monthly_files
from binance_assets.exchange.errors import ExchangeError
from binance_assets.exchange.session import Exchange
from binance_assets.exchange.symbols import delivery_time
from binance_assets.ingest.blocks import read_file
from binance_assets.ingest.daily import daily_from_archive, daily_series
from binance_assets.model.intervals import DAILY
from binance_assets.model.partitions import next_month, partitions_between
from binance_assets.model.series import Series
from binance_assets.model.timestamps import DAY, to_date, to_ms

# Files may appear days late (the spot files of 2026-07-21 did on 07-27), so a younger last file proves no end.
_SETTLED: Final = 14 * DAY
LONGEST_CONTRACT: Final = 400 * DAY
"""The longest time that a delivery contract is listed, ms: two quarters, and a margin."""
# Daily files that are looked up after the last candle.
_DAYS_AFTER: Final = 3


def archived_days(exchange: Exchange, series: Series, now: int, since: int = 0) -> tuple[int, int] | None:
    """Return the first and the last day of the symbol in the archive, ms UTC; None if it has no files.

    One small request for each month, and the first and the last file.

    Args:
        exchange: The market.
        series: The series; its symbol's ``1d`` files are looked up.
        now: The server's time, ms UTC.
        since: Look at the month of this time (ms UTC) and later ones only.

    Raises:
        ExchangeError: A request failed, so that a file may have been overlooked.
    """
    delivery = delivery_time(series.symbol)
    earliest = max(to_ms(series.market.archived), since, (delivery or 0) - LONGEST_CONTRACT)
    end = min(now, delivery + DAY) if delivery is not None else now
    days = partitions_between(to_date(earliest).replace(day=1), to_date(end), DAILY)
    months = monthly_files(daily_series(series), days, now)
    covered = {day for file in months for day in file.partitions}
    young = daily_files(daily_series(series), [day for day in days if day not in covered], now)
    existing = _existing(exchange, [*months, *young])
    if not existing:
        return None
    files = [existing[0]] if len(existing) == 1 else [existing[0], existing[-1]]
    daily = daily_from_archive(exchange, series, [(file.start, file.end) for file in files], now)
    if daily.failure is not None:
        raise daily.failure
    return (min(daily.days), max(daily.days)) if daily.days else None


def _existing(exchange: Exchange, files: Sequence[ArchiveFile]) -> list[ArchiveFile]:
    """Return those of ``files`` that the archive has.

    Raises:
        ExchangeError: A request failed.
    """
    existing = []
    for file, exists in exchange.archive.existence(files):
        if isinstance(exists, ExchangeError):
            raise exists
        if exists:
            existing.append(file)
    return existing


def archived_first_open(exchange: Exchange, series: Series, now: int) -> int | None:
    """Return when the first candle of ``series`` opens according to the archive, ms UTC.

    Returns:
        The time; None if the archive has no files of the symbol, or if they begin with the archive itself, which is
        younger than the market.

    Raises:
        ExchangeError: A request failed.
    """
    days = archived_days(exchange, series, now)
    if days is None or days[0] <= to_ms(series.market.archived):
        return None
    interval = series.interval
    if interval.is_multi_day:  # the first 3d candle opens on the day of the listing, the others on their common grid
        return days[0] if interval.has_symbol_phase else interval.slot_start(interval.slot(days[0]))
    opens = _opens_on(exchange, series, days[0], now)
    return opens[0] if opens else days[0]


def archived_close(exchange: Exchange, series: Series, last_known: int | None, now: int) -> int | None:
    """Return when trading of ``series`` ended according to the archive, ms UTC.

    Args:
        exchange: The market.
        series: The series.
        last_known: A day with a ``1d`` candle, ms UTC, from which on later files are looked for; None if none is known.
        now: The server's time, ms UTC.

    Returns:
        The time; None if trading goes on, or if the last file is so young that later ones may still appear.

    Raises:
        ExchangeError: A request failed.
    """
    delivery = delivery_time(series.symbol)
    if delivery is not None:
        return delivery if delivery <= now else None
    days = archived_days(exchange, series, now, last_known or 0)
    if days is None or days[1] + _SETTLED > now:
        return None
    last = days[1]
    after = partitions_between(to_date(last + DAY), to_date(last + DAY) + dt.timedelta(days=_DAYS_AFTER), DAILY)
    if _existing(exchange, daily_files(daily_series(series), after, now)):
        return None
    opens = [] if series.interval.is_multi_day else _opens_on(exchange, series, last, now)
    return series.interval.close(opens[-1]) if opens else last + DAY


def _opens_on(exchange: Exchange, series: Series, day: int, now: int) -> list[int]:
    """Return the open times of the series on ``day`` (ms UTC) in the archive; empty if it has no readable file."""
    files = daily_files(series, partitions_between(to_date(day), to_date(day + DAY), DAILY), now)
    for _, outcome in exchange.archive.stream(files, lambda file, content: read_file(exchange, file, content)):
        if not isinstance(outcome, ExchangeError):
            return outcome["open_time"].to_physical().to_list()
    return []


def is_archived(exchange: Exchange, series: Series, now: int) -> bool:
    """Return whether the archive has ``1d`` files of the symbol.

    Raises:
        ExchangeError: A request failed.
    """
    delivery = delivery_time(series.symbol)
    if delivery is not None and delivery <= now:
        month = to_date(delivery).replace(day=1)
        days = partitions_between(to_date(delivery), to_date(delivery + DAY), DAILY)
        months = monthly_files(daily_series(series), partitions_between(month, next_month(month), DAILY), now)
        return bool(_existing(exchange, [*daily_files(daily_series(series), days, now), *months]))
    return archived_days(exchange, series, now) is not None
