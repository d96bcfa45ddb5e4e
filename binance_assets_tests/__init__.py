"""Statements about the world that this project holds itself to, over real HTTP, files and Dagster instances."""
