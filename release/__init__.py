"""The release of a version: ``make release VERSION=x.y.z`` builds, checks, commits, and tags it, and publishes nothing.

What belongs here: how a version is made from a checkout. ``build`` and ``install`` also serve the tests of the package.
What does not: anything that the installed package needs.
"""

from __future__ import annotations


class ReleaseRefused(Exception):
    """A version cannot be released. The message is one line: the cause and the way out."""
