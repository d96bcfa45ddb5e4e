"""A server of a few files on the loopback interface, in place of the public archive."""

from __future__ import annotations

import hashlib
import io
import zipfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from types import MappingProxyType
from urllib.parse import unquote


@contextmanager
def serving(files: Mapping[str, bytes], headers: Mapping[str, str] = MappingProxyType({})) -> Iterator[str]:
    """Serve ``files`` by path, and 404 for any other path, each with ``headers``; yield the URL of the host."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            body = files.get(unquote(self.path))
            self.send_response(404 if body is None else 200)
            self.send_header("Content-Length", str(len(body or b"")))
            for name, value in headers.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(body or b"")

        def log_message(self, format: str, *args: object) -> None:
            """Write nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def zip_of(members: Mapping[str, bytes]) -> bytes:
    """Return a zip of ``members``, by name; equal members give equal bytes, whenever they are packed."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in members.items():
            archive.writestr(zipfile.ZipInfo(name), content, zipfile.ZIP_DEFLATED)
    return buffer.getvalue()


def sidecar_of(body: bytes, name: str) -> bytes:
    """Return the ``.CHECKSUM`` file that Binance publishes for a zip."""
    return f"{hashlib.sha256(body).hexdigest()}  {name}".encode()
