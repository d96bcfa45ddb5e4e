"""Dagster's own storage on a Postgres server, as `deploy/dagster-postgres.yaml` describes it: the commands as ever."""

from __future__ import annotations

import datetime as dt
import json
import re
import shutil
import socket
from importlib.util import find_spec
from pathlib import Path

import pytest
import sqlalchemy

from binance_assets.model.timestamps import HOUR, to_ms
from binance_assets.sandbox import Fault, Sandbox
from binance_assets_tests.integration.test_postgres_ledger import assert_bounded
from binance_assets_tests.support.environment import CHECKOUT, Run
from binance_assets_tests.support.postgres_server import PostgresServer

pytestmark = [
    pytest.mark.services,
    pytest.mark.skipif(find_spec("dagster_postgres") is None, reason="dagster-postgres is not installed"),
]

DOWNLOAD = ("download", "BTCUSDT", "--market", "spot", "--interval", "1h", "--start", "2024-01-01")
LOST_DAY = "2024-01-03"


@pytest.fixture
def home(tmp_path: Path) -> Path:
    folder = tmp_path / "home"
    folder.mkdir()
    shutil.copy(CHECKOUT / "deploy" / "dagster-postgres.yaml", folder / "dagster.yaml")
    return folder


def test_the_commands_work_on_postgres_and_leave_nothing_in_sqlite(
    run_cli: Run, sandbox: Sandbox, postgres: PostgresServer, home: Path
) -> None:
    url = postgres.new_database()
    variables = {"DAGSTER_HOME": str(home), "DAGSTER_POSTGRES_URL": url, "BINANCE_ASSETS_LEDGER": url}
    lost = to_ms(dt.date(2024, 1, 3)) + 5 * HOUR
    for path in ("klines", "archive"):
        sandbox.faults.add(Fault("missing_row", start=lost, end=lost + HOUR, path=path, interval="1h"))
    download = run_cli(*DOWNLOAD, "--end", "2024-01-15", "--json", **variables)
    assert download.returncode == 1, download.stderr
    (outcome,) = json.loads(download.stdout).values()
    assert outcome["days_present"] == 13
    status = run_cli("status", "--json", **variables)
    (row,) = json.loads(status.stdout).values()
    assert (row["partitions"], row["refused"], row["last_run"]["status"]) == (13, 1, "FAILURE")
    shown = run_cli("show", "spot/BTCUSDT/1h", LOST_DAY, **variables)
    assert "lost" in shown.stdout
    events = postgres.execute("SELECT count(*) FROM event_logs WHERE dagster_event_type = 'ASSET_MATERIALIZATION'", url)
    assert events == [(13,)]
    assert not list(home.rglob("*.db"))


def test_a_bare_url_is_answered_with_the_form_that_works(run_cli: Run, postgres: PostgresServer, home: Path) -> None:
    url = postgres.url().replace("+psycopg2", "")
    result = run_cli("status", DAGSTER_HOME=str(home), DAGSTER_POSTGRES_URL=url)
    assert result.returncode == 2
    assert "must begin with postgresql+psycopg2:// and not with postgresql://" in result.stderr
    assert "secret-word" not in result.stderr
    assert "Traceback" not in result.stderr


def test_the_urls_that_are_shipped_bound_how_long_dagster_waits_for_a_silent_server(postgres: PostgresServer) -> None:
    shipped = [CHECKOUT / "docs" / "more_than_one_machine.md", CHECKOUT / "deploy" / "compose" / "compose.yaml"]
    shipped += (CHECKOUT / "deploy").glob("dagster-*.yaml")
    urls = re.findall(r"DAGSTER_POSTGRES_URL[=:] .*|DAGSTER_POSTGRES_URL='.*'", "".join(map(Path.read_text, shipped)))
    (parameters,) = {url.rstrip("'").partition("?connect_timeout")[2] for url in urls}
    assert len(urls) == len(shipped) + 1
    engine = sqlalchemy.create_engine(f"{postgres.url()}?connect_timeout{parameters}")
    with engine.connect() as connection:
        assert_bounded(connection.connection.dbapi_connection.fileno())  # type: ignore[union-attr]
    engine.dispose()
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"postgresql+psycopg2://ada:word@127.0.0.1:{silent.getsockname()[1]}/candles?connect_timeout{parameters}"
        with pytest.raises(sqlalchemy.exc.OperationalError, match="timeout expired"):
            sqlalchemy.create_engine(url.replace("timeout=5&", "timeout=2&")).connect()
