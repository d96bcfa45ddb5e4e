"""The weight budget: never over the limit, no weight lost between minutes, one ledger for all processes."""

from __future__ import annotations

import os
import random
import sqlite3
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import SecretStr

from binance_assets.exchange.clock import ServerClock
from binance_assets.exchange.errors import Banned, BannedForLong, Cancelled, RateLimited
from binance_assets.exchange.rate_limit.budget import Budget
from binance_assets.exchange.rate_limit.figures import figures_of
from binance_assets.exchange.rate_limit.ledger import (
    Block,
    Ledger,
    LedgerError,
    RateLimitGroup,
    StoredLease,
    StoredLimit,
)
from binance_assets.exchange.rate_limit.policy import Minute, claimable, spendable
from binance_assets.model.timestamps import MINUTE
from binance_assets.processes import ProcessIdentity, this_process
from binance_assets.waiting import activity
from binance_assets_tests.support.postgres_server import PostgresServer

NEVER_STOPPED = threading.Event()
SPOT, FUTURES = RateLimitGroup("here", "spot"), RateLimitGroup("here", "futures")


class SetClock(ServerClock):
    """A server clock with a time that a test sets."""

    def __init__(self, at_ms: float) -> None:
        super().__init__()
        self.at_ms = at_ms
        self.times: dict[float, float] = {}
        self.sync(0, 0.0, 0.0)

    def at(self, monotonic: float) -> float:
        return self.times.get(monotonic, self.at_ms)


def budget_at(ledger: Ledger, at_ms: float, limit: int = 100, share: float = 1.0, patience: float = 900) -> Budget:
    return Budget(ledger, SPOT, SetClock(at_ms), limit, share, patience, call_lifetime=30)


def spend(budget: Budget, weight: int, used: int | None) -> None:
    """Make one call whose response has the used-weight header ``used``."""
    budget.acquire(weight, NEVER_STOPPED)
    budget.record(weight, used, 0, 0)


@pytest.fixture(params=["sqlite", pytest.param("postgres", marks=pytest.mark.services)])
def location(request: pytest.FixtureRequest, tmp_path: Path) -> Path | SecretStr:
    """Where an empty ledger is: in a file, or on a Postgres server."""
    if request.param == "sqlite":
        return tmp_path / "ledger.sqlite"
    postgres: PostgresServer = request.getfixturevalue("postgres")
    return SecretStr(postgres.new_database())


@pytest.fixture
def ledger(location: Path | SecretStr) -> Iterator[Ledger]:
    with closing(Ledger(location)) as opened:
        yield opened


MIDDLE = 1_000 * MINUTE + 30_000


@given(st.integers(0, 10_000), st.integers(0, 10_000), st.integers(0, 10_000), st.integers(0, 5_000), st.floats(0, 1))
def test_spendable_weight_never_takes_the_minute_over_its_limit(
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
def test_claimable_weight_is_enough_for_the_call_and_at_most_what_is_spendable(
    limit: int, ours: int, seen: int, in_flight: int, share: float, weight: int
) -> None:
    minute = Minute(limit, ours, seen, in_flight)
    claimed = claimable(minute, share, weight)
    assert claimed == 0 or claimed >= weight
    if ours or seen or in_flight:  # the very first call of a minute may run, whatever it costs
        assert claimed <= spendable(minute, share)
    if not in_flight and weight <= spendable(minute, share):
        assert claimed  # otherwise the call would wait forever


@given(st.integers(100, 10_000), st.integers(0, 10_000), st.integers(0, 5_000), st.integers(1, 20))
def test_at_most_half_of_the_remaining_weight_is_in_flight(limit: int, seen: int, in_flight: int, weight: int) -> None:
    claimed = claimable(Minute(limit, seen, seen, in_flight), 1, weight)
    if claimed and in_flight:
        assert in_flight + claimed <= limit - seen - (in_flight + claimed)


def test_with_other_programs_the_last_weight_of_a_minute_is_spent_one_call_at_a_time() -> None:
    assert claimable(Minute(1_000, ours=500, seen=930, in_flight=0), 1, 2) == 2
    assert claimable(Minute(1_000, ours=500, seen=930, in_flight=2), 1, 2) == 0
    assert claimable(Minute(1_000, ours=930, seen=930, in_flight=2), 1, 2) > 0


@given(st.integers(1, 500), st.lists(st.tuples(st.integers(1, 20), st.sampled_from(["respond", "lose", "keep"]))))
def test_claims_never_exceed_the_limit_whether_calls_succeed_or_fail(limit: int, calls: list[tuple[int, str]]) -> None:
    minute, counted, in_flight = Minute(limit, 0, 0, 0), 0, 0
    for weight, outcome in calls:
        if weight > spendable(minute):
            continue
        counted += weight  # the server counts every call that was sent
        ours, seen = minute.ours + weight, minute.seen
        if outcome == "keep":
            in_flight += weight
        else:
            seen = counted if outcome == "respond" else seen + weight
        minute = Minute(limit, ours, seen, in_flight)
        assert counted <= limit


def test_the_weight_of_a_minute_can_be_spent_completely_and_not_beyond(ledger: Ledger) -> None:
    budget = budget_at(ledger, MIDDLE, limit=100)
    used = 0
    for _ in range(50):
        used += 2
        spend(budget, 2, used)
    assert budget.spendable_now() == 0
    assert budget_at(ledger, MIDDLE + MINUTE, limit=100).spendable_now() == 100


def test_weight_that_others_used_counts_from_the_next_response(ledger: Ledger) -> None:
    budget = budget_at(ledger, MIDDLE, limit=100)
    spend(budget, 2, 62)
    assert budget.spendable_now() == 38


def test_a_share_leaves_the_rest_to_others(ledger: Ledger) -> None:
    budget = budget_at(ledger, MIDDLE, limit=100, share=0.5)
    assert budget.spendable_now() == 50
    spend(budget, 10, 60)
    assert budget.spendable_now() == 40  # ours: 50 - 10; the limit: 100 - 60


def test_a_call_without_a_response_is_charged(ledger: Ledger) -> None:
    budget = budget_at(ledger, MIDDLE, limit=100)
    spend(budget, 10, None)
    assert budget.spendable_now() == 90


def test_calls_in_flight_at_the_end_of_a_minute_count_in_both_minutes(ledger: Ledger) -> None:
    clock = SetClock(MIDDLE)
    budget = Budget(ledger, SPOT, clock, 100, 1.0, 900, 30)
    budget.acquire(30, NEVER_STOPPED)
    clock.at_ms += MINUTE
    assert budget.spendable_now() == 70
    budget.record(30, None, 0, 0)
    assert budget.spendable_now() == 70


def test_all_users_of_the_ledger_share_the_minute(ledger: Ledger, location: Path | SecretStr) -> None:
    other = Ledger(location)
    first, second = budget_at(ledger, MIDDLE), budget_at(other, MIDDLE)
    first.acquire(60, NEVER_STOPPED)
    assert second.spendable_now() == 40
    first.record(60, 60, 0, 0)
    assert second.spendable_now() == 40


def test_a_lease_leaves_most_of_the_minute_to_others_and_ends_with_the_calls(
    ledger: Ledger, location: Path | SecretStr
) -> None:
    other = Ledger(location)
    first, second = budget_at(ledger, MIDDLE, 6_000), budget_at(other, MIDDLE, 6_000)
    first.acquire(2, NEVER_STOPPED)
    assert 6_000 * 7 / 8 <= second.spendable_now() < 6_000
    first.record(2, 2, 0, 0)
    assert second.spendable_now() == 5_998


def test_a_lease_is_given_back_if_the_limit_turns_out_to_be_lower(ledger: Ledger) -> None:
    budget = budget_at(ledger, MIDDLE, limit=6_000)
    budget.acquire(2, NEVER_STOPPED)
    budget.remember_limit(600)
    assert budget.spendable_now() == 598


def test_a_lease_is_not_spent_on_top_of_what_others_have_used_since(ledger: Ledger) -> None:
    budget = budget_at(ledger, MIDDLE, limit=800)
    budget.acquire(2, NEVER_STOPPED)
    budget.acquire(2, NEVER_STOPPED)
    budget.record(2, 798, 0, 0)
    stop = threading.Event()
    threading.Timer(0.2, stop.set).start()
    with pytest.raises(Cancelled):
        budget.acquire(2, stop)


def test_rate_limit_groups_are_independent(ledger: Ledger) -> None:
    budget_at(ledger, MIDDLE).acquire(60, NEVER_STOPPED)
    for group in (FUTURES, RateLimitGroup("elsewhere", "spot")):
        assert Budget(ledger, group, SetClock(MIDDLE), 100, 1.0, 900, 30).spendable_now() == 100


def test_the_lease_of_a_dead_process_does_not_block(ledger: Ledger) -> None:
    dead = subprocess.Popen([sys.executable, "-c", ""])
    dead.wait()
    with ledger.transaction(SPOT) as transaction:
        transaction.write_lease(None, 100, this_process()._replace(pid=dead.pid), MIDDLE * 2)
    stop = threading.Event()
    threading.Timer(0.3, stop.set).start()
    with pytest.raises(Cancelled):  # charged to this minute, because the server may have counted it
        budget_at(ledger, MIDDLE).acquire(10, stop)
    budget_at(ledger, MIDDLE + MINUTE).acquire(100, NEVER_STOPPED)


def test_waiting_for_weight_ends_when_the_run_is_stopped(ledger: Ledger) -> None:
    budget = budget_at(ledger, MIDDLE, limit=10)
    spend(budget, 10, 10)
    stop = threading.Event()
    threading.Timer(0.1, stop.set).start()
    with pytest.raises(Cancelled):
        budget.acquire(1, stop)


def announced(budget: Budget) -> str:
    """Return what a call that has to wait for weight announces."""
    stop, found = threading.Event(), ""

    def acquire() -> None:
        with pytest.raises(Cancelled):
            budget.acquire(1, stop)

    thread = threading.Thread(target=acquire)
    thread.start()
    for _ in range(1_000):
        if (wait := activity().wait) is not None and "ledger" not in wait.reason:
            found = str(wait)
            break
        time.sleep(0.01)
    stop.set()
    thread.join(60)
    return found


def test_a_call_that_waits_for_weight_announces_why_and_until_when(ledger: Ledger) -> None:
    spent = budget_at(ledger, MIDDLE, limit=10)
    spend(spent, 10, 10)
    assert announced(spent) == "this minute's request weight is spent; waiting until 16:41:00 UTC"


def test_a_call_that_waits_for_the_lease_of_another_process_names_it(ledger: Ledger) -> None:
    with ledger.transaction(SPOT) as transaction:
        transaction.write_lease(None, 100, this_process()._replace(pid=os.getppid(), began=""), MIDDLE * 2)
    words = announced(budget_at(ledger, MIDDLE))
    assert words.startswith(f"process {os.getppid()} holds the rest of this minute's weight; waiting, at most until")


@pytest.mark.parametrize(
    ("error", "reason"), [(RateLimited, "Binance asked for a pause"), (Banned, "Binance has banned this IP")]
)
def test_a_call_that_waits_for_the_end_of_a_block_announces_it(
    ledger: Ledger, error: type[RateLimited | Banned], reason: str
) -> None:
    budget = budget_at(ledger, MIDDLE)
    budget.block(error("too much", headers={"Retry-After": "120"}))
    assert announced(budget) == f"{reason} until 16:42:30 UTC"


def test_a_429_stops_every_user_of_the_group_until_it_is_over(ledger: Ledger, location: Path | SecretStr) -> None:
    budget_at(ledger, MIDDLE).block(RateLimited("too much", headers={"Retry-After": "1"}))
    other = budget_at(Ledger(location), MIDDLE)
    began = time.time()
    other.acquire(1, NEVER_STOPPED)
    assert time.time() - began >= 0.9


def test_a_ban_longer_than_the_patience_ends_the_run_and_names_its_end(ledger: Ledger) -> None:
    budget = budget_at(ledger, MIDDLE, patience=60)
    budget.block(Banned("banned", headers={"Retry-After": "120"}))
    with pytest.raises(BannedForLong, match="banned until 1970-01-01 16:42:30 UTC"):
        budget.acquire(1, NEVER_STOPPED)


def test_a_ban_stops_even_a_process_that_holds_a_lease(ledger: Ledger, location: Path | SecretStr) -> None:
    holder = budget_at(ledger, MIDDLE, limit=6_000)
    holder.acquire(2, NEVER_STOPPED)
    budget_at(Ledger(location), MIDDLE).block(Banned("banned", headers={"Retry-After": "120"}))
    time.sleep(0.12)  # as long as a lease may be used without reading the ledger
    stop = threading.Event()
    threading.Timer(0.2, stop.set).start()
    with pytest.raises(Cancelled):
        holder.acquire(2, stop)


def test_responses_that_overtake_each_other_at_the_edge_of_a_minute_do_not_spend_the_new_minute(ledger: Ledger) -> None:
    clock = SetClock(MIDDLE)
    budget = Budget(ledger, SPOT, clock, 6_000, 1.0, 900, 30)
    edge = MIDDLE // MINUTE * MINUTE + MINUTE
    clock.times = {1.0: edge - 50, 2.0: edge + 50, 3.0: edge - 40}
    budget.acquire(2, NEVER_STOPPED)
    budget.acquire(2, NEVER_STOPPED)
    budget.record(2, 4_100, 1.0, 3.0)
    budget.record(2, 4_000, 1.0, 2.0)
    clock.at_ms = edge + 100
    assert budget.spendable_now() >= 5_990


def test_limits_are_remembered_for_a_day(ledger: Ledger) -> None:
    budget = budget_at(ledger, MIDDLE)
    assert budget.known_limit is None
    budget.remember_limit(1_000)
    assert budget.known_limit == 1_000
    assert budget.spendable_now() == 1_000
    assert budget_at(ledger, MIDDLE + 25 * 60 * MINUTE).known_limit is None


def test_a_file_that_is_not_a_ledger_is_named_in_one_line(tmp_path: Path) -> None:
    (tmp_path / "ledger.sqlite").write_text("this is a text and not a database" * 10)
    with pytest.raises(LedgerError, match="set BINANCE_ASSETS_LEDGER") as caught:
        Ledger(tmp_path / "ledger.sqlite")
    assert str(tmp_path / "ledger.sqlite") in str(caught.value)
    assert "\n" not in str(caught.value)


# -- what the ledger stores -----------------------------------------------------------------------------------------


def test_the_ledger_keeps_a_limit_with_the_time_at_which_it_was_read(ledger: Ledger) -> None:
    with ledger.transaction(SPOT) as transaction:
        assert transaction.limit() is None
        transaction.store_limit(StoredLimit(1_000, MIDDLE))
        assert transaction.limit() == StoredLimit(1_000, MIDDLE)
        assert transaction.minute(7, documented_limit=6_000) == Minute(1_000, 0, 0, 0)
    with ledger.transaction(FUTURES) as transaction:
        assert transaction.limit() is None
        assert transaction.minute(7, documented_limit=6_000) == Minute(6_000, 0, 0, 0)


def test_the_ledger_adds_what_we_claim_and_forgets_old_minutes(ledger: Ledger) -> None:
    with ledger.transaction(SPOT) as transaction:
        transaction.add_ours(7, 30)
        transaction.add_ours(7, -10)
        assert transaction.minute(7, 100).ours == 20
        transaction.add_ours(8, 5)
        assert transaction.minute(7, 100).ours == 20  # calls in flight at its end may still be recorded
        transaction.add_ours(9, 5)
        assert transaction.minute(7, 100).ours == 0


def test_the_ledger_keeps_the_largest_used_weight_and_adds_what_no_header_names(ledger: Ledger) -> None:
    with ledger.transaction(SPOT) as transaction:
        transaction.record_seen(7, at_least=40)
        transaction.record_seen(7, at_least=30)
        assert transaction.minute(7, 100).seen == 40
        transaction.record_seen(7, more=5)
        assert transaction.minute(7, 100).seen == 45
        transaction.record_seen(7, at_least=60, more=5)
        assert transaction.minute(7, 100).seen == 60


def test_the_ledger_keeps_a_lease_until_it_is_deleted(ledger: Ledger) -> None:
    with ledger.transaction(SPOT) as transaction:
        one, two = ProcessIdentity("boot", "pid:[1]", 1, "5"), ProcessIdentity("boot", "pid:[2]", 1, "6")
        first = transaction.write_lease(None, 10, one, expires=50)
        second = transaction.write_lease(None, 20, two, expires=60)
        assert transaction.minute(7, 100).in_flight == 30
        assert transaction.other_leases(None) == [
            StoredLease(first, 10, "boot/pid:[1]/1/5", 50),
            StoredLease(second, 20, "boot/pid:[2]/1/6", 60),
        ]
        assert transaction.write_lease(first, 15, one, expires=70) == first
        assert transaction.other_leases(second) == [StoredLease(first, 15, str(one), 70)]
        transaction.delete_lease(None)
        transaction.delete_lease(first)
        assert transaction.minute(7, 100).in_flight == 20
        again = transaction.write_lease(first, 15, one, expires=80)
        assert transaction.other_leases(second) == [StoredLease(again, 15, str(one), 80)]
    with ledger.transaction(FUTURES) as transaction:
        assert transaction.other_leases(None) == []


def test_the_ledger_keeps_the_block_that_ends_last(ledger: Ledger) -> None:
    longer, shorter = Block(2_000, True, "banned"), Block(1_000, False, "too much")
    with ledger.transaction(SPOT) as transaction:
        assert transaction.block() is None
        for block in (shorter, longer, shorter):
            transaction.store_block(block)
        assert transaction.block() == longer
        after_a_reboot = Block(500, False, "too much", number=3, until=7, clock="another")
        transaction.store_block(after_a_reboot)
        assert transaction.block() == after_a_reboot


def test_the_figures_of_the_ledger_are_those_of_the_server_s_minute_and_end_with_the_block(ledger: Ledger) -> None:
    assert figures_of(ledger, MIDDLE) == []
    budget = budget_at(ledger, MIDDLE - MINUTE, limit=6_000)
    spend(budget, 20, used=25)
    later = budget_at(ledger, MIDDLE, limit=6_000)
    later.remember_limit(5_000)
    later.remember_clock()
    spend(later, 2, used=2)
    (figures,) = figures_of(ledger, 0)  # the wall clock is wrong
    assert (figures.group, figures.current) == (SPOT, Minute(5_000, 2, 2, 0))
    assert (figures.previous.ours, figures.previous.seen) == (20, 25)
    assert (figures.blocked_seconds, figures.banned, figures.blocks) == (0, False, 0)
    later.block(Banned("banned", headers={"Retry-After": "300"}))
    (figures,) = figures_of(ledger, 0)
    assert 250 < figures.blocked_seconds <= 301
    assert (figures.banned, figures.blocks) == (True, 1)


def test_a_failed_transaction_changes_nothing(ledger: Ledger) -> None:
    def fail() -> None:
        with ledger.transaction(SPOT) as transaction:
            transaction.add_ours(7, 30)
            raise NotImplementedError

    with pytest.raises(NotImplementedError):
        fail()
    with ledger.transaction(SPOT) as transaction:
        assert transaction.minute(7, 100).ours == 0


def test_a_closed_ledger_cancels_its_users(ledger: Ledger) -> None:
    ledger.close()
    with pytest.raises(Cancelled), ledger.transaction(SPOT):
        pass


def test_no_update_of_threads_and_processes_is_lost(location: Path | SecretStr) -> None:
    place = location.get_secret_value() if isinstance(location, SecretStr) else str(location)
    processes = [subprocess.Popen([sys.executable, "-c", UPDATE_IN_THREADS, place]) for _ in range(3)]
    assert [process.wait() for process in processes] == [0, 0, 0]
    with closing(Ledger(location)) as ledger, ledger.transaction(SPOT) as transaction:
        assert transaction.minute(7, 100).ours == 3 * 50 * 10


UPDATE_IN_THREADS = """
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from pydantic import SecretStr
from binance_assets.exchange.rate_limit.ledger import Ledger, RateLimitGroup

ledger = Ledger(SecretStr(sys.argv[1]) if "://" in sys.argv[1] else Path(sys.argv[1]))

def update(_):
    for _ in range(10):
        with ledger.transaction(RateLimitGroup("here", "spot")) as transaction:
            transaction.add_ours(7, 1)

with ThreadPoolExecutor(50) as threads:
    list(threads.map(update, range(50)))
"""


def test_a_new_file_may_be_opened_by_many_at_once(tmp_path: Path) -> None:
    def open_together(path: Path) -> None:
        together.wait()
        Ledger(path).close()

    together = threading.Barrier(8)
    with ThreadPoolExecutor(8) as threads:
        for number in range(50):
            opened = [threads.submit(open_together, tmp_path / f"{number}.sqlite") for _ in range(8)]
            for future in opened:
                future.result()


def test_the_file_format_is_the_one_that_other_versions_read(tmp_path: Path) -> None:
    path = tmp_path / "ledger.sqlite"
    budget = budget_at(Ledger(path), MIDDLE)
    budget.remember_limit(1_000)
    budget.acquire(2, NEVER_STOPPED)
    with closing(sqlite3.connect(path)) as database:
        assert database.execute("PRAGMA user_version").fetchone() == (1,)
        tables = database.execute("SELECT name FROM sqlite_master WHERE type = 'table' AND name NOT LIKE 'sqlite_%'")
        columns = {name: [column[1] for column in database.execute(f"PRAGMA table_info({name})")] for (name,) in tables}
        assert columns == {
            "pool": ["address", "name", "weight_limit", "read_at", "blocked_until", "banned", "reason", "clock_offset"],
            "minute": ["address", "name", "minute", "ours", "seen"],
            "lease": ["id", "address", "name", "weight", "pid", "expires", "holder"],
            "block": ["address", "name", "clock", "ends", "until", "banned", "reason", "repeats"],
            "clock": ["address", "name", "clock", "offset", "read_at"],
        }
        assert database.execute("SELECT address, name, weight_limit, read_at FROM pool").fetchall() == [
            ("here", "spot", 1_000, MIDDLE)
        ]
        assert database.execute("SELECT pid, holder FROM lease").fetchall() == [(os.getpid(), str(this_process()))]


VERSION_0_1_0 = """
CREATE TABLE pool (
    address TEXT, name TEXT, weight_limit INTEGER, read_at INTEGER NOT NULL DEFAULT 0,
    blocked_until INTEGER NOT NULL DEFAULT 0, banned INTEGER NOT NULL DEFAULT 0, reason TEXT NOT NULL DEFAULT '',
    clock_offset REAL, PRIMARY KEY (address, name));
CREATE TABLE minute (
    address TEXT, name TEXT, minute INTEGER, ours INTEGER NOT NULL DEFAULT 0, seen INTEGER NOT NULL DEFAULT 0,
    PRIMARY KEY (address, name, minute));
CREATE TABLE lease (
    id INTEGER PRIMARY KEY AUTOINCREMENT, address TEXT, name TEXT, weight INTEGER NOT NULL, pid INTEGER NOT NULL,
    expires INTEGER NOT NULL);
PRAGMA user_version = 1;
"""


def test_a_process_of_version_0_1_0_goes_on_with_the_ledger_that_a_later_one_has_opened(tmp_path: Path) -> None:
    path, minute = tmp_path / "ledger.sqlite", MIDDLE // MINUTE
    with closing(sqlite3.connect(path, isolation_level=None)) as earlier:
        earlier.executescript(VERSION_0_1_0)
        with closing(Ledger(path)) as ledger:
            # As that version writes: a claim, its lease, the limit, and a block by the wall clock.
            earlier.execute("INSERT INTO minute VALUES ('here', 'spot', ?, 30, 0)", (minute,))
            earlier.execute(
                "INSERT INTO lease (address, name, weight, pid, expires) VALUES ('here', 'spot', 30, 1, ?)",
                (2 * MIDDLE,),
            )
            earlier.execute(
                "INSERT INTO pool (address, name, weight_limit, read_at, blocked_until, banned, reason, clock_offset) "
                "VALUES ('here', 'spot', 200, ?, ?, 1, 'banned', 5.0)",
                (MIDDLE, 2**50),
            )
            budget = budget_at(ledger, MIDDLE)
            budget.acquire(10, NEVER_STOPPED)
            assert budget.spendable_now() == 200 - 30 - 10
            assert earlier.execute("SELECT sum(weight) FROM lease").fetchone() == (40,)
            assert earlier.execute("SELECT weight_limit, read_at FROM pool").fetchone() == (200, MIDDLE)


def test_a_clock_offset_is_shared_with_later_processes(ledger: Ledger) -> None:
    wall_ms = time.time() * 1_000
    first, later = ServerClock(), ServerClock()
    first.sync(int(wall_ms) + 90_000, time.monotonic(), time.monotonic())
    Budget(ledger, SPOT, later, 100, 1.0, 900, 30).recall_clock()
    assert not later.known
    Budget(ledger, SPOT, first, 100, 1.0, 900, 30).remember_clock()
    Budget(ledger, SPOT, later, 100, 1.0, 900, 30).recall_clock()
    assert later.known
    assert later.now() == pytest.approx(first.now(), abs=100)
    assert later.error_ms == 1_000
    assert later.age == float("inf")  # the server itself has not responded yet


def test_a_call_without_a_claim_is_charged_once(ledger: Ledger) -> None:
    budget = budget_at(ledger, MIDDLE)
    budget.record_unclaimed(1, used=31)
    assert budget.spendable_now() == 69
    budget.record_unclaimed(1, used=None)
    assert budget.spendable_now() == 68


# -- the clock ------------------------------------------------------------------------------------------------------


def test_the_clock_follows_the_server_and_not_this_machine() -> None:
    clock = ServerClock()
    assert not clock.known
    now = time.monotonic()
    clock.sync(5_000_000, now - 0.1, now)
    assert 5_000_050 <= clock.now() < 5_001_000
    assert clock.error_ms == pytest.approx(51)


# -- budgets against a simulated server -----------------------------------------------------------------------------


class SimulatedClock(ServerClock):
    """A clock with an error of some milliseconds, in a simulation that sets the true time."""

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
    """Binance's side: the weight counted by UTC minute of arrival."""

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
def test_the_server_never_counts_more_than_its_limit_with_any_clock_error_and_delay(
    limit: int, skew: float, bound: float, chance: random.Random
) -> None:
    clock, server = SimulatedClock(skew * bound, bound), CountingServer()
    in_flight: list[tuple[float, float, Budget, int, float, bool]] = []
    with tempfile.TemporaryDirectory() as folder:
        ledger = Ledger(Path(folder) / "ledger.sqlite")
        budgets = [Budget(ledger, SPOT, clock, limit, 1.0, 900, 10**6) for _ in range(2)]
        now = 1_000.0 * MINUTE + 50_000
        for number in range(300):
            now += chance.uniform(0, 150)
            for call in sorted(in_flight, key=lambda call: call[0]):
                arrives, returns, budget, weight, sent, responds = call
                if returns <= now:
                    clock.time_ms = returns
                    used = server.arrive(arrives, weight)
                    budget.record(weight, used if responds else None, sent / 1_000, returns / 1_000)
                    in_flight.remove(call)
            clock.time_ms = now
            budget, weight = budgets[number % 2], chance.choice([1, 2, 5])
            if budget._try_to_acquire(weight) is None:
                there, back = chance.uniform(1, 800), chance.uniform(1, 800)
                in_flight.append((now + there, now + there + back, budget, weight, now, chance.random() < 0.8))
        for arrives, _, _, weight, _, _ in in_flight:
            server.arrive(arrives, weight)
        assert max(server.counted.values()) <= limit
        assert min(server.counted.values()) > 0
        ledger.close()
