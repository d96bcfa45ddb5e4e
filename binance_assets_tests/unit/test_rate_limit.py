"""The weight budget: never over the limit, nothing lost between minutes, one account for all processes."""

from __future__ import annotations

import random
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from binance_assets.exchange.clock import ServerClock
from binance_assets.exchange.errors import Banned, BannedForLong, Cancelled, RateLimited
from binance_assets.exchange.rate_limit.budget import Budget
from binance_assets.exchange.rate_limit.ledger import Ledger, LedgerError
from binance_assets.exchange.rate_limit.policy import Minute, claimable, spendable
from binance_assets.model.timestamps import MINUTE

GO = threading.Event()


class SetClock(ServerClock):
    """A server clock that stands where a test sets it."""

    def __init__(self, at_ms: float) -> None:
        super().__init__()
        self.at_ms = at_ms
        self.times: dict[float, float] = {}
        self.sync(0, 0.0, 0.0)

    def at(self, monotonic: float) -> float:
        return self.times.get(monotonic, self.at_ms)


def budget_at(ledger: Ledger, at_ms: float, limit: int = 100, share: float = 1.0, patience: float = 900) -> Budget:
    return Budget(ledger, "here", "spot", SetClock(at_ms), limit, share, patience, call_lifetime=30)


def spend(budget: Budget, weight: int, used: int | None) -> None:
    """One call, and what its answer's header said."""
    budget.acquire(weight, GO)
    budget.record(weight, used, 0, 0)


@pytest.fixture
def ledger(tmp_path: Path) -> Ledger:
    return Ledger(tmp_path / "ledger.sqlite")


MIDDLE = 1_000 * MINUTE + 30_000


@given(st.integers(0, 10_000), st.integers(0, 10_000), st.integers(0, 10_000), st.integers(0, 5_000), st.floats(0, 1))
def test_what_may_be_spent_never_takes_the_minute_over_its_limit(
    limit: int, ours: int, seen: int, in_flight: int, share: float
) -> None:
    spare = spendable(Minute(limit, ours, seen, in_flight), share)
    assert spare >= 0
    if spare:
        assert seen + in_flight + spare <= limit
        assert ours + spare <= limit * share


@given(
    st.integers(0, 10_000),
    st.integers(0, 10_000),
    st.integers(0, 10_000),
    st.integers(0, 5_000),
    st.floats(0.01, 1),
    st.integers(1, 20),
)
def test_what_may_be_claimed_is_enough_for_the_call_and_never_more_than_may_be_spent(
    limit: int, ours: int, seen: int, in_flight: int, share: float, weight: int
) -> None:
    minute = Minute(limit, ours, seen, in_flight)
    claimed = claimable(minute, share, weight)
    assert claimed == 0 or claimed >= weight
    if ours or seen or in_flight:  # the very first call of a minute is let through, however dear
        assert claimed <= spendable(minute, share)
    if not in_flight and weight <= spendable(minute, share):
        assert claimed  # or nothing would ever come to change it


@given(st.integers(100, 10_000), st.integers(0, 10_000), st.integers(0, 5_000), st.integers(1, 20))
def test_what_is_left_besides_outweighs_what_is_in_flight(limit: int, seen: int, in_flight: int, weight: int) -> None:
    claimed = claimable(Minute(limit, seen, seen, in_flight), 1, weight)
    if claimed and in_flight:
        assert in_flight + claimed <= limit - seen - (in_flight + claimed)


def test_beside_others_the_last_of_a_minute_is_spent_one_call_at_a_time() -> None:
    assert claimable(Minute(1_000, ours=500, seen=930, in_flight=0), 1, 2) == 2
    assert claimable(Minute(1_000, ours=500, seen=930, in_flight=2), 1, 2) == 0
    assert claimable(Minute(1_000, ours=930, seen=930, in_flight=2), 1, 2) > 0


@given(st.integers(1, 500), st.lists(st.tuples(st.integers(1, 20), st.sampled_from(["answer", "lose", "keep"]))))
def test_claims_never_exceed_the_limit_whatever_becomes_of_the_calls(limit: int, calls: list[tuple[int, str]]) -> None:
    minute, counted, in_flight = Minute(limit, 0, 0, 0), 0, 0
    for weight, fate in calls:
        if weight > spendable(minute):
            continue
        counted += weight  # the server counts every call that was sent
        ours, seen = minute.ours + weight, minute.seen
        if fate == "keep":
            in_flight += weight
        else:
            seen = counted if fate == "answer" else seen + weight
        minute = Minute(limit, ours, seen, in_flight)
        assert counted <= limit


def test_a_minute_is_spent_to_the_last_weight_and_no_further(ledger: Ledger) -> None:
    budget = budget_at(ledger, MIDDLE, limit=100)
    used = 0
    for _ in range(50):
        used += 2
        spend(budget, 2, used)
    assert budget.spendable_now() == 0
    assert budget_at(ledger, MIDDLE + MINUTE, limit=100).spendable_now() == 100


def test_weight_that_others_used_is_seen_in_the_answer(ledger: Ledger) -> None:
    budget = budget_at(ledger, MIDDLE, limit=100)
    spend(budget, 2, 62)
    assert budget.spendable_now() == 38


def test_a_share_leaves_the_rest_to_others(ledger: Ledger) -> None:
    budget = budget_at(ledger, MIDDLE, limit=100, share=0.5)
    assert budget.spendable_now() == 50
    spend(budget, 10, 60)
    assert budget.spendable_now() == 40  # ours: 50 - 10; the limit: 100 - 60


def test_a_call_without_an_answer_is_charged(ledger: Ledger) -> None:
    budget = budget_at(ledger, MIDDLE, limit=100)
    spend(budget, 10, None)
    assert budget.spendable_now() == 90


def test_calls_in_flight_when_a_minute_ends_count_in_both(ledger: Ledger) -> None:
    clock = SetClock(MIDDLE)
    budget = Budget(ledger, "here", "spot", clock, 100, 1.0, 900, 30)
    budget.acquire(30, GO)
    clock.at_ms += MINUTE
    assert budget.spendable_now() == 70
    budget.record(30, None, 0, 0)
    assert budget.spendable_now() == 70


def test_all_users_of_the_file_share_the_minute(ledger: Ledger, tmp_path: Path) -> None:
    other = Ledger(tmp_path / "ledger.sqlite")
    first, second = budget_at(ledger, MIDDLE), budget_at(other, MIDDLE)
    first.acquire(60, GO)
    assert second.spendable_now() == 40
    first.record(60, 60, 0, 0)
    assert second.spendable_now() == 40


def test_a_lease_leaves_most_of_the_minute_to_others_and_ends_with_the_calls(ledger: Ledger, tmp_path: Path) -> None:
    other = Ledger(tmp_path / "ledger.sqlite")
    first, second = budget_at(ledger, MIDDLE, 6_000), budget_at(other, MIDDLE, 6_000)
    first.acquire(2, GO)
    assert 6_000 * 7 / 8 <= second.spendable_now() < 6_000
    first.record(2, 2, 0, 0)
    assert second.spendable_now() == 5_998


def test_a_lease_is_given_back_when_the_limit_turns_out_to_be_lower(ledger: Ledger) -> None:
    budget = budget_at(ledger, MIDDLE, limit=6_000)
    budget.acquire(2, GO)
    budget.remember_limit(10)
    assert budget.spendable_now() == 8


def test_a_lease_is_not_spent_on_top_of_what_others_used_meanwhile(ledger: Ledger) -> None:
    budget = budget_at(ledger, MIDDLE, limit=800)
    budget.acquire(2, GO)
    budget.acquire(2, GO)
    budget.record(2, 798, 0, 0)
    stop = threading.Event()
    threading.Timer(0.2, stop.set).start()
    with pytest.raises(Cancelled):
        budget.acquire(2, stop)


def test_pools_and_addresses_are_apart(ledger: Ledger) -> None:
    budget_at(ledger, MIDDLE).acquire(60, GO)
    elsewhere = Budget(ledger, "here", "futures", SetClock(MIDDLE), 100, 1.0, 900, 30)
    assert elsewhere.spendable_now() == 100


def test_the_lease_of_a_dead_process_does_not_block(ledger: Ledger) -> None:
    dead = subprocess.Popen([sys.executable, "-c", ""])
    dead.wait()
    with ledger.transaction() as database:
        database.execute(
            "INSERT INTO lease (address, name, weight, pid, expires) VALUES ('here', 'spot', 100, ?, ?)",
            (dead.pid, MIDDLE * 2),
        )
    stop = threading.Event()
    threading.Timer(0.3, stop.set).start()
    with pytest.raises(Cancelled):  # charged to this minute, for it may have been counted
        budget_at(ledger, MIDDLE).acquire(10, stop)
    budget_at(ledger, MIDDLE + MINUTE).acquire(100, GO)


def test_a_waiting_claim_ends_when_the_run_is_stopped(ledger: Ledger) -> None:
    budget = budget_at(ledger, MIDDLE, limit=10)
    spend(budget, 10, 10)
    stop = threading.Event()
    threading.Timer(0.1, stop.set).start()
    with pytest.raises(Cancelled):
        budget.acquire(1, stop)


def test_a_429_stops_every_user_of_the_pool_until_it_is_over(ledger: Ledger, tmp_path: Path) -> None:
    budget_at(ledger, MIDDLE).block(RateLimited("too much", headers={"Retry-After": "1"}))
    other = budget_at(Ledger(tmp_path / "ledger.sqlite"), MIDDLE)
    began = time.time()
    other.acquire(1, GO)
    assert time.time() - began >= 0.9


def test_a_ban_longer_than_the_patience_ends_the_run_and_says_until_when(ledger: Ledger) -> None:
    budget = budget_at(ledger, MIDDLE, patience=60)
    budget.block(Banned("banned", headers={"Retry-After": "120"}))
    with pytest.raises(BannedForLong, match="banned until 1970-01-01 16:42:30 UTC"):
        budget.acquire(1, GO)


def test_a_ban_stops_even_a_process_that_holds_a_lease(ledger: Ledger, tmp_path: Path) -> None:
    holder = budget_at(ledger, MIDDLE, limit=6_000)
    holder.acquire(2, GO)
    budget_at(Ledger(tmp_path / "ledger.sqlite"), MIDDLE).block(Banned("banned", headers={"Retry-After": "120"}))
    time.sleep(0.12)  # as long as it may take to hear of it
    stop = threading.Event()
    threading.Timer(0.2, stop.set).start()
    with pytest.raises(Cancelled):
        holder.acquire(2, stop)


def test_answers_that_overtake_each_other_at_the_edge_of_a_minute_do_not_spend_the_new_one(ledger: Ledger) -> None:
    clock = SetClock(MIDDLE)
    budget = Budget(ledger, "here", "spot", clock, 6_000, 1.0, 900, 30)
    edge = MIDDLE // MINUTE * MINUTE + MINUTE
    clock.times = {1.0: edge - 50, 2.0: edge + 50, 3.0: edge - 40}
    budget.acquire(2, GO)
    budget.acquire(2, GO)
    budget.record(2, 4_100, 1.0, 3.0)
    budget.record(2, 4_000, 1.0, 2.0)
    clock.at_ms = edge + 100
    assert budget.spendable_now() >= 5_990


def test_limits_are_remembered_for_a_day(ledger: Ledger) -> None:
    budget = budget_at(ledger, MIDDLE)
    assert budget.known_limit is None
    budget.remember_limit(1_200)
    assert budget.known_limit == 1_200
    assert budget.spendable_now() == 1_200
    assert budget_at(ledger, MIDDLE + 25 * 60 * MINUTE).known_limit is None


def test_a_file_that_is_no_ledger_is_told_in_one_line(tmp_path: Path) -> None:
    (tmp_path / "ledger.sqlite").write_text("this is no database, by any means; it is a text" * 10)
    with pytest.raises(LedgerError, match="set BINANCE_ASSETS_LEDGER"):
        Ledger(tmp_path / "ledger.sqlite")


def test_the_clock_follows_the_server_and_not_this_machine() -> None:
    clock = ServerClock()
    assert not clock.known
    now = time.monotonic()
    clock.sync(5_000_000, now - 0.1, now)
    assert 5_000_050 <= clock.now() < 5_001_000
    assert clock.error_ms == pytest.approx(51)


class SimulatedClock(ServerClock):
    """A clock that is off by some milliseconds, in a world whose time a test sets."""

    def __init__(self, off_ms: float, bound_ms: float) -> None:
        super().__init__()
        self.time_ms = 0.0
        self._off_ms = off_ms
        self._bound_ms = bound_ms

    def at(self, monotonic: float) -> float:
        return monotonic * 1_000 + self._off_ms

    def now(self) -> float:
        return self.time_ms + self._off_ms

    @property
    def error_ms(self) -> float:
        return self._bound_ms

    @property
    def known(self) -> bool:
        return True


class CountingServer:
    """Binance's side: weight by UTC minute of arrival, ours and that of others."""

    def __init__(self) -> None:
        self.counted: dict[int, int] = {}

    def arrive(self, at_ms: float, weight: int) -> int:
        minute = int(at_ms // MINUTE)
        self.counted[minute] = self.counted.get(minute, 0) + weight
        return self.counted[minute]


@settings(max_examples=60, deadline=None)
@given(
    limit=st.integers(20, 80),
    skew=st.floats(-1, 1),
    bound=st.floats(1, 2_000),
    chance=st.randoms(use_true_random=False),
)
def test_the_server_never_counts_more_than_its_limit_whatever_clocks_and_delays_do(
    limit: int, skew: float, bound: float, chance: random.Random
) -> None:
    clock, server = SimulatedClock(skew * bound, bound), CountingServer()
    on_the_way: list[tuple[float, float, Budget, int, float, bool]] = []
    with tempfile.TemporaryDirectory() as folder:
        ledger = Ledger(Path(folder) / "ledger.sqlite")
        budgets = [Budget(ledger, "here", "spot", clock, limit, 1.0, 900, 10**6) for _ in range(2)]
        now = 1_000.0 * MINUTE + 50_000
        for number in range(300):
            now += chance.uniform(0, 150)
            for call in sorted(on_the_way, key=lambda found: found[0]):
                arrives, comes_back, budget, weight, sent, answered = call
                if comes_back <= now:
                    clock.time_ms = comes_back
                    used = server.arrive(arrives, weight)
                    budget.record(weight, used if answered else None, sent / 1_000, comes_back / 1_000)
                    on_the_way.remove(call)
            clock.time_ms = now
            budget, weight = budgets[number % 2], chance.choice([1, 2, 5])
            if budget._try_to_acquire(weight) == 0:
                there, back = chance.uniform(1, 800), chance.uniform(1, 800)
                on_the_way.append((now + there, now + there + back, budget, weight, now, chance.random() < 0.8))
        for arrives, _, _, weight, _, _ in on_the_way:
            server.arrive(arrives, weight)
        assert max(server.counted.values()) <= limit
        assert min(server.counted.values()) > 0
        ledger.close()
