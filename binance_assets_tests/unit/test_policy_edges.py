"""The exact weights that may be spent and claimed, at the edges where a difference of one changes the decision."""

from __future__ import annotations

import pytest

from binance_assets.exchange.rate_limit import policy
from binance_assets.exchange.rate_limit.policy import Minute


def test_without_a_share_the_whole_limit_may_be_spent_and_no_more() -> None:
    assert policy.spendable(Minute(100, ours=60, seen=0, in_flight=0)) == 40


@pytest.mark.parametrize(
    ("minute", "share", "spare"),
    [
        (Minute(100, ours=10, seen=10, in_flight=0), 1.0, 90),
        (Minute(100, ours=10, seen=30, in_flight=20), 1.0, 50),  # other programs and calls in flight count
        (Minute(100, ours=10, seen=30, in_flight=20), 0.5, 40),  # our share ends before the limit
        (Minute(100, ours=10, seen=30, in_flight=70), 1.0, 0),
        (Minute(100, ours=10, seen=90, in_flight=70), 1.0, 0),  # never negative
        (Minute(99, ours=0, seen=0, in_flight=0), 0.5, 49),  # a share is rounded down
    ],
)
def test_spendable_weight_is_bounded_by_the_rest_of_the_limit_and_by_the_rest_of_the_share(
    minute: Minute, share: float, spare: int
) -> None:
    assert policy.spendable(minute, share) == spare


def test_the_last_weight_of_a_minute_is_claimed() -> None:
    assert policy.claimable(Minute(100, ours=98, seen=98, in_flight=0), 1.0, 2) == 2
    assert policy.claimable(Minute(100, ours=99, seen=99, in_flight=0), 1.0, 2) == 0


@pytest.mark.parametrize(
    ("minute", "claimed"),
    [
        (Minute(100, ours=0, seen=0, in_flight=0), 20),
        (Minute(100, ours=0, seen=80, in_flight=0), 20),  # it just fits, after what other programs used
        (Minute(100, ours=0, seen=81, in_flight=0), 0),
        (Minute(100, ours=1, seen=1, in_flight=0), 0),
        (Minute(100, ours=0, seen=0, in_flight=1), 0),
    ],
)
def test_a_call_heavier_than_the_share_is_claimed_only_as_the_first_and_only_call_of_a_minute(
    minute: Minute, claimed: int
) -> None:
    assert policy.claimable(minute, 0.1, 20) == claimed


@pytest.mark.parametrize(
    ("minute", "claimed"),
    [
        (Minute(6_000, ours=0, seen=0, in_flight=0), 200),  # a hundred calls
        (Minute(804, ours=0, seen=0, in_flight=0), 100),  # an eighth of what may be spent, rounded down
        (Minute(1_001, ours=0, seen=0, in_flight=480), 20),  # after that, half of what is left is in flight
        (Minute(1_000, ours=0, seen=0, in_flight=498), 2),
        (Minute(1_000, ours=0, seen=0, in_flight=499), 0),
        (Minute(10, ours=0, seen=0, in_flight=0), 2),  # an eighth would be too little for the call
    ],
)
def test_a_lease_is_bounded_by_a_hundred_calls_an_eighth_of_the_rest_and_half_of_the_rest_in_flight(
    minute: Minute, claimed: int
) -> None:
    assert policy.claimable(minute, 1.0, 2) == claimed


@pytest.mark.parametrize(
    ("minute", "claimed"),
    [
        (Minute(1_000, ours=500, seen=880, in_flight=20), 12),  # a tenth of the limit is left in addition
        (Minute(1_000, ours=500, seen=880, in_flight=21), 0),  # less than a tenth
        (Minute(1_000, ours=860, seen=880, in_flight=21), 12),  # other programs used only 20
        (Minute(1_000, ours=500, seen=901, in_flight=0), 2),  # one call at a time
    ],
)
def test_calls_go_one_at_a_time_when_less_is_left_than_a_tenth_of_the_limit_and_than_others_used(
    minute: Minute, claimed: int
) -> None:
    assert policy.claimable(minute, 1.0, 2) == claimed
