"""The entry point of the program. An interrupt while the program loads ends it without a traceback, too."""

from __future__ import annotations

import sys

import binance_assets.waiting  # noqa: F401 - it remembers when the process began


def main() -> None:
    """Load the command line and run it."""
    try:
        from binance_assets.cli.main import main as run
    except KeyboardInterrupt:
        sys.exit(130)
    run()


if __name__ == "__main__":
    main()
