"""Claims on Postgres: of several hosts that want to decide who executes a run, exactly one does."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

import pytest

from binance_assets_tests.support.instances import postgres_instance
from binance_assets_tests.support.postgres_server import PostgresServer
from binance_assets_tests.unit.test_worker_runs import assert_exactly_one_decides

pytestmark = [
    pytest.mark.services,
    pytest.mark.skipif(find_spec("dagster_postgres") is None, reason="dagster-postgres is not installed"),
]


def test_of_workers_that_take_a_task_while_it_is_withdrawn_exactly_one_succeeds_or_none(
    postgres: PostgresServer, tmp_path: Path
) -> None:
    with postgres_instance(tmp_path, postgres.new_database()) as instance:
        assert_exactly_one_decides(instance, rounds=12)
