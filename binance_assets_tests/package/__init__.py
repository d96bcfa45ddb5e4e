"""Tests of the tier ``package``: the distributions, the installed wheel, and the release."""
