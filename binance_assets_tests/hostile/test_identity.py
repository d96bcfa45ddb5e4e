"""Who lives: processes of other containers, of other boots, and of earlier versions are never taken for dead.

A container is emulated by a PID namespace: its first process has the ID 1, and its IDs mean nothing outside.
"""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
import threading
import uuid
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import dagster as dg
import pytest
from hypothesis import given
from hypothesis import strategies as st

from binance_assets.exchange.clock import ServerClock
from binance_assets.exchange.rate_limit.budget import Budget
from binance_assets.exchange.rate_limit.ledger import Ledger, RateLimitGroup
from binance_assets.model.series import parse_series
from binance_assets.orchestration.instance import open_instance
from binance_assets.orchestration.interrupted import (
    IDENTITY_TAG,
    _run_of_this_process,
    fail_runs_of_dead_processes,
)
from binance_assets.processes import ProcessIdentity, is_proved_dead, parse_identity, this_process
from binance_assets.sandbox import SandboxOptions, running_sandbox
from binance_assets.storage.lake import Lake
from binance_assets.storage.locks import own_file
from binance_assets_tests.support.environment import CHECKOUT, cli_environment
from binance_assets_tests.support.lakes import keys, state_folder, temporary_files
from binance_assets_tests.support.other_worlds import in_container
from binance_assets_tests.support.polling import until
from binance_assets_tests.support.proving_runs import a_process_for_each_step, in_process, proof_in, proves_life

HOURS = parse_series("spot/BTCUSDT/1h")
UNUSED_PID = 2**22 + 1


@contextmanager
def running(program: str, *arguments: str, container: list[str]) -> Iterator[subprocess.Popen[str]]:
    """Run a Python program in a container until the end of the block; it has printed a line when the block begins."""
    words = [*container, sys.executable, "-c", program, *arguments]
    with subprocess.Popen(words, cwd=CHECKOUT, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            assert process.stdout.readline()
            yield process
        finally:
            process.kill()


def killed(process: subprocess.Popen[str]) -> None:
    process.kill()
    process.communicate(timeout=250)


# -- identities -----------------------------------------------------------------------------------------------------


def test_only_a_process_that_can_be_seen_from_here_is_proved_dead() -> None:
    ours = this_process()
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    assert not is_proved_dead(ours)
    assert is_proved_dead(ours._replace(pid=ended.pid))
    assert is_proved_dead(ours._replace(began="1"))  # its ID belongs to another process now
    assert not is_proved_dead(ours._replace(pid=ended.pid, boot="another"))
    assert not is_proved_dead(ours._replace(pid=ended.pid, namespace="pid:[1]"))


def test_a_process_that_nobody_waits_for_is_dead() -> None:
    child = os.fork()
    if child == 0:
        os._exit(0)
    try:
        assert until(120, lambda: is_proved_dead(this_process()._replace(pid=child, began="")))
    finally:
        os.waitpid(child, 0)


def test_the_same_process_id_in_a_container_is_another_process() -> None:
    program = "from binance_assets.processes import this_process; print(this_process())"
    words = [*in_container(), sys.executable, "-c", program]
    identity = parse_identity(subprocess.run(words, cwd=CHECKOUT, stdout=subprocess.PIPE, text=True).stdout.strip())
    assert identity is not None
    assert (identity.pid, identity.boot) == (1, this_process().boot)
    assert identity.namespace != this_process().namespace
    assert not is_proved_dead(identity)


@given(st.text() | st.lists(st.text(), min_size=4, max_size=4).map("/".join))
def test_any_text_is_an_identity_or_none(text: str) -> None:
    identity = parse_identity(text)
    if identity is not None:
        assert parse_identity(str(identity)) == identity
        assert not is_proved_dead(identity)  # of another boot


# -- writers of a lake ----------------------------------------------------------------------------------------------

WRITE_A_FILE = """
import sys, time
from pathlib import Path
from binance_assets.storage.locks import own_file
with own_file(Path(sys.argv[1])) as file:
    file.write(b"half")
    file.flush()
    print("written", flush=True)
    time.sleep(60)
"""

WRITE_DAYS = """
import sys
from pathlib import Path
from binance_assets.model.series import parse_series
from binance_assets_tests.support.killed_writers import Spec, write
print("ready", flush=True)
for number in range(40):
    write(Path(sys.argv[1]), parse_series(sys.argv[2]), [Spec(f"2024-01-{1 + number % 28:02}", number)])
"""


def test_two_containers_with_one_host_name_write_to_one_lake_without_an_error(tmp_path: Path) -> None:
    root = tmp_path / "lake"
    with (
        running(WRITE_DAYS, str(root), "spot/BTCUSDT/1h", container=in_container()) as first,
        running(WRITE_DAYS, str(root), "spot/ETHUSDT/1h", container=in_container()) as second,
    ):
        assert [process.wait(timeout=250) for process in (first, second)] == [0, 0]
    assert len(keys(Lake(root), HOURS)) == 28
    assert len(keys(Lake(root), parse_series("spot/ETHUSDT/1h"))) == 28
    assert temporary_files(Lake(root)) == []


@pytest.mark.parametrize("hostname", [None, "another-host"])
def test_the_temporary_file_of_a_writer_in_a_container_is_kept_until_the_writer_is_killed(
    tmp_path: Path, hostname: str | None
) -> None:
    lake = Lake(tmp_path / "lake")
    lake.prepare("sandbox")
    path = state_folder(lake) / "incoming" / f"{uuid.uuid4().hex}.part"
    with running(WRITE_A_FILE, str(path), container=in_container(hostname)) as writer:
        Lake(lake.root).prepare("sandbox")
        assert path.read_bytes() == b"half"
        killed(writer)

        def is_removed() -> bool:
            Lake(lake.root).prepare("sandbox")  # as the next run does
            return not path.exists()

        until(120, is_removed)


# -- runs of the command line ---------------------------------------------------------------------------------------


@dg.job
def some_job() -> None:
    pass


Started = Callable[..., str]


@pytest.fixture
def started(instance: dg.DagsterInstance) -> Started:
    """Records a run that has started, with tags, and returns its ID."""

    def start(**tags: str) -> str:
        named = {f"binance_assets/{name}": value for name, value in tags.items() if name != "identity"}
        if "identity" in tags:
            named[IDENTITY_TAG] = tags["identity"]
        return instance.create_run_for_job(some_job, tags=named, status=dg.DagsterRunStatus.STARTED).run_id

    return start


def status(instance: dg.DagsterInstance, run_id: str) -> str:
    run = instance.get_run_by_id(run_id)
    assert run is not None
    return run.status.value


def test_a_run_without_a_lock_is_failed_only_if_its_identity_proves_it(
    instance: dg.DagsterInstance, started: Started
) -> None:
    ours = this_process()
    dead = ours._replace(pid=UNUSED_PID)
    here = {"host": socket.gethostname(), "process": str(UNUSED_PID)}
    runs = {
        "alive": started(**here, identity=str(ours)),
        "dead": started(**here, identity=str(dead)),
        "other container": started(**here, identity=str(dead._replace(namespace="pid:[1]"))),
        "other host or boot": started(**here, identity=str(dead._replace(boot="another"))),
        "unreadable": started(**here, identity="who knows"),
        "earlier version, dead": started(**here),
        "earlier version, elsewhere": started(host="elsewhere", process=str(UNUSED_PID)),
        "not a command": started(),
    }
    assert fail_runs_of_dead_processes(instance) == 2
    failed = [name for name, run_id in runs.items() if status(instance, run_id) == "FAILURE"]
    assert failed == ["dead", "earlier version, dead"]
    assert fail_runs_of_dead_processes(instance) == 0


@pytest.mark.parametrize("hostname", [None, "another-host"])
def test_a_run_in_a_container_is_failed_when_its_process_is_killed_and_not_before(
    instance: dg.DagsterInstance, started: Started, hostname: str | None
) -> None:
    container = ProcessIdentity(this_process().boot, "pid:[1]", 1, "5")
    run_id = started(host=hostname or socket.gethostname(), process=str(UNUSED_PID), identity=str(container))
    folder = Path(instance.root_directory) / "binance_assets_runs"
    folder.mkdir()
    with running(WRITE_A_FILE, str(folder / run_id), container=in_container(hostname)) as process:
        assert fail_runs_of_dead_processes(instance) == 0
        assert status(instance, run_id) == "STARTED"
        killed(process)
        assert until(120, lambda: fail_runs_of_dead_processes(instance) == 1)
    assert status(instance, run_id) == "FAILURE"
    assert list(folder.iterdir()) == []


def test_a_held_lock_proves_that_a_run_lives_whatever_its_tags_say(
    instance: dg.DagsterInstance, started: Started
) -> None:
    run_id = started(host=socket.gethostname(), process=str(UNUSED_PID))
    folder = Path(instance.root_directory) / "binance_assets_runs"
    folder.mkdir()
    with own_file(folder / run_id):
        assert fail_runs_of_dead_processes(instance) == 0
    assert fail_runs_of_dead_processes(instance) == 1


def test_a_file_that_is_not_of_a_run_is_left_alone(instance: dg.DagsterInstance) -> None:
    folder = Path(instance.root_directory) / "binance_assets_runs"
    folder.mkdir()
    (folder / "notes.txt").write_text("keep me")
    assert fail_runs_of_dead_processes(instance) == 0
    assert (folder / "notes.txt").exists()


@pytest.mark.usefixtures("new_state")
def test_a_command_in_a_container_keeps_its_run_until_it_is_killed(tmp_path: Path) -> None:
    download = ["-m", "binance_assets", "download", "BTCUSDT", "--market", "spot", "--interval", "1m"]
    days = ["--start", "2024-01-01", "--end", "2024-06-01", "--source", "rest"]
    with running_sandbox(SandboxOptions(rtt_ms=400)) as slow:
        words = [*in_container(), sys.executable, *download, *days]
        with (
            subprocess.Popen(words, cwd=tmp_path, env=cli_environment(slow, tmp_path)) as process,
            contextlib.chdir(tmp_path),
            open_instance(tmp_path, {}) as instance,
        ):
            try:
                run = until(120, lambda: instance.get_runs(dg.RunsFilter(statuses=[dg.DagsterRunStatus.STARTED])))[0]
                assert fail_runs_of_dead_processes(instance) == 0
                assert status(instance, run.run_id) == "STARTED"
                assert [path.name for path in (tmp_path / ".dagster" / "binance_assets_runs").iterdir()] == [run.run_id]
                process.kill()
                process.wait(timeout=60)
                assert until(120, lambda: fail_runs_of_dead_processes(instance) == 1)
            finally:
                process.kill()
            assert status(instance, run.run_id) == "FAILURE"


def test_the_process_of_a_run_keeps_its_file_until_it_executes_another_run(instance: dg.DagsterInstance) -> None:
    runs = []
    for _ in range(2):
        with dg.execute_job(dg.reconstructable(in_process), instance) as result:
            assert proof_in(result.all_events) == (True, True)
            runs.append(result.run_id)
    folder = Path(instance.root_directory) / "binance_assets_runs"
    assert [path.name for path in folder.iterdir()] == [runs[1]]
    child = os.fork()
    if child == 0:
        try:
            _run_of_this_process.end()  # as the interpreter does at its end
        finally:
            os._exit(0)
    os.waitpid(child, 0)
    assert [path.name for path in folder.iterdir()] == [runs[1]]
    _run_of_this_process.end()
    assert list(folder.iterdir()) == []


def test_a_step_with_a_process_of_its_own_proves_nothing_of_its_run(instance: dg.DagsterInstance) -> None:
    with dg.execute_job(dg.reconstructable(a_process_for_each_step), instance) as result:
        assert proof_in(result.all_events)[0] is False


def test_runs_within_a_process_of_the_user_need_no_file(instance: dg.DagsterInstance) -> None:
    for given_instance in (instance, None):  # without one, Dagster takes one in memory
        result = dg.materialize([proves_life], instance=given_instance)
        assert proof_in(result.all_events)[0] is False


def test_a_run_whose_folder_cannot_be_written_goes_on_without_proof(instance: dg.DagsterInstance) -> None:
    (Path(instance.root_directory) / "binance_assets_runs").touch()
    with dg.execute_job(dg.reconstructable(in_process), instance) as result:
        assert result.success


def test_a_retry_is_failed_as_well_and_a_run_that_was_being_canceled_is_canceled(
    instance: dg.DagsterInstance,
) -> None:
    folder = Path(instance.root_directory) / "binance_assets_runs"
    folder.mkdir()

    def dead(status: dg.DagsterRunStatus, **parent: str) -> str:
        run = instance.create_run_for_job(some_job, status=status, **parent)  # type: ignore[arg-type]
        (folder / run.run_id).touch()
        return run.run_id

    first = dead(dg.DagsterRunStatus.STARTED)
    retry = dead(dg.DagsterRunStatus.STARTED, parent_run_id=first, root_run_id=first)
    canceling = dead(dg.DagsterRunStatus.CANCELING)
    finished = dead(dg.DagsterRunStatus.SUCCESS)
    unlisted = instance.create_run_for_job(some_job, status=dg.DagsterRunStatus.STARTED).run_id
    assert fail_runs_of_dead_processes(instance) == 3
    ended = {run: status(instance, run) for run in (first, retry, canceling, finished, unlisted)}
    assert list(ended.values()) == ["FAILURE", "FAILURE", "CANCELED", "SUCCESS", "STARTED"]
    assert list(folder.iterdir()) == []
    (failure,) = instance.all_logs(retry, of_type=dg.DagsterEventType.RUN_FAILURE)
    assert failure.get_dagster_event().message == (
        "Its process does not exist anymore: it was killed, or the machine stopped. "
        "The partitions that it wrote are kept."
    )


# -- leases ---------------------------------------------------------------------------------------------------------

HOLD_A_LEASE = """
import sys, threading, time
from pathlib import Path
from binance_assets.exchange.clock import ServerClock
from binance_assets.exchange.rate_limit.budget import Budget
from binance_assets.exchange.rate_limit.ledger import Ledger, RateLimitGroup
clock = ServerClock()
clock.assume(60_000_030_000, 0)
budget = Budget(Ledger(Path(sys.argv[1])), RateLimitGroup("here", "spot"), clock, 100, 1.0, 900, 1_000)
budget.acquire(30, threading.Event())
print("acquired", flush=True)
time.sleep(60)
"""


def test_the_lease_of_a_process_in_another_container_is_kept(tmp_path: Path) -> None:
    path, group = tmp_path / "ledger.sqlite", RateLimitGroup("here", "spot")
    with running(HOLD_A_LEASE, str(path), container=in_container()), closing(Ledger(path)) as ledger:
        assert claimed_beside(ledger) == 100 - 30
        with ledger.transaction(group) as transaction:
            (lease,) = transaction.other_leases(None)
        assert (lease.weight, (parse_identity(lease.holder) or this_process()).pid) == (30, 1)


def test_the_lease_of_a_killed_process_is_charged_to_the_minute_and_dropped(tmp_path: Path) -> None:
    path, group = tmp_path / "ledger.sqlite", RateLimitGroup("here", "spot")
    with running(HOLD_A_LEASE, str(path), container=[]) as process, closing(Ledger(path)) as ledger:
        process.send_signal(signal.SIGKILL)
        process.wait(timeout=60)
        assert claimed_beside(ledger) == 100 - 30
        with ledger.transaction(group) as transaction:
            assert transaction.other_leases(None) == []


def claimed_beside(ledger: Ledger) -> int:
    """Return the weight that is left after a claim of 1, which drops the leases of dead processes, is given back."""
    clock = ServerClock()
    clock.assume(60_000_030_000, 0)
    budget = Budget(ledger, RateLimitGroup("here", "spot"), clock, 100, 1.0, 900, 1_000)
    budget.acquire(1, threading.Event())
    budget.record(1, None, 0, 0)
    return budget.spendable_now() + 1
