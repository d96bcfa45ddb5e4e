"""The tables of known facts about Binance: CSV files beside this module."""

from __future__ import annotations

import csv
from importlib.resources import files


def table_rows(name: str) -> list[dict[str, str]]:
    """Return the rows of the table ``name``, such as ``known_outages.csv``, by column."""
    text = files("binance_assets.completeness").joinpath(name).read_text(encoding="utf-8")
    return list(csv.DictReader(text.splitlines()))
