"""The command line: options, commands, and their output as tables, JSON, and progress bars.

What Python users need as well does not belong here, nor does anything that decides about data.

Every command imports what it needs inside its function, because Dagster and Pandera take seconds to import and
``--help`` needs neither.
"""
