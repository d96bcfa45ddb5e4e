"""Locks of others: a cron job that locks our folders, a process that never lets go, a file system without locks."""

from __future__ import annotations

import errno
import fcntl
import logging
import os
import subprocess
import sys
import unicodedata
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import NoReturn

import pytest
from hypothesis import given
from hypothesis import strategies as st

from binance_assets.model.series import parse_series
from binance_assets.storage import locks
from binance_assets.storage.lake import Lake, LakeError
from binance_assets.storage.local_store import LocalStore
from binance_assets.storage.locks import LOCK_NAME, LocksUnsupported, LockTimeout, file_lock, local_locks, own_file
from binance_assets_tests.support.environment import CHECKOUT, Run
from binance_assets_tests.support.lakes import local
from binance_assets_tests.support.results import result_of

SERIES = parse_series("spot/BTCUSDT/1h")

HOLD = """
import sys, time
from pathlib import Path
from binance_assets.storage.locks import file_lock
with file_lock(Path(sys.argv[1])):
    print("held", flush=True)
    time.sleep(60)
"""


@contextmanager
def held_by_another_process(lock: Path) -> Iterator[int]:
    """Hold a lock in another process of ours, and yield its ID."""
    with subprocess.Popen([sys.executable, "-c", HOLD, lock], cwd=CHECKOUT, stdout=subprocess.PIPE) as process:
        try:
            assert process.stdout is not None
            assert process.stdout.readline() == b"held\n"
            yield process.pid
        finally:
            process.kill()


@contextmanager
def flock(path: Path) -> Iterator[None]:
    """Lock a file or folder as the program ``flock`` does, which creates a file that does not exist."""
    descriptor = os.open(path, os.O_RDONLY if path.is_dir() else os.O_RDONLY | os.O_CREAT)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield
    finally:
        os.close(descriptor)


# -- cron jobs ------------------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("new_state")
def test_a_download_does_not_wait_for_a_lock_on_any_folder_or_on_any_file_that_is_not_a_lock_of_ours(
    run_cli: Run, tmp_path: Path
) -> None:
    download = ["download", "BTCUSDT", "--market", "spot", "--interval", "1h", "--start", "2024-01-01"]
    assert run_cli(*download, "--end", "2024-01-03").returncode == 0
    found = [tmp_path, *tmp_path.rglob("*")]
    ours = {path for path in found if path.name in (LOCK_NAME, ".universe.yaml.lock")}
    assert len(ours) >= 3
    of_users = [path / name for path in found if path.is_dir() for name in (".lock", "lock", "cron.lock")]
    with ExitStack() as stack:
        for path in {*found, *of_users} - ours:
            stack.enter_context(flock(path))
        ended = run_cli(*download, "--end", "2024-01-05", "--refresh")
    assert ended.returncode == 0, ended.stderr
    assert "waiting" not in ended.stderr


# -- holders that do not let go -------------------------------------------------------------------------------------


def test_a_lock_that_is_held_for_too_long_is_an_error_that_names_the_holder_and_the_way_out(tmp_path: Path) -> None:
    lock = tmp_path / LOCK_NAME
    with (
        held_by_another_process(lock) as pid,
        pytest.raises(LockTimeout) as raised,
        file_lock(lock, patience=0.2),
    ):
        pass
    message = str(raised.value)
    assert message.startswith(f"{lock} is still locked by process {pid} (-c) on host {os.uname().nodename}, since 20")
    assert message.endswith("after 0.2 s; let that process finish or end it, then try again")
    assert "\n" not in message


def test_a_wait_says_what_it_waits_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(locks, "_FIRST_NOTICE_SECONDS", 0.1)
    lock = tmp_path / LOCK_NAME
    with (
        caplog.at_level(logging.WARNING),
        held_by_another_process(lock) as pid,
        pytest.raises(LockTimeout),
        file_lock(lock, patience=0.5),
    ):
        pass
    assert [record.message.partition(" (")[0] for record in caplog.records] == [
        f"waiting for {lock}, locked by process {pid}"
    ]


def test_a_series_that_stays_locked_is_an_error_of_the_lake_that_names_the_holder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lake = Lake(tmp_path / "lake")
    lake.prepare("sandbox")
    lake.write(SERIES, result_of(SERIES, "2024-01-01"))
    lock = local(lake.folder(SERIES)) / LOCK_NAME
    note = LocalStore(local(lake.root)).lock_note(local(lake.folder(SERIES)))
    monkeypatch.setattr(locks, "_PATIENCE_SECONDS", 0.2)
    with file_lock(lock, note), pytest.raises(LakeError) as raised:
        lake.write(SERIES, result_of(SERIES, "2024-01-02"))
    assert f"cannot be written: {lock} is still locked by process {os.getpid()} " in str(raised.value)
    assert lock.read_bytes() == b""  # Polars reads every file of the lake that is not empty
    assert not note.exists()
    lake.write(SERIES, result_of(SERIES, "2024-01-02"))


def test_a_program_that_is_not_ours_is_named_as_such(tmp_path: Path) -> None:
    lock = tmp_path / LOCK_NAME
    with flock(lock), pytest.raises(LockTimeout, match="locked by another program"), file_lock(lock, patience=0):
        pass


@given(note=st.binary(max_size=2_000))
def test_any_bytes_in_place_of_the_holder_make_one_short_line(
    tmp_path_factory: pytest.TempPathFactory, note: bytes
) -> None:
    path = tmp_path_factory.getbasetemp() / "note"
    path.write_bytes(note)
    holder = locks._holder(path)
    assert holder
    assert len(holder) <= 310
    assert not any(unicodedata.category(character).startswith("C") for character in holder if character.isascii())
    assert len(holder.splitlines()) == 1


def test_a_lock_file_that_is_deleted_meanwhile_still_has_one_holder(tmp_path: Path) -> None:
    lock = tmp_path / LOCK_NAME
    with ExitStack() as holders:
        holders.enter_context(file_lock(lock))
        lock.unlink()
        holders.enter_context(file_lock(lock))  # a new file; the first holder locks nothing that anybody can find
        with pytest.raises(LockTimeout), file_lock(lock, patience=0):
            pass


# -- file systems without locks -------------------------------------------------------------------------------------


@pytest.mark.parametrize("number", [errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOSYS], ids=errno.errorcode.get)
def test_a_lake_on_a_file_system_without_locks_is_refused_before_anything_is_fetched(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    def fail(descriptor: int, operation: int) -> NoReturn:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(fcntl, "flock", fail)
    with pytest.raises(LakeError, match=r"the file system of .* has no locks \(.*\); mount it with locks, or use") as e:
        Lake(tmp_path / "lake").prepare("sandbox")
    assert "\n" not in str(e.value)
    monkeypatch.undo()
    Lake(tmp_path / "lake").prepare("sandbox")
    assert [path.name for path in (tmp_path / "lake.state" / "incoming").iterdir()] == [LOCK_NAME]


NFS = "41 1 0:40 / {} rw,relatime shared:9 - {} server:/export rw,vers=3,{},addr=192.0.2.1"


@pytest.mark.parametrize(
    ("mount", "refused"),
    [
        (NFS.format("/data", "nfs", "hard,local_lock=none"), False),
        (NFS.format("/data", "nfs4", "hard,local_lock=none"), False),
        (NFS.format("/data", "nfs", "nolock,local_lock=all"), True),
        (NFS.format("/data", "nfs4", "local_lock=flock"), True),
        (NFS.format("/data", "nfs", "local_lock=posix"), False),  # these are locks of another kind
        (NFS.format("/data/my\\040lake", "nfs", "nolock"), False),
        (NFS.format("/data/lake", "nfs", "nolock"), True),
        (NFS.format("/dat", "nfs", "nolock"), False),
        (NFS.format("/", "cifs", "nobrl"), True),
        (NFS.format("/data", "ext4", "nolock"), False),
        (NFS.format("/", "nfs", "nolock") + "\n" + NFS.format("/data", "ext4", "relatime"), False),
    ],
)
def test_a_mount_whose_locks_do_not_reach_other_hosts_is_recognized(mount: str, refused: bool) -> None:
    assert (local_locks(mount, "/data/lake") is not None) is refused


def test_a_mount_with_a_space_in_its_name_is_recognized() -> None:
    assert local_locks(NFS.format("/my\\040data", "nfs", "nolock"), "/my data/lake") == (
        "/my data is mounted with nolock, so its locks do not reach other hosts; "
        "mount it without nolock, or use a folder on a local disk"
    )


@given(st.text(), st.lists(st.sampled_from([" ", " - ", "\\", "/", "0", "nfs", "nolock", ",", "\n"])).map("".join))
def test_any_list_of_mounts_is_read(text: str, mounts: str) -> None:
    for lines in (text, mounts):
        assert local_locks(lines, "/data") is None or "nolock" in lines


def test_a_lake_on_such_a_mount_is_refused_before_anything_is_fetched(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    mounts = tmp_path / "mountinfo"
    mounts.write_text(NFS.format(tmp_path.resolve(), "nfs", "nolock"))
    monkeypatch.setattr(locks, "_MOUNTS", mounts)
    with pytest.raises(LakeError, match=r"cannot be written: .* is mounted with nolock, so its locks do not reach"):
        Lake(tmp_path / "lake").prepare("sandbox")


def test_a_file_of_our_own_on_a_file_system_without_locks_leaves_nothing_behind(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(descriptor: int, operation: int) -> NoReturn:
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(fcntl, "flock", fail)
    with pytest.raises(LocksUnsupported), own_file(tmp_path / "file"):
        pass
    assert list(tmp_path.iterdir()) == []
