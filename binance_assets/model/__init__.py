"""The vocabulary of the project as pure values: markets, intervals, timestamps, series, partitions, results.

What belongs here: frozen values and arithmetic on them, which every other package may use.
What does not: anything that reads a file, a clock or the network, anything that validates a table of candles
(:mod:`binance_assets.completeness`), and anything that knows Dagster. Importing this package loads no Pandera.
"""
