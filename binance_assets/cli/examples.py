"""Examples of each command, which its ``--help`` shows and a test parses."""

from __future__ import annotations

from typing import Final

EXAMPLES: Final[dict[str, tuple[str, ...]]] = {
    "download": (
        "download BTCUSDT --market spot --interval 1m --start 2024-01 --end 2024-02",
        "download BTCUSDT ETHUSDT --market usdm --interval 1h --interval 1d --start 2020",
        "download BTCUSDT --market spot --interval 1m --start 2024 --end 2025 --dry-run --json",
        "download --symbols-from 'quote=USDT top=20' --market spot --interval 1h --start 2024",
    ),
    "track": (
        "track BTCUSDT ETHUSDT --market spot --interval 1m",
        "track --symbols-from 'quote=USDT top=20' --market usdm --interval 1h",
        "track --symbols-from symbols.txt --market spot --interval 1d",
    ),
    "untrack": ("untrack ETHUSDT --market spot --interval 1m",),
    "series": ("series", "series --json"),
    "universe": ("universe refresh --dry-run", "universe refresh --json"),
    "symbols": (
        "symbols spot --quote USDT --top 20",
        "symbols usdm --contract perpetual --match '1000.*'",
        "symbols spot --quote USDT --delisted --no-days --json",
    ),
    "status": ("status", "status spot/BTCUSDT/1m usdm/ETHUSDT/1m", "status --json"),
    "show": ("show spot/BTCUSDT/1m 2024-01-10", "show spot/BTCUSDT/1m yesterday --rows 10 --json"),
    "verify": ("verify", "verify spot/BTCUSDT/1m --start 2024-01 --against archive", "verify --deep --json"),
    "accept": ('accept spot/BTCUSDT/1m 2024-01-10 --reason "halt confirmed by support"',),
    "migrate": ("migrate",),
    "init": ("init", "init candles"),
    "ui": ("ui", "ui --port 3001"),
    "schedules": ("schedules list", "schedules on spot_catch_up", "schedules on --all", "schedules off --all"),
    "sandbox": ("sandbox --port 8900 --rtt-ms 100",),
    "demo": ("demo", "demo --ui"),
}


def epilog(command: str) -> str:
    """Return the examples of a command as the end of its help."""
    lines = "\n".join(f"  binance-assets {example}" for example in EXAMPLES.get(command, ()))
    return f"\b\nExamples:\n{lines}" if lines else ""
