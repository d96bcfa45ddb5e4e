"""Drivers: one short program per contestant, each run by the interpreter of that contestant's own environment.

What belongs here: the few lines that a user of the tool would write, pointed at the sandbox by the tool's own setting.
Where a tool has no such setting, its driver replaces the constant, and its docstring names it. A driver imports its
tool, :mod:`benchmarks.race.drivers.task`, and the standard library, because nothing else is installed where it runs.
"""
