"""The functions of the Python API: reading candles as tables, downloading them, and listing what there is.

What belongs here: what a user calls from a script or a notebook, with names, dates, and tables as arguments and
results. What does not: Dagster, and rules about candles, files, or requests, which the layers below have.
"""
