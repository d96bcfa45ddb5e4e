"""Exports: candles in the files that other tools load, one module per tool.

What belongs here: the formats of other tools, and the folder into which their files go. What does not: which candles
are exported, and Dagster. A format names the source of each of its facts: the tool, its version, and the date.
"""
