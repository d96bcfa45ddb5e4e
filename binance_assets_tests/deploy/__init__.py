"""The files in `deploy/`, read by linters and by the classes that they configure."""
