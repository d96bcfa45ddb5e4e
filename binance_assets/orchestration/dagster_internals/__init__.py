"""The one package that touches private or undocumented Dagster names.

Here belongs each name under ``dagster._``, as an import or as text in configuration, and each attribute that leads
into Dagster's undocumented object model. Every entry states why no public name does the same, and
``binance_assets_tests/unit/test_dagster_internals.py`` fails if Dagster changes it. What does not belong here:
anything about candles.

Some names need no private import: ``dg.AssetCheckEvaluation`` is public, a run id is a version 4 UUID, and the tags of
a range run are documented strings (see ``partitions``).
"""
