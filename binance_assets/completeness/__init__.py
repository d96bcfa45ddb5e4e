"""The decision whether a partition of candles can be trusted.

What belongs here: the validation of a table against the schema, the grid and the exchange's control totals, the data
that it needs for this, and the table of known outages. All functions are pure; the only file is the packaged
``known_outages.csv``.
What does not: how candles and reference data are fetched, and what happens with the verdict
(:mod:`binance_assets.ingest`); the words of the verdicts (:mod:`binance_assets.model.results`).
"""
