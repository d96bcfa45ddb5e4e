"""The user interface as a door: what a page of another site, or a forged launch, can do through it.

Dagster's real web server, with the guard and the project's code location, and without a daemon: what is launched stays
queued.
"""

from __future__ import annotations

import json
import socket
from collections.abc import Iterator, Mapping
from contextlib import closing, suppress
from pathlib import Path
from subprocess import TimeoutExpired
from typing import Any

import dagster as dg
import pytest
import requests
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client.parser import text_string_to_metric_families
from starlette.types import Message, Scope
from websockets.exceptions import InvalidStatus
from websockets.sync.client import connect
from websockets.typing import Origin, Subprotocol

from binance_assets.definitions import build_defs
from binance_assets.model.exposition import CONTENT_TYPE
from binance_assets.model.series import parse_series
from binance_assets.orchestration.guard import Guard, refusal
from binance_assets.orchestration.keys import asset_key
from binance_assets.orchestration.partitions import range_tags
from binance_assets.sandbox import Sandbox
from binance_assets.settings import read_settings
from binance_assets_tests.support.dagster_dev import free_port
from binance_assets_tests.support.environment import Run, cli_environment, environment_of
from binance_assets_tests.support.file_server import serving
from binance_assets_tests.support.instances import execute, new_instance, universe_of
from binance_assets_tests.support.polling import until
from binance_assets_tests.support.warm_python import WarmProcess, WarmPython

pytestmark = pytest.mark.servers

BTCUSDT = parse_series("spot/BTCUSDT/1m")
ALLOWED = "ui.example.com"
EVIL = "evil.example"
LAUNCH = """
mutation($params: ExecutionParams!) { launchPipelineExecution(executionParams: $params) {
  __typename ... on RunConfigValidationInvalid { errors { message } } ... on PythonError { message } } }"""
PAUSE = "mutation { setAutoMaterializePaused(paused: %s) }"
PAUSED = "{ instance { autoMaterializePaused } }"
REPORT = "/report_asset_materialization/spot/BTCUSDT/1m"


class Door:
    """A guarded web server, and what can be sent to it.

    Attributes:
        port: Its port.
        url: Its address.
    """

    def __init__(self, port: int) -> None:
        self.port = port
        self.url = f"http://127.0.0.1:{port}"

    def query(self, query: str, **variables: Any) -> dict[str, Any]:
        """Send a query as the user interface does."""
        body = {"query": query, "variables": variables}
        response = requests.post(f"{self.url}/graphql", json=body, headers={"Origin": self.url}, timeout=60)
        assert response.status_code == 200, response.text
        return dict(response.json()["data"])

    def is_paused(self) -> bool:
        """Return the switch that the forged requests try to turn."""
        return bool(self.query(PAUSED)["instance"]["autoMaterializePaused"])

    def forge(self, content_type: str = "application/json", **headers: str) -> requests.Response:
        """Send a mutation as a page of another site does."""
        body = json.dumps({"query": PAUSE % "false"})
        return requests.post(
            f"{self.url}/graphql?query={PAUSE % 'false'}",
            body,
            headers={"Content-Type": content_type} | headers,
            timeout=60,
        )

    def subscribe(self, host: str, origin: str | None) -> str:
        """Open a WebSocket for subscriptions, and return the type of the first message."""
        raw = socket.create_connection(("127.0.0.1", self.port), timeout=60)
        with connect(
            f"ws://{host}/graphql", sock=raw, subprotocols=[Subprotocol("graphql-ws")], proxy=None,
            origin=None if origin is None else Origin(origin),
        ) as opened:  # fmt: skip
            opened.send('{"type": "connection_init"}')
            return str(json.loads(opened.recv(timeout=60))["type"])


@pytest.fixture(scope="module")
def door(shared_sandbox: Sandbox, tmp_path_factory: pytest.TempPathFactory, warm_python: WarmPython) -> Iterator[Door]:
    folder = tmp_path_factory.mktemp("door")
    (folder / "dagster.yaml").write_text("telemetry: {enabled: false}\n")
    (folder / "universe.yaml").write_text("series: [{market: spot, symbols: [BTCUSDT], intervals: [1m]}]\n")
    opened = Door(free_port())
    server = ["-m", "binance_assets.orchestration.user_interface", ALLOWED, "--"]
    options = ["-m", "binance_assets.definitions", "-h", "127.0.0.1", "-p", str(opened.port)]
    environment = cli_environment(shared_sandbox, folder) | {"DAGSTER_HOME": str(folder)}
    process = warm_python.start([*server, *options], folder, environment)
    try:
        until(240, lambda: is_up(process, opened))
        yield opened
    finally:
        process.send_signal(2)
        with suppress(TimeoutExpired):
            process.wait(60)
        process.kill()
        process.communicate(60)


def is_up(process: WarmProcess, opened: Door) -> bool:
    if process.poll() is not None:
        raise RuntimeError(f"the web server has ended: {process.communicate()}")
    with suppress(requests.ConnectionError):
        return requests.get(f"{opened.url}/server_info", timeout=60).ok
    return False


# What a browser sends for a page of another site.

SAME = "http://127.0.0.1:{port}"
FORGED: Mapping[str, tuple[str, Mapping[str, str]]] = {
    "plain text from another site": ("text/plain", {"Origin": f"http://{EVIL}"}),
    "plain text from this site": ("text/plain", {"Origin": SAME}),
    "plain text without origin": ("text/plain", {}),
    "plain text that names JSON": ("text/plain; application/json", {}),
    "plain text that ends like JSON": ("text/plain,application/json", {}),
    "a form": ("application/x-www-form-urlencoded", {}),
    "a form with files": ("multipart/form-data; boundary=x", {}),
    "a query as such": ("application/graphql", {}),
    "JSON from another site": ("application/json", {"Origin": f"https://{EVIL}"}),
    "JSON from a page of a file": ("application/json", {"Origin": "null"}),
    "JSON from another port": ("application/json", {"Origin": "http://127.0.0.1:1"}),
    "JSON from a name that ends like ours": ("application/json", {"Origin": "http://evil127.0.0.1:{port}"}),
    "JSON from a name that begins like ours": ("application/json", {"Origin": "http://127.0.0.1:{port}.evil.example"}),
    "JSON from an extension": ("application/json", {"Origin": "chrome-extension://127.0.0.1:{port}"}),
    "JSON to a rebound name": ("application/json", {"Host": f"{EVIL}:{{port}}", "Origin": f"http://{EVIL}:{{port}}"}),
    "JSON to a rebound name without origin": ("application/json", {"Host": f"{EVIL}:{{port}}"}),
    "JSON to a wrong port": ("application/json", {"Host": "127.0.0.1:1"}),
    "JSON to no port": ("application/json", {"Host": "localhost"}),
}


@pytest.mark.parametrize("kind", FORGED)
def test_a_forged_request_is_refused_in_one_line_and_changes_nothing(kind: str, door: Door) -> None:
    content_type, headers = FORGED[kind]
    response = door.forge(content_type, **{name: value.format(port=door.port) for name, value in headers.items()})
    assert response.status_code == 403
    assert response.text.startswith("refused: ")
    assert response.text.count("\n") == 1
    assert door.is_paused()


def test_a_get_executes_no_query(door: Door) -> None:
    response = requests.get(f"{door.url}/graphql?query={PAUSE % 'false'}", headers={"Accept": "image/png"}, timeout=60)
    assert response.status_code == 403
    page = requests.get(f"{door.url}/graphql?query={PAUSE % 'false'}", headers={"Accept": "text/html"}, timeout=60)
    assert (page.status_code, page.headers["Content-Type"].partition(";")[0]) == (200, "text/html")
    assert door.is_paused()


def test_a_report_of_a_materialization_cannot_be_forged(door: Door) -> None:
    for headers in (
        {},
        {"Content-Type": "text/plain"},
        {"Content-Type": "application/json", "Origin": f"http://{EVIL}"},
    ):
        assert requests.post(f"{door.url}{REPORT}", headers=headers, timeout=60).status_code == 403


def test_a_refused_host_is_not_shown_anything_either(door: Door) -> None:
    """A page whose name is rebound to this machine could read the response."""
    for path in ("/", "/server_info", "/graphql", "/logs/x", "/metrics"):
        response = requests.get(f"{door.url}{path}", headers={"Host": f"{EVIL}:{door.port}"}, timeout=60)
        assert response.status_code == 403
        assert "dagster" not in response.text


def test_a_monitor_on_this_machine_gets_the_metrics(door: Door) -> None:
    response = requests.get(f"{door.url}/metrics", timeout=60)
    assert (response.status_code, response.headers["Content-Type"]) == (200, CONTENT_TYPE)
    families = {family.name: family for family in text_string_to_metric_families(response.text)}
    up = {sample.labels["source"]: sample.value for sample in families["binance_assets_source_up"].samples}
    assert up == {"dagster": 1, "lake": 1, "ledger": 1}


def test_two_hosts_or_none_are_refused(door: Door) -> None:
    for hosts in ("", f"Host: 127.0.0.1:{door.port}\r\nHost: {EVIL}\r\n"):
        with closing(socket.create_connection(("127.0.0.1", door.port), timeout=60)) as raw:
            raw.sendall(f"GET /server_info HTTP/1.1\r\n{hosts}Connection: close\r\n\r\n".encode())
            assert raw.makefile("rb").readline().split()[1] in (b"400", b"403")


@pytest.mark.parametrize("name", ["127.0.0.1", "localhost"])
def test_a_subscription_opens_for_this_site_only(name: str, door: Door) -> None:
    host = f"{name}:{door.port}"
    assert door.subscribe(host, f"http://{host}") == "connection_ack"
    assert door.subscribe(host, None) == "connection_ack"
    for foreign_host, origin in (
        (host, f"http://{EVIL}"), (host, "null"), (f"{EVIL}:{door.port}", f"http://{EVIL}:{door.port}"),
        (f"{EVIL}:{door.port}", None),
    ):  # fmt: skip
        with pytest.raises(InvalidStatus) as refused:
            door.subscribe(foreign_host, origin)
        assert refused.value.response.status_code == 403
        assert bytes(refused.value.response.body or b"").startswith(b"refused: ")


# What the user may do.


def test_the_user_may_turn_the_switch(door: Door) -> None:
    """The switch is one that the forged requests would turn if they came through."""
    door.query(PAUSE % "false")
    assert not door.is_paused()
    door.query(PAUSE % "true")
    assert door.is_paused()


def test_pages_are_served_and_may_not_be_framed(door: Door) -> None:
    for host in (f"127.0.0.1:{door.port}", f"localhost:{door.port}", f"LOCALHOST:{door.port}", ALLOWED):
        page = requests.get(f"{door.url}/", headers={"Host": host}, timeout=60)
        assert (page.status_code, page.headers["X-Frame-Options"]) == (200, "SAMEORIGIN")
        assert "<title" in page.text


def test_an_allowed_host_reaches_it_through_its_proxy(door: Door) -> None:
    for headers in ({"Host": ALLOWED, "Origin": f"https://{ALLOWED}"}, {"Origin": f"https://{ALLOWED}"}):
        response = requests.post(f"{door.url}/graphql", json={"query": PAUSED}, headers=headers, timeout=60)
        assert response.json()["data"]["instance"]["autoMaterializePaused"]


def test_a_program_on_this_machine_needs_no_origin(door: Door) -> None:
    response = requests.post(f"{door.url}/graphql", json={"query": PAUSED}, timeout=60)
    assert response.status_code == 200


# A forged launch can at most fetch.


def forged_configurations(url: str, folder: Path) -> list[dict[str, Any]]:
    """Return run configurations that name another exchange, lake, ledger, or folder."""
    hosts = {f"{name}_url": url for name in ("spot", "usdm", "coinm", "archive")}
    values = hosts | {"ledger": str(folder / "l"), "lake": str(folder / "k"), "root": str(folder / "k")}
    entries: list[dict[str, Any]] = [{name: value} for name, value in values.items()]
    entries += [{"settings": hosts}, {"settings": {"config": hosts}}, {"max_workers": 500, "weight_share": 1.0}]
    return [
        {"resources": {resource: {"config": entry}}} for resource in ("binance", "lake", "candles") for entry in entries
    ] + [
        {"resources": {"settings": {"config": hosts}}},
        {"ops": {"spot__BTCUSDT__1m": {"config": {"only_missing": True, "spot_url": url}}}},
    ]


def test_a_launch_that_names_other_hosts_or_folders_is_refused(door: Door, tmp_path: Path) -> None:
    params: dict[str, Any] = {
        "selector": {
            "repositoryLocationName": "binance_assets.definitions", "repositoryName": "__repository__",
            "pipelineName": "spot_daily",
        },
        "mode": "default",
        "executionMetadata": {"tags": [{"key": "dagster/partition", "value": "2024-01-01"}]},
    }  # fmt: skip
    configurations = forged_configurations("http://127.0.0.1:9", tmp_path)
    for forged in (configurations[0], configurations[-2]):
        launched = door.query(LAUNCH, params={**params, "runConfigData": json.dumps(forged)})["launchPipelineExecution"]
        assert launched["__typename"] == "RunConfigValidationInvalid", launched
        assert "unexpected config entry" in launched["errors"][0]["message"]
    launched = door.query(LAUNCH, params={**params, "runConfigData": "{}"})["launchPipelineExecution"]
    assert launched["__typename"] == "LaunchRunSuccess", launched  # the same launch without configuration


def test_no_run_configuration_leads_to_another_exchange_or_folder(sandbox: Sandbox, tmp_path: Path) -> None:
    elsewhere = tmp_path / "elsewhere"
    definitions = build_defs(read_settings(environment_of(sandbox, tmp_path)), universe_of(BTCUSDT))
    with serving({}) as url, new_instance(tmp_path / "dagster") as instance:
        for forged in forged_configurations(url, elsewhere):
            request = dg.RunRequest(run_config=forged, asset_selection=[asset_key(BTCUSDT)], partition_key="2024-01-01")
            with pytest.raises(dg.DagsterInvalidConfigError):
                execute(definitions, instance, request, "spot_daily")
        assert not sandbox.requests

        # Dagster adds its own IO manager to every job. No asset of the project uses it.
        allowed = {"resources": {"io_manager": {"config": {"base_dir": str(elsewhere)}}}}
        tags = range_tags("2024-01-01", "2024-01-01")
        request = dg.RunRequest(run_config=allowed, asset_selection=[asset_key(BTCUSDT)], tags=tags)
        assert execute(definitions, instance, request, "spot_daily").success
    assert not elsewhere.exists()
    assert (tmp_path / "lake").is_dir()


# The command.


def test_a_port_that_is_taken_is_reported_in_one_line(run_cli: Run, door: Door) -> None:
    result = run_cli("ui", "--port", str(door.port))
    assert (result.returncode, result.stdout) == (2, "")
    assert result.stderr.startswith(f"error: port {door.port} on 127.0.0.1 is not free: ")
    assert result.stderr.count("\n") == 1


@pytest.mark.parametrize("host", ["http://x", "x/y", "*", "", "x:y", "x y", "--", "-h", "\x1b[31m"])
def test_a_host_that_is_none_is_not_allowed(host: str, run_cli: Run) -> None:
    result = run_cli("ui", "--allow-host", host)
    assert (result.returncode, result.stdout, result.stderr.count("\n")) == (2, "", 1)
    assert result.stderr.startswith("error: --allow-host ")


# The guard alone.

HEADERS = st.lists(
    st.tuples(
        st.sampled_from([b"host", b"origin", b"content-type", b"accept"]),
        st.one_of(
            st.binary(max_size=40),
            st.sampled_from([b"127.0.0.1:3000", b"localhost:3000", b"http://localhost:3000", b"http://evil.example",
                             b"application/json", b"text/plain", b"text/html", b"evil.example:3000", b"null"]),
        ),
    ),
    max_size=6,
)  # fmt: skip


@given(kind=st.sampled_from(["http", "websocket"]), headers=HEADERS,
       method=st.sampled_from(["GET", "HEAD", "POST", "PUT", "DELETE", "OPTIONS", "X"]),
       path=st.sampled_from(["/", "/graphql", "/x/graphql", "/server_info"]))  # fmt: skip
def test_what_the_guard_passes_on_is_of_this_site(
    kind: str, headers: list[tuple[bytes, bytes]], method: str, path: str
) -> None:
    scope: Scope = {"type": kind, "headers": headers, "method": method, "path": path, "server": ("127.0.0.1", 3000)}
    reason = refusal(scope)
    if reason is not None:
        assert reason.startswith("refused: ")
        assert "\n" not in reason
        return
    values = {name: [value for key, value in headers if key == name] for name, _ in headers}
    assert [host.lower() for host in values[b"host"]] in ([b"127.0.0.1:3000"], [b"localhost:3000"])
    assert {origin.lower() for origin in values.get(b"origin", [])} <= {b"http://localhost:3000"}
    if kind == "http" and method not in ("GET", "HEAD"):
        assert values[b"content-type"] == [b"application/json"]
    if kind == "http" and method == "GET" and path.endswith("/graphql"):
        assert b"text/html" in values[b"accept"][0]


async def _unreachable(_scope: Scope, _receive: object, _send: object) -> None:
    raise AssertionError("the guard passed it on")


def test_a_websocket_is_closed_where_the_server_cannot_send_a_response() -> None:
    sent: list[Message] = []

    async def send(message: Message) -> None:
        sent.append(message)

    async def receive() -> Message:
        return {"type": "websocket.connect"}

    scope: Scope = {"type": "websocket", "headers": [(b"host", b"evil.example")], "path": "/graphql",
                    "server": ("127.0.0.1", 3000)}  # fmt: skip
    handling = Guard(_unreachable)(scope, receive, send)
    with pytest.raises(StopIteration):
        handling.send(None)
    assert [message["type"] for message in sent] == ["websocket.close"]
