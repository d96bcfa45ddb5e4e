"""The user's files: the lake, its coverage, the universe with its lock file, and the locks that processes hold on them.

What belongs here: all handling of the paths and formats of these files.
What does not: network access, decisions about data, and Dagster; and the ledger of request weight, which is in
:mod:`binance_assets.exchange.rate_limit`.
"""
