"""Settings: which values the environment may have."""

from __future__ import annotations

from pathlib import Path

import pytest
from pydantic import SecretStr

from binance_assets.settings import ConfigurationError, Settings, read_settings


def test_defaults_point_to_binance() -> None:
    settings = read_settings({})
    assert settings.spot_url == "https://api.binance.com"
    assert settings.usdm_url == "https://fapi.binance.com"
    assert settings.coinm_url == "https://dapi.binance.com"
    assert settings.archive_url == "https://data.binance.vision"
    assert (settings.lake, settings.universe) == (Path("lake"), Path("universe.yaml"))
    assert (settings.max_workers, settings.warmup, settings.weight_share) == (50, 3, 1.0)
    assert (settings.ban_patience, settings.connect_timeout, settings.read_timeout) == (900, 5, 15)
    assert (settings.source, settings.strict) == ("auto", True)


def test_empty_variable_counts_as_not_set_and_unrelated_one_is_ignored() -> None:
    assert read_settings({"BINANCE_ASSETS_WARMUP": "", "BINANCE_API_KEY": "x"}) == read_settings({})
    assert read_settings({"BINANCE_ASSETS_WARMUP": "  "}) == read_settings({})


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("BINANCE_SPOT_URL", "api.binance.com", "http:// or https://"),
        ("BINANCE_SPOT_URL", "https://api.binance.com/api/v3", "a host without a path"),
        ("BINANCE_ASSETS_MAX_WORKERS", "many", "valid integer"),
        ("BINANCE_ASSETS_MAX_WORKERS", "0", "greater than or equal to 1"),
        ("BINANCE_ASSETS_WEIGHT_SHARE", "1.5", "less than or equal to 1"),
        ("BINANCE_ASSETS_WEIGHT_SHARE", "0", "greater than or equal to 0.01"),
        ("BINANCE_ASSETS_SOURCE", "ftp", "'auto', 'rest' or 'archive'"),
        ("BINANCE_ASSETS_STRICT", "maybe", "valid boolean"),
    ],
)
def test_error_names_the_variable_the_value_and_what_is_expected(name: str, value: str, message: str) -> None:
    with pytest.raises(ConfigurationError) as raised:
        read_settings({name: value})
    assert str(raised.value).startswith(f"{name}='{value}'")
    assert message in str(raised.value)
    assert "\n" not in str(raised.value)


def test_the_hook_of_alerts_is_hidden_wherever_settings_are_shown() -> None:
    url = "https://hooks.slack.com/services/T000/B000/secret"
    settings = read_settings({"BINANCE_ASSETS_ALERT_URL": url})
    assert settings.alert_url is not None
    assert settings.alert_url.get_secret_value() == url
    for shown in (repr(settings), str(settings), settings.model_dump_json(), str(settings.model_dump())):
        assert "secret" not in shown


def test_the_ledger_may_be_on_a_postgres_server_whose_url_is_a_secret() -> None:
    url = "postgresql+psycopg2://ada:pass%40word@db.example.com:5432/ledger?sslmode=require"
    settings = read_settings({"BINANCE_ASSETS_LEDGER": url})
    assert isinstance(settings.ledger, SecretStr)
    assert settings.ledger.get_secret_value() == url
    assert "pass" not in repr(settings)
    assert Settings.model_validate(settings.model_dump()) == settings


@pytest.mark.parametrize(
    "url",
    [
        "postgresql://ada:password@db.example.com/ledger",
        "postgres://ada:password@db.example.com/ledger",
        "postgresql+psycopg://ada:password@db.example.com/ledger",
        "postgresql+psycopg2://ada:password@db.example.com",
        "postgresql+psycopg2://ada:password@more@db.example.com/ledger",
        "redis://ada:password@db.example.com/0",
        " postgresql+psycopg2://ada:password@db.example.com/ledger",
        "postgresql+psycopg2:/ada:password@db.example.com/ledger",
        "postgresql://db.example.com/ledger?user=ada&passfile=x:password",
    ],
)
def test_another_url_for_the_ledger_is_answered_with_the_form_that_works_and_without_its_password(url: str) -> None:
    with pytest.raises(ConfigurationError, match=r"postgresql\+psycopg2://USER:PASSWORD@HOST:PORT/DATABASE") as caught:
        read_settings({"BINANCE_ASSETS_LEDGER": url})
    assert ":password" not in str(caught.value)


@pytest.mark.parametrize("name", ["two words", "a/b", "x" * 101])
def test_a_public_ip_is_named_in_a_word(name: str) -> None:
    assert read_settings({"BINANCE_ASSETS_EGRESS": "203.0.113.7"}).egress == "203.0.113.7"
    with pytest.raises(ConfigurationError, match="BINANCE_ASSETS_EGRESS"):
        read_settings({"BINANCE_ASSETS_EGRESS": name})


def test_ledger_is_one_file_per_user_and_host() -> None:
    default = read_settings({}).ledger
    assert isinstance(default, Path)
    assert default.is_absolute()
    assert read_settings({"BINANCE_ASSETS_LEDGER": "x.sqlite"}).ledger == Path("x.sqlite")
