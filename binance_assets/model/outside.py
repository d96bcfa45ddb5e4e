"""What comes from outside and is not trusted: text to show, and numbers to believe only within bounds.

A response, a file, or a setting may hold anything. Text from it passes through :func:`printable` before it becomes
part of a message, and a number through :func:`whole_number` before anything is computed from it.
"""

from __future__ import annotations

import math
import re
import unicodedata
from typing import Final

MESSAGE: Final = 2_000
"""How many characters of a whole message to show; texts inside it are shorter."""

_MOST_SHOWN: Final = 200
_NUMBER: Final = re.compile(r"[0-9]{1,20}")

# User name and password of a URL; whatever names a proxy or a host may hold them.
_USER: Final = re.compile(r"(?<=://)[^/?#\s]*@")

# What Markdown does not take literally. An underscore inside a word means nothing, and names of series have some.
_MARKUP: Final = re.compile(r"[\\`*\[\]<>|&]")

# Categories of Unicode that are not shown: control and format characters, surrogates, private use, line and paragraph
# separators. They move the cursor, color a terminal, start a new line of a log, or reverse the text that follows.
_NOT_SHOWN: Final = frozenset({"Cc", "Cf", "Cs", "Co", "Zl", "Zp"})


def printable(text: object, limit: int = _MOST_SHOWN) -> str:
    """Return text from outside for a message: in one line, without control characters, and not too long.

    The user name and the password of a URL are left out.

    Args:
        text: The text, or an object whose text is shown, such as an error.
        limit: How many characters to show; a longer text is cut, and ``...`` follows.
    """
    try:
        whole = str(text)
    except Exception:  # an object of a library that cannot name itself
        whole = type(text).__name__
    whole = _USER.sub("...@", whole)  # before it is cut, so that no part of a password is left
    if len(whole) <= limit and whole.isascii() and whole.isprintable() and "  " not in whole:
        return whole.strip(" ")  # nothing to leave out, as in most texts, of which a download shows five for each day
    start = whole[: 4 * limit]  # long enough for the limit, unless most of it is not shown
    shown = "".join(" " if unicodedata.category(character) in _NOT_SHOWN else character for character in start)
    line = " ".join(shown.split())
    return line if len(line) <= limit and len(start) == len(whole) else line[:limit] + "..."


def printable_url(url: object) -> str:
    """Return a URL from outside for a message, without the user name and the password.

    Unlike :func:`printable`, it knows where the URL begins and ends, so it also finds those of a URL without a scheme.
    """
    text = str(url)
    return printable("...@" + text.rpartition("@")[2] if "@" in text else text)


def reason_of(error: BaseException) -> str:
    """Return the text of an error of a library for a message; the name of its class if it has none."""
    return printable(error) or type(error).__name__


def first_line(text: str, otherwise: str = "") -> str:
    """Return the first line of a text from outside that is not blank, or another text if there is none."""
    return (text.strip().splitlines() or [otherwise])[0]


def markdown(text: object, limit: int = _MOST_SHOWN) -> str:
    """Return text from outside for Markdown, also for a cell of a table: printable, and shown as it is.

    Without it, the text could add cells to a table, show pictures of another site, or hold HTML.

    Args:
        text: As for :func:`printable`.
        limit: How many characters to show.
    """
    return _MARKUP.sub(r"\\\g<0>", printable(text, limit))


def from_markdown(text: str) -> str:
    """Return a text of :func:`markdown` as it was before."""
    return re.sub(rf"\\({_MARKUP.pattern})", r"\1", text)


def whole_number(value: object, bounds: range) -> int | None:
    """Return a number from outside if it is a whole one within ``bounds``; None for anything else.

    Args:
        value: An int, a float without a fraction, or a text of up to 20 ASCII digits. A bool is not a number.
        bounds: The numbers to believe.
    """
    if isinstance(value, bool):
        return None
    if isinstance(value, str):
        number = int(value) if _NUMBER.fullmatch(value) else None
    elif isinstance(value, float):
        number = int(value) if math.isfinite(value) and value.is_integer() else None
    else:
        number = value if isinstance(value, int) else None
    return number if number is not None and number in bounds else None
