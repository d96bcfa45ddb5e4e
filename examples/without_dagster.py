"""Download three days of candles into the lake, without Dagster, and read them."""

import binance_assets as ba

(done,) = ba.download("spot/BTCUSDT/1m", "2024-01-01", "2024-01-04")
for result in done.refused:
    print(f"{result.partition} {result.verdict}: {result.reason}")
print(f"{done.series}: {done.present} of {done.requested} days, {done.rows:,} new candles")

hours = ba.load("spot/BTCUSDT/1m", "2024-01-01", "2024-01-04", every="1h")
print(f"{hours.height} hours from {hours['open_time'][0]:%Y-%m-%d %H:%M} on")
