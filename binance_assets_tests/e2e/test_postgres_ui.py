"""Dagster's user interface and ``download --launch`` with the storage of Dagster on a Postgres server.

The tests are those of ``test_browser`` and ``test_launch``, which run with SQLite; here is only what they run against.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

import pytest

from binance_assets.sandbox import Sandbox
from binance_assets_tests.e2e.test_browser import (  # noqa: F401
    UNIVERSE,
    browser,
    test_one_day_is_materialized_by_a_click,
    user,
)

# isort: split
# The daemon looks for backfills every thirty seconds; the test above uses this time, so it is collected first.
from binance_assets_tests.e2e.test_browser import (  # noqa: F401
    test_a_range_shows_good_days_green_and_the_bad_day_red_with_its_reason,
)
from binance_assets_tests.e2e.test_launch import (  # noqa: F401
    queue,
    test_launched_runs_report_what_a_local_download_reports,
)
from binance_assets_tests.support.dagster_dev import DagsterDev, dagster_dev
from binance_assets_tests.support.environment import CHECKOUT
from binance_assets_tests.support.postgres_server import PostgresServer
from binance_assets_tests.support.user_interface import UserInterface

pytestmark = [
    pytest.mark.services,
    pytest.mark.skipif(find_spec("dagster_postgres") is None, reason="dagster-postgres is not installed"),
    pytest.mark.timeout(600),
]


@pytest.fixture(scope="module")
def started(
    shared_sandbox: Sandbox, postgres: PostgresServer, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[DagsterDev]:
    """A ``dagster dev`` as `deploy/dagster-postgres.yaml` describes it; it may not be ready yet."""
    folder = tmp_path_factory.mktemp("postgres")
    shutil.copy(CHECKOUT / "deploy" / "dagster-postgres.yaml", folder / "dagster.yaml")
    (folder / "universe.yaml").write_text(UNIVERSE)
    with dagster_dev(shared_sandbox, folder, environment={"DAGSTER_POSTGRES_URL": postgres.new_database()}) as dev:
        yield dev
        assert not list(folder.rglob("runs.db"))


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    """Where the screenshots go: those of the documentation are of the default storage."""
    return tmp_path


def test_the_partitions_that_graphql_reports_are_those_of_the_backfill(user: object, started: DagsterDev) -> None:  # noqa: F811
    ranges = UserInterface(started).partitions("BTCUSDT", "2024-0")
    assert ranges == [
        ("MATERIALIZED", "2024-01-01", "2024-02-03"),
        ("FAILED", "2024-02-04", "2024-02-04"),
        ("MATERIALIZED", "2024-02-05", "2024-03-31"),
    ]
