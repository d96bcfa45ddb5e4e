"""Where the recorded candles are that some tests replay.

``BINANCE_ASSETS_RECORDED`` names the folder; a relative path is relative to the checkout. Without it, the folder is
``../shared/data``, or ``recorded/`` if that does not exist. ``make recorded`` fetches the zips of Binance's archive
into ``recorded/``. The REST responses and the other files of a complete folder cannot be fetched again.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

from binance_assets_tests.support.environment import CHECKOUT

FETCHED = CHECKOUT / "recorded"
"""The folder that ``make recorded`` fills with the zips."""

_DEFAULT = CHECKOUT.parent / "shared" / "data"


def recorded_folder(environment: Mapping[str, str]) -> Path:
    """Return the folder of recorded candles that ``environment`` selects, whether it exists or not."""
    if folder := environment.get("BINANCE_ASSETS_RECORDED"):
        return CHECKOUT / Path(folder).expanduser()
    return _DEFAULT if _DEFAULT.is_dir() or not FETCHED.is_dir() else FETCHED


RECORDED = recorded_folder(os.environ)
_DISPLAY_PATH = os.path.relpath(RECORDED, CHECKOUT)


def missing_zips() -> str | None:
    """Return why tests that replay only zips of the archive have to be skipped; None if they can run."""
    if RECORDED.is_dir():
        return None
    return f"there is no folder {_DISPLAY_PATH}; `make recorded` fetches a part of it, or set BINANCE_ASSETS_RECORDED"


def missing_recordings() -> str | None:
    """Return why tests that replay REST responses as well have to be skipped; None if they can run."""
    if (RECORDED / "known_spot_outages.json").is_file():
        return None
    return (
        missing_zips() or f"{RECORDED.name}/ has only the zips of the archive; REST responses cannot be fetched again"
    )
