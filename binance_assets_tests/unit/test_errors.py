"""What each answer of the exchange stands for, and what follows from it."""

from __future__ import annotations

import json
import random
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from binance_assets.exchange.errors import (
    Banned,
    Blocked,
    ExchangeError,
    NoConnection,
    RateLimited,
    RefusedRequest,
    RestrictedLocation,
    ServerFault,
    TimedOut,
    UnexpectedAnswer,
    UnknownSymbol,
    error_of,
)
from binance_assets.exchange.rate_limit.policy import blocked_until
from binance_assets.exchange.retry import retry_delay

SPOT_KLINES = "https://api.binance.com/api/v3/klines?symbol=BTCUSDT&interval=1m"
FUTURES_KLINES = "https://fapi.binance.com/fapi/v1/klines?symbol=BTCUSDT&interval=1m"
PERMANENT = [RefusedRequest, UnknownSymbol, RestrictedLocation]
TRANSIENT = [NoConnection, TimedOut, ServerFault, UnexpectedAnswer, RateLimited, Blocked]


def said(code: int, message: str = "said so") -> bytes:
    return json.dumps({"code": code, "msg": message}).encode()


@pytest.mark.parametrize(
    ("status", "body", "kind"),
    [
        (400, said(-1121, "Invalid symbol."), UnknownSymbol),
        (400, said(-1120, "Invalid interval."), RefusedRequest),
        (400, said(-1130), RefusedRequest),
        (400, said(-4088, "Maximum time interval is 200 days."), RefusedRequest),
        (400, said(-1000), ServerFault),
        (404, b"", RefusedRequest),
        (403, b"<html>403 ERROR The request could not be satisfied.</html>", Blocked),
        (408, b"", ServerFault),
        (418, said(-1003, "IP banned until 1791382920000."), Banned),
        (429, said(-1003), RateLimited),
        (451, said(0, "Service unavailable from a restricted location"), RestrictedLocation),
        (500, b"", ServerFault),
        (502, b"<html>502 Bad Gateway</html>", ServerFault),
        (503, said(-1008), ServerFault),
        (503, b'{"timestamp":1638827401078,"path":"/fapi/v1/klines","msg":"Unknown error"}', ServerFault),
        (302, b"", RefusedRequest),
        (200_0, b"[]", ServerFault),
    ],
)
def test_every_answer_has_a_name(status: int, body: bytes, kind: type[ExchangeError]) -> None:
    error = error_of(status, {}, body, SPOT_KLINES)
    assert type(error) is kind
    assert error.status == status
    assert "\n" not in str(error)


def test_recorded_error_bodies_have_names(recorded: Path) -> None:
    for response in json.loads((recorded / "errors" / "real_error_bodies.json").read_text()):
        if "body" not in response or response["http"] is None:
            continue
        error = error_of(response["http"], {}, json.dumps(response["body"]).encode(), SPOT_KLINES)
        assert type(error) is not ExchangeError
        assert response["body"]["msg"] in str(error)


def test_an_error_carries_all_that_was_answered() -> None:
    error = error_of(418, {"Retry-After": "17"}, said(-1003), SPOT_KLINES)
    assert (error.status, error.code, error.message) == (418, -1003, json.loads(said(-1003))["msg"])
    assert (error.headers, error.request) == ({"Retry-After": "17"}, SPOT_KLINES)


def test_an_unknown_symbol_is_named() -> None:
    assert "there is no symbol BTCUSDT" in str(error_of(400, {}, said(-1121), SPOT_KLINES))


def test_a_restricted_location_is_told_the_way_out() -> None:
    assert "https://data-api.binance.vision" in str(error_of(451, {}, b"", SPOT_KLINES))
    assert "data-api" not in str(error_of(451, {}, b"", FUTURES_KLINES))


@pytest.mark.parametrize("kind", PERMANENT)
def test_permanent_errors_are_not_retried_and_end_the_run(kind: type[ExchangeError]) -> None:
    assert retry_delay(kind("no"), 1, random.Random(1)) is None
    assert kind.policy.ends_run


@given(st.sampled_from(TRANSIENT), st.integers(1, 20), st.integers())
def test_transient_errors_are_retried_with_growing_jittered_delays(
    kind: type[ExchangeError], attempt: int, seed: int
) -> None:
    delay = retry_delay(kind("not now"), attempt, random.Random(seed))
    if attempt >= kind.policy.attempts:
        assert delay is None
    else:
        assert delay is not None
        full = kind.policy.first_delay * 2 ** (attempt - 1)
        assert full / 2 <= delay <= full


NOW = 1_700_000_030_000


def test_a_429_ends_with_retry_after_or_with_the_minute() -> None:
    assert blocked_until(RateLimited("x", headers={"Retry-After": "17"}), NOW) == NOW + 17_000
    next_minute = (NOW // 60_000 + 1) * 60_000
    assert blocked_until(RateLimited("x"), NOW) == next_minute


def test_a_ban_ends_at_the_later_of_what_is_said() -> None:
    text = f"IP banned until {NOW + 437_000}. Please use WebSocket Streams."
    assert blocked_until(Banned("x", message=text, headers={"retry-after": "720"}), NOW) == NOW + 720_000
    assert blocked_until(Banned("x", message=text, headers={"retry-after": "20"}), NOW) == NOW + 437_000
    assert blocked_until(Banned("x", message=text), NOW) == NOW + 437_000
    assert blocked_until(Banned("banned"), NOW) == NOW + 120_000
