"""The command line: options, commands, and their output as tables, JSON, and progress bars.

Here belongs what only a terminal needs. What does not belong here: what Python users need as well, and any decision
about data.

Every command imports what it needs inside its function, because Dagster and Pandera take seconds to import and
``--help`` needs neither.
"""
