"""Files of the lake that anything may have changed: each is a value or the lake's named error, and costs little."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any, Final

import hypothesis
import polars as pl
import psutil
import pytest
from hypothesis import given
from hypothesis import strategies as st

from binance_assets.exchange.session import Exchange
from binance_assets.model.partitions import partition_for_key
from binance_assets.model.series import parse_series
from binance_assets.model.timestamps import DAY
from binance_assets.settings import make_settings
from binance_assets.storage import rehearsal
from binance_assets.storage.lake import Lake, LakeError
from binance_assets.storage.locks import LOCK_NAME, file_lock
from binance_assets.storage.metadata import FileMetadata, LaterLayout, PartitionEntry, decode, encode, summarize
from binance_assets.storage.parquet_files import Unreadable, file_metadata, read_all, read_footer, to_parquet
from binance_assets_tests.support.environment import CHECKOUT
from binance_assets_tests.support.file_server import serving
from binance_assets_tests.support.lakes import keys, local, state_folder, summary_of
from binance_assets_tests.support.mutated_lake import Part, read_damaged
from binance_assets_tests.support.polling import until
from binance_assets_tests.support.results import result_of, write_as_layout_1

SERIES: Final = parse_series("spot/BTCUSDT/1h")
DAYS: Final = [f"2024-01-{day:02}" for day in range(1, 4)]
PARTITIONS: Final = [partition_for_key(key, SERIES.interval) for key in DAYS]


@pytest.fixture
def lake(tmp_path: Path) -> Lake:
    lake = Lake(tmp_path / "lake")
    lake.prepare("sandbox")
    lake.write_all(SERIES, [result_of(SERIES, key) for key in DAYS])
    return lake


# JSON beside the lake

NOT_AN_OBJECT: Final = {
    "nothing": b"",
    "half of it": b'{"origin": "san',
    "deep lists": b"[" * 20_000,
    "deep objects": b'{"a":' * 20_000,
    "a number": b"1e999",
    "not UTF-8": b'{"origin": "\xff"}',
    "UTF-16": '{"origin": "sandbox"}'.encode("utf-16"),
    "a list": b"[]",
    "NUL": b"\0" * 100,
}
HOSTILE_MARKERS: Final = NOT_AN_OBJECT | {
    "layout 1e999": b'{"origin": "sandbox", "layout": 1e999}',
    "layout NaN": b'{"origin": "sandbox", "layout": NaN}',
    "layout -1": b'{"origin": "sandbox", "layout": -1}',
    "layout of 5,000 digits": b'{"origin": "sandbox", "layout": ' + b"9" * 5_000 + b"}",
    "layout true": b'{"origin": "sandbox", "layout": true}',
    "layout null": b'{"origin": "sandbox", "layout": null}',
    "layout in another alphabet": '{"origin": "sandbox", "layout": "²"}'.encode(),
    "no venue": b'{"layout": 2}',
    "venue null": b'{"origin": null, "layout": 2}',
    "venue a list": b'{"origin": ["sandbox"], "layout": 2}',
    "hosts a list": b'{"origin": "sandbox", "layout": 2, "hosts": []}',
    "hosts of numbers": b'{"origin": "sandbox", "layout": 2, "hosts": {"spot": 1}}',
    "large": b'{"origin": "sandbox", "layout": 2, "note": "' + b"x" * 1_000_000 + b'"}',
    "escape sequences": b'{"origin": "\\u001b[2J\\n", "layout": 2}',
}


@pytest.mark.parametrize("place", ["lake.state/lake.json", "lake/_lake.json"])
@pytest.mark.parametrize("name", HOSTILE_MARKERS)
def test_a_hostile_marker_is_the_error_of_the_lake(lake: Lake, name: str, place: str) -> None:
    (state_folder(lake) / "lake.json").unlink()
    path = local(lake.root).parent / place
    path.write_bytes(HOSTILE_MARKERS[name])
    for use_lake in (lake.prepare, lake.check_venue):
        with pytest.raises(LakeError) as error:
            use_lake("sandbox")
        assert str(error.value).isprintable()
        assert len(str(error.value)) < 600
    assert path.read_bytes() == HOSTILE_MARKERS[name], "it is left for the user"


@pytest.mark.parametrize("place", ["lake.state/first_candles.json", "lake/_first_candles.json"])
@pytest.mark.parametrize(
    "content",
    [
        *NOT_AN_OBJECT.values(),
        *(b'{"spot/BTCUSDT/1h": %s}' % value for value in (b"1e999", b"-1", b"NaN", b"1e30", b"true", b"[]", b'"\\n"')),
        b'{"spot/BTCUSDT/1h": ' + b"9" * 5_000 + b"}",
    ],
)
def test_hostile_first_candles_are_as_good_as_none_and_are_replaced(lake: Lake, content: bytes, place: str) -> None:
    (local(lake.root).parent / place).write_bytes(content)
    assert lake.first_open(SERIES) is None
    lake.remember_first_open(SERIES, PARTITIONS[0].start)
    assert lake.first_open(SERIES) == PARTITIONS[0].start


def test_one_hostile_first_candle_does_not_cost_the_others(lake: Lake) -> None:
    content = {"spot/BTCUSDT/1m": 1e300, str(SERIES): PARTITIONS[0].start}
    (state_folder(lake) / "first_candles.json").write_text(json.dumps(content))
    assert lake.first_open(SERIES) == PARTITIONS[0].start


# Hosts


BINANCE: Final = {"spot": "binance.com", "archive": "binance.com"}


def marker(lake: Lake) -> Any:
    return json.loads((state_folder(lake) / "lake.json").read_text())


@contextmanager
def opened_files() -> Iterator[Counter[str]]:
    """Count how often files are opened, by name, as Python itself reports it."""
    opened, watching = Counter[str](), True

    def watch(event: str, arguments: tuple[object, ...]) -> None:
        if watching and event == "open":
            opened[Path(str(arguments[0])).name] += 1

    sys.addaudithook(watch)
    try:
        yield opened
    finally:
        watching = False


def test_a_marker_without_hosts_takes_them_at_the_next_write_and_then_refuses_others(tmp_path: Path) -> None:
    lake = Lake(tmp_path / "lake")
    lake.prepare("binance")
    assert marker(lake) == {"origin": "binance", "layout": 2}
    lake.prepare("binance", BINANCE)
    assert marker(lake) == {"origin": "binance", "layout": 2, "hosts": BINANCE}
    with pytest.raises(LakeError) as error:
        lake.prepare("binance", BINANCE | {"spot": "testnet.binance.vision"})
    assert str(error.value) == (
        f"the lake {lake.root} holds candles of binance.com, and BINANCE_SPOT_URL is testnet.binance.vision now; "
        "set BINANCE_ASSETS_LAKE to another folder, or, if both serve the same exchange, remove hosts from "
        f"{state_folder(lake) / 'lake.json'}"
    )
    assert marker(lake)["hosts"] == BINANCE


def test_a_marker_that_another_process_writes_in_the_meantime_counts(tmp_path: Path) -> None:
    lake = Lake(tmp_path / "lake")
    errors: list[BaseException] = []

    def prepare() -> None:
        try:
            lake.prepare("binance", BINANCE)
        except LakeError as error:
            errors.append(error)

    local(lake.root).mkdir()
    with file_lock(state_folder(lake) / "incoming" / LOCK_NAME):
        thread = threading.Thread(target=prepare)
        with opened_files() as opened:
            thread.start()
            until(120, lambda: opened[LOCK_NAME])  # it has found no marker, and waits to write one
        (state_folder(lake) / "lake.json").write_text('{"origin": "sandbox", "layout": 2}')
    thread.join()
    (error,) = errors
    assert "holds candles of venue 'sandbox', not of 'binance'" in str(error)
    assert marker(lake) == {"origin": "sandbox", "layout": 2}


def test_first_candles_that_many_threads_remember_at_once_are_all_there_after_few_writes(tmp_path: Path) -> None:
    lake = Lake(tmp_path / "lake")
    lake.prepare("sandbox")
    lake.remember_first_open(SERIES, 0)
    expected = {SERIES: 0} | {parse_series(f"spot/S{number:02}USDT/1h"): number for number in range(20)}
    threads = [threading.Thread(target=lake.remember_first_open, args=item) for item in [*expected.items()][1:]]
    with file_lock(state_folder(lake) / "incoming" / LOCK_NAME), opened_files() as opened:
        for thread in threads:
            thread.start()
        until(120, lambda: opened[LOCK_NAME] >= len(threads))  # each of them waits for the lock
    with opened_files() as opened:
        for thread in threads:
            thread.join()
        assert lake.first_opens() == {str(series): first for series, first in expected.items()}
    assert opened["first_candles.json"] == 2  # one for all, and this test


def test_a_step_reads_the_marker_once_per_check_and_the_mounts_once(tmp_path: Path) -> None:
    lake = Lake(tmp_path / "lake")
    lake.prepare("binance", BINANCE)
    lake = Lake(tmp_path / "lake")
    with opened_files() as opened:
        lake.prepare("binance", BINANCE)
        assert (opened["lake.json"], opened["mountinfo"]) == (2, 1)
        lake.prepare("binance", BINANCE)  # nothing has changed since
        assert (opened["lake.json"], opened["mountinfo"]) == (2, 1)
        lake.prepare("binance", {"usdm": "proxy.local"})
        assert (opened["lake.json"], opened["mountinfo"]) == (5, 1)


def test_each_market_has_a_host_of_its_own_and_others_stay(tmp_path: Path) -> None:
    lake = Lake(tmp_path / "lake")
    lake.prepare("binance", BINANCE)
    lake.prepare("binance", {"usdm": "proxy.local", "archive": "binance.com"})
    lake.prepare("binance")  # a derived series knows no hosts
    lake.migrate_state()
    assert marker(lake)["hosts"] == BINANCE | {"usdm": "proxy.local"}
    with pytest.raises(LakeError, match=r"holds candles of proxy\.local, and BINANCE_USDM_URL is binance\.com now"):
        lake.check_venue("binance", {"usdm": "binance.com"})


def test_the_hosts_are_those_of_the_settings_and_the_archive_of_binance_is_not_that_of_others(tmp_path: Path) -> None:
    now = {"/api/v3/time": b'{"serverTime": 1704153600000}'}
    with serving(now) as url:
        settings = make_settings({"spot_url": url, "ledger": tmp_path / "ledger.sqlite"})
        with closing(Exchange(SERIES.market, settings)) as exchange:
            assert exchange.venue == "binance"
            assert exchange.hosts == {"spot": "127.0.0.1", "archive": "binance.com"}
            assert exchange.archive_matches_api
    other = make_settings({"spot_url": "https://testnet.binance.vision", "ledger": tmp_path / "ledger.sqlite"})
    with closing(Exchange(SERIES.market, other)) as exchange:
        assert not exchange.archive_matches_api


def test_the_sandbox_has_no_host(lake: Lake) -> None:
    lake.prepare("sandbox", {})
    assert marker(lake) == {"origin": "sandbox", "layout": 2}


# Metadata

HOSTILE_VALUES: Final[list[Any]] = [
    *(None, True, -1, 10**30, -(10**30), 1e300, float("inf"), float("nan"), 0.5, 2**63, "", "text", "²", "1" * 30),
    *([], {}, [[]], [1, 2], [["a", "b"]], [["2024-01-01T00:00:00Z", 7]], {"a": 1}, "\x1b[2J\n"),
    *("0001-01-01T00:00:00+23:59", "9999-12-31T23:59:59Z", [["9999-12-31T23:59:59Z", "2024-01-01T00:00:00Z"]]),
]  # fmt: skip
FIELDS: Final = [
    *("verdict", "source", "rows", "first_open", "last_open", "content_hash", "missing", "note", "archive_file"),
    *("archive_sha256", "archive_modified", "derived_from", "accepted_by", "accepted_because", "replaced", "version"),
    *("a field of a later version",),
]
GOOD_FIELDS: Final = {"verdict": {"default": "complete"}, "source": {"default": "rest"}, "rows": {"default": 24}}


def document(keys: Any = ((DAYS[0], DAYS[2]),), **fields: Any) -> str:
    return json.dumps({"keys": keys, "fields": GOOD_FIELDS | fields})


def metadata_of(partitions: str, **changes: str) -> dict[str, str]:
    good = {"layout": "2", "series": str(SERIES), "version": "0", "venue": "sandbox", "partitions": partitions}
    return good | changes


def nested(levels: int) -> list[Any]:
    return [nested(levels - 1)] if levels else []


HOSTILE_METADATA: Final = {
    "no series": {name: text for name, text in metadata_of(document()).items() if name != "series"},
    "another series": metadata_of(document(), series="spot/ETHUSDT/1h"),
    "a series with escape sequences": metadata_of(document(), series="\x1b[2J\n" * 100),
    "no venue": {name: text for name, text in metadata_of(document()).items() if name != "venue"},
    "no partitions": {name: text for name, text in metadata_of(document()).items() if name != "partitions"},
    "nothing": {},
    "layout 0": metadata_of(document(), layout="0"),
    "layout -2": metadata_of(document(), layout="-2"),
    "layout of 5,000 digits": metadata_of(document(), layout="9" * 5_000),
    "layout in another alphabet": metadata_of(document(), layout="²"),
    "deep": metadata_of("[" * 20_000),
    "deep field": metadata_of(document(later={"default": nested(500)})),
    "a million years": metadata_of(document([["0001-01-01", "9999-12-31"]])),
    "the same year 20,000 times": metadata_of(document([["2024-01-01", "2024-12-31"]] * 20_000)),
    "ranges backwards": metadata_of(document([["2024-01-03", "2024-01-01"]])),
    "ranges that overlap": metadata_of(document([["2024-01-01", "2024-01-03"], ["2024-01-03", "2024-01-04"]])),
    "no dates": metadata_of(document([["2024-13-45", "2024-99-99"]])),
    "no text": metadata_of(document([[2024, 2024]])),
    "no pairs": metadata_of(document(["2024-01-01"])),
    "keys null": metadata_of(document(None)),
    "too few values": metadata_of(document(rows={"each": [24]})),
    "a billion rows": metadata_of(document(rows={"default": 10**9})),
}  # fmt: skip


def write_with(lake: Lake, metadata: dict[str, str]) -> Path:
    """Give the file of the lake other metadata; its checksums are right."""
    path = local(lake.path(SERIES, PARTITIONS[0]))
    path.write_bytes(to_parquet(pl.read_parquet(path, hive_partitioning=False), metadata))
    return path


@pytest.mark.parametrize("name", HOSTILE_METADATA)
def test_a_file_with_hostile_metadata_is_damaged_in_one_line_and_is_replaced(lake: Lake, name: str) -> None:
    path = write_with(lake, HOSTILE_METADATA[name])
    content = path.read_bytes()
    (line,) = lake.damaged(SERIES)
    assert line.startswith(f"{path} ")
    assert line.isprintable()
    assert len(line) < 600
    assert lake.stored_partitions(SERIES) == {}
    assert [type(candles) for _, _, candles in lake.read_each(SERIES, PARTITIONS)] == [str] * 3
    lake.write(SERIES, result_of(SERIES, DAYS[1]))
    assert keys(lake, SERIES) == [DAYS[1]]
    assert (state_folder(lake) / "damaged" / path.relative_to(local(lake.root))).read_bytes() == content


@pytest.mark.parametrize("field", FIELDS)
def test_a_hostile_value_of_a_field_is_a_value_or_a_damaged_file(lake: Lake, field: str) -> None:
    for value in HOSTILE_VALUES:
        for column in ({"default": value}, {"each": [value] * 3}, {"default": None, "except": {DAYS[1]: value}}, value):
            write_with(lake, metadata_of(document(**{field: column})))
            messages = lake.damaged(SERIES)
            assert all(message.isprintable() for message in messages)
            stored = lake.stored_partitions(SERIES)
            assert all(use(entry) for entry in stored.values())
    lake.write(SERIES, result_of(SERIES, DAYS[1]))
    assert DAYS[1] in keys(lake, SERIES)


def use(entry: PartitionEntry) -> bool:
    """Use an entry as a write and the commands do."""
    quality, texts = entry.quality, entry.texts
    return (
        entry.may_replace(entry) and quality >= (0, 0, False) and all(isinstance(text, str) for text in texts.values())
    )


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20) | st.sampled_from(DAYS),
    lambda members: st.lists(members, max_size=4) | st.dictionaries(st.text(max_size=8), members, max_size=4),
    max_leaves=12,
)
columns_of_values = st.builds(lambda value: {"default": value}, json_values) | st.builds(
    lambda values: {"each": values}, st.lists(json_values, min_size=1, max_size=3)
)


@given(
    st.dictionaries(st.sampled_from(FIELDS), columns_of_values | json_values, max_size=4),
    st.sampled_from([[[DAYS[0], DAYS[0]]], [[DAYS[0], DAYS[2]]]]) | json_values,
)
def test_any_fields_are_entries_or_a_value_error(fields: dict[str, Any], ranges: Any) -> None:
    metadata = decoded(metadata_of(document(ranges, **fields)))
    for entry in metadata.entries.values() if metadata is not None else ():
        use(entry)
    if metadata is not None and metadata.entries:
        again = decoded(encode(SERIES, "sandbox", metadata.entries))
        assert again is not None
        assert list(again.entries) == list(metadata.entries)


@given(
    st.dictionaries(
        st.sampled_from(["layout", "series", "venue", "partitions", "rows", "verdict", "missing", "first_open_time"]),
        st.text(max_size=40) | json_values.map(json.dumps) | st.just("2"),
    ),
    st.sampled_from(["2024", "2024-01-01", "9999-12-31", "0000-00-00", "x"]),
)
def test_any_metadata_is_a_file_or_a_value_error(metadata: dict[str, str], name: str) -> None:
    decoded(metadata, name)


def decoded(metadata: dict[str, str], name: str = "2024") -> FileMetadata | None:
    try:
        file = decode(metadata, name, SERIES.interval)
    except (ValueError, LaterLayout) as error:
        with pytest.raises(LaterLayout if isinstance(error, LaterLayout) else ValueError):
            summarize(metadata, name, SERIES.interval)
        return None
    assert summarize(metadata, name, SERIES.interval) == summary_of(file)
    return file


# Parquet


def with_huge_list(footer: bytes) -> bytes:
    """Return a footer whose list of columns claims to have 2^28 elements, for which Polars allocates at once."""
    return footer.replace(b"\x19\xcc", b"\x19\xfc\xff\xff\xff\x7f", 1).replace(
        b"\x19\xdc", b"\x19\xfc\xff\xff\xff\x7f", 1
    )


def with_one_value_too_many(content: bytes) -> bytes:
    """Return a file with a page that claims one value more than it has, for which Polars asks for 2^61 bytes."""
    rows = 24 * len(DAYS)
    count = bytes([2 * rows & 0x7F | 0x80, 2 * rows >> 7])
    return content.replace(b"\x2c\x15" + count, b"\x2c\x15" + bytes([count[0] + 1, count[1]]))


def with_body(content: bytes, change: Callable[[bytes], bytes]) -> bytes:
    end = len(content) - 8 - int.from_bytes(content[-8:-4], "little")
    return change(content[:end]) + content[end:]


def with_footer(content: bytes, change: Callable[[bytes], bytes]) -> bytes:
    end = len(content) - 8 - int.from_bytes(content[-8:-4], "little")
    footer = change(content[end:-8])
    return content[:end] + footer + len(footer).to_bytes(4, "little") + b"PAR1"


@pytest.mark.parametrize("layout", [1, 2])
def test_a_footer_that_asks_for_gigabytes_is_a_damaged_file(lake: Lake, layout: int) -> None:
    path = local(lake.path(SERIES, PARTITIONS[0]))
    if layout == 1:
        path.unlink()
        path = local(write_as_layout_1(lake.root, SERIES, result_of(SERIES, DAYS[0])))
    content = path.read_bytes()
    path.write_bytes(with_footer(content, with_huge_list))
    assert path.read_bytes() != content
    reason = [
        "Polars asks for more memory or time than a file of the lake needs",
        "its footer is not the one that was written",
    ]
    assert lake.damaged(SERIES) == [f"{path} cannot be read: {reason[layout - 1]}"]
    lake.write(SERIES, result_of(SERIES, DAYS[0]))
    assert keys(lake, SERIES) == DAYS[:1]


def test_a_flipped_bit_in_the_metadata_is_a_damaged_file_and_not_a_later_layout(lake: Lake) -> None:
    path = local(lake.path(SERIES, PARTITIONS[0]))
    path.write_bytes(
        with_footer(path.read_bytes(), lambda footer: footer.replace(b"layout\x18\x012", b"layout\x18\x013"))
    )
    assert lake.damaged(SERIES) == [f"{path} cannot be read: its footer is not the one that was written"]


def test_a_page_that_asks_for_exabytes_costs_its_row_group_only(lake: Lake) -> None:
    path = local(lake.path(SERIES, PARTITIONS[0]))
    content = path.read_bytes()
    path.write_bytes(with_body(content, with_one_value_too_many))
    assert path.read_bytes() != content
    assert keys(lake, SERIES) == DAYS, "the footer still lists them"
    reasons = {str(candles) for _, _, candles in lake.read_each(SERIES, PARTITIONS)}
    assert reasons == {"it cannot be read: Polars asks for more memory or time than a file of the lake needs"}
    lake.write(SERIES, result_of(SERIES, DAYS[0]))
    assert keys(lake, SERIES) == DAYS[:1]


def test_a_damaged_row_group_costs_only_its_partitions(tmp_path: Path) -> None:
    series = parse_series("spot/BTCUSDT/1m")  # a row group has ten days
    lake, days = Lake(tmp_path / "lake"), [f"2024-01-{day:02}" for day in range(1, 22)]
    lake.prepare("sandbox")
    lake.write_all(series, [result_of(series, day) for day in days])
    path = local(lake.path(series, partition_for_key(days[0], series.interval)))
    content = path.read_bytes()
    middle = (len(content) - int.from_bytes(content[-8:-4], "little")) // 2
    path.write_bytes(content[:middle] + b"\xff" * 64 + content[middle + 64 :])
    parts = lake.read_each(series, [partition_for_key(day, series.interval) for day in days])
    readable = [part.partition.key for part in parts if isinstance(part.candles, pl.DataFrame)]
    assert readable == [*days[:10], days[20]]


@pytest.mark.parametrize("layout", [1, 2])
@pytest.mark.parametrize("part", ["footer", "body"])
def test_damaged_files_are_read_without_harm_to_the_process(layout: int, part: Part) -> None:
    outcomes, death = read_damaged(layout, part, 0, hypothesis.settings().max_examples)
    assert not death
    assert outcomes["unreadable"] > 0
    assert outcomes["not in one line"] == 0
    assert layout == 1 or outcomes["wrong"] == 0  # layout 1 has no hash of the candles


def helper() -> psutil.Process:
    """Return the process that rehearses for this one."""
    living = [child for child in psutil.Process().children() if child.status() != psutil.STATUS_ZOMBIE]
    (process,) = (child for child in living if any("parquet_reads" in part for part in child.cmdline()))
    return process


def test_what_its_checksums_prove_needs_no_rehearsal(lake: Lake) -> None:
    program = (
        "import sys, psutil\n"
        "from pathlib import Path\n"
        "from binance_assets.storage.lake import Lake\n"
        "from binance_assets.model.series import parse_series\n"
        "lake, series = Lake(Path(sys.argv[1])), parse_series('spot/BTCUSDT/1h')\n"
        "assert lake.read(series, list(lake.stored_partitions(series))).height == 72\n"
        "assert psutil.Process().children() == []\n"
    )
    subprocess.run([sys.executable, "-c", program, str(lake.root)], check=True, cwd=CHECKOUT)


def test_a_rehearsal_that_a_person_kills_says_nothing_of_the_file(lake: Lake) -> None:
    path = write_as_layout_1(lake.root, SERIES, result_of(SERIES, "2023-01-01"))
    footer, _ = read_footer(path)
    assert file_metadata(footer)["series"] == str(SERIES)
    for _ in range(2):
        before = helper()
        before.send_signal(signal.SIGKILL)
        before.wait(60)
        assert read_all(path.read_bytes(), footer).height == 24
        assert helper().pid != before.pid


def test_bytes_that_kill_the_rehearsal_are_not_blamed_on_the_next_ones(lake: Lake) -> None:
    old = write_as_layout_1(lake.root, SERIES, result_of(SERIES, "2023-01-01"))
    path = local(lake.path(SERIES, PARTITIONS[0]))
    footer, _ = read_footer(path)
    deadly = with_body(path.read_bytes(), with_one_value_too_many)
    for _ in range(2):
        with pytest.raises(Unreadable, match="more memory or time"):
            read_all(deadly, footer)  # once by a new process, and once by one that has answered before
        assert read_all(old.read_bytes(), read_footer(old)[0]).height == 24


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_a_fork_has_a_rehearsal_of_its_own(lake: Lake) -> None:
    path = write_as_layout_1(lake.root, SERIES, result_of(SERIES, "2023-01-01"))
    program = (
        "import os, sys\n"
        "from pathlib import Path\n"
        "from binance_assets.storage.parquet_files import read_footer\n"
        "from binance_assets.storage.rehearsal import rehearse\n"
        "footer, _ = read_footer(Path(sys.argv[1]))\n"
        "rehearse('metadata', footer)\n"
        "child = os.fork()\n"
        "for _ in range(300):\n"
        "    rehearse('metadata', footer)\n"
        "if child:\n"
        "    sys.exit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))\n"
    )
    subprocess.run([sys.executable, "-c", program, str(path)], check=True, cwd=CHECKOUT, timeout=60)


def test_the_rehearsal_ends_with_its_process(lake: Lake) -> None:
    footer, _ = read_footer(write_as_layout_1(lake.root, SERIES, result_of(SERIES, "2023-01-01")))
    rehearsal.rehearse("metadata", footer)
    process = helper()
    rehearsal._helper.end()
    assert not process.is_running()


@given(st.binary(max_size=400))
def test_any_bytes_before_the_magic_are_unreadable(footer: bytes) -> None:
    with pytest.raises(Unreadable, match=r"\A[^\n]+\Z"):
        file_metadata(footer + len(footer).to_bytes(4, "little") + b"PAR1")


def test_the_limits_of_a_day(lake: Lake) -> None:
    """Offsets are within the partition: one of a later day would move the end of the series."""
    write_with(lake, metadata_of(document(last_open={"default": DAY - 1})))
    assert keys(lake, SERIES) == DAYS
    write_with(lake, metadata_of(document(last_open={"default": DAY})))
    assert len(lake.damaged(SERIES)) == 1
