"""The client of an object store: its options, its bounds of time, and what its errors mean.

The client is obstore, which wraps the Rust library ``object_store``. Polars reads buckets with the same library, and by
the same variables. Messages never repeat a key, a signature, or what the server wrote, except the code of its error.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from functools import lru_cache
from typing import Any, Final
from urllib.parse import urlsplit

from binance_assets.model.bucket_paths import BucketPath
from binance_assets.model.outside import printable, printable_url
from binance_assets.storage.store import StoreError

# Bounds of each request, also of those of Polars: a dead server is noticed within a minute.
_CONNECT_SECONDS: Final = 5
_REQUEST_SECONDS: Final = 60  # a file of the lake has at most some megabytes
_RETRIES: Final = 4
_RETRY_SECONDS: Final = 60
_FIRST_BACKOFF_SECONDS: Final = 0.1
_LONGEST_BACKOFF_SECONDS: Final = 5

_PAGE: Final = 1_000

# The variables that are passed on, and where the first of those of a group is set, the others do not count.
_PASSED_ON: Final = {
    "access_key_id": ("AWS_ACCESS_KEY_ID",),
    "secret_access_key": ("AWS_SECRET_ACCESS_KEY",),
    "session_token": ("AWS_SESSION_TOKEN",),
    "region": ("AWS_REGION", "AWS_DEFAULT_REGION"),
    "endpoint_url": ("AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL", "AWS_ENDPOINT"),
    "allow_http": ("AWS_ALLOW_HTTP",),
    "skip_signature": ("AWS_SKIP_SIGNATURE",),
    "virtual_hosted_style_request": ("AWS_VIRTUAL_HOSTED_STYLE_REQUEST",),
}
_FLAGS: Final = frozenset({"allow_http", "skip_signature", "virtual_hosted_style_request"})
_DEFAULT_REGION: Final = "us-east-1"

_CODE: Final = re.compile(r"<Code>([A-Za-z0-9.]{1,60})</Code>|\(code: ([A-Za-z0-9.]{1,60})\)")
_STATUS: Final = re.compile(r"status code: (\d{3})")
_RIGHTS: Final = "s3:ListBucket of the bucket, and s3:GetObject, s3:PutObject, s3:DeleteObject of the prefix"


@dataclass(frozen=True, slots=True)
class BucketOptions:
    """How to reach an object store.

    Attributes:
        values: The options by their names in the object store's library; repr leaves them out, because they hold keys.
    """

    values: tuple[tuple[str, str], ...] = field(repr=False)

    @classmethod
    def of(cls, environment: Mapping[str, str]) -> BucketOptions:
        """Return the options that the variables ``AWS_*`` name; an empty variable counts as not set."""
        found = {}
        for name, variables in _PASSED_ON.items():
            given = [environment[variable].strip() for variable in variables if environment.get(variable, "").strip()]
            if given:
                found[name] = given[0].lower() if name in _FLAGS else given[0]
        if "access_key_id" not in found and (profile := environment.get("AWS_PROFILE", "").strip()):
            found["profile"] = profile
        return cls(tuple({"region": _DEFAULT_REGION, **found}.items()))

    @property
    def server(self) -> str:
        """The server as messages name it."""
        endpoint = dict(self.values).get("endpoint_url")
        return printable_url(endpoint) if endpoint else "Amazon S3"

    def check(self) -> None:
        """Refuse options that cannot work, before the first request.

        Raises:
            StoreError: The message names the variable.
        """
        values = dict(self.values)
        if "profile" in values:
            raise StoreError(
                "AWS_PROFILE is set without AWS_ACCESS_KEY_ID, and profiles are not read; "
                'set the keys, such as by eval "$(aws configure export-credentials --format env)"'
            )
        if ("access_key_id" in values) != ("secret_access_key" in values):
            raise StoreError("only one of AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY is set; set both")
        for name in _FLAGS & values.keys():
            if values[name] not in ("true", "false", "1", "0"):
                raise StoreError(f"{_PASSED_ON[name][0]} must be true or false")
        if "endpoint_url" in values:
            self._check_endpoint(values["endpoint_url"])

    def _check_endpoint(self, endpoint: str) -> None:
        try:
            parts = urlsplit(endpoint)
            usable = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
        except ValueError:
            usable = False
        if not usable or "@" in endpoint or not endpoint.isprintable():
            raise StoreError("AWS_ENDPOINT_URL must be http:// or https:// and a host, without a user name")
        if parts.scheme == "http" and dict(self.values).get("allow_http") not in ("true", "1"):
            raise StoreError(f"{self.server} is not encrypted; use https://, or set AWS_ALLOW_HTTP=true")

    def of_client(self) -> dict[str, Any]:
        """Return the arguments of the client."""
        values = {name: value for name, value in self.values if name != "allow_http"}
        if "endpoint_url" in values:
            values["endpoint"] = values.pop("endpoint_url").rstrip("/")
        return {
            "config": values,
            "client_options": {
                "allow_http": dict(self.values).get("allow_http") in ("true", "1"),
                "connect_timeout": timedelta(seconds=_CONNECT_SECONDS),
                "timeout": timedelta(seconds=_REQUEST_SECONDS),
            },
            "retry_config": {
                "max_retries": _RETRIES,
                "retry_timeout": timedelta(seconds=_RETRY_SECONDS),
                "backoff": {
                    "init_backoff": timedelta(seconds=_FIRST_BACKOFF_SECONDS),
                    "max_backoff": timedelta(seconds=_LONGEST_BACKOFF_SECONDS),
                    "base": 2,
                },
            },
        }

    def of_polars(self) -> dict[str, Any]:
        """Return the ``storage_options`` of Polars."""
        # Without bounds of its own, Polars waits for a silent server without end (2.1, November 2026).
        bounds = {
            "connect_timeout": f"{_CONNECT_SECONDS * 1_000:.0f}ms",
            "timeout": f"{_REQUEST_SECONDS * 1_000:.0f}ms",
        }
        return {f"aws_{name}": value for name, value in self.values} | bounds | {"max_retries": _RETRIES}


class Bucket:
    """The requests to a bucket.

    Args:
        client: The store of obstore.

    Attributes:
        proved: The lakes that this process has proved to be writable.
    """

    def __init__(self, client: Any) -> None:
        self._client = client
        self.proved: set[BucketPath] = set()

    def get(self, key: str, options: Any = None) -> Any:
        """Request an object; the result has its metadata, and its bytes when they are asked for."""
        import obstore

        _check_process()
        return obstore.get(self._client, key, options=options)

    def put(self, key: str, content: bytes, mode: Any) -> None:
        """Replace or create an object by one request."""
        import obstore

        _check_process()
        obstore.put(self._client, key, content, mode=mode, use_multipart=False)

    def delete(self, key: str) -> None:
        """Remove an object."""
        import obstore

        _check_process()
        obstore.delete(self._client, key)

    def list(self, prefix: str) -> Iterator[Sequence[Any]]:
        """Yield the metadata of objects below a prefix, some at a time."""
        import obstore

        _check_process()
        yield from obstore.list(self._client, prefix, chunk_size=_PAGE)


_processes: Final[list[int]] = []
"""The process that has sent requests, and so has the threads of obstore."""


def _check_process() -> None:
    """Refuse a request in a fork of a process that has sent one: it lacks the threads, and would wait without end.

    Raises:
        StoreError: This is such a fork.
    """
    _processes[:] = _processes or [os.getpid()]
    if _processes != [os.getpid()]:
        raise StoreError(
            "this process is a fork of one that has used the bucket; "
            "start processes with the method spawn or forkserver"
        )


@lru_cache(maxsize=16)  # a client keeps its connections
def bucket_at(name: str, options: BucketOptions) -> Bucket:
    """Return the bucket; nothing is requested.

    Raises:
        StoreError: The options cannot work, or obstore is not installed.
    """
    try:
        from obstore.exceptions import BaseError
        from obstore.store import S3Store
    except ImportError:
        raise StoreError("a lake in a bucket needs obstore; install binance-assets[s3]") from None
    options.check()
    try:
        return Bucket(S3Store(name, **options.of_client()))
    except (BaseError, ValueError, TypeError) as error:
        raise StoreError(f"the variables AWS_* cannot be used ({printable(type(error).__name__)})") from None


def no_such_object(error: BaseException) -> bool:
    """Return whether an S3 server responded that there is no such object.

    A 404 of a proxy or for a missing bucket is no such response.
    """
    return isinstance(error, FileNotFoundError) and _code_of(error) == "NoSuchKey"


def refusal(error: BaseException, bucket: str, options: BucketOptions) -> str:
    """Return in one line what went wrong, and the way out; without what may hold a secret."""
    code, status, text = _code_of(error), _STATUS.search(str(error)), str(error)
    response = " ".join(filter(None, [status and status[1], code])) or "an error"
    if code == "NoSuchBucket":
        return f"{options.server} has no bucket {bucket!r}; create it, or correct BINANCE_ASSETS_LAKE"
    if "169.254." in text or "/latest/api/token" in text:
        return "no credentials for the bucket were found; set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY"
    if code == "NotImplemented" or type(error).__name__ == "NotSupportedError":
        return f"{options.server} lacks a function that the lake needs, such as conditional writes ({response})"
    if (status and status[1] in ("401", "403")) or "AccessDenied" in (code or ""):
        way_out = f"check the variables AWS_*: the user needs {_RIGHTS}"
        return f"{options.server} refuses access to the bucket {bucket!r} ({response}); {way_out}"
    if status and status[1].startswith("4"):
        return (
            f"{options.server} does not respond like an S3 server ({response}); check AWS_ENDPOINT_URL and AWS_REGION"
        )
    if status:
        return f"{options.server} has failed ({response}, after {_RETRIES} retries); try again later"
    if "HTTP error" not in text and "error sending request" not in text:
        return f"{options.server} does not respond like an S3 server; check AWS_ENDPOINT_URL and AWS_REGION"
    return f"{options.server} cannot be reached ({_kind(text)}); check the network and AWS_ENDPOINT_URL"


def _code_of(error: BaseException) -> str | None:
    """Return the code of an error of S3, such as ``NoSuchKey``."""
    match = _CODE.search(str(error))
    return match and (match[1] or match[2])


def _kind(text: str) -> str:
    """Return what kind of error of the network a text describes."""
    lower = text.lower()
    if "timed out" in lower or "timeout" in lower.partition("debug source")[2].replace("retry_timeout", ""):
        return f"no response within {_REQUEST_SECONDS} s"
    if "dns error" in lower or "name or service not known" in lower or "failed to lookup" in lower:
        return "its name is not known"
    if "certificate" in lower:
        return "its certificate is not trusted"
    if "refused" in lower:
        return "the connection is refused"
    return "the connection fails"
