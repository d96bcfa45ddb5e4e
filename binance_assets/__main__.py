"""The entry point of the program. An interrupt while the program loads ends it without a traceback, too."""

from __future__ import annotations

import gc
import sys
from typing import Final

import binance_assets.waiting  # noqa: F401 - it remembers when the process began

# What is loaded stays, and a download makes few cycles. To search for them as often as Python does by itself takes 6
# percent of the CPU time of a download of a year.
_GARBAGE_THRESHOLDS: Final = (50_000, 20, 100)


def main() -> None:
    """Load the command line and run it."""
    gc.set_threshold(*_GARBAGE_THRESHOLDS)
    try:
        from binance_assets.cli.main import main as run
    except KeyboardInterrupt:
        sys.exit(130)
    try:
        run()
    finally:
        # At its end, Python searches everything for garbage once more: 0.7 s of CPU time where Dagster is loaded, in
        # which the command has said all and the user still waits.
        gc.freeze()


if __name__ == "__main__":
    main()
