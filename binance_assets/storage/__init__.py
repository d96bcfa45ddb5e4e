"""Everything that the project keeps on disk: the lake, its coverage, the universe file, locks between processes.

All path handling belongs here. Network access, decisions about data, and Dagster do not.
"""
