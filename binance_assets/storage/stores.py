"""Which store holds a lake: a folder, or a bucket."""

from __future__ import annotations

import os
from collections.abc import Mapping

from binance_assets.model.bucket_paths import BucketPath, LakePath
from binance_assets.storage.local_store import LocalStore
from binance_assets.storage.store import Store


def store_at(root: LakePath, environment: Mapping[str, str] | None = None) -> Store:
    """Return the store of a lake; nothing is read or requested yet.

    Args:
        root: The folder, or the place in a bucket.
        environment: The variables that say how to reach the bucket; None for those of the process.
    """
    if isinstance(root, BucketPath):
        from binance_assets.storage.bucket_store import BucketStore  # only a lake in a bucket needs it

        return BucketStore(root, os.environ if environment is None else environment)
    return LocalStore(root)
