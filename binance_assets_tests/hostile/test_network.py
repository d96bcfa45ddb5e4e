"""The network border: whatever a server sends, a call ends with a value or with a named error."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from binance_assets.exchange.clock import http_date
from binance_assets.exchange.errors import (
    Banned,
    BrokenResponse,
    ExchangeError,
    NoConnection,
    RateLimited,
    RefusedRequest,
    ServerError,
    UndocumentedStatus,
    UnexpectedResponse,
    error_for_response,
)
from binance_assets.exchange.http import PAGE_BYTES, HttpClient, HttpResponse
from binance_assets.exchange.session import _reading, _server_time, _weight_limit
from binance_assets.exchange.symbols import read_first_open_time, read_symbols
from binance_assets.model.outside import printable
from binance_assets.model.timestamps import CANDLE_TIMES
from binance_assets_tests.support.hostile_server import HostileServer, answer, hostile_server

OK = b"HTTP/1.1 200 OK\r\n"
CHUNKED = OK + b"Transfer-Encoding: chunked\r\n\r\n"
NESTED = b"[" * 60_000
ODD_TEXT = "\x1b[31mred\r\nline\u202e" + "x" * 5_000


@pytest.fixture(scope="module")
def server() -> Iterator[HostileServer]:
    with hostile_server() as running:
        yield running


@pytest.fixture(scope="module")
def client(server: HostileServer) -> Iterator[HttpClient]:
    running = HttpClient(server.url, 1, connect_timeout=30, read_timeout=30)
    yield running
    running.close()


def call(client: HttpClient) -> HttpResponse:
    return client.get("/api/v3/klines", {"symbol": "BTCUSDT"}, PAGE_BYTES)


def assert_one_clear_line(error: ExchangeError) -> None:
    assert type(error) is not ExchangeError
    assert str(error) == printable(str(error), 1_000)


NOT_HTTP = {
    "garbage": b"\x00\xff\x1b[2J garbage\r\n\r\n",
    "a status that is no number": b"HTTP/1.1 2x0 OK\r\n\r\n",
    "a negative status": b"HTTP/1.1 -200 OK\r\n\r\n",
    "a status of five digits": b"HTTP/1.1 20000 OK\r\n\r\n",
    "a long header": OK + b"X: " + b"a" * 70_000 + b"\r\n\r\n",
    "many headers": OK + b"X: a\r\n" * 150 + b"\r\n",
    "a long status line": b"HTTP/1.1 200 " + b"O" * 70_000 + b"\r\n\r\n",
    "a chunk of -5 bytes": CHUNKED + b"-5\r\nhello\r\n0\r\n\r\n",
    "a chunk of -1 bytes": CHUNKED + b"-1\r\nhello\r\n0\r\n\r\n",
    "a chunk size that is no number": CHUNKED + b"zz\r\nhello\r\n0\r\n\r\n",
    "a chunk size of 5,000 digits": CHUNKED + b"f" * 5_000 + b"\r\nhello\r\n0\r\n\r\n",
    "a chunk size without an end": CHUNKED + b"0" * 70_000,
    "a body that ends early": OK + b"Content-Length: 50\r\n\r\nhello",
}


@pytest.mark.parametrize("name", NOT_HTTP)
def test_a_response_that_is_not_http_is_broken(server: HostileServer, client: HttpClient, name: str) -> None:
    server.script = lambda path: iter([NOT_HTTP[name]])
    with pytest.raises(BrokenResponse) as caught:
        call(client)
    assert_one_clear_line(caught.value)


def test_a_connection_that_closes_without_a_response_is_no_connection(
    server: HostileServer, client: HttpClient
) -> None:
    server.script = None
    with pytest.raises(NoConnection):
        call(client)


ERRORS: list[tuple[str, bytes, type[ExchangeError]]] = [
    ("400 Bad", NESTED, UndocumentedStatus),
    ("500 Bad", NESTED, ServerError),
    ("429 Many", b'{"code": -1003, "msg": ' + NESTED, RateLimited),
    ("418 Teapot", b"\xff\xfe", Banned),
    ("400 Bad", b'{"code": -1003, "msg": "Way too much"}', RateLimited),
    ("400 Bad", b'{"code": true, "msg": null}', UndocumentedStatus),
    ("400 Bad", b'{"code": 1e999, "msg": [1]}', UndocumentedStatus),
    ("400 Bad", b'{"code": ' + b"9" * 5_000 + b"}", UndocumentedStatus),
    ("400 Bad", b'{"code": 1' + b"0" * 30 + b"}", UndocumentedStatus),
    ("400 Bad", b'{"code": -1102.0, "msg": {"a": "\\u001b[31m"}}', RefusedRequest),
    ("400 Bad", json.dumps({"code": -1102, "msg": ODD_TEXT}).encode(), RefusedRequest),
    ("404 Not", b"<html>the proxy's page</html>", UndocumentedStatus),
    ("404 Not", b"", RefusedRequest),
    ("407 Proxy", b"<html>log in</html>", RefusedRequest),
    ("202 Accepted", b"", UndocumentedStatus),
    ("204 No Content", b"", UndocumentedStatus),
    ("302 Found", b"", UndocumentedStatus),
    ("599 Odd", b"", ServerError),
]


@pytest.mark.parametrize(("status", "body", "kind"), ERRORS)
def test_every_status_with_every_body_has_its_named_error(
    server: HostileServer, client: HttpClient, status: str, body: bytes, kind: type[ExchangeError]
) -> None:
    server.script = lambda path: answer(body, status=status)
    with pytest.raises(ExchangeError) as caught:
        call(client)
    assert type(caught.value) is kind
    assert_one_clear_line(caught.value)


@pytest.mark.parametrize("location", ["http://[", "//", "\x1b]0;title\x07" + "a" * 5_000, "http://elsewhere/"])
def test_a_redirect_is_not_followed_and_named_in_one_line(
    server: HostileServer, client: HttpClient, location: str
) -> None:
    server.script = lambda path: answer(b"moved", f"Location: {location}", status="302 Found")
    with pytest.raises(UndocumentedStatus, match="redirects to") as caught:
        call(client)
    assert_one_clear_line(caught.value)


def test_a_passing_status_is_retried_before_it_counts_as_permanent() -> None:
    assert 1 < UndocumentedStatus.policy.attempts < 10
    assert UndocumentedStatus.policy.ends_run


def test_cookies_are_not_kept(server: HostileServer, client: HttpClient) -> None:
    server.script = lambda path: answer(b"[]", "Set-Cookie: id=1; Path=/; Domain=127.0.0.1", "Set-Cookie: b=2")
    for _ in range(2):
        call(client)
    assert not any(b"cookie" in head.lower() for head in server.heads)


def test_a_connection_is_kept_alive_over_good_and_bad_responses() -> None:
    with hostile_server(lambda path: answer(b"[]")) as server:
        client = HttpClient(server.url, 1, connect_timeout=30, read_timeout=30)
        for body, status in ((b"[]", "200 OK"), (b'{"code": -1000}', "400 Bad"), (b"x" * 60_000, "503 Busy")) * 5:
            server.script = lambda path, body=body, status=status: answer(body, status=status)
            with_error = status != "200 OK"
            try:
                call(client)
                assert not with_error
            except ExchangeError:
                assert with_error
        assert (len(server.paths), server.connections) == (15, 1)
        client.close()


@pytest.mark.parametrize("user", ["http://user:secret@", "http://user:sec@ret@", "http://us/er:secret@"])
def test_a_proxy_that_cannot_be_reached_is_named_without_its_password(
    monkeypatch: pytest.MonkeyPatch, user: str
) -> None:
    with hostile_server() as server:
        dead = server.url.removeprefix("http://")
    for scheme in ("http", "https"):
        monkeypatch.setenv(f"{scheme}_proxy", f"{user}{dead}")
        client = HttpClient(f"{scheme}://exchange.invalid", 1, connect_timeout=30, read_timeout=30)
        with pytest.raises(NoConnection, match=rf"the proxy \.\.\.@{dead} cannot be reached") as caught:
            call(client)
        assert "secret" not in str(caught.value)
        client.close()


def test_a_proxy_is_used_and_its_refusal_is_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    with hostile_server(lambda path: answer(b"[]")) as proxy:
        monkeypatch.setenv("http_proxy", proxy.url)
        monkeypatch.setenv("https_proxy", proxy.url)
        client = HttpClient("http://exchange.invalid", 1, connect_timeout=30, read_timeout=30)
        assert call(client).body == b"[]"
        assert proxy.paths == ["http://exchange.invalid/api/v3/klines?symbol=BTCUSDT"]
        client.close()
        proxy.script = lambda path: answer(b"", status="407 Proxy Authentication Required")
        client = HttpClient("https://exchange.invalid", 1, connect_timeout=30, read_timeout=30)
        with pytest.raises(NoConnection, match=r"does not connect .*407"):
            call(client)
        client.close()


# -- arbitrary bytes, headers and JSON -------------------------------------------------------------------------------

header_values = st.one_of(
    st.text(st.characters(codec="latin-1", exclude_characters="\r\n"), max_size=40),
    st.sampled_from(["²", "-1", "1" * 5_000, "1" + "0" * 30, "0", "gzip", "chunked", "Thu, 01 Jan 1970 00:00:00 GMT"]),
)
header_names = st.sampled_from(
    [
        *("Content-Length", "Content-Encoding", "Transfer-Encoding", "Content-Type", "Retry-After", "Location"),
        *("Date", "Set-Cookie", "Connection", "X-MBX-USED-WEIGHT-1M", "X"),
    ]
)
json_values: st.SearchStrategy[Any] = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=20)),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=12,
)
on_shared_server = settings(suppress_health_check=[HealthCheck.function_scoped_fixture])


def assert_value_or_named_error(client: HttpClient) -> None:
    try:
        assert isinstance(call(client).body, bytes)
    except ExchangeError as error:
        assert_one_clear_line(error)


@on_shared_server
@given(response=st.binary(max_size=300))
def test_arbitrary_bytes_give_a_value_or_a_named_error(
    server: HostileServer, client: HttpClient, response: bytes
) -> None:
    server.script = lambda path: iter([response])
    assert_value_or_named_error(client)


@on_shared_server
@given(
    status=st.sampled_from(["200 OK", "202 X", "302 X", "400 X", "404 X", "418 X", "429 X", "503 X"]),
    headers=st.lists(st.tuples(header_names, header_values), max_size=6),
    body=st.binary(max_size=100),
)
def test_arbitrary_headers_give_a_value_or_a_named_error(
    server: HostileServer, client: HttpClient, status: str, headers: list[tuple[str, str]], body: bytes
) -> None:
    head = "".join(f"{name}: {value}\r\n" for name, value in headers).encode("utf-8")
    server.script = lambda path: iter([f"HTTP/1.1 {status}\r\n".encode(), head, b"\r\n", body])
    assert_value_or_named_error(client)


READERS = {
    "the server's time": _server_time,
    "the weight limit": _weight_limit,
    "symbols": read_symbols,
    "the first open time": read_first_open_time,
}
BODIES = {
    "the server's time": '{"serverTime": %s}',
    "the weight limit": '{"rateLimits": [{"rateLimitType": "REQUEST_WEIGHT", "interval": "MINUTE", "intervalNum": 1, '
    '"limit": %s}]}',
    "symbols": '{"symbols": [{"symbol": "A", "status": %s, "deliveryDate": %s}]}',
    "the first open time": '[[%s, "1", "1", "1", "1", "1", 1, "1", 1, "1", "1", "0"]]',
}
VALUES = ["1e999", "1e30", str(2**63 - 1), "9" * 5_000, "-1", "0", "null", "true", '"²"', '"x"', "[]", "{}", "NaN"]
VALUES.append("[" * 50_000)


def read(name: str, body: bytes) -> object:
    response = HttpResponse(body, {}, 0.0, 0.1, "http://exchange/path")
    with _reading(response, name):
        return READERS[name](response)
    raise AssertionError


@pytest.mark.parametrize("value", VALUES, ids=lambda value: value[:20])
@pytest.mark.parametrize("name", READERS)
def test_every_odd_value_in_a_response_gives_a_value_or_a_named_error(name: str, value: str) -> None:
    body = BODIES[name].replace("%s", value).encode()
    try:
        found = read(name, body)
    except UnexpectedResponse as error:
        assert_one_clear_line(error)
    else:
        assert name != "the server's time" or found[1] in CANDLE_TIMES  # type: ignore[index]
        assert name != "the first open time" or found in CANDLE_TIMES


@pytest.mark.parametrize("name", READERS)
def test_a_deep_body_is_an_unexpected_response(name: str) -> None:
    with pytest.raises(UnexpectedResponse):
        read(name, b"[" * 100_000)


@given(st.sampled_from(sorted(READERS)), json_values, st.sampled_from(["body", "entry"]))
def test_arbitrary_json_gives_a_value_or_a_named_error(name: str, value: object, place: str) -> None:
    text = json.dumps(value)
    body = text if place == "body" else BODIES[name].replace("%s", text)
    try:
        read(name, body.encode())
    except UnexpectedResponse as error:
        assert_one_clear_line(error)


@given(st.integers(100, 999), st.dictionaries(header_names, st.text(max_size=20), max_size=3), json_values)
def test_every_error_response_has_a_named_error(status: int, headers: dict[str, str], body: object) -> None:
    response = json.dumps({"code": body, "msg": body}) if status % 2 else json.dumps(body)
    assert_one_clear_line(error_for_response(status, headers, response.encode(), "http://exchange/path"))


@given(st.text(max_size=40) | st.sampled_from(["Mon, 01 Jan 99999 00:00:00 GMT", "1 Jan 1 0:0:0 +9999", "²"]))
def test_an_arbitrary_date_is_a_believable_time_or_none(text: str) -> None:
    time = http_date(text)
    assert time is None or time in CANDLE_TIMES
