"""Which store holds a lake: a folder, or a bucket."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import cast

from binance_assets.model.bucket_paths import BucketPath, LakePath
from binance_assets.storage.local_store import LocalStore
from binance_assets.storage.store import Store


def store_at(root: LakePath, environment: Mapping[str, str] | None = None) -> Store[LakePath]:
    """Return the store of a lake; nothing is read or requested yet.

    It takes paths below the root only, so they are of the root's kind; callers need not know which that is.

    Args:
        root: The folder, or the place in a bucket.
        environment: The variables that say how to reach the bucket; None for those of the process.
    """
    if isinstance(root, BucketPath):
        from binance_assets.storage.bucket_store import BucketStore  # only a lake in a bucket needs it

        return cast(Store[LakePath], BucketStore(root, os.environ if environment is None else environment))
    return cast(Store[LakePath], LocalStore(root))
