"""Tests over real HTTP, files, processes and Dagster instances, in three tiers: unit, integration and e2e."""
