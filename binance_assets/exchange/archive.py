"""The public archive of one market: files fetched in parallel, proved by their SHA-256, unpacked in memory.

It asks no weight of the budget. What goes wrong is one of the named errors, file by file.
"""

from __future__ import annotations

import hashlib
import io
import re
import zipfile
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from typing import Final, TypeVar

from binance_assets.exchange.archive_files import ArchiveFile
from binance_assets.exchange.errors import (
    BadFile,
    Blocked,
    ChecksumMismatch,
    ExchangeError,
    NoConnection,
    NoFile,
    NotAsked,
    RefusedRequest,
    UnexpectedAnswer,
)
from binance_assets.exchange.http import HttpClient, HttpResponse
from binance_assets.exchange.retry import call_with_retries
from binance_assets.exchange.workers import WorkerPool
from binance_assets.model.markets import SANDBOX_HEADER, Market
from binance_assets.model.series import Series
from binance_assets.model.timestamps import SECOND
from binance_assets.settings import Settings

Result = TypeVar("Result")


_SIDECAR: Final = re.compile(r"([0-9a-f]{64})  (\S+)\s*")


# A month of 1m is two megabytes as a zip and four as a table: enough for the network, and little in memory.
_MOST_WORKERS: Final = 16


@dataclass(frozen=True, slots=True)
class ArchiveContent:
    """A file whose zip agrees with its checksum.

    Attributes:
        text: The CSV in it.
        sha256: SHA-256 of the zip, in hex.
        modified: When it was last changed, as the archive says, ms UTC; None where it does not.
    """

    text: bytes
    sha256: str
    modified: int | None


class Archive:
    """The files of one market; nothing is sent before the first call.

    Args:
        market: The market.
        settings: Host, time-outs, workers.
        count: Told of each request for a file of a series.
    """

    def __init__(self, market: Market, settings: Settings, count: Callable[[Series], None]) -> None:
        self.market = market
        self._most_workers = min(_MOST_WORKERS, settings.max_workers)
        self._client = HttpClient(
            settings.archive_url, self._most_workers, settings.connect_timeout, settings.read_timeout
        )
        self._pool = WorkerPool(warmup=0, ahead_per_worker=1)
        self._count = count
        self.venue = ""
        """Whose candles the files are, once anything was asked: ``binance`` or ``sandbox``."""
        self._circuit_open: NoConnection | None = None

    @property
    def workers(self) -> int:
        """Files that may be under way at once; 1 before the first one."""
        return self._pool.workers

    def stream(
        self, files: Sequence[ArchiveFile], read: Callable[[ArchiveFile, ArchiveContent], Result]
    ) -> Iterator[tuple[ArchiveFile, Result | ExchangeError]]:
        """Fetch ``files`` in parallel and yield each with what ``read`` made of it, in their order.

        No more of them are in memory than are under way.

        Args:
            files: What to fetch.
            read: Makes something of a file, in a worker; a ``ValueError`` says that it holds nonsense.

        Raises:
            Cancelled: The archive was closed.
        """
        return self._map_concurrently(files, lambda file: self._read(file, read))

    def checksums(self, files: Sequence[ArchiveFile]) -> Iterator[tuple[ArchiveFile, str | ExchangeError]]:
        """The SHA-256, in hex, that the archive names for each of ``files`` now.

        Raises:
            Cancelled: The archive was closed.
        """
        return self._map_concurrently(files, self._checksum)

    def _map_concurrently(
        self, files: Sequence[ArchiveFile], ask: Callable[[ArchiveFile], Result]
    ) -> Iterator[tuple[ArchiveFile, Result | ExchangeError]]:
        def ask_patiently(file: ArchiveFile) -> Result:
            try:
                return call_with_retries(lambda: ask(file), self._pool.stop)
            except NoConnection as error:
                self._circuit_open = error  # there are other ways; the next files need not find out again
                raise

        return self._pool.stream(files, ask_patiently, lambda: self._most_workers)

    def now(self) -> int:
        """The time of the archive's host, ms UTC, to the second.

        Raises:
            ExchangeError: It could not be asked.
        """
        return self._pool.run(lambda: call_with_retries(self._ask_time, self._pool.stop))

    def _ask_time(self) -> int:
        headers: Mapping[str, str]
        try:
            headers = self._client.get("/", {}).headers
        except (RefusedRequest, Blocked) as error:  # it answers, whatever it thinks of the question
            headers = error.headers
        self.venue = "sandbox" if SANDBOX_HEADER in headers else "binance"
        try:
            return int(parsedate_to_datetime(headers["Date"]).timestamp()) * SECOND
        except (KeyError, ValueError):
            raise UnexpectedAnswer("the archive does not tell the time", self._client.url) from None

    def close(self) -> None:
        """Stop everything under way."""
        self._pool.close()
        self._client.close()

    def _read(self, file: ArchiveFile, read: Callable[[ArchiveFile, ArchiveContent], Result]) -> Result:
        response = self._get(file, file.path)
        message = self._checksum(file)
        sha256 = hashlib.sha256(response.body).hexdigest()
        if sha256 != message:
            raise ChecksumMismatch(
                f"{file.name} of the archive does not agree with its checksum", response.request, 200
            )
        try:
            return read(file, ArchiveContent(_unzip(response.body), sha256, _modified(response)))
        except (ValueError, NotImplementedError, zipfile.BadZipFile, zlib.error, EOFError) as error:
            reason = f"{file.name} of the archive is not what it should be: {error}"
            raise BadFile(reason, response.request, 200, headers=response.headers) from error

    def _checksum(self, file: ArchiveFile) -> str:
        response = self._get(file, file.path + ".CHECKSUM")
        found = _SIDECAR.fullmatch(response.body.decode("utf-8", "replace"))
        if found is None or found[2] != file.name:
            raise UnexpectedAnswer(f"the checksum of {file.name} in the archive is not one", response.request, 200)
        return found[1]

    def _get(self, file: ArchiveFile, path: str) -> HttpResponse:
        if self._circuit_open is not None:
            raise NotAsked(f"not asked, because of this: {self._circuit_open}", self._client.url + path)
        self._count(file.series)
        try:
            response = self._client.get(path, {})
        except RefusedRequest as error:
            if error.status == 404:
                raise NoFile(f"the archive has no {path.rpartition('/')[2]}", error.request, 404) from None
            raise
        self.venue = "sandbox" if response.from_sandbox else "binance"
        return response


def _unzip(body: bytes) -> bytes:
    with zipfile.ZipFile(io.BytesIO(body)) as folder:
        names = folder.namelist()
        if len(names) != 1:
            raise ValueError(f"it holds {len(names)} files and not one")
        return folder.read(names[0])


def _modified(response: HttpResponse) -> int | None:
    try:
        return int(parsedate_to_datetime(response.headers["Last-Modified"]).timestamp()) * SECOND
    except (KeyError, ValueError):
        return None
