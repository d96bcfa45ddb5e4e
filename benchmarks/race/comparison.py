"""The comparison of what a tool delivered with the truth: pure functions over tables.

A table of candles has one row per candle, a column ``open_time`` (Int64, ms UTC), and as many of the other kline
columns as the tool keeps. The truth has all of them.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

import polars as pl

_ALARM: Final = re.compile(
    r"error|exception|warn|missing|not found|no file|404|incomplete|\bgap|\bfail|checksum|no data|corrupt|unable", re.I
)
_ESCAPE: Final = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")
_NUMBER: Final = re.compile(r"[0-9]+")


@dataclass(frozen=True)
class Comparison:
    """How a table of candles compares with the truth.

    Attributes:
        rows: Rows delivered.
        expected: Rows of the truth.
        missing: Candles of the truth that were not delivered.
        duplicates: Rows beyond the first with the same open time.
        outside: Rows that open outside the range.
        unknown: Rows inside the range that the truth does not have.
        different: Rows with a value that differs from the truth.
        is_sorted: Whether open times never decrease.
        columns: Columns delivered, of those of the truth.
    """

    rows: int
    expected: int
    missing: int
    duplicates: int
    outside: int
    unknown: int
    different: int
    is_sorted: bool
    columns: int

    @property
    def is_exact(self) -> bool:
        """Whether the rows are those of the truth: none missing, none too many, none different, in order."""
        faults = (self.missing, self.duplicates, self.outside, self.unknown, self.different)
        return not any(faults) and self.is_sorted

    @property
    def covers_truth(self) -> bool:
        """Whether every candle of the truth was delivered with its values, whatever else was delivered."""
        return not self.missing and not self.different


class Response(StrEnum):
    """What a tool did about a planted hole. The values are the words of the table."""

    REPAIRED = "repaired"
    REPORTED = "reported"
    STOPPED = "stopped with an error"
    WARNED = "warned"
    SILENT = "silent"


def compare(candles: pl.DataFrame, truth: pl.DataFrame, start: int, end: int) -> Comparison:
    """Compare candles with the truth of the range ``[start, end)`` (ms UTC)."""
    times = candles.get_column("open_time")
    is_inside = (times >= start) & (times < end)
    inside = candles.filter(is_inside)
    missing = truth.join(candles, on="open_time", how="anti").height
    unknown = inside.join(truth, on="open_time", how="anti").height
    return Comparison(
        rows=candles.height,
        expected=truth.height,
        missing=missing,
        duplicates=candles.height - times.n_unique(),
        outside=candles.height - inside.height,
        unknown=unknown,
        different=count_different(candles, truth),
        is_sorted=times.is_sorted(),
        columns=len(shared_columns(candles, truth)),
    )


def shared_columns(candles: pl.DataFrame, truth: pl.DataFrame) -> list[str]:
    """Return the columns of the truth that ``candles`` has as well."""
    return [name for name in truth.columns if name in candles.columns]


def count_different(candles: pl.DataFrame, truth: pl.DataFrame) -> int:
    """Return how many rows of ``candles`` have a value that differs from the truth's candle of the same time."""
    values = [name for name in shared_columns(candles, truth) if name != "open_time"]
    both = candles.select("open_time", *values).join(truth, on="open_time", how="inner", suffix=" of truth")
    differs = [pl.col(name).ne_missing(pl.col(f"{name} of truth")) for name in values]
    return both.filter(pl.any_horizontal(differs)).height if differs else 0


def alarming_lines(text: str, known: Collection[str] = ()) -> list[str]:
    """Return the lines of a program's output that sound like an alarm and are not in ``known``.

    Args:
        text: The output, standard error included.
        known: Normalized lines of a run without a hole; see :func:`normalized_lines`.
    """
    lines = (_ESCAPE.sub("", line).strip() for line in re.split(r"[\r\n]+", text))
    return [line for line in lines if _ALARM.search(line) and normalized(line) not in known]


def normalized_lines(text: str) -> set[str]:
    """Return the lines of an output without escape sequences and with ``#`` for every number."""
    return {normalized(line) for line in re.split(r"[\r\n]+", text)}


def normalized(line: str) -> str:
    """Return a line without escape sequences and with ``#`` for every number."""
    return _NUMBER.sub("#", _ESCAPE.sub("", line).strip())


def response_to_hole(
    comparison: Comparison | None, is_repairable: bool, exit_code: int, reports: Sequence[str], alarms: Sequence[str]
) -> Response:
    """Return what a tool did about a planted hole.

    Args:
        comparison: Its candles against what a complete download has; None if it delivered no readable candles.
        is_repairable: Whether another source has what is missing.
        exit_code: Exit code of its process.
        reports: What it returned about what is missing or wrong.
        alarms: The alarming lines that it does not print without the hole.
    """
    if is_repairable and comparison is not None and comparison.covers_truth and not exit_code:
        return Response.REPAIRED
    if reports:
        return Response.REPORTED
    if exit_code:
        return Response.STOPPED
    return Response.WARNED if alarms else Response.SILENT
