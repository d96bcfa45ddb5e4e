"""Sizes and deadlines: no response fills the memory, and none is waited for without an end."""

from __future__ import annotations

import contextlib
import gzip
import threading
import time
import zlib
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from hypothesis import given
from hypothesis import strategies as st

from binance_assets.exchange.archive_files import ArchiveFile, most_csv_bytes
from binance_assets.exchange.errors import (
    Banned,
    BrokenResponse,
    Cancelled,
    ExchangeError,
    ServerError,
    TimedOut,
    TooLarge,
    UnexpectedResponse,
)
from binance_assets.exchange.http import (
    CHECKSUM_BYTES,
    INFO_BYTES,
    PAGE_BYTES,
    SLOW_BYTES,
    TIME_BYTES,
    HttpClient,
    _BadEncoding,
    _decoded,
    longest_call,
)
from binance_assets.exchange.rate_limit.ledger import Ledger, RateLimitGroup
from binance_assets.exchange.retry import Retrier
from binance_assets.exchange.session import Exchange
from binance_assets.exchange.transport import TooManyBytes
from binance_assets.model.intervals import INTERVALS
from binance_assets.model.markets import SPOT
from binance_assets.model.series import parse_series
from binance_assets.settings import Settings
from binance_assets_tests.support.hostile_server import (
    HostileServer,
    Pieces,
    answer,
    drip,
    hostile_server,
    market_script,
)
from binance_assets_tests.support.memory import most_memory

OK = b"HTTP/1.1 200 OK\r\n"
BLOCK = b" " * 100_000
PACKED = gzip.compress(b"[]", mtime=0)


@pytest.fixture(scope="module")
def server() -> Iterator[HostileServer]:
    with hostile_server() as running:
        yield running


def client_of(server: HostileServer, seconds: float = 30) -> HttpClient:
    return HttpClient(server.url, 1, connect_timeout=seconds, read_timeout=seconds)


def blocks(head: bytes, count: int, block: bytes = BLOCK) -> Iterator[bytes]:
    yield head
    for _ in range(count):
        yield block


def chunks(count: int, chunk: bytes) -> Iterator[bytes]:
    return blocks(OK + b"Transfer-Encoding: chunked\r\n\r\n", count, chunk)


ENDLESS: dict[str, Callable[[], Pieces]] = {
    "without a length": lambda: blocks(OK + b"\r\n", 6_000),
    "with a length": lambda: blocks(OK + b"Content-Length: 600000000\r\n\r\n", 6_000),
    "with a length of 5,000 digits": lambda: blocks(OK + b"Content-Length: " + b"9" * 4_000 + b"\r\n\r\n", 6_000),
    "in chunks": lambda: chunks(6_000, b"186a0\r\n" + BLOCK + b"\r\n"),
    "in a chunk of -1 bytes": lambda: blocks(OK + b"Transfer-Encoding: chunked\r\n\r\n-1\r\n", 6_000),
    "in chunk extensions": lambda: chunks(20_000, b"1;" + b"x" * 30_000 + b"\r\na\r\n"),
    "in the trailers": lambda: blocks(OK + b"Transfer-Encoding: chunked\r\n\r\n0\r\n", 20_000, b"X: " + b"x" * 30_000),
    "in headers": lambda: blocks(OK, 20_000, b"X: " + b"x" * 60_000 + b"\r\n"),
    "in responses before the response": lambda: blocks(
        b"", 20_000, b"HTTP/1.1 100 X\r\nX: " + BLOCK[:50_000] + b"\r\n\r\n"
    ),
}


@pytest.mark.parametrize("name", ENDLESS)
def test_an_endless_response_is_refused_after_a_few_megabytes(server: HostileServer, name: str) -> None:
    client, before = client_of(server), server.sent
    server.script = lambda path: ENDLESS[name]()
    with most_memory(15_000_000), pytest.raises(ExchangeError):
        client.get("/klines", {}, PAGE_BYTES)
    client.close()
    assert server.sent - before < 40_000_000  # what the buffers of both sockets hold is sent, but not read


def test_the_error_of_a_large_response_says_how_large_it_may_be(server: HostileServer) -> None:
    client = client_of(server)
    for most_bytes in (CHECKSUM_BYTES, TIME_BYTES, PAGE_BYTES):
        for script in (ENDLESS["without a length"], ENDLESS["with a length"], ENDLESS["in chunks"]):
            server.script = lambda path, script=script: script()
            with pytest.raises(TooLarge, match=f"larger than {most_bytes:,} bytes"):
                client.get("/klines", {}, most_bytes)
    assert TooLarge.policy.attempts <= 2
    client.close()


@pytest.mark.parametrize("most_bytes", [CHECKSUM_BYTES, TIME_BYTES, PAGE_BYTES])
@pytest.mark.parametrize("encoding", ["identity", "gzip", "deflate"])
def test_a_body_of_exactly_the_most_bytes_is_accepted(server: HostileServer, most_bytes: int, encoding: str) -> None:
    encoders: dict[str, Callable[[bytes], bytes]] = {"gzip": gzip.compress, "deflate": zlib.compress}
    client, encode = client_of(server), encoders.get(encoding, bytes)
    for size, is_accepted in ((most_bytes, True), (most_bytes + 1, False)):
        server.script = lambda path, size=size: answer(encode(b" " * size), f"Content-Encoding: {encoding}")
        if is_accepted:
            assert len(client.get("/klines", {}, most_bytes).body) == size
        else:
            with pytest.raises(TooLarge):
                client.get("/klines", {}, most_bytes)
    client.close()


@pytest.mark.parametrize(
    ("encoding", "body"),
    [
        ("gzip", b""),
        ("gzip", b"plain"),
        ("gzip", PACKED[:-1]),
        ("gzip", PACKED + PACKED),
        ("deflate", b"\x78\x9c"),
        ("gzip, gzip", gzip.compress(PACKED, mtime=0)),
        ("br", b"[]"),
        ("zstd", b"[]"),
        ("\x1b[31m", b"[]"),
    ],
)
def test_a_body_with_another_encoding_is_refused(server: HostileServer, encoding: str, body: bytes) -> None:
    client = client_of(server)
    server.script = lambda path: answer(body, f"Content-Encoding: {encoding}")
    if body:
        with pytest.raises(UnexpectedResponse, match="cannot be decoded"):
            client.get("/klines", {}, PAGE_BYTES)
    else:
        assert client.get("/klines", {}, PAGE_BYTES).body == b""
    client.close()


def test_a_bare_deflate_body_is_decoded() -> None:
    encoder = zlib.compressobj(wbits=-zlib.MAX_WBITS)
    assert _decoded(encoder.compress(b"[1, 2]") + encoder.flush(), "deflate", 100) == b"[1, 2]"


def test_a_small_body_that_decodes_to_much_costs_little_memory(server: HostileServer) -> None:
    inner = gzip.compress(b"\0" * 50_000_000)
    client = client_of(server)
    twice = gzip.compress(inner)
    with most_memory(15_000_000):
        for body, encoding in ((inner, "gzip"), (twice, "gzip, gzip")):
            server.script = lambda path, body=body, encoding=encoding: answer(body, f"Content-Encoding: {encoding}")
            with pytest.raises(UnexpectedResponse):
                client.get("/klines", {}, PAGE_BYTES)
    client.close()


@given(st.binary(min_size=1, max_size=300), st.sampled_from(["gzip", "deflate"]), st.integers(0, 400))
def test_arbitrary_encoded_bytes_are_decoded_within_the_bound_or_refused(
    body: bytes, encoding: str, most_bytes: int
) -> None:
    for candidate in (body, gzip.compress(body), zlib.compress(body)):
        with contextlib.suppress(TooManyBytes, _BadEncoding):
            assert len(_decoded(candidate, encoding, most_bytes)) <= most_bytes


# -- the deadline ----------------------------------------------------------------------------------------------------

READ_TIMEOUT = 1.0
DRIP = b"Content-Length: 5000\r\n\r\n"
SLOW: dict[str, tuple[bytes, bytes, type[ExchangeError]]] = {
    "status-line": (b"", b"H", TimedOut),
    "headers": (OK, b"X: a\r\n", TimedOut),
    "continues": (b"", b"HTTP/1.1 100 Continue\r\n\r\n", TimedOut),
    "body": (OK + DRIP, b"x", TimedOut),
    "endless": (OK + b"\r\n", b"x", TimedOut),
    "chunk-size": (OK + b"Transfer-Encoding: chunked\r\n\r\n", b"0", TimedOut),
    "chunks": (OK + b"Transfer-Encoding: chunked\r\n\r\n", b"1\r\na\r\n", TimedOut),
    "trailers": (OK + b"Transfer-Encoding: chunked\r\n\r\n0\r\n", b"X: a\r\n", TimedOut),
    # The status of an error says enough, whatever its body does.
    "banned": (b"HTTP/1.1 418 Teapot\r\n" + DRIP, b"x", Banned),
    "failed": (b"HTTP/1.1 500 Bad\r\n" + DRIP, b"x", ServerError),
}


def test_a_response_that_trickles_in_ends_with_the_deadline_of_the_call(server: HostileServer) -> None:
    client = HttpClient(server.url, len(SLOW), connect_timeout=READ_TIMEOUT, read_timeout=READ_TIMEOUT)

    def script(path: str) -> Pieces:
        start, pieces, _ = SLOW[path.strip("/")]
        return drip(start, pieces, 0.05, server.wait)

    def error_of(name: str) -> ExchangeError:
        with pytest.raises(ExchangeError) as caught:
            client.get(f"/{name}", {}, TIME_BYTES)
        return caught.value

    server.script = script
    began = time.monotonic()
    with ThreadPoolExecutor(len(SLOW)) as threads:
        errors = dict(zip(SLOW, threads.map(error_of, SLOW), strict=True))
    assert 2.5 < time.monotonic() - began < 100
    assert {name: type(error) for name, error in errors.items()} == {name: kind for name, (*_, kind) in SLOW.items()}
    for name, (*_, kind) in SLOW.items():
        if kind is TimedOut:
            assert "not complete after 3 s" in str(errors[name])
            assert "BINANCE_ASSETS_READ_TIMEOUT" in str(errors[name])
    client.close()


def test_silence_ends_with_the_read_timeout(server: HostileServer) -> None:
    client = client_of(server, 0.5)
    for start in (b"", OK + b"Content-Length: 50\r\n\r\n"):
        server.script = lambda path, start=start: drip(start, b"x", 60, server.wait)
        with pytest.raises(TimedOut, match=r"no data for 0.5 s; .*BINANCE_ASSETS_READ_TIMEOUT"):
            client.get("/klines", {}, PAGE_BYTES)
    client.close()


def test_a_connection_is_used_again_after_slow_responses(server: HostileServer) -> None:
    client, before = client_of(server, READ_TIMEOUT * 2), server.connections
    whole = answer(b"[]")

    def slow(path: str) -> Pieces:
        server.wait(READ_TIMEOUT * 0.4)
        return whole

    server.script = slow
    for _ in range(4):
        assert client.get("/time", {}, TIME_BYTES).body == b"[]"
    assert server.connections - before == 1
    client.close()


def test_a_broken_response_does_not_leave_its_rest_to_the_next_one(server: HostileServer) -> None:
    client = client_of(server)
    server.script = lambda path: answer(b"x" * (TIME_BYTES + 1))
    with pytest.raises(TooLarge):
        client.get("/time", {}, TIME_BYTES)
    server.script = lambda path: iter([OK + b"Content-Length: 9\r\n\r\n[]"])
    with pytest.raises(BrokenResponse):
        client.get("/time", {}, TIME_BYTES)
    server.script = lambda path: answer(b"[]")
    assert client.get("/time", {}, TIME_BYTES).body == b"[]"
    client.close()


# -- the bounds themselves -------------------------------------------------------------------------------------------


def test_the_deadline_of_a_call_follows_the_timeouts_and_what_it_may_be_on_a_slow_network() -> None:
    assert longest_call(0, 5, 15) == 35
    assert longest_call(CHECKSUM_BYTES, 5, 15) == 35
    assert longest_call(2_000_000, 5, 15) == 65
    assert longest_call(SLOW_BYTES, 5, 15) == 335
    assert longest_call(0, 5, 60) == 125


def test_no_bound_of_a_size_makes_a_deadline_longer_than_six_minutes() -> None:
    largest = ArchiveFile.named(parse_series("spot/BTCUSDT/1s"), "BTCUSDT-1s-2024-01.zip")
    for most_bytes in (INFO_BYTES, most_csv_bytes(largest)):
        assert longest_call(most_bytes, 5, 15) == longest_call(SLOW_BYTES, 5, 15) < 360


def test_a_page_and_the_time_end_after_two_read_timeouts_and_exchange_info_has_longer(tmp_path: Path) -> None:
    info, page = "/api/v3/exchangeInfo", "/api/v3/klines"

    def script(path: str) -> Pieces:
        if "/time" in path:
            return answer(b'{"serverTime": 1704067200000}')
        return drip(OK + DRIP, b" ", 0.05, running.wait)

    with hostile_server(script) as running:
        values = {"spot_url": running.url, "ledger": tmp_path / "ledger.sqlite", "connect_timeout": 0.7}
        once = Retrier(lambda seconds, stop: True)
        exchange = Exchange(SPOT, Settings.model_validate({**values, "read_timeout": 0.7}), retrier=once)
        exchange.now()
        reader = exchange._start_reading_limit()
        with pytest.raises(Cancelled) as caught:
            exchange.symbols.check_exists(parse_series("spot/BTCUSDT/1m"))
        assert "not complete after 2.1 s" in str(caught.value.__cause__)
        assert reader is not None
        assert reader.is_alive()
        exchange.close()
        assert {urlsplit(path).path for path in running.paths} >= {info, page}


def test_the_weight_of_a_call_counts_as_lost_only_after_the_longest_deadline(tmp_path: Path) -> None:
    with hostile_server(market_script(lambda path: answer(b"[]"))) as server:
        values = {"spot_url": server.url, "ledger": tmp_path / "ledger.sqlite"}
        exchange = Exchange(SPOT, Settings.model_validate(values))
        exchange.now()
        exchange._budget.acquire(20, threading.Event())
        with Ledger(tmp_path / "ledger.sqlite").transaction(RateLimitGroup(server.url[7:], "spot")) as transaction:
            (lease,) = transaction.other_leases(None)
        assert lease.expires - exchange.now() > 300_000
        exchange.close()


@pytest.mark.parametrize("interval", [interval.name for interval in INTERVALS])
def test_the_largest_file_has_room_for_every_candle_and_little_more(interval: str) -> None:
    series = parse_series(f"spot/BTCUSDT/{interval}")
    longest_row = len(
        "1704067200000000," + "123456789.12345678," * 4 + "123456789012345.12345678," * 4 + "123456789,0\n"
    )
    for name in (f"BTCUSDT-{interval}-2024-01.zip", f"BTCUSDT-{interval}-2024-01-01.zip"):
        file = ArchiveFile.named(series, name)
        candles = max(1, (file.end - file.start) // series.interval.step)
        assert candles * longest_row < most_csv_bytes(file) < 70_000 + candles * 600
