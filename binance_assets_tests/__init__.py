"""Tests over real HTTP, files, processes and Dagster instances, in five tiers: see CONTRIBUTING.md."""
