"""Examples of each command, which its ``--help`` shows and a test parses."""

from __future__ import annotations

from typing import Final

EXAMPLES: Final[tuple[str, ...]] = (
    "download BTCUSDT --market spot --interval 1m --start 2024-01 --end 2024-02",
    "download BTCUSDT ETHUSDT --market usdm --interval 1h --interval 1d --start 2020",
    "download --symbols-from 'quote=USDT top=20' --market spot --interval 1h --start 2024",
    "download BTCUSDT --market spot --interval 1m --start 2024 --end 2025 --dry-run --json",
    "download BTCUSDT ETHUSDT --market spot --interval 1m --start 2024 --end 2025 --launch",
    "track BTCUSDT ETHUSDT --market spot --interval 1m",
    "track --symbols-from 'quote=USDT top=20' --market usdm --interval 1h",
    "track --symbols-from symbols.txt --market spot --interval 1d",
    "untrack ETHUSDT --market spot --interval 1m",
    "series",
    "series --json",
    "symbols spot --quote USDT --top 20",
    "symbols usdm --contract perpetual --match '1000.*'",
    "symbols spot --quote USDT --delisted --no-days --json",
    "universe refresh --dry-run",
    "universe refresh --json",
    "status",
    "status spot/BTCUSDT/1m usdm/ETHUSDT/1m",
    "status --json",
    "metrics",
    "metrics -o /var/lib/node_exporter/binance_assets.prom",
    "show spot/BTCUSDT/1m 2024-01-10",
    "show spot/BTCUSDT/1m yesterday --rows 10 --json",
    "plot spot/BTCUSDT/1m --start 2024 --end 2025",
    "plot spot/BTCUSDT/1m --start 2024-01 --end 2024-02 --every 4h -o january.png",
    "plot usdm/ETHUSDT/1h --open",
    "plot spot/BTCUSDT/1m --start 2024-01-10 --end 2024-01-11 --overwrite --json",
    "verify",
    "verify spot/BTCUSDT/1m --start 2024-01 --against archive",
    "verify --deep --json",
    'accept spot/BTCUSDT/1m 2024-01-10 --reason "halt confirmed by support"',
    "export spot/BTCUSDT/1m --to parquet",
    "export spot/BTCUSDT/1m --to freqtrade --every 5m -o user_data/data/binance",
    "export usdm/BTCUSDT/1h usdm/ETHUSDT/1h --to nautilus --start 2024 --end 2025 --json",
    "export spot/BTCUSDT/1d --to zipline --missing flat --overwrite",
    "migrate",
    "init",
    "init candles",
    "ui",
    "ui --port 3001",
    "schedules list",
    "schedules on spot_catch_up",
    "schedules on --all",
    "schedules off --all",
    "sandbox --port 8900 --rtt-ms 100",
    "demo",
    "demo --ui",
)


def epilog(command: str) -> str:
    """Return the examples of a command, such as ``schedules on``, as the end of its help."""
    examples = [example for example in EXAMPLES if f"{example} ".startswith(f"{command} ")]
    lines = "\n".join(f"  binance-assets {example}" for example in examples)
    return f"\b\nExamples:\n{lines}"
