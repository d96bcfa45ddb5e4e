"""Helpers that tests share. This package has no tests, and nothing is imported from a test module."""
