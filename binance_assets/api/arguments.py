"""What users pass to the functions of the Python API, turned into the values that the layers below work with."""

from __future__ import annotations

import datetime as dt
import os
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Final

from binance_assets.model.bucket_paths import BucketPath
from binance_assets.model.dates import parse_date
from binance_assets.model.intervals import Interval, parse_derived_interval
from binance_assets.model.markets import Market, parse_market
from binance_assets.model.outside import printable, printable_url
from binance_assets.model.partitions import FIRST_DAY, TOO_EARLY
from binance_assets.model.series import Series, parse_any_series
from binance_assets.model.spelling import did_you_mean_market
from binance_assets.model.timestamps import DAY, to_date, to_ms, to_text
from binance_assets.settings import ConfigurationError, Settings, env_file_values, named_lake, read_settings
from binance_assets.storage.lake import Lake

SeriesName = str | Series
"""A series, or its name: ``spot/BTCUSDT/1m``."""

Moment = str | dt.date | dt.datetime
"""A time in UTC: ``2024``, ``2024-07``, ``2024-01-31``, a date, or a datetime; without a time zone it is in UTC."""

_EPOCH: Final = dt.datetime(1970, 1, 1, tzinfo=dt.UTC)
_MILLISECOND: Final = dt.timedelta(milliseconds=1)


def current_settings() -> Settings:
    """Return the settings of the environment and of ``.env`` in the working folder, which counts first.

    Raises:
        ConfigurationError: A setting is not valid.
    """
    return read_settings({**os.environ, **env_file_values(Path(".env"))})


def lake_at(location: str | Path | Lake | None) -> Lake:
    """Return the lake at a folder or in a bucket; None for that of the settings.

    The variables ``AWS_*`` that say how to reach a bucket may be in ``.env`` as well.

    Raises:
        ConfigurationError: A setting is not valid; they are read only if no folder is given.
    """
    if isinstance(location, Lake):
        return location
    if location is None:
        found = current_settings().lake
    elif isinstance(location, BucketPath) or _is_url(location):
        found = named_lake(location)
    else:
        found = path_of(location)
    if isinstance(found, BucketPath):
        return Lake(found, {**os.environ, **env_file_values(Path(".env"))})
    return Lake(found)


def _is_url(location: str | Path) -> bool:
    return isinstance(location, str) and "://" in location


def path_of(location: str | Path) -> Path:
    """Return a path, with ``~`` as the home folder of a user; unchanged where there is no such user.

    Raises:
        ConfigurationError: No path can have this name, or it is a URL.
    """
    if _is_url(location):
        raise ConfigurationError(f"{printable_url(location).partition('?')[0]} is not a folder of this machine")
    text = os.path.expanduser(location)
    if "\0" in text:
        raise ConfigurationError(f"{printable(text)} is no path: it holds a NUL character")
    return Path(text)


def series_of(name: SeriesName) -> Series:
    """Return the series that a name names, fetched or derived.

    Raises:
        ConfigurationError: There is no such series.
    """
    if isinstance(name, Series):
        return name
    if not isinstance(name, str):
        raise ConfigurationError(f"{printable(name)} is not a series; write it like spot/BTCUSDT/1m")
    try:
        return parse_any_series(name)
    except ValueError as error:
        raise ConfigurationError(str(error)) from None


def market_of(name: str | Market) -> Market:
    """Return the market that a name names.

    Raises:
        ConfigurationError: There is no such market.
    """
    if isinstance(name, Market):
        return name
    try:
        return parse_market(name)
    except ValueError as error:
        raise ConfigurationError(f"{error}{did_you_mean_market(name)}") from None


def all_series_of(names: SeriesName | Sequence[SeriesName]) -> list[Series]:
    """Return the series of one name or of several.

    Raises:
        ConfigurationError: There is no such series, one is named twice, or none is named.
    """
    if isinstance(names, str | Series):
        return [series_of(names)]
    if not isinstance(names, Iterable):
        raise ConfigurationError(f"{printable(names)} is not a series; write it like spot/BTCUSDT/1m")
    found = [series_of(name) for name in names]
    if not found:
        raise ConfigurationError("no series is named; write them like spot/BTCUSDT/1m")
    for position, series in enumerate(found):
        if series in found[:position]:
            raise ConfigurationError(f"{series} is named twice")
    return found


def interval_of(every: str | Interval | None) -> Interval | None:
    """Return the interval to which candles are resampled; None for None.

    Raises:
        ConfigurationError: It is no interval of at most a day.
    """
    if every is None:
        return None
    try:
        return parse_derived_interval(str(every))
    except ValueError as error:
        raise ConfigurationError(f"every: {error}") from None


def time_of(name: str, moment: Moment) -> int:
    """Return the time that a moment is, ms UTC; a fraction of a millisecond counts as a whole one.

    Args:
        name: The name of the argument, for messages.
        moment: The moment.

    Raises:
        ConfigurationError: It is no moment, before the first partition, or after the last midnight.
    """
    today = dt.datetime.now(dt.UTC).date()
    time = _milliseconds(name, moment, today)
    if time < to_ms(FIRST_DAY):
        raise ConfigurationError(f"{name} {to_text(time).removesuffix(' 00:00')}: {TOO_EARLY}")
    if time > to_ms(today):
        raise ConfigurationError(f"{name} {to_text(time)} is later than today's midnight ({today}, UTC); leave it out")
    return time


def _milliseconds(name: str, moment: Moment, today: dt.date) -> int:
    if isinstance(moment, str):
        try:
            return to_ms(parse_date(moment, today))
        except ValueError as error:
            raise ConfigurationError(f"{name}: {error}") from None
    if isinstance(moment, dt.datetime):
        in_utc = moment.replace(tzinfo=dt.UTC) if moment.tzinfo is None else moment
        return -((_EPOCH - in_utc) // _MILLISECOND)
    if isinstance(moment, dt.date):
        return to_ms(moment)
    raise ConfigurationError(f"{name} {printable(moment)} is not a date; write a text, a date, or a datetime")


def range_of(start: Moment | None, end: Moment | None) -> tuple[int | None, int | None]:
    """Return the half-open range between two moments, ms UTC.

    Raises:
        ConfigurationError: A moment is not valid, or the range is empty.
    """
    first = None if start is None else time_of("start", start)
    last = None if end is None else time_of("end", end)
    if first is not None and last is not None and last <= first:
        raise ConfigurationError(f"end {to_text(last)} is not after start {to_text(first)}; the end is excluded")
    return first, last


def day_of(name: str, moment: Moment | None) -> dt.date | None:
    """Return the day that begins at a moment; None for None.

    Raises:
        ConfigurationError: The moment is not valid, or no day begins at it.
    """
    if moment is None:
        return None
    time = time_of(name, moment)
    if time % DAY:
        raise ConfigurationError(f"{name} {to_text(time)} is not a midnight (UTC); whole partitions are downloaded")
    return to_date(time)
