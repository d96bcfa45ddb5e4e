"""Text and numbers from outside."""

from __future__ import annotations

import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from binance_assets.model.outside import printable, printable_url, reason_of, whole_number


@given(st.text(), st.integers(1, 50))
def test_printable_text_is_one_short_line_without_control_characters(text: str, limit: int) -> None:
    shown = printable(text, limit)
    assert len(shown) <= limit + 3
    assert not {unicodedata.category(character) for character in shown} & {"Cc", "Cf", "Cs", "Co", "Zl", "Zp"}


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("Invalid symbol.", "Invalid symbol."),
        ("two\nlines\r\n", "two lines"),
        ("\x1b[31mred\x1b[0m", "[31mred [0m"),
        ("\u202eesrever", "esrever"),
        ("x" * 30, "x" * 10 + "..."),
        (" " * 100 + "x", "..."),
        (ValueError("it is wrong"), "it is wrong"[:10] + "..."),
    ],
)
def test_text_is_shown_in_one_line(text: object, shown: str) -> None:
    assert printable(text, 20 if isinstance(text, str) and len(text) < 20 else 10) == shown


def test_an_object_that_cannot_name_itself_is_named_by_its_class() -> None:
    class Nameless:
        def __str__(self) -> str:
            raise RuntimeError

    assert printable(Nameless()) == "Nameless"


BOUNDS = range(1_000)


@pytest.mark.parametrize(("value", "number"), [(7, 7), (7.0, 7), ("7", 7), ("0007", 7), (0, 0), (999, 999)])
def test_a_number_within_bounds_is_believed(value: object, number: int) -> None:
    assert whole_number(value, BOUNDS) == number


@pytest.mark.parametrize(
    "value",
    [
        *(-1, 1_000, 10**30, 7.5, 1e999, -1e999, float("nan"), 1e300, True, None, [7], {"7": 7}),
        *("", " 7", "7 ", "+7", "-7", "7.0", "²", "\u0667", "1e2", "9" * 5_000, b"7"),
    ],
)
def test_anything_else_is_not_a_number(value: object) -> None:
    assert whole_number(value, BOUNDS) is None


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("http://host:1/x", "http://host:1/x"),
        ("http://user:secret@host:1", "...@host:1"),
        ("user:secret@host:1", "...@host:1"),
        ("http://us/er:sec@ret@host\n", "...@host"),
        (None, "None"),
    ],
)
def test_a_url_is_shown_without_user_and_password_in_whatever_form(url: object, shown: str) -> None:
    assert printable_url(url) == shown


def test_the_reason_of_an_error_is_its_text_or_its_name_in_one_line() -> None:
    assert reason_of(ValueError("no\ncandles")) == "no candles"
    assert reason_of(KeyError()) == "KeyError"
    assert reason_of(ValueError("\x1b")) == "ValueError"
    assert reason_of(ValueError("x" * 500)) == "x" * 200 + "..."
