"""A static copy of the sandbox's archive: the zips are built before the clock starts, and then only sent.

The sandbox builds a zip when it is requested, and that costs more than the client needs for it. So a measurement of
many series would be one of the sandbox.

Here belong the files on disk and the process that serves them. What does not belong here: what is measured (``run``).
"""

from __future__ import annotations

import multiprocessing
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Final

from binance_assets.exchange.archive_files import monthly_files
from binance_assets.model.markets import SANDBOX_HEADER
from binance_assets.model.partitions import Partition
from binance_assets.model.series import parse_series
from binance_assets.sandbox.archive import PublishedArchive, parse_path
from binance_assets.sandbox.sandbox_exchange import SandboxExchange, SandboxOptions

# A fork would copy the locks of threads and the memory of this process.
_PROCESSES: Final = multiprocessing.get_context("spawn")
_CHECKSUM: Final = ".CHECKSUM"


def build_archive(folder: Path, names: Sequence[str], partitions: Sequence[Partition], now: int) -> None:
    """Write the monthly files of series that hold ``partitions``, with their checksums; keep those that exist.

    Args:
        folder: Where they go, each under its path on the archive's host.
        names: The series, such as ``spot/BTCUSDT/1m``.
        partitions: The partitions of each series.
        now: The time as of which the files are published, ms UTC.
    """
    with ProcessPoolExecutor(mp_context=_PROCESSES) as processes:
        list(processes.map(partial(_build, folder, partitions, now), names))


def _build(folder: Path, partitions: Sequence[Partition], now: int, name: str) -> None:
    archive = PublishedArchive(SandboxExchange(SandboxOptions()), max_bytes=0)
    for file in monthly_files(parse_series(name), partitions, now):
        target, published = folder / file.path.lstrip("/"), parse_path(file.path)
        if published is not None and not target.exists():
            built = archive.build(published[0], (), now)
            target.parent.mkdir(parents=True, exist_ok=True)
            target.with_name(target.name + _CHECKSUM).write_bytes(built.checksum())
            target.write_bytes(built.body)


@contextmanager
def static_archive(folder: Path, rtt_ms: int) -> Iterator[str]:
    """Serve ``folder`` from a process of its own, with the given round trip; yield the address."""
    ours, theirs = _PROCESSES.Pipe()
    process = _PROCESSES.Process(target=_serve, args=(theirs, folder, rtt_ms), daemon=True)
    process.start()
    theirs.close()
    try:
        yield ours.recv()
    finally:
        process.terminate()
        process.join()


def _serve(connection: Connection, folder: Path, rtt_ms: int) -> None:
    root = folder.resolve()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        disable_nagle_algorithm = True

        def do_GET(self) -> None:
            time.sleep(rtt_ms / 1000)
            path = (root / self.path.lstrip("/")).resolve()
            found = path.is_relative_to(root) and path.is_file()
            body = path.read_bytes() if found else b"<Error><Code>NoSuchKey</Code></Error>"
            self.send_response(200 if found else 404)
            self.send_header("Content-Length", str(len(body)))
            self.send_header("Content-Type", "application/zip" if found else "application/xml")
            self.send_header(SANDBOX_HEADER, "1")
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *values: object) -> None:
            """Print nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    connection.send(f"http://127.0.0.1:{server.server_port}")
    server.serve_forever()
