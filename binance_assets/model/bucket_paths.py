"""Paths of objects in a bucket of an object store: ``s3://bucket/prefix/name``."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path, PurePath, PurePosixPath
from typing import Any, Final, TypeAlias

SCHEME: Final = "s3://"

# Names as S3 allows them, and those of older buckets: no user name and password, port, or query.
_BUCKET: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{1,61}[A-Za-z0-9]")
_BUCKET_CHARACTERS: Final = re.compile(r"[A-Za-z0-9._-]+")
_BUCKET_LENGTHS: Final = range(3, 64)
# What neither a glob nor a URL gives another meaning.
_SEGMENT: Final = re.compile(r"[\w.=+-]{1,255}")


@dataclass(frozen=True)
class BucketPath:
    """The place of an object, or of all objects whose keys begin with it; it behaves like a path of a file system.

    Attributes:
        bucket: The bucket.
        key: The key, whose segments are separated by slashes.
    """

    bucket: str
    key: str

    @classmethod
    def parse(cls, text: str) -> BucketPath:
        """Return the path that a URL names.

        Raises:
            ValueError: It is none; the message does not repeat it.
        """
        bucket, _, key = text.removeprefix(SCHEME).partition("/")
        segments = key.rstrip("/").split("/")
        if not text.startswith(SCHEME) or not bucket or not segments[0]:
            raise ValueError(f"must be {SCHEME}BUCKET/PREFIX, such as {SCHEME}my-candles/lake")
        if not _BUCKET.fullmatch(bucket):
            raise ValueError(f"must be {SCHEME}BUCKET/PREFIX, and {_broken_rule(bucket)}")
        if not all(_SEGMENT.fullmatch(segment) and segment.strip(".") for segment in segments):
            raise ValueError("the prefix must be names of letters, digits, and . = + - _ between single slashes")
        return cls(bucket, "/".join(segments))

    def __str__(self) -> str:
        """Return the URL."""
        return f"{SCHEME}{self.bucket}/{self.key}"

    def __truediv__(self, name: Any) -> BucketPath:
        """Return the path of ``name`` below this one."""
        return BucketPath(self.bucket, f"{self.key}/{name}")

    @property
    def name(self) -> str:
        """The last segment of the key."""
        return self.key.rpartition("/")[2]

    @property
    def stem(self) -> str:
        """The last segment without its ending."""
        return PurePosixPath(self.name).stem

    @property
    def parent(self) -> BucketPath:
        """The path without its last segment."""
        return BucketPath(self.bucket, self.key.rpartition("/")[0])

    def with_name(self, name: str) -> BucketPath:
        """Return the path with another last segment."""
        return BucketPath(self.bucket, "/".join([*self.key.split("/")[:-1], name]))

    def absolute(self) -> BucketPath:
        """Return the path itself, because it depends on no working folder."""
        return self

    def relative_to(self, folder: LakePath) -> PurePosixPath:
        """Return the path below ``folder``.

        Raises:
            ValueError: It is not below it.
        """
        if not isinstance(folder, BucketPath) or folder.bucket != self.bucket:
            raise ValueError(f"{self} is not below {folder}")
        return PurePosixPath(self.key).relative_to(folder.key)


def _broken_rule(bucket: str) -> str:
    """Return which rule the name of a bucket breaks, without the name, which may be a key."""
    if not _BUCKET_CHARACTERS.fullmatch(bucket):
        return "the bucket must be a name of letters, digits, and . _ - without a user name or port"
    if len(bucket) not in _BUCKET_LENGTHS:
        return f"the name of the bucket must have {_BUCKET_LENGTHS[0]} to {_BUCKET_LENGTHS[-1]} characters"
    return "the name of the bucket must begin and end with a letter or digit"


LakePath: TypeAlias = Path | BucketPath
"""A place in a lake: a path in a folder, or a :class:`BucketPath`. What only a file has, such as ``exists``, is asked
of a store."""


def below(path: LakePath, folder: LakePath) -> PurePath:
    """Return a path relative to a folder above it.

    Raises:
        ValueError: It is not below that folder.
    """
    return path.relative_to(folder) if isinstance(path, BucketPath) else path.relative_to(str(folder))
