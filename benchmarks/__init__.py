"""Measurements of speed and memory against the sandbox exchange. Nothing here is a test."""
