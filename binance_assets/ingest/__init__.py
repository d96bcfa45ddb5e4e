"""Fetching and validating partitions; planning requests for them; deriving, verifying, and overriding them.

Besides, what the markets have and had, and the refresh of the universe (``market_symbols``, ``universe_refresh``).

What belongs here: which partitions are missing and what fetching them costs (``request``), the chain of sources by
which they are fetched (``download``, ``sources``, ``blocks``), the reference data that they are validated against
(``reference``), and deriving, verifying and overriding them (``derive``, ``verify``, ``override``).
What does not: Dagster; files, except through the interface of :mod:`binance_assets.storage.lake`; how a single request
is sent (:mod:`binance_assets.exchange`); how a verdict is reached (:mod:`binance_assets.completeness`).
"""
