"""The way to a host: proxies and certificates of the environment are used, and passwords of ``~/.netrc`` are not."""

from __future__ import annotations

import ssl
from base64 import b64encode
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import trustme

from binance_assets.exchange.errors import NoConnection
from binance_assets.exchange.http import PAGE_BYTES, HttpClient, HttpResponse
from binance_assets_tests.support.hostile_server import HostileServer, answer, hostile_server

PATH = "/api/v3/klines?symbol=BTCUSDT&startTime=0"
VARIABLES = ("http_proxy", "https_proxy", "all_proxy", "no_proxy", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE", "NETRC")
LOGIN = b"Proxy-Authorization: Basic " + b64encode(b"user:secret")


@pytest.fixture(autouse=True)
def bare_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in VARIABLES:
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)


@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    return trustme.CA()


@pytest.fixture
def bundle(authority: trustme.CA, tmp_path: Path) -> Path:
    authority.cert_pem.write_to_path(tmp_path / "authority.pem")
    return tmp_path / "authority.pem"


@pytest.fixture(scope="module")
def secure(authority: trustme.CA) -> Iterator[HostileServer]:
    """A server whose certificate only the private authority proves; it is also a proxy to ``exchange.invalid``."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("127.0.0.1", "exchange.invalid").configure_cert(context)
    with hostile_server(lambda path: answer(b"[]"), tls=context) as server:
        yield server


@contextmanager
def client_of(url: str) -> Iterator[HttpClient]:
    client = HttpClient(url, 1, connect_timeout=30, read_timeout=30)
    yield client
    client.close()


def call(client: HttpClient) -> HttpResponse:
    return client.get("/api/v3/klines", {"symbol": "BTCUSDT", "startTime": 0}, PAGE_BYTES)


def https(server: HostileServer) -> str:
    return server.url.replace("http://", "https://")


@pytest.mark.parametrize("variable", ["REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE"])
def test_a_server_is_proved_by_the_certificates_of_the_environment(
    secure: HostileServer, bundle: Path, monkeypatch: pytest.MonkeyPatch, variable: str
) -> None:
    monkeypatch.setenv(variable, str(bundle))
    with client_of(https(secure)) as client:
        before = secure.connections
        assert [call(client).body for _ in range(3)] == [b"[]"] * 3
        assert (secure.connections, secure.paths[-1]) == (before + 1, PATH)


def test_a_server_that_no_certificate_proves_is_sent_nothing(secure: HostileServer) -> None:
    before = len(secure.paths)
    with client_of(https(secure)) as client, pytest.raises(NoConnection, match="certificate verify failed"):
        call(client)
    assert len(secure.paths) == before


def test_certificates_that_do_not_exist_are_named(
    secure: HostileServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(tmp_path / "absent.pem"))
    with client_of(https(secure)) as client, pytest.raises(NoConnection, match=r"absent\.pem"):
        call(client)


def test_a_proxy_forwards_encrypted_calls_and_alone_gets_its_password(
    secure: HostileServer, bundle: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HTTPS_PROXY", secure.url.replace("://", "://user:secret@"))
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(bundle))
    secure.paths.clear()
    secure.heads.clear()
    with client_of("https://exchange.invalid") as client:
        assert [call(client).body for _ in range(2)] == [b"[]"] * 2
    assert secure.paths == ["exchange.invalid:443", PATH, PATH]
    assert [LOGIN in head for head in secure.heads] == [True, False, False]


def test_a_proxy_gets_the_whole_address_of_a_plain_call_and_its_password(monkeypatch: pytest.MonkeyPatch) -> None:
    with hostile_server(lambda path: answer(b"[]")) as proxy:
        monkeypatch.setenv("HTTP_PROXY", proxy.url.replace("://", "://user:secret@"))
        monkeypatch.setenv("http_proxy", proxy.url.replace("://", "://user:secret@"))
        with client_of("http://exchange.invalid") as client:
            response = call(client)
        assert proxy.paths == [response.request] == ["http://exchange.invalid" + PATH]
        assert LOGIN in proxy.heads[0]


def test_a_host_without_proxy_is_reached_directly(monkeypatch: pytest.MonkeyPatch) -> None:
    with hostile_server(lambda path: answer(b"[]")) as server, hostile_server() as proxy:
        monkeypatch.setenv("http_proxy", proxy.url)
        monkeypatch.setenv("no_proxy", "127.0.0.1")
        with client_of(server.url) as client:
            assert call(client).request == server.url + PATH
        assert (server.paths, proxy.paths) == ([PATH], [])


def test_a_password_of_the_netrc_file_is_not_sent(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "netrc").write_text("machine 127.0.0.1\nlogin user\npassword secret\n")
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    with hostile_server(lambda path: answer(b"[]")) as server, client_of(server.url) as client:
        call(client)
        assert b"authorization" not in server.heads[0].lower()


@pytest.mark.parametrize("path", ["/data/币安/a.zip", "/a b", "/a%2Fb", "/x_y-z.1~/é"])
def test_a_path_is_percent_encoded(path: str) -> None:
    with hostile_server(lambda path: answer(b"[]")) as server, client_of(server.url) as client:
        request = client.get(path, {"symbol": "币安 &=/"}, PAGE_BYTES).request
        assert server.url + server.paths[0] == request
        assert request.isascii()
        assert " " not in request
