"""The public archive of one market: files fetched in parallel, verified by their SHA-256, unpacked in memory.

The archive costs no request weight. An error of a file becomes one of the named errors and takes the place of that
file only.
"""

from __future__ import annotations

import hashlib
import io
import re
import threading
import zipfile
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future
from copy import copy
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, Final, TypeVar

from binance_assets.exchange.archive_files import ArchiveFile, most_csv_bytes
from binance_assets.exchange.circuit import Circuit
from binance_assets.exchange.clock import http_date
from binance_assets.exchange.errors import (
    BadFile,
    ChecksumMismatch,
    ExchangeError,
    NoFile,
    RefusedRequest,
    UndocumentedStatus,
    UnexpectedContent,
    UnexpectedResponse,
)
from binance_assets.exchange.http import CHECKSUM_BYTES, PAGE_BYTES, HttpClient, HttpResponse, reading
from binance_assets.exchange.retry import Retrier
from binance_assets.exchange.workers import WorkerPool
from binance_assets.model.markets import SANDBOX_HEADER, Market
from binance_assets.model.outside import printable, reason_of
from binance_assets.model.series import Series
from binance_assets.settings import Settings
from binance_assets.waiting import request as request_in_flight

# Three times as fast as zlib with a file of the archive, and the same interface. There is no wheel for some platforms.
_inflate: Any
try:
    from isal import isal_zlib as _inflate
except ImportError:
    _inflate = zlib

Result = TypeVar("Result")

# Binance writes two spaces before the name; the asterisk is what sha256sum writes for a file read as binary.
_SIDECAR: Final = re.compile(r"([0-9A-Fa-f]{64}) [ *]?(\S+)\s*")

# Binance deflates. Of the other methods, zipfile cannot bound how much a few bytes become.
_METHODS: Final = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)

_UTF8_NAME: Final = 0x800  # the flag of a member whose name is UTF-8

# A month of 1m is two megabytes as a zip and four as a table. The files of a year fill the network; with four more, the
# memory that each thread keeps for itself adds up to 60 MB.
_MOST_WORKERS: Final = 12
# Files that are requested before it is known whether they are needed, and the fewest for which they are. They arrive
# together with the reference data, and keep the cores busy until the others do.
_EARLY: Final = 4
_FEWEST_FOR_EARLY: Final = 2 * _EARLY
# Files that are unzipped and parsed at once. That takes a core each, and some 30 MB for a month of 1m.
_MOST_READ: Final = 2


@dataclass(frozen=True, slots=True)
class ArchiveContent:
    """The content of a file whose zip matches its checksum.

    Attributes:
        text: The CSV in the zip.
        sha256: SHA-256 of the zip, in hex.
        modified: When the zip was last modified according to the archive, ms UTC; None if it does not say.
    """

    text: bytes
    sha256: str
    modified: int | None


class Archive:
    """The files of one market; nothing is sent before the first call.

    Args:
        market: The market.
        settings: Host, timeouts, number of workers.
        on_request: Called before each request for a file, with the series of the file.
        retrier: How to retry failed requests; None waits in real time between two attempts.

    Attributes:
        market: The market.
        venue: Whose candles the files hold: ``binance`` or ``sandbox``; None before the first response.
    """

    def __init__(
        self,
        market: Market,
        settings: Settings,
        on_request: Callable[[Series], None],
        retrier: Retrier | None = None,
    ) -> None:
        self.market = market
        self._most_workers = min(_MOST_WORKERS, settings.max_workers)
        # Each worker may have two requests in flight: the file and its checksum.
        self._has_connections_for_both = settings.max_workers >= 2 * self._most_workers
        connections = min(2 * self._most_workers, settings.max_workers)
        self._client = HttpClient(settings.archive_url, connections, settings.connect_timeout, settings.read_timeout)
        self._last_was_found = True
        self._pool = WorkerPool(warmup=0, ahead_per_worker=1, early=min(_EARLY, self._most_workers))
        self._on_request = on_request
        self._retrier = retrier or Retrier()
        self.venue: str | None = None
        self._reading = threading.Semaphore(_MOST_READ)
        self._circuit = Circuit(failures=5, probes=2)  # there is another source, so it gives up soon

    @property
    def workers(self) -> int:
        """Files that may be in flight at once; 1 before the first file."""
        return self._pool.workers

    def start_early(
        self, files: Sequence[ArchiveFile], read: Callable[[ArchiveFile, ArchiveContent], Result]
    ) -> dict[ArchiveFile, Future[Result]]:
        """Request the first of ``files``, if they are many, before it is known whether :meth:`stream` will be called.

        A run does so once, so that at most a few requests are in vain.

        Args:
            files: What will probably be fetched, with checksums.
            read: As for :meth:`stream`.

        Returns:
            What was started, for :meth:`stream`.
        """
        if len(files) < _FEWEST_FOR_EARLY:
            return {}
        return self._pool.start_early(files, lambda file: self._with_retries(lambda: self._read(file, read, True)))

    def stream(
        self,
        files: Sequence[ArchiveFile],
        read: Callable[[ArchiveFile, ArchiveContent], Result],
        with_checksums: bool = False,
        started: Mapping[ArchiveFile, Future[Result]] = MappingProxyType({}),
    ) -> Iterator[tuple[ArchiveFile, Result | ExchangeError]]:
        """Fetch ``files`` in parallel and yield each with what ``read`` returned for it, in their order.

        Memory holds only the files in flight and those waiting to be used.

        Args:
            files: What to fetch.
            read: Reads the content of a file, in a worker; a ``ValueError`` means that the content is not valid.
            with_checksums: Whether to request the checksum of a file together with it. That saves a round trip, and
                costs a request for each file that does not exist.
            started: Files that are under way already, from :meth:`start_early`.

        Yields:
            A file, and its result or the error that took its place.

        Raises:
            Cancelled: The archive was closed.
        """
        return self._map_concurrently(files, lambda file: self._read(file, read, with_checksums), started)

    def checksums(self, files: Sequence[ArchiveFile]) -> Iterator[tuple[ArchiveFile, str | ExchangeError]]:
        """Yield each of ``files`` with the SHA-256, in hex, that the archive names for it now, or an error.

        Raises:
            Cancelled: The archive was closed.
        """
        return self._map_concurrently(files, self._checksum)

    def existence(self, files: Sequence[ArchiveFile]) -> Iterator[tuple[ArchiveFile, bool | ExchangeError]]:
        """Yield each of ``files`` with whether the archive has it, or with the error that left this unknown.

        The checksum is requested, because it is small. What it contains does not matter, nor whether it can be read: a
        200 shows that there is a file, and only a 404 that there is none.

        Raises:
            Cancelled: The archive was closed.
        """
        return self._map_concurrently(files, self._exists)

    def _map_concurrently(
        self,
        files: Sequence[ArchiveFile],
        request: Callable[[ArchiveFile], Result],
        started: Mapping[ArchiveFile, Future[Result]] = MappingProxyType({}),
    ) -> Iterator[tuple[ArchiveFile, Result | ExchangeError]]:
        def request_with_retries(file: ArchiveFile) -> Result:
            return self._with_retries(lambda: request(file))

        return self._pool.stream(files, request_with_retries, lambda: self._most_workers, started)

    def _with_retries(self, attempt: Callable[[], Result]) -> Result:
        return self._circuit.call(lambda: self._retrier.call_with_retries(attempt, self._pool.stop))

    def now(self) -> int:
        """Return the time of the archive's host, ms UTC, to the second.

        Raises:
            ExchangeError: The request failed.
            Cancelled: The archive was closed.
        """
        return self._pool.run(lambda: self._with_retries(self._read_time))

    def _read_time(self) -> int:
        self._circuit.check()
        headers: Mapping[str, str]
        status = 200
        try:
            with request_in_flight():
                headers = self._client.get("/", {}, PAGE_BYTES).headers
        # Also a response: only its headers are needed. A 403 is a failure, as it is for a file.
        except (RefusedRequest, UndocumentedStatus) as error:
            headers, status = error.headers, error.status or status
        time = http_date(headers.get("Date"))
        if time is None:
            remedy = "check the network, proxies and BINANCE_ARCHIVE_URL"
            reason = f"the archive's response has no valid Date header; {remedy}"
            raise UnexpectedResponse(reason, self._client.url, status, headers=headers)
        self.venue = "sandbox" if SANDBOX_HEADER in headers else "binance"
        return time

    def close(self) -> None:
        """Stop all work: waits end, and requests in flight are abandoned."""
        self._pool.close()
        self._client.close()

    def _read(
        self, file: ArchiveFile, read: Callable[[ArchiveFile, ArchiveContent], Result], with_checksum: bool
    ) -> Result:
        response, expected = self._file_and_checksum(file, with_checksum)
        sha256 = hashlib.sha256(response.body).hexdigest()
        if sha256 != expected:
            reason = f"SHA-256 mismatch: {file.name} from the archive does not match its .CHECKSUM file"
            raise ChecksumMismatch(reason, response.request, 200)

        def bad_file(cause: str) -> ExchangeError:
            reason = f"{file.name} from the archive is not valid: {cause}"
            return BadFile(reason, response.request, 200, headers=response.headers)

        with self._reading, reading(bad_file):
            text = unzip(response.body, file.name.removesuffix(".zip") + ".csv", most_csv_bytes(file))
            return read(file, ArchiveContent(text, sha256, _modified(response)))

    def _file_and_checksum(self, file: ArchiveFile, at_once: bool) -> tuple[HttpResponse, str]:
        """Return a file with the SHA-256 that it must have; request both at once, unless the last file was missing.

        A host that fails, or that lacks files, is not asked for a checksum before the file is there.
        """

        def get() -> HttpResponse:
            try:
                response = self._get(file, file.path, most_csv_bytes(file))
            except ExchangeError:
                self._last_was_found = False
                raise
            self._last_was_found = True
            return response

        if at_once and self._has_connections_for_both and self._last_was_found:
            return self._pool.run_both(get, lambda: self._checksum(file))
        return get(), self._checksum(file)

    def _checksum(self, file: ArchiveFile) -> str:
        response = self._get(file, file.path + ".CHECKSUM", CHECKSUM_BYTES)
        match = _SIDECAR.fullmatch(response.body.decode("utf-8", "replace"))
        if match is None or match[2] != file.name:
            reason = f"{file.name}.CHECKSUM from the archive does not hold the SHA-256 of that file"
            if match is not None:
                reason += f" but that of {printable(match[2])!a}"
            kind = UnexpectedResponse if match is None else UnexpectedContent
            raise kind(reason, response.request, 200, headers=response.headers)
        return match[1].lower()

    def _exists(self, file: ArchiveFile) -> bool:
        try:
            self._get(file, file.path + ".CHECKSUM", CHECKSUM_BYTES)
        except NoFile:
            return False
        except ExchangeError as error:
            if error.status != 200:
                raise
        return True

    def _get(self, file: ArchiveFile, path: str, most_bytes: int) -> HttpResponse:
        self._circuit.check()
        self._on_request(file.series)
        try:
            with request_in_flight():
                response = self._client.get(path, {}, most_bytes, slow_bytes=most_bytes)
        except (RefusedRequest, UndocumentedStatus) as error:
            if error.status == 404:
                raise NoFile(f"the archive has no {path.rpartition('/')[2]}", error.request, 404) from None
            raise
        self.venue = "sandbox" if response.from_sandbox else "binance"
        return response


def unzip(body: bytes, name: str, most: int) -> bytes:
    """Return the content of a zip that holds the file ``name`` and nothing else.

    Args:
        body: The zip.
        name: Name of the file.
        most: How many bytes the file may have. No more than that is unpacked, whatever the zip says of its size.

    Raises:
        ValueError: The bytes are not such a zip.
    """
    try:
        with zipfile.ZipFile(io.BytesIO(body)) as zipped:
            members = zipped.infolist()
            names = [_member_name(member) for member in members]
            if names == [name]:
                return _content(zipped, members[0], most)
    except _Refused:
        raise
    except Exception as error:  # zipfile and the decompressors raise a dozen kinds, and document few of them
        raise ValueError(f"the zip cannot be read: {reason_of(error)}") from error
    if len(names) != 1:
        raise ValueError(f"the zip holds {len(names)} files instead of 1")
    raise ValueError(f"the zip holds {printable(ascii(names[0]))} instead of {name}")


class _Refused(ValueError):
    """A zip that could be read, but is not."""


def _content(zipped: zipfile.ZipFile, member: zipfile.ZipInfo, most: int) -> bytes:
    """Return the content of a member of at most ``most`` bytes.

    Raises:
        _Refused: It is larger, or compressed in a way that the archive does not use.
    """
    if member.compress_type not in _METHODS:
        raise _Refused(f"the zip cannot be read: its compression method {member.compress_type} is not deflate")
    text = _unpacked(zipped, member, most + 1) if member.file_size <= most else b""  # or one byte too far
    if max(member.file_size, len(text)) > most:
        raise _Refused(f"the file in the zip is larger than the {most:,} bytes that its candles can take")
    if len(text) != member.file_size:
        raise _Refused(f"the zip cannot be read: it names {member.file_size:,} bytes and holds {len(text):,}")
    return text


def _unpacked(zipped: zipfile.ZipFile, member: zipfile.ZipInfo, most: int) -> bytes:
    """Return the content of a member, of which no more than ``most`` bytes are unpacked.

    ``zipfile`` finds the packed bytes, with all its checks; it would unpack them with zlib.

    Raises:
        EOFError: They end early.
        zipfile.BadZipFile: The content does not have the CRC-32 of the zip.
    """
    as_stored: Any = copy(member)
    as_stored.compress_type, as_stored.file_size, as_stored.CRC = zipfile.ZIP_STORED, member.compress_size, None
    with zipped.open(as_stored) as file:
        packed = file.read()
    if len(packed) < member.compress_size:
        raise EOFError("it ends early")
    text: bytes = packed[:most]
    if member.compress_type == zipfile.ZIP_DEFLATED:
        inflater = _inflate.decompressobj(wbits=-zlib.MAX_WBITS)
        text = inflater.decompress(packed, most)
        if not inflater.eof and len(text) < most:
            raise EOFError("it ends early")
    if len(text) < most and _inflate.crc32(text) != member.CRC:
        raise zipfile.BadZipFile(f"bad CRC-32 of {printable(ascii(member.filename))}")
    return text


def _member_name(member: zipfile.ZipInfo) -> str:
    """Return the name of a member; one without the UTF-8 flag that is UTF-8 all the same counts as UTF-8."""
    if member.flag_bits & _UTF8_NAME:
        return member.filename
    try:
        return member.filename.encode("cp437").decode()
    except UnicodeError:
        return member.filename


def _modified(response: HttpResponse) -> int | None:
    return http_date(response.headers.get("Last-Modified"))
