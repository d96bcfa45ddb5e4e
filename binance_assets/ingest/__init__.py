"""From a range of partitions to validated partitions, and what follows from them.

What belongs here: what is missing and what fetching it costs (``request``), the chain of sources by which partitions
are fetched (``download``, ``sources``, ``blocks``), the reference data that they are validated against (``reference``),
and deriving, verifying and overriding partitions (``derive``, ``verify``, ``override``).
What does not: Dagster; files, except through the interface of :mod:`binance_assets.storage.lake`; how a single request
is sent (:mod:`binance_assets.exchange`); how a verdict is reached (:mod:`binance_assets.completeness`).
"""
