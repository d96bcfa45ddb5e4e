"""A local, deterministic stand-in for Binance's REST APIs and archive, for demonstrations, tests and benchmarks.

It serves spot, USD-M and COIN-M with synthetic or recorded candles, Binance's limits and errors, the same candles as
the zips of the public archive, and faults on demand. Every answer says by a header of its own that it does not come
from Binance.
"""

from __future__ import annotations

from binance_assets.sandbox.faults import Fault
from binance_assets.sandbox.server import Sandbox, running_sandbox, serve
from binance_assets.sandbox.venue import SandboxOptions

__all__ = ["Fault", "Sandbox", "SandboxOptions", "running_sandbox", "serve"]
