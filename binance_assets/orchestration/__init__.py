"""Dagster: assets, partitions, checks, runs, schedules and sensors, one module per concept.

Here belongs what declares something to Dagster or reads something from it. What does not belong here: fetching,
validating and storing candles (``ingest``, ``completeness``, ``storage``), which work without Dagster; the assembly of
the code location (``definitions``); and what a terminal shows (``cli``).

Names under ``dagster._`` are private. They appear in ``dagster_internals`` and nowhere else; ruff enforces it.
"""
