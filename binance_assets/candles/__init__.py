"""The table of candles: its columns, its schema, the parsing of responses and files, and resampling.

What belongs here: functions from bytes or tables to tables, and the Pandera schema of its rows.
What does not: which candles a partition must have and whether to trust them (:mod:`binance_assets.completeness`), and
anything that knows the network, files or Dagster. Only :mod:`binance_assets.candles.schema` imports Pandera.
"""
