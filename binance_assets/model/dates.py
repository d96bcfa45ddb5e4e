"""Dates as people write them, on the command line and in Python."""

from __future__ import annotations

import calendar
import datetime as dt
import re
from typing import Final

_PARTS: Final = re.compile(r"([0-9]{4})(?:-([0-9]{2})(?:-([0-9]{2}))?)?|([0-9]{4})([0-9]{2})([0-9]{2})")

HOW_TO_WRITE: Final = "write it like 2024-01-31, 20240131, 2024-01 or 2024 (their first day), or yesterday"
"""What an error says about spellings."""


def parse_date(text: str, today: dt.date) -> dt.date:
    """Return the day that a text names, of a month or a year its first.

    Args:
        text: ``2024-01-31``, ``20240131``, ``2024-01``, ``2024``, ``today``, or ``yesterday``.
        today: The day that is ``today``, UTC.

    Raises:
        ValueError: It is none of these, and the message says how to write a date; or there is no such day.
    """
    days_ago = {"today": 0, "yesterday": 1}.get(text.lower())
    if days_ago is not None:
        return today - dt.timedelta(days_ago)
    if match := _PARTS.fullmatch(text):
        year, month, day = match[1] or match[4], match[2] or match[5] or "1", match[3] or match[6] or "1"
        try:
            return dt.date(int(year), int(month), int(day))
        except ValueError:
            raise ValueError(f"{text!r} is not a date: {_why_no_day(int(year), int(month))}") from None
    raise ValueError(f"{text!r} is not a date; {HOW_TO_WRITE}")


def _why_no_day(year: int, month: int) -> str:
    if year < dt.MINYEAR:
        return "there is no year 0"
    if not 1 <= month <= 12:
        return f"there is no month {month:02}"
    return f"there is no such day, {year:04}-{month:02} has {calendar.monthrange(year, month)[1]} days"
