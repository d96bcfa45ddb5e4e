"""The files of a series: partitions of both layouts side by side, and what a damaged file does to its neighbors."""

from __future__ import annotations

import datetime as dt
import io
from collections.abc import Iterable, Iterator
from pathlib import Path

import polars as pl
import pytest

from binance_assets.candles.content_hash import content_hash
from binance_assets.model.partitions import partition_for_key, partitions_between
from binance_assets.model.series import parse_series
from binance_assets.storage.lake import Lake, LakeError
from binance_assets_tests.support.lakes import change, keys, local, state_folder
from binance_assets_tests.support.results import result_of, write_as_layout_1

SERIES = parse_series("spot/BTCUSDT/1h")
DAYS = [f"2024-01-{day:02}" for day in range(1, 6)]
PARTITIONS = [partition_for_key(key, SERIES.interval) for key in DAYS]


@pytest.fixture
def lake(tmp_path: Path) -> Lake:
    lake = Lake(tmp_path / "lake")
    lake.prepare("sandbox")
    return lake


def test_a_damaged_file_of_one_day_is_named_for_that_day_only(lake: Lake) -> None:
    lake.write(SERIES, result_of(SERIES, DAYS[0]))
    path = write_as_layout_1(lake.root, SERIES, result_of(SERIES, DAYS[1]))
    path.write_bytes(b"torn")
    messages = [str(candles) for _, stored, candles in lake.read_each(SERIES, PARTITIONS[1:3]) if stored is None]
    assert messages[0].startswith(f"{path} cannot be read: ")
    assert messages[1:] == ["it is not in the lake"]


def test_partitions_of_both_layouts_are_read_and_scanned_in_the_order_of_time(lake: Lake) -> None:
    results = [result_of(SERIES, key) for key in DAYS]
    lake.write_all(SERIES, results[::2])
    for result in results[1::2]:
        write_as_layout_1(lake.root, SERIES, result)
    whole = pl.concat([result.candles for result in results])
    assert lake.read(SERIES, PARTITIONS).equals(whole)
    assert lake.scan(SERIES, PARTITIONS).collect().equals(whole)
    assert list(lake.stored_partitions(SERIES)) == PARTITIONS


def test_a_migration_of_files_without_readable_candles_leaves_them_as_they_are(lake: Lake) -> None:
    path = write_as_layout_1(lake.root, SERIES, result_of(SERIES, DAYS[0]))
    content = path.read_bytes()
    half = len(content) // 2
    path.write_bytes(b"\0" * half + content[half:])  # the footer is readable, the candles are not
    lake.migrate_span(SERIES, "2024")
    assert list(local(lake.root).rglob("*.parquet")) == [path]


def test_what_is_not_the_end_of_a_parquet_file_is_called_so(lake: Lake) -> None:
    lake.write(SERIES, result_of(SERIES, DAYS[0]))
    path = local(lake.path(SERIES, PARTITIONS[0]))
    intact = path.read_bytes()
    for content in (b"", b"torn", intact[:-1], intact + b"appended"):
        path.write_bytes(content)
        assert lake.damaged(SERIES) == [f"{path} cannot be read: its end is not that of a Parquet file"]


def test_each_damaged_version_of_a_file_is_kept_once(lake: Lake) -> None:
    path = local(lake.path(SERIES, PARTITIONS[0]))
    for content in (b"torn", b"torn again", b"torn"):
        lake.write_all(SERIES, [result_of(SERIES, key) for key in DAYS])
        path.write_bytes(content)
        lake.write(SERIES, result_of(SERIES, DAYS[0]))
        assert keys(lake, SERIES) == DAYS[:1]  # the others were in the damaged file
    copies = state_folder(lake) / "damaged" / path.relative_to(local(lake.root))
    assert {copy.name: copy.read_bytes() for copy in copies.parent.iterdir()} == {
        "2024.parquet": b"torn",
        "2024.parquet.2": b"torn again",
    }


def test_a_damaged_file_of_this_year_may_have_held_the_days_until_yesterday(lake: Lake) -> None:
    yesterday = dt.datetime.now(dt.UTC).date() - dt.timedelta(days=1)
    first = dt.date(yesterday.year - 1, 12, 30)
    lake.write(SERIES, result_of(SERIES, first.isoformat()))
    local(lake.path(SERIES, partition_for_key(yesterday.isoformat(), SERIES.interval))).write_bytes(b"torn")
    found = lake.partitions(SERIES)
    today = dt.datetime.now(dt.UTC).date()  # two days after `yesterday`, if midnight has just passed
    ends = (yesterday + dt.timedelta(days=1), today)
    assert found in [partitions_between(first, end, SERIES.interval) for end in ends]


def flipped(content: bytes, bit: int) -> bytes:
    return content[: bit // 8] + bytes([content[bit // 8] ^ 1 << bit % 8]) + content[bit // 8 + 1 :]


def silent_changes(content: bytes, bits: Iterable[int]) -> Iterator[tuple[bytes, pl.DataFrame]]:
    """Yield versions of a file with one flipped bit that Polars reads without an error, with other values."""
    intact = pl.read_parquet(io.BytesIO(content))
    for bit in bits:
        changed = flipped(content, bit)
        try:
            table = pl.read_parquet(io.BytesIO(changed))
        except (pl.exceptions.PolarsError, pl.exceptions.PanicException, OSError):
            continue
        if not table.equals(intact):
            yield changed, table


def test_every_flipped_bit_that_changes_a_value_is_found_and_names_its_partitions_only(lake: Lake) -> None:
    lake.write_all(SERIES, [result_of(SERIES, key) for key in DAYS])
    path = local(lake.path(SERIES, PARTITIONS[0]))
    content, intact = path.read_bytes(), lake.read(SERIES, PARTITIONS)
    body = 8 * (len(content) - 8 - int.from_bytes(content[-8:-4], "little"))
    found, unreadable = 0, set()
    for changed, table in silent_changes(content, range(32, body, 23)):
        path.write_bytes(changed)
        for (partition, stored, candles), rows in zip(
            lake.read_each(SERIES, PARTITIONS), range(0, 120, 24), strict=True
        ):
            assert stored is not None
            is_intact = table[rows : rows + 24].equals(intact[rows : rows + 24])
            assert is_intact == isinstance(candles, pl.DataFrame), partition
            if isinstance(candles, str):
                unreadable.add(candles.split(":")[0])
                with pytest.raises(LakeError, match=str(partition)):
                    lake.read(SERIES, [partition])
                with pytest.raises(LakeError, match=str(partition)):
                    lake.scan(SERIES, [partition])
        found += 1
    assert found > 20
    assert "its candles are not those that were written" in unreadable


def test_a_write_drops_candles_without_their_hash_and_keeps_the_damaged_file(lake: Lake) -> None:
    lake.write_all(SERIES, [result_of(SERIES, key) for key in DAYS])
    path = local(lake.path(SERIES, PARTITIONS[0]))
    content = path.read_bytes()
    for damaged, _ in silent_changes(content, range(32, 8 * len(content), 5)):
        path.write_bytes(damaged)
        lost = [
            content.partition.key for content in lake.read_each(SERIES, PARTITIONS) if isinstance(content.candles, str)
        ]
        if DAYS[4] not in lost:
            break
    lake.write(SERIES, result_of(SERIES, DAYS[4]))
    assert keys(lake, SERIES) == [key for key in DAYS if key not in lost]
    assert (state_folder(lake) / "damaged" / path.relative_to(local(lake.root))).read_bytes() == damaged


def test_partitions_without_a_hash_are_readable_and_a_migration_adds_it(lake: Lake) -> None:
    results = [result_of(SERIES, key) for key in DAYS]
    lake.write_all(SERIES, results)
    for key in DAYS[1:3]:
        change(lake, SERIES, key, content_hash=None)
    assert lake.outdated_spans(SERIES) == ["2024"]
    assert lake.read(SERIES, PARTITIONS).equals(pl.concat([result.candles for result in results]))
    lake.migrate_span(SERIES, "2024")
    assert lake.outdated_spans(SERIES) == []
    hashes = [stored.content_hash for stored in lake.stored_partitions(SERIES).values()]
    assert hashes == [content_hash(result.candles) for result in results]
