"""The configuration of the run launcher for workers."""

from __future__ import annotations

import pytest

from binance_assets.settings import ConfigurationError

pytestmark = pytest.mark.services


@pytest.mark.parametrize(
    "broker",
    ["nowhere://host", "http://host/", "redis://:secret/word@host:6379/0", "redis://:secret-word@host:word/0"],
)
def test_a_broker_that_celery_cannot_use_is_refused_in_one_line_without_its_password(broker: str) -> None:
    from binance_assets.orchestration.launcher import WorkerLauncher

    with pytest.raises(ConfigurationError, match=r"^the broker of the run launcher is no URL .*%25$") as raised:
        WorkerLauncher(broker)
    assert "secret" not in str(raised.value)


def test_a_broker_is_not_asked_for_before_a_run_is_launched() -> None:
    from binance_assets.orchestration.launcher import WorkerLauncher

    assert WorkerLauncher("redis://:secret-word@127.0.0.1:1/0").pickup_seconds > 0
