"""Everything that knows Dagster, and only that: one module for each of its concepts."""
