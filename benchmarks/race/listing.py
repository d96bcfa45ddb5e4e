"""The listing of the archive's files: the page and the S3 XML that two of the tools read, for the files of a race.

It names only the files of one range, because one tool takes no range and downloads whatever is listed.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Final
from urllib.parse import parse_qs, urlsplit
from xml.sax.saxutils import escape

_HOST: Final = "127.0.0.1"
_XML: Final = (
    '<?xml version="1.0" encoding="UTF-8"?>\n<ListBucketResult xmlns="http://s3.amazonaws.com/doc/2006-03-01/">'
)


@dataclass
class Listing:
    """A running listing.

    Attributes:
        url: Its address: the XML of the bucket, and below ``/page`` the page that names the bucket's address.
        keys: The keys that it lists; they may change while it runs.
    """

    url: str = ""
    keys: list[str] = field(default_factory=list)

    def xml(self, prefix: str, marker: str) -> str:
        """Return the keys with ``prefix`` after ``marker``, as S3 lists them; a race has less than a page of them."""
        keys = sorted(key for key in self.keys if key.startswith(prefix) and key > marker)
        entries = "".join(f"<Contents><Key>{escape(key)}</Key></Contents>" for key in keys)
        return f"{_XML}<IsTruncated>false</IsTruncated>{entries}</ListBucketResult>"


@contextmanager
def running_listing(round_trip_ms: float) -> Iterator[Listing]:
    """Serve an empty listing in a thread."""
    listing = Listing()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            time.sleep(round_trip_ms / 1000)
            body = _response(listing, self.path).encode()
            self.send_response(200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *arguments: object) -> None:
            """Print nothing."""

    server = ThreadingHTTPServer((_HOST, 0), Handler)
    listing.url = f"http://{_HOST}:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, name="listing", daemon=True)
    thread.start()
    try:
        yield listing
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def _response(listing: Listing, path: str) -> str:
    parts = urlsplit(path)
    query = {name: values[0] for name, values in parse_qs(parts.query).items()}
    if parts.path == "/page/":
        return f"<html><script>var BUCKET_URL = '{listing.url}';</script></html>"
    return listing.xml(query.get("prefix", ""), query.get("marker", ""))
