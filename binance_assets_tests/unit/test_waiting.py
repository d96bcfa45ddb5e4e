"""What a process waits for: which wait is shown, and which time counts as waited."""

from __future__ import annotations

import itertools
import threading

import pytest
from hypothesis import given
from hypothesis import strategies as st

from binance_assets.cli import output, progress
from binance_assets.cli.json_output import Outcome
from binance_assets.cli.output import print_outcomes
from binance_assets.cli.progress import Place, in_words, next_output, shown
from binance_assets.exchange.circuit import Circuit
from binance_assets.exchange.errors import Cancelled, NoConnection
from binance_assets.exchange.retry import Retrier
from binance_assets.waiting import Activity, Board, Wait, activity, phase


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def test_time_counts_as_waited_while_something_waits_and_no_request_is_in_flight() -> None:
    clock = Clock()
    board = Board(clock)
    with board.waiting(Wait("a pause")):
        clock.now += 5
        with board.request():
            clock.now += 7
        clock.now += 11
        with board.waiting(Wait("a lock")):
            clock.now += 13
        assert board.waited() == 29
    clock.now += 17
    assert board.waited() == 29


def test_the_wait_that_has_lasted_longest_is_shown_and_may_change_its_reason() -> None:
    clock = Clock()
    board = Board(clock)
    with board.waits() as announce:
        assert board.activity().wait is None
        announce(Wait("first"))
        clock.now += 2
        with board.waiting(Wait("later")):
            announce(Wait("first, changed"))
            assert board.activity() == Activity(None, Wait("first, changed"), 2, 0, 0)
    assert board.activity().wait is None


def test_the_innermost_phase_is_shown_and_a_failure_ends_it() -> None:
    board = Board()
    with board.phase("planning"):
        with board.phase("reading"):
            assert board.activity().phase == "reading"
        with pytest.raises(ZeroDivisionError), board.phase("computing"):
            1 / 0  # noqa: B018
        assert board.activity().phase == "planning"
    assert board.activity().phase is None


@pytest.mark.parametrize(("until", "text"), [(None, "a pause"), (1_700_000_000_001, "a pause until 22:13:21 UTC")])
def test_a_wait_names_its_end_rounded_up_to_a_second(until: float | None, text: str) -> None:
    assert str(Wait("a pause", until)) == text


@pytest.mark.parametrize(
    ("now", "words"),
    [
        (Activity("planning", None, 0, 0, 0), "planning"),
        (Activity("planning", Wait("a pause"), 0.1, 0, 0), "planning"),
        (Activity("planning", Wait("a pause"), 1, 0, 0), "a pause"),
        (Activity("planning", None, 0, 1, 0.5), "planning; 1 request in flight"),
        (Activity(None, None, 0, 9, 4.2), "9 requests in flight, the oldest for 4 s"),
        (Activity(None, None, 0, 0, 0), ""),
    ],
)
def test_what_a_command_does_is_one_line(now: Activity, words: str) -> None:
    assert in_words(now) == words


@pytest.mark.parametrize(("last", "due"), [(None, 101), (101, 131), (500, 530)])
def test_a_log_gets_a_line_a_second_after_the_start_and_then_every_half_minute(last: float | None, due: float) -> None:
    assert next_output("log", 100, last) == due


@given(
    place=st.sampled_from(["frames", "lines"]),
    began=st.floats(0, 1e6),
    delays=st.lists(st.floats(0, 0.3), max_size=20),
)
def test_on_a_terminal_an_output_is_due_within_two_seconds_of_the_start_and_of_the_last_one(
    place: Place, began: float, delays: list[float]
) -> None:
    """Each output may come a moment after it is due: the threads that print look again after so long."""
    times = [began]
    for delay in delays:
        last = None if len(times) == 1 else times[-1]
        times.append(next_output(place, began, last) + delay)
    assert all(earlier <= later <= earlier + 2 for earlier, later in itertools.pairwise(times))


activities = st.builds(
    Activity,
    phase=st.none() | st.text(),
    wait=st.none() | st.builds(Wait, st.text(), st.none() | st.floats(0, 4e12)),
    wait_seconds=st.floats(0, 1e5),
    requests=st.integers(0, 100),
    request_seconds=st.floats(0, 1e5),
)


@given(now=activities, counted=st.booleans())
def test_an_output_has_words_whatever_the_process_does(now: Activity, counted: bool) -> None:
    """Also where code names an empty phase or an empty reason."""
    done = "spot/BTCUSDT/1m: 0 of 31 done" if counted else ""
    assert shown(done, in_words(now), "Polars").strip()


def test_frames_are_drawn_as_often_as_they_are_due() -> None:
    with progress.Display() as display:
        assert display._bars.live.refresh_per_second == pytest.approx(1 / next_output("frames", 0, 0))


def test_a_log_gets_lines_also_while_nothing_completes(
    capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, seconds in (("_SECONDS_BETWEEN_LINES", 0.05), ("_POLL_SECONDS", 0.01)):
        monkeypatch.setattr(progress, name, seconds)
    text = ""
    with progress.Display() as display, phase("waiting for nothing"):
        display.begin("spot/BTCUSDT/1m", 31)
        for _ in range(1_000):
            text += capfd.readouterr().err
            if text.count("spot/BTCUSDT/1m: 0 of 31 done; waiting for nothing") >= 2:
                return
            threading.Event().wait(0.01)
    pytest.fail(text)


def test_the_final_table_counts_waiting_apart(capsys: pytest.CaptureFixture[str]) -> None:
    outcome = Outcome(
        days_asked=1,
        days_present=1,
        verdicts={},
        refused=[],
        requests=1,
        weight=1,
        warmup=1,
        workers=1,
        rtt_ms=100.0,
        rows=1,
        seconds=61.04,
        waited=52.5,
    )
    print_outcomes({"spot/BTCUSDT/1m": outcome}, {}, as_json=False)
    header, row = capsys.readouterr().out.strip().splitlines()
    assert header.split()[-3:] == ["seconds", "waiting", "candles/s"]
    assert row.split()[-3:-1] == ["61.0", "52.5"]


@pytest.mark.parametrize("most", [1, 1_000])
def test_a_long_table_is_printed_like_a_short_one(
    most: int, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(output, "_MANY_ROWS", most)
    table = output.build_table(["series"], ["rows"])
    for number in range(3):
        table.add_row(f"[bold]{number}", str(number))
    output.print_table(table)
    assert [line.split() for line in capsys.readouterr().out.splitlines()] == [
        ["series", "rows"],
        *([f"[bold]{number}", str(number)] for number in range(3)),
    ]


def test_a_retry_announces_its_error_and_its_end() -> None:
    shown = []

    def look(seconds: float, stop: threading.Event) -> bool:
        shown.append(activity().wait)
        return True

    def fail() -> None:
        raise NoConnection("no connection to example.com")

    with pytest.raises(Cancelled):
        Retrier(look).call_with_retries(fail, threading.Event())
    (wait,) = shown
    assert wait is not None
    assert wait.reason == "attempt 1 of 6 failed (no connection to example.com); waiting"
    assert wait.until is not None
    assert activity().wait is None


def test_calls_that_wait_for_the_one_that_asks_a_failing_host_announce_it() -> None:
    circuit, asking, seen = Circuit(failures=1, probes=5), threading.Event(), threading.Event()

    def fail() -> None:
        raise NoConnection("no connection to example.com")

    def probe() -> None:
        asking.set()
        seen.wait(60)

    with pytest.raises(NoConnection):
        circuit.call(fail)
    threads = [threading.Thread(target=circuit.call, args=(probe,)) for _ in range(2)]
    threads[0].start()
    asking.wait(60)
    threads[1].start()
    for _ in range(1_000):
        if (wait := activity().wait) is not None:
            break
        threading.Event().wait(0.01)
    seen.set()
    for thread in threads:
        thread.join(60)
    assert wait is not None
    assert "the host keeps failing (no connection to example.com), so one request at a time probes it" in wait.reason
