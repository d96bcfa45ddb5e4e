"""The stand-in exchange: a local, deterministic server for Binance's REST APIs and public archive.

What belongs here: everything that plays Binance's part for the demo, the tests and the benchmarks. It serves spot,
USD-M and COIN-M with synthetic or recorded candles, and the same candles as the zip files of the public archive. It is
as strict as the real exchange: it enforces request weights and bans, validates parameters, and sends Binance's own
error bodies. It also injects faults on request. A header on every response says that it does not come from Binance.

What does not belong here: any part of the client. The engine, the asset definitions and the orchestration never import
this package; only the command line does, in the commands ``sandbox`` and ``demo``. From the rest of the project the
sandbox uses only ``model``: markets, intervals and timestamps.
"""

from __future__ import annotations

from binance_assets.sandbox.faults import Fault
from binance_assets.sandbox.sandbox_exchange import SandboxOptions, ServedRequest
from binance_assets.sandbox.server import Sandbox, running_sandbox, serve

__all__ = ["Fault", "Sandbox", "SandboxOptions", "ServedRequest", "running_sandbox", "serve"]
