"""Dates as people write them on the command line."""

from __future__ import annotations

import datetime as dt
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from binance_assets.model.dates import parse_date

TODAY = dt.date(2024, 3, 1)


@given(day=st.dates(dt.date(1000, 1, 1)))
def test_every_day_is_read_in_both_spellings(day: dt.date) -> None:
    assert parse_date(day.isoformat(), TODAY) == parse_date(day.strftime("%4Y%m%d"), TODAY) == day


@pytest.mark.parametrize(
    ("text", "day"),
    [
        ("2024", dt.date(2024, 1, 1)),
        ("2024-02", dt.date(2024, 2, 1)),
        ("today", TODAY),
        ("Yesterday", dt.date(2024, 2, 29)),
    ],
)
def test_a_month_or_a_year_is_its_first_day(text: str, day: dt.date) -> None:
    assert parse_date(text, TODAY) == day


@pytest.mark.parametrize(
    "text",
    ["", "24", "202401", "2024-1-1", "2024/01/31", "31.01.2024", "tomorrow", "٢٠٢٤"],
)
def test_any_other_spelling_is_answered_with_how_to_write_a_date(text: str) -> None:
    with pytest.raises(ValueError, match="is not a date; write it like 2024-01-31, 20240131, 2024-01 or 2024"):
        parse_date(text, TODAY)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("2024-02-30", "'2024-02-30' is not a date: there is no such day, 2024-02 has 29 days"),
        ("20230431", "'20230431' is not a date: there is no such day, 2023-04 has 30 days"),
        ("2024-01-00", "'2024-01-00' is not a date: there is no such day, 2024-01 has 31 days"),
        ("2024-13", "'2024-13' is not a date: there is no month 13"),
        ("0000", "'0000' is not a date: there is no year 0"),
    ],
)
def test_a_date_that_is_written_well_and_does_not_exist_is_answered_with_the_reason(text: str, message: str) -> None:
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        parse_date(text, TODAY)
