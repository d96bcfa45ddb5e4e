"""What tests share; no test is in here, and nothing is imported from a test module."""
