"""The named error for each response of the exchange, and its policy."""

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
    NotSent,
    RateLimited,
    RefusedRequest,
    RestrictedLocation,
    ServerError,
    TimedOut,
    UndocumentedStatus,
    UnexpectedResponse,
    UnknownSymbol,
    error_for_content,
    error_for_response,
    refuses_location,
)
from binance_assets.exchange.rate_limit.policy import blocked_for
from binance_assets.exchange.retry import retry_delay

SPOT_KLINES = "https://api.binance.com/api/v3/klines?symbol=BTCUSDT&interval=1m"
FUTURES_KLINES = "https://fapi.binance.com/fapi/v1/klines?symbol=BTCUSDT&interval=1m"
PERMANENT = [RefusedRequest, UnknownSymbol, RestrictedLocation]
TRANSIENT = [NoConnection, TimedOut, ServerError, UnexpectedResponse, RateLimited, Blocked, UndocumentedStatus]


def error_body(code: int, message: str = "as documented") -> bytes:
    return json.dumps({"code": code, "msg": message}).encode()


@pytest.mark.parametrize(
    ("status", "body", "kind"),
    [
        (400, error_body(-1121, "Invalid symbol."), UnknownSymbol),
        (400, error_body(-1120, "Invalid interval."), RefusedRequest),
        (400, error_body(-1130), RefusedRequest),
        (400, error_body(-4088, "Maximum time interval is 200 days."), RefusedRequest),
        (400, error_body(-1000), ServerError),
        (404, b"", RefusedRequest),
        (403, b"<html>403 ERROR The request could not be satisfied.</html>", Blocked),
        (408, b"", ServerError),
        (418, error_body(-1003, "IP banned until 1791382920000."), Banned),
        (429, error_body(-1003), RateLimited),
        (451, error_body(0, "Service unavailable from a restricted location"), RestrictedLocation),
        (500, b"", ServerError),
        (502, b"<html>502 Bad Gateway</html>", ServerError),
        (503, error_body(-1008), ServerError),
        (503, b'{"timestamp":1638827401078,"path":"/fapi/v1/klines","msg":"Unknown error"}', ServerError),
        (302, b"", UndocumentedStatus),
        (202, b"", UndocumentedStatus),
        (404, b"<html>404 Not Found</html>", UndocumentedStatus),
        (400, error_body(-1003), RateLimited),
        (2000, b"[]", ServerError),
    ],
)
def test_every_response_has_a_named_error(status: int, body: bytes, kind: type[ExchangeError]) -> None:
    error = error_for_response(status, {}, body, SPOT_KLINES)
    assert type(error) is kind
    assert error.status == status
    assert "\n" not in str(error)


def test_recorded_error_bodies_have_named_errors(recorded: Path) -> None:
    recordings = json.loads((recorded / "errors" / "real_error_bodies.json").read_text())
    responses = [entry for entry in recordings if "body" in entry and entry["http"] is not None]
    assert responses
    for response in responses:
        error = error_for_response(response["http"], {}, json.dumps(response["body"]).encode(), SPOT_KLINES)
        assert type(error) is not ExchangeError
        assert response["body"]["msg"] in str(error)


@pytest.mark.parametrize(
    ("body", "host_fails"),
    [
        (b"[]", False),
        (b'[["x"]]', False),
        (b'{"code": 0}', False),
        (b"[" + b"9" * 5_000 + b", NaN]", False),
        (b"<html>log in</html>", True),
        (b"", True),
        (b"[[1, 2", True),
        (b"1", True),
        (b"\xff\xfe[]", True),
        (b"[" * 100_000, True),
    ],
    ids=lambda value: str(value)[:20],
)
def test_a_200_that_is_not_what_was_requested_shows_by_its_form_whether_the_host_fails(
    body: bytes, host_fails: bool
) -> None:
    error = error_for_content("no candles", {"X": "1"}, body, SPOT_KLINES)
    assert isinstance(error, UnexpectedResponse)
    assert error.policy.host_fails is host_fails
    assert (error.status, error.headers, error.request, error.policy.verdict) == (
        *(200, {"X": "1"}, SPOT_KLINES, "invalid"),
    )


def test_an_error_carries_the_whole_response() -> None:
    error = error_for_response(418, {"Retry-After": "17"}, error_body(-1003), SPOT_KLINES)
    assert (error.status, error.code, error.message) == (418, -1003, json.loads(error_body(-1003))["msg"])
    assert (error.headers, error.request) == ({"Retry-After": "17"}, SPOT_KLINES)


def test_the_message_names_an_unknown_symbol() -> None:
    assert "there is no symbol BTCUSDT" in str(error_for_response(400, {}, error_body(-1121), SPOT_KLINES))


def test_the_message_of_a_restricted_location_names_a_way_out() -> None:
    assert "https://data-api.binance.vision" in str(error_for_response(451, {}, b"", SPOT_KLINES))
    assert "data-api" not in str(error_for_response(451, {}, b"", FUTURES_KLINES))


def test_a_request_that_is_not_sent_still_shows_that_the_location_is_not_served() -> None:
    refusal = error_for_response(451, {}, b"", SPOT_KLINES)
    assert refuses_location(refusal)
    assert refuses_location(NotSent.after(NotSent.after(refusal)))
    assert not refuses_location(NotSent.after(error_for_response(500, {}, b"", SPOT_KLINES)))


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


def test_a_429_ends_after_retry_after_or_with_the_minute() -> None:
    assert NOW + blocked_for(RateLimited("x", headers={"Retry-After": "17"}), NOW) == NOW + 17_000
    next_minute = (NOW // 60_000 + 1) * 60_000
    assert NOW + blocked_for(RateLimited("x"), NOW) == next_minute


def test_a_ban_ends_at_the_later_of_header_and_message() -> None:
    text = f"IP banned until {NOW + 437_000}. Please use WebSocket Streams."
    assert NOW + blocked_for(Banned("x", message=text, headers={"retry-after": "720"}), NOW) == NOW + 720_000
    assert NOW + blocked_for(Banned("x", message=text, headers={"retry-after": "20"}), NOW) == NOW + 437_000
    assert NOW + blocked_for(Banned("x", message=text), NOW) == NOW + 437_000
    assert NOW + blocked_for(Banned("banned"), NOW) == NOW + 120_000
