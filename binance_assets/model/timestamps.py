"""Timestamps as integer milliseconds since the epoch, UTC, and their conversions."""

from __future__ import annotations

import datetime as dt
from typing import Final

SECOND: Final = 1_000
MINUTE: Final = 60 * SECOND
HOUR: Final = 60 * MINUTE
DAY: Final = 24 * HOUR

CANDLE_TIMES: Final = range(1_483_228_800_000, 4_102_444_800_000)
"""The times that a candle can have, ms UTC: from 2017-01-01, before the first market opened, until 2100-01-01."""


def to_ms(day: dt.date) -> int:
    """Return the midnight UTC at which ``day`` begins, in ms."""
    return int(dt.datetime(day.year, day.month, day.day, tzinfo=dt.UTC).timestamp()) * SECOND


def to_date(time: int) -> dt.date:
    """Return the UTC day that contains ``time`` (ms UTC)."""
    return dt.datetime.fromtimestamp(time // SECOND, dt.UTC).date()


def to_text(time: int) -> str:
    """Return ``time`` (ms UTC) for people: ``2024-01-01 12:40``, with seconds only where they are not zero."""
    moment = dt.datetime.fromtimestamp(time // SECOND, dt.UTC)
    return moment.strftime("%Y-%m-%d %H:%M:%S" if moment.second else "%Y-%m-%d %H:%M")


def from_iso(text: str) -> int:
    """Return the time (ms UTC, to the second) of an ISO text with a time zone, such as :func:`to_iso` returns."""
    return int(dt.datetime.fromisoformat(text).timestamp()) * SECOND


def to_iso(time: int) -> str:
    """Return ``time`` (ms UTC) for programs, to the second: ``2024-01-01T12:40:00Z``."""
    return dt.datetime.fromtimestamp(time // SECOND, dt.UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
