"""A lake in a bucket, on a real S3 server: races, kills, lost answers, refused access, and the number of requests."""

from __future__ import annotations

import http.server
import re
import signal
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from importlib import import_module
from pathlib import Path

import duckdb
import polars as pl
import pytest

import binance_assets as ba
from binance_assets.candles.content_hash import content_hash
from binance_assets.model.bucket_paths import BucketPath
from binance_assets.model.partitions import partitions_between
from binance_assets.model.series import parse_series
from binance_assets.model.timestamps import to_date
from binance_assets.storage import bucket_client
from binance_assets.storage.lake import Lake, LakeError
from binance_assets.storage.store import StoreError
from binance_assets.storage.stores import store_at
from binance_assets_tests.support.environment import CHECKOUT
from binance_assets_tests.support.lakes import keys, read, stored
from binance_assets_tests.support.results import result_of, write_as_layout_1
from binance_assets_tests.support.s3_proxy import S3Proxy, s3_proxy
from binance_assets_tests.support.s3_server import KEY, READER_KEY, READER_SECRET, SECRET, S3Server

pytestmark = pytest.mark.services

MINUTES = parse_series("spot/BTCUSDT/1m")
HOURS = parse_series("spot/BTCUSDT/1h")

WRITER = """
import os, sys
from binance_assets.model.series import parse_series
from binance_assets.storage.lake import Lake
from binance_assets_tests.support.results import result_of

series = parse_series("spot/BTCUSDT/1h")
lake = Lake(sys.argv[1])
lake.prepare("sandbox")
lake.write(series, result_of(series, sys.argv[2]))
"""


@pytest.fixture
def root(s3_server: S3Server) -> BucketPath:
    return s3_server.new_lake()


@pytest.fixture
def lake(s3_server: S3Server, root: BucketPath) -> Lake:
    lake = Lake(root, s3_server.environment())
    lake.prepare("sandbox")
    return lake


@pytest.fixture
def proxy(s3_server: S3Server) -> Iterator[S3Proxy]:
    with s3_proxy(s3_server.port) as proxy:
        yield proxy


@pytest.fixture
def through(s3_server: S3Server, proxy: S3Proxy, lake: Lake) -> Lake:
    """The same lake, reached through the proxy and prepared."""
    through = Lake(lake.root, s3_server.environment(endpoint=proxy.endpoint))
    through.prepare("sandbox")
    proxy.taken()
    return through


def month_of(lake: Lake) -> list[tuple[str, str]]:
    """Return key and content hash of each partition, computed from the candles themselves."""
    contents = lake.read_each(HOURS, list(lake.stored_partitions(HOURS)))
    return [(content.partition.key, content_hash(pl.DataFrame(content.candles))) for content in contents]


# Writers at the same time ------------------------------------------------------------------------------------------


def test_of_eight_that_prepare_a_lake_for_two_venues_those_of_one_venue_succeed(s3_server: S3Server) -> None:
    for _ in range(30):
        root, start = s3_server.new_lake(), threading.Barrier(8)

        def prepare(number: int, root: BucketPath = root, start: threading.Barrier = start) -> str | None:
            own, venue = Lake(root, s3_server.environment()), ("sandbox", "binance")[number % 2]
            start.wait()
            with suppress(LakeError):
                own.prepare(venue)
                return venue
            return None

        with ThreadPoolExecutor(8) as pool:
            venues = Counter(pool.map(prepare, range(8)))
        ((winner, count),) = [(venue, count) for venue, count in venues.items() if venue]
        assert count == 4
        assert Lake(root, s3_server.environment()).venue == winner


def test_eight_writers_of_different_days_of_a_file_lose_none(s3_server: S3Server, lake: Lake) -> None:
    days = [f"2024-03-{day:02}" for day in range(1, 25)]
    start = threading.Barrier(8)

    def write(number: int) -> None:
        own = Lake(lake.root, s3_server.environment())
        start.wait()
        for day in days[number::8]:
            own.write(HOURS, result_of(HOURS, day, rows=1 + int(day[-2:]) % 24, verdict="outage"))

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(write, range(8)))
    expected = [result_of(HOURS, day, rows=1 + int(day[-2:]) % 24, verdict="outage") for day in days]
    assert month_of(lake) == [(result.partition.key, content_hash(result.candles)) for result in expected]


def test_first_candles_that_several_remember_at_once_are_all_remembered(s3_server: S3Server, lake: Lake) -> None:
    names = [parse_series(f"spot/S{number}USDT/1h") for number in range(24)]

    def remember(number: int) -> None:
        own = Lake(lake.root, s3_server.environment())
        for name in names[number::8]:
            own.remember_first_open(name, 1_700_000_000_000 + number)

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(remember, range(8)))
    assert lake.first_opens() == {str(name): 1_700_000_000_000 + index % 8 for index, name in enumerate(names)}


def test_a_better_partition_that_appears_between_read_and_put_is_kept(
    lake: Lake, through: Lake, proxy: S3Proxy
) -> None:
    better, worse = result_of(HOURS, "2024-01-01"), result_of(HOURS, "2024-01-01", 20, "outage")
    other = result_of(HOURS, "2024-01-02")
    through.write(HOURS, result_of(HOURS, "2024-01-03"))
    proxy.before = (r"PUT .*2024\.parquet", lambda: lake.write_all(HOURS, [better, other]))
    written = through.write(HOURS, worse)
    assert proxy.before is None
    assert (written.verdict, written.declined and written.declined.verdict) == ("complete", "outage")
    assert read(lake, HOURS, "2024-01-01").equals(better.candles)
    assert keys(lake, HOURS) == ["2024-01-01", "2024-01-02", "2024-01-03"]


def test_a_reader_whose_file_is_replaced_between_its_requests_gets_one_version(
    lake: Lake, through: Lake, proxy: S3Proxy
) -> None:
    lake.write(HOURS, result_of(HOURS, "2024-01-01", 20, "outage"))
    proxy.before = (r"GET .*2024\.parquet", lambda: lake.write(HOURS, result_of(HOURS, "2024-01-01")))
    (content,) = through.read_each(HOURS, [result_of(HOURS, "2024-01-01").partition])
    assert proxy.before is None
    assert content.stored is not None
    assert pl.DataFrame(content.candles).height == content.stored.rows == 24


def test_a_file_that_changes_all_the_time_is_an_error_and_not_a_wait_without_end(
    lake: Lake, through: Lake, proxy: S3Proxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("binance_assets.storage.bucket_store._MOST_ATTEMPTS", 3)
    days = iter(range(2, 20))

    def overtake() -> None:
        lake.write(HOURS, result_of(HOURS, f"2024-01-{next(days):02}"))
        proxy.before = (r"PUT .*2024\.parquet", overtake)

    overtake()
    with pytest.raises(LakeError, match=r"keep replacing the files in .*; let them finish"):
        through.write(HOURS, result_of(HOURS, "2024-01-01"))
    assert "2024-01-01" not in keys(lake, HOURS)


# Kills and lost answers --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("passed_on", [0, 1_000_000], ids=["before the PUT", "within the PUT"])
def test_a_writer_that_is_killed_leaves_the_file_as_it_was_and_nobody_waits_for_it(
    s3_server: S3Server, lake: Lake, proxy: S3Proxy, passed_on: int
) -> None:
    lake.write(HOURS, result_of(HOURS, "2024-01-01"))
    before = month_of(lake)
    proxy.hold = (r"PUT .*2024\.parquet", passed_on)
    command = [sys.executable, "-c", WRITER, str(lake.root), "2024-01-02"]
    environment = s3_server.environment(endpoint=proxy.endpoint) | {"PYTHONPATH": str(CHECKOUT)}
    with subprocess.Popen(command, env=environment, cwd=CHECKOUT) as process:
        assert proxy.held.wait(60)
        process.send_signal(signal.SIGKILL)
        assert process.wait(60) == -signal.SIGKILL
    assert month_of(lake) == before
    lake.write(HOURS, result_of(HOURS, "2024-01-03"))
    assert keys(lake, HOURS) == ["2024-01-01", "2024-01-03"]
    assert subprocess.run(command, env=environment, cwd=CHECKOUT, timeout=60, check=False).returncode == 0
    assert keys(lake, HOURS) == ["2024-01-01", "2024-01-02", "2024-01-03"]


def test_a_put_whose_answer_is_lost_is_repeated_without_a_loss(lake: Lake, through: Lake, proxy: S3Proxy) -> None:
    lake.write(HOURS, result_of(HOURS, "2024-01-01"))
    proxy.lose = r"PUT .*2024\.parquet"
    written = through.write(HOURS, result_of(HOURS, "2024-01-02"))
    assert proxy.lose is None
    assert written.declined is None
    assert written.replaced is None
    assert keys(lake, HOURS) == ["2024-01-01", "2024-01-02"]


def test_a_lake_whose_marker_is_written_and_the_answer_lost_is_prepared(
    s3_server: S3Server, root: BucketPath, proxy: S3Proxy
) -> None:
    proxy.lose = r"PUT .*lake\.json"
    Lake(root, s3_server.environment(endpoint=proxy.endpoint)).prepare("sandbox", {"spot": "example.com"})
    assert proxy.lose is None
    assert Lake(root, s3_server.environment()).venue == "sandbox"


# Missing and forbidden ---------------------------------------------------------------------------------------------

USES: list[Callable[[Lake], object]] = [
    lambda lake: lake.venue,
    lambda lake: lake.exists,
    lambda lake: lake.series(),
    lambda lake: lake.first_opens(),
    lambda lake: lake.stored(HOURS, result_of(HOURS, "2024-01-01").partition),
    lambda lake: lake.missing(HOURS, [result_of(HOURS, "2024-01-01").partition]),
    lambda lake: lake.partitions(HOURS),
    lambda lake: lake.damaged(HOURS),
    lambda lake: lake.file_index(HOURS.market, [HOURS]),
    lambda lake: list(lake.read_each(HOURS, [result_of(HOURS, "2024-01-01").partition])),
    lambda lake: lake.scan(HOURS, [result_of(HOURS, "2024-01-01").partition]),
    lambda lake: lake.prepare("sandbox"),
    lambda lake: lake.write(HOURS, result_of(HOURS, "2024-01-01")),
    lambda lake: lake.remember_first_open(HOURS, 1_700_000_000_000),
    lambda lake: lake.write_coverage(HOURS.market, pl.DataFrame({"a": [1]})),
]
"""Everything that asks the bucket for something."""


@pytest.fixture
def quickly(monkeypatch: pytest.MonkeyPatch) -> None:
    """Bounds of time that a test can wait for."""
    monkeypatch.setattr(bucket_client, "_REQUEST_SECONDS", 0.3)
    monkeypatch.setattr(bucket_client, "_RETRIES", 1)


def assert_each_use_fails(lake: Lake, reason: str) -> None:
    for number, use in enumerate(USES):
        with pytest.raises(LakeError) as raised:
            use(lake)
        message = str(raised.value)
        assert re.search(reason, message), (number, message)
        assert "\n" not in message
        assert len(message) < 500
        for secret in (SECRET, READER_SECRET, "wrong-word", KEY, "Signature="):
            assert secret not in message


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        (
            {"AWS_ACCESS_KEY_ID": "wrong-word"},
            r"refuses access to the bucket 'candles' \(403 InvalidAccessKeyId\); check",
        ),
        ({"AWS_SECRET_ACCESS_KEY": "wrong-word"}, r"\(403 SignatureDoesNotMatch\); check the variables AWS_"),
        ({"AWS_SKIP_SIGNATURE": "true"}, r"\(403 AccessDenied\); check the variables AWS_"),
        (
            {"AWS_ENDPOINT_URL": "http://127.0.0.1:1"},
            r"http://127.0.0.1:1 cannot be reached \(the connection is refused\)",
        ),
        ({"AWS_ENDPOINT_URL": "http://no-such-host.invalid"}, "cannot be reached"),
        ({"AWS_ALLOW_HTTP": "false"}, "is not encrypted; use https://, or set AWS_ALLOW_HTTP=true"),
        ({"AWS_ENDPOINT_URL": "ftp://example.com"}, "AWS_ENDPOINT_URL must be http"),
        ({"AWS_ENDPOINT_URL": f"http://{KEY}:{SECRET}@127.0.0.1"}, "AWS_ENDPOINT_URL must be http"),
        ({"AWS_SECRET_ACCESS_KEY": ""}, "AWS_SECRET_ACCESS_KEY is set; set both"),
        ({"AWS_ACCESS_KEY_ID": "", "AWS_SECRET_ACCESS_KEY": "", "AWS_PROFILE": "me"}, "profiles are not read"),
    ],
    ids=lambda value: "-".join(value) if isinstance(value, dict) else "",
)
@pytest.mark.usefixtures("quickly")
def test_a_lake_that_cannot_be_used_is_never_taken_for_an_empty_one(
    s3_server: S3Server, lake: Lake, changes: dict[str, str], reason: str
) -> None:
    assert_each_use_fails(Lake(lake.root, s3_server.environment() | changes), reason)


def test_a_bucket_that_does_not_exist_is_not_an_empty_lake(s3_server: S3Server) -> None:
    lake = Lake(BucketPath("no-such-bucket", "lake"), s3_server.environment())
    assert_each_use_fails(lake, "has no bucket 'no-such-bucket'; create it, or correct BINANCE_ASSETS_LAKE")


@contextmanager
def answering(status: int, body: bytes = b"", headers: Mapping[str, str] | None = None) -> Iterator[str]:
    """Yield the URL of a server that gives the same answer to each request; 0 as the status for none."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def answer(self) -> None:
            self.rfile.read(int(self.headers.get("Content-Length") or 0))
            if status == 0:
                released.wait(60)
                return
            self.send_response(status)
            for name, value in {"Content-Length": str(len(body)), **(headers or {})}.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(body)

        do_GET = do_PUT = do_POST = do_DELETE = do_HEAD = answer

        def log_message(self, *arguments: object) -> None:
            pass

    released = threading.Event()
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        released.set()
        server.shutdown()
        thread.join(60)


@pytest.mark.parametrize(
    ("status", "body", "reason"),
    [
        (404, b"", r"does not respond like an S3 server \(404\)"),
        (404, b"<html>no such page</html>", r"does not respond like an S3 server \(404\)"),
        (403, b"blocked by a proxy", r"refuses access to the bucket 'candles' \(403\)"),
        (500, b"<Error><Code>InternalError</Code></Error>", r"has failed \(500 InternalError, after 1 retries\)"),
        (503, b"<Error><Code>SlowDown</Code></Error>", r"has failed \(503 SlowDown, after 1 retries\)"),
        (0, b"", "cannot be reached"),
    ],
    ids=["404", "404 of a page", "403", "500", "503", "silence"],
)
@pytest.mark.usefixtures("quickly")
def test_only_a_server_of_s3_can_say_that_there_is_no_file(
    s3_server: S3Server, root: BucketPath, status: int, body: bytes, reason: str
) -> None:
    with answering(status, body) as endpoint:
        assert_each_use_fails(Lake(root, s3_server.environment(endpoint=endpoint)), reason)


def test_a_server_that_ignores_conditions_is_refused_before_anything_is_fetched(root: BucketPath) -> None:
    with answering(200, headers={"ETag": '"1"', "Last-Modified": "Mon, 01 Jan 2024 00:00:00 GMT"}) as endpoint:
        environment = {"AWS_ENDPOINT_URL": endpoint, "AWS_ALLOW_HTTP": "true", "AWS_SKIP_SIGNATURE": "true"}
        with pytest.raises(StoreError, match="ignores the conditions If-None-Match and If-Match"):
            store_at(root, environment).check_writable()


def test_who_may_only_read_reads_and_is_refused_before_anything_is_fetched(s3_server: S3Server, lake: Lake) -> None:
    lake.write(HOURS, result_of(HOURS, "2024-01-01"))
    reader = Lake(lake.root, s3_server.environment(READER_KEY, READER_SECRET))
    assert keys(reader, HOURS) == ["2024-01-01"]
    assert read(reader, HOURS, "2024-01-01").height == 24
    for use in (lambda: reader.prepare("sandbox"), lambda: reader.write(HOURS, result_of(HOURS, "2024-01-02"))):
        with pytest.raises(LakeError, match=r"cannot be written: .* \(403 AccessDenied\)"):
            use()


@pytest.mark.usefixtures("quickly")
def test_a_server_that_dies_between_two_requests_ends_the_read(lake: Lake, through: Lake, proxy: S3Proxy) -> None:
    lake.write_all(HOURS, [result_of(HOURS, f"{year}-01-01") for year in range(2020, 2025)])
    contents = through.read_each(HOURS, list(lake.stored_partitions(HOURS)))
    assert next(contents).partition.key == "2020-01-01"
    proxy.dead = True
    with pytest.raises(LakeError, match="cannot be reached"):
        next(contents)


# What it takes -----------------------------------------------------------------------------------------------------


def test_a_year_of_1m_takes_few_requests(lake: Lake, through: Lake, proxy: S3Proxy) -> None:
    days = partitions_between(to_date(1_704_067_200_000), to_date(1_735_689_600_000), MINUTES.interval)
    through.write_all(MINUTES, [result_of(MINUTES, day.key) for day in days])
    assert kinds(proxy) == {"GET": 1, "LIST": 12, "PUT": 12}  # the marker, and per file a listing and a PUT

    assert len(through.stored_partitions(MINUTES)) == 366
    assert kinds(proxy) == {"LIST": 1, "GET": 12}
    assert through.file_index(MINUTES.market, [MINUTES]).height == 12
    assert kinds(proxy) == {"LIST": 1, "GET": 13}  # with that of the index, which is not worth writing

    assert through.missing(MINUTES, days) == ()
    assert kinds(proxy) == {"LIST": 1, "GET": 12}
    assert sum(pl.DataFrame(part.candles).height for part in through.read_each(MINUTES, days)) == 366 * 1_440
    assert kinds(proxy) == {"LIST": 1, "GET": 12}

    table = through.scan(MINUTES, days, check=False)
    assert kinds(proxy) == {"LIST": 1, "GET": 12}
    assert table.select(pl.len(), pl.col("open_time").n_unique()).collect().row(0) == (366 * 1_440, 366 * 1_440)
    counted = kinds(proxy)
    assert counted.total() <= 60, counted  # what Polars asks for

    through.write(MINUTES, result_of(MINUTES, "2024-05-05"))
    assert kinds(proxy) == {"LIST": 1, "GET": 2, "PUT": 1}


def kinds(proxy: S3Proxy) -> Counter[str]:
    """Return the number of requests since the last call, by kind."""
    found = proxy.taken()
    return Counter("LIST" if "list-type=2" in request else request.split()[0] for request in found)


def test_what_was_read_of_files_is_remembered_until_they_are_replaced(
    lake: Lake, through: Lake, proxy: S3Proxy
) -> None:
    lake.write_all(MINUTES, [result_of(MINUTES, f"2024-{month:02}-01", 1, "outage") for month in range(1, 13)])
    lake.remember_files(MINUTES.market, lake.file_index(MINUTES.market, [MINUTES]))
    assert through.file_index(MINUTES.market, [MINUTES]).height == 12
    assert kinds(proxy) == {"LIST": 1, "GET": 1}
    lake.write(MINUTES, result_of(MINUTES, "2024-05-02"))
    index = through.file_index(MINUTES.market, [MINUTES])
    assert kinds(proxy) == {"LIST": 1, "GET": 2}
    assert index.filter(pl.col("file") == "2024-05.parquet")["partitions"].list.len().item() == 2


# Other readers, damage, and layout 1 -------------------------------------------------------------------------------


def test_the_layout_is_that_of_a_folder_to_the_letter(s3_server: S3Server, lake: Lake, tmp_path: Path) -> None:
    local = Lake(tmp_path / "lake")
    local.prepare("sandbox")
    for some in (local, lake):
        some.write_all(MINUTES, [result_of(MINUTES, "2024-01-01"), result_of(MINUTES, "2024-02-01")])
        some.remember_first_open(MINUTES, 1_502_942_400_000)
        some.write_coverage(MINUTES.market, pl.DataFrame({"a": [1]}))
        some.remember_files(MINUTES.market, some.file_index(MINUTES.market, [MINUTES]))
    names = {str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*") if path.is_file()}
    assert in_bucket(s3_server, lake) == {name for name in names if not name.endswith(".lock")}
    assert s3_server.read(lake.root / "market=spot/symbol=BTCUSDT/interval=1m/2024-01.parquet")


def in_bucket(server: S3Server, lake: Lake) -> set[str]:
    """Return the names of the objects of a lake, as if its name were ``lake``."""
    name = lake.root.name
    return {
        re.sub(rf"^some/{name}(?=[./])", "lake", key) for key in server.all_keys() if re.match(rf"some/{name}[./]", key)
    }


def test_polars_and_duckdb_read_the_bucket_by_themselves(
    s3_server: S3Server, lake: Lake, monkeypatch: pytest.MonkeyPatch
) -> None:
    lake.write_all(HOURS, [result_of(HOURS, "2023-12-31"), result_of(HOURS, "2024-01-01")])
    options = {name.lower(): value for name, value in s3_server.environment().items()}
    table = pl.scan_parquet(f"{lake.root}/", storage_options=options, credential_provider=None)
    assert table.select(pl.len(), pl.col("symbol").first()).collect().row(0) == (48, "BTCUSDT")

    for name, value in s3_server.environment().items():
        monkeypatch.setenv(name, value)
    files = import_module("obstore.fsspec").FsspecStore("s3")
    connection = duckdb.connect()
    connection.register_filesystem(files)
    paths = [f"s3://{path}" for path in files.find(str(lake.root))]
    query = f"SELECT count(*), min(symbol) FROM read_parquet({paths}, hive_partitioning=true)"
    assert connection.sql(query).fetchall() == [(48, "BTCUSDT")]


def test_the_python_api_reads_and_exports_a_lake_in_a_bucket(
    s3_server: S3Server, lake: Lake, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lake.write_all(HOURS, [result_of(HOURS, "2023-12-31"), result_of(HOURS, "2024-01-01")])
    monkeypatch.chdir(tmp_path)
    lines = {**s3_server.environment(), "BINANCE_ASSETS_LAKE": str(lake.root)}.items()
    (tmp_path / ".env").write_text("".join(f"{name}={value}\n" for name, value in lines))
    assert ba.load("spot/BTCUSDT/1h").height == 48
    assert ba.load("spot/BTCUSDT/1h", lake=str(lake.root), every="1d").height == 2
    assert ba.panel(["spot/BTCUSDT/1h"]).height == 48
    assert ba.coverage()["partitions"].to_list() == [2]
    exported = ba.export("spot/BTCUSDT/1h", "parquet", tmp_path / "out")
    assert sum(entry.rows for entry in exported.series) == 48
    (tmp_path / ".env").write_text("".join(f"{name}={value}\n" for name, value in lines).replace(SECRET, "wrong-word"))
    with pytest.raises(ba.LakeError, match="403 SignatureDoesNotMatch") as raised:
        ba.load("spot/BTCUSDT/1h")
    assert "wrong-word" not in str(raised.value)


@pytest.mark.usefixtures("quickly")
def test_polars_does_not_wait_without_end_for_a_server_that_is_silent(
    s3_server: S3Server, lake: Lake, through: Lake, proxy: S3Proxy
) -> None:
    lake.write(HOURS, result_of(HOURS, "2024-01-01"))
    with answering(0) as endpoint:
        path = lake.path(HOURS, result_of(HOURS, "2024-01-01").partition)
        table = store_at(lake.root, s3_server.environment(endpoint=endpoint)).scan(path)
        with pytest.raises((TimeoutError, pl.exceptions.ComputeError), match="timed out") as raised:
            table.collect()
    assert SECRET not in str(raised.value)


@pytest.mark.usefixtures("quickly")
def test_a_server_that_dies_while_polars_reads_ends_the_python_api_in_one_line(
    lake: Lake, through: Lake, proxy: S3Proxy
) -> None:
    lake.write(HOURS, result_of(HOURS, "2024-01-01"))
    left = 2  # what the lake has, and where: then Polars reads

    def count_down() -> None:
        nonlocal left
        left, proxy.dead = left - 1, left == 0
        proxy.before = None if proxy.dead else (r"(GET|HEAD) .*2024\.parquet", count_down)

    proxy.before = (r"(GET|HEAD) .*2024\.parquet", count_down)
    message = rf"^the lake {lake.root} cannot be read: {proxy.endpoint} cannot be reached \([^\n]*$"
    with pytest.raises(LakeError, match=message):
        ba.load("spot/BTCUSDT/1h", check=False, lake=through)
    assert proxy.dead


FORK = """
import os, sys
from binance_assets.storage.lake import Lake, LakeError

assert Lake(sys.argv[1]).venue == "sandbox"
if os.fork() == 0:
    try:
        Lake(sys.argv[1]).venue
    except LakeError as error:
        print(error, flush=True)
    os._exit(0)
os.wait()
assert Lake(sys.argv[1]).venue == "sandbox"
"""


def test_a_fork_of_a_process_that_used_the_bucket_is_refused_and_does_not_hang(s3_server: S3Server, lake: Lake) -> None:
    environment = s3_server.environment() | {"PYTHONPATH": str(CHECKOUT)}
    words = [sys.executable, "-c", FORK, str(lake.root)]
    result = subprocess.run(words, env=environment, capture_output=True, text=True, timeout=60, check=True)
    assert result.stdout.endswith("start processes with the method spawn or forkserver\n")
    assert result.stdout.count("\n") == 1


def test_a_damaged_file_counts_as_absent_and_is_copied_before_it_is_replaced(
    s3_server: S3Server, lake: Lake, caplog: pytest.LogCaptureFixture
) -> None:
    lake.write(HOURS, result_of(HOURS, "2024-01-01"))
    path = lake.path(HOURS, result_of(HOURS, "2024-01-01").partition)
    for content in (b"", b"not Parquet", s3_server.read(path)[:-100]):
        s3_server.write(path, content)
        assert keys(lake, HOURS) == []
        assert lake.damaged(HOURS) == [f"{path} cannot be read: its end is not that of a Parquet file"]
        lake.write(HOURS, result_of(HOURS, "2024-01-02"))
        assert keys(lake, HOURS) == ["2024-01-02"]
        copy = caplog.messages[-1].rpartition("a copy is kept as ")[2]
        assert copy.startswith(f"{lake.root}.state/damaged/market=spot/")
        assert s3_server.read(BucketPath.parse(copy)) == content


def test_an_object_that_is_too_large_is_not_read_and_counts_as_damaged(
    s3_server: S3Server, lake: Lake, monkeypatch: pytest.MonkeyPatch
) -> None:
    written = lake.write(HOURS, result_of(HOURS, "2024-01-01"))
    for module in ("span_folder", "bucket_store"):
        monkeypatch.setattr(f"binance_assets.storage.{module}.MOST_BYTES", written.size - 1)
    reason = f"{written.path} cannot be read: it is larger than {written.size - 1:,} bytes"
    assert keys(lake, HOURS) == []
    assert lake.damaged(HOURS) == [reason]
    (content,) = lake.read_each(HOURS, [written_day := result_of(HOURS, "2024-01-01").partition])
    assert (content.partition, content.candles) == (written_day, reason)
    with pytest.raises(LakeError, match=r"cannot be copied before it is replaced: it is larger than .*; remove it$"):
        lake.write(HOURS, result_of(HOURS, "2024-01-02"))
    monkeypatch.undo()
    assert keys(lake, HOURS) == ["2024-01-01"]


def test_remembered_files_and_first_candles_that_are_too_large_are_replaced(
    s3_server: S3Server, lake: Lake, monkeypatch: pytest.MonkeyPatch
) -> None:
    state = lake.root.with_name(f"{lake.root.name}.state")
    monkeypatch.setattr("binance_assets.storage.state._MOST_FIRST_CANDLES", 100)
    s3_server.write(state / "first_candles.json", b" " * 200)
    lake.remember_first_open(HOURS, 1_502_942_400_000)
    assert lake.first_opens() == {"spot/BTCUSDT/1h": 1_502_942_400_000}
    s3_server.write(state / "files" / "spot.parquet", b" " * 100_000)
    lake.write(HOURS, result_of(HOURS, "2024-01-01"))
    with monkeypatch.context() as patch:
        patch.setattr("binance_assets.storage.bucket_store.MOST_BYTES", 50_000)
        lake.remember_files(HOURS.market, lake.file_index(HOURS.market, [HOURS]))
    assert len(s3_server.read(state / "files" / "spot.parquet")) < 50_000


def test_a_changed_byte_of_the_candles_is_found(s3_server: S3Server, lake: Lake) -> None:
    lake.write_all(MINUTES, [result_of(MINUTES, f"2024-01-{day:02}") for day in range(1, 29)])
    path = lake.path(MINUTES, result_of(MINUTES, "2024-01-01").partition)
    content = bytearray(s3_server.read(path))
    content[1000] ^= 0xFF
    s3_server.write(path, bytes(content))
    with pytest.raises(LakeError, match=r"2024-01-0\d: it"):
        lake.scan(MINUTES, list(lake.stored_partitions(MINUTES)))


def test_a_lake_of_layout_1_that_was_copied_into_a_bucket_is_read_and_migrated(
    s3_server: S3Server, lake: Lake, tmp_path: Path
) -> None:
    days = [result_of(HOURS, f"2024-01-0{day}") for day in (1, 2, 3)]
    for result in days:
        path = write_as_layout_1(tmp_path / "lake", HOURS, result)
        target = lake.folder(HOURS) / path.name
        s3_server.write(target, path.read_bytes())
    assert keys(lake, HOURS) == ["2024-01-01", "2024-01-02", "2024-01-03"]
    lake.write(HOURS, result_of(HOURS, "2024-01-04"))
    assert lake.outdated_spans(HOURS) == []
    assert {key.rpartition("/")[2] for key in in_bucket(s3_server, lake)} == {"2024.parquet", "lake.json"}
    for result in days:
        assert read(lake, HOURS, result.partition.key).equals(result.candles)
        assert stored(lake, HOURS, result.partition.key).content_hash == content_hash(result.candles)
