"""The versions of the tools that load the exports; docs/exports.md names the same."""

from __future__ import annotations

from typing import Final

VERSIONS: Final = {
    "backtesting": "backtesting==0.6.6",
    "freqtrade": "freqtrade==2026.9",
    "nautilus": "nautilus_trader==1.221.0",  # the newest for Python 3.11; the format is that of 1.231.0
    "qlib": "pyqlib==0.9.7",
    "zipline": "zipline-reloaded==3.2.1",
}
