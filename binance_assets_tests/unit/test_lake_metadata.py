"""The metadata of lake files: compact, complete, and readable by later and earlier versions."""

from __future__ import annotations

import datetime as dt
import json
from pathlib import Path
from typing import Any

import hypothesis.strategies as st
import polars as pl
import pytest
from hypothesis import given, settings

from binance_assets import __version__
from binance_assets.model.intervals import INTERVALS, parse_interval
from binance_assets.model.partitions import Partition, partition_for_key, partitions_between
from binance_assets.model.results import ACCEPTED
from binance_assets.model.series import Series, parse_series
from binance_assets.model.timestamps import DAY, to_iso
from binance_assets.storage.metadata import (
    Entries,
    LaterLayout,
    PartitionEntry,
    Replaced,
    decode,
    encode,
    locate,
    summarize,
)
from binance_assets.storage.parquet_files import file_metadata, footer_length, to_parquet
from binance_assets.storage.spans import by_span, is_span_name, partitions_of_file, span_name
from binance_assets_tests.support.lakes import summary_of

HOURS = parse_series("spot/BTCUSDT/1h")
YEAR = partitions_between(dt.date(2024, 1, 1), dt.date(2025, 1, 1), HOURS.interval)
MONTHS = parse_series("spot/BTCUSDT/1w")

texts = st.none() | st.text(min_size=1, max_size=20)
times = st.integers(0, DAY // 1000 - 1).map(lambda second: second * 1000)


@st.composite
def entries_of(draw: st.DrawFn, series: Series, partitions: list[Partition]) -> Entries:
    chosen = draw(st.lists(st.sampled_from(partitions), min_size=1, max_size=6, unique=True).map(sorted))
    return {partition: draw(entry_in(partition)) for partition in chosen}


@st.composite
def entry_in(draw: st.DrawFn, partition: Partition) -> PartitionEntry:
    rows = draw(st.integers(0, 90_000))
    first, last = sorted([partition.start + draw(times), partition.start + draw(times)])
    return PartitionEntry(
        rows=rows,
        verdict=draw(st.sampled_from(sorted(ACCEPTED))),
        source=draw(st.sampled_from(["rest", "archive", "rest+archive", "derived"])),
        missing=draw(st.lists(st.just([to_iso(first), to_iso(last)]), max_size=2)),
        first=first if rows else None,
        last=last if rows else None,
        note=draw(texts),
        archive_file=draw(
            st.sampled_from([None, f"BTCUSDT-1h-{partition.key}.zip", f"BTCUSDT-1h-{partition.key[:7]}.zip", "x.zip"])
        ),
        archive_sha256=draw(texts),
        archive_modified=draw(st.none() | times.map(to_iso)),
        derived_from=draw(texts),
        accepted_by=draw(texts),
        accepted_because=draw(texts),
        replaced=draw(
            st.none()
            | st.builds(
                Replaced, verdict=st.just("unproved"), at=times.map(to_iso), content_hash=texts, archive_sha256=texts
            )
        ),
        version=draw(texts),
        content_hash=draw(texts),
        unknown=draw(st.sampled_from([{}, {"proof": "ab12", "witnesses": [1, 2]}])),
    )


@pytest.mark.parametrize(
    ("series", "partitions", "name"),
    [
        (HOURS, YEAR, "2024"),
        (parse_series("spot/BTCUSDT/1m"), YEAR[:31], "2024-01"),
        (MONTHS, partitions_between(dt.date(2024, 1, 1), dt.date(2025, 1, 1), MONTHS.interval), "2024"),
    ],
    ids=["days of a year", "days of a month", "months of a year"],
)
@settings(max_examples=50)
@given(data=st.data())
def test_what_is_encoded_is_decoded(
    series: Series, partitions: list[Partition], name: str, data: st.DataObject
) -> None:
    entries = data.draw(entries_of(series, partitions))
    metadata = encode(series, "sandbox", entries)
    decoded = decode(metadata, name, series.interval)
    assert summarize(metadata, name, series.interval) == summary_of(decoded)
    assert (decoded.series, decoded.layout, decoded.venue) == (str(series), 2, "sandbox")
    assert list(decoded.entries) == list(entries)
    assert decoded.entries == entries


def test_a_plain_month_says_everything_once() -> None:
    january = partitions_between(dt.date(2024, 1, 1), dt.date(2024, 2, 1), HOURS.interval)
    entries: Entries = {
        day: PartitionEntry(
            rows=24, verdict="complete", source="rest", missing=[], first=day.start, last=day.end - 3_600_000,
            note="a remark" if day == january[4] else None, version=__version__,
        )
        for day in january
    }  # fmt: skip
    assert json.loads(encode(HOURS, None, entries)["partitions"]) == {
        "keys": [["2024-01-01", "2024-01-31"]],
        "fields": {
            "verdict": {"default": "complete"},
            "source": {"default": "rest"},
            "rows": {"default": 24},
            "first_open": {"default": 0},
            "last_open": {"default": 82_800_000},
            "version": {"default": __version__},
            "note": {"default": None, "except": {"2024-01-05": "a remark"}},
        },
    }


def test_a_year_of_days_that_differ_in_every_hash_takes_less_than_40_kb() -> None:
    """Each day has an archive file of its own, and a content hash of 16 characters."""
    entries: Entries = {
        day: PartitionEntry(
            rows=24 - number % 2, verdict="complete" if number % 30 else "outage", source="archive",
            missing=[] if number % 30 else [[to_iso(day.start), to_iso(day.start + 3_600_000)]],
            first=day.start, last=day.end - 3_600_000, archive_file=f"BTCUSDT-1h-{day.key}.zip",
            archive_sha256=f"{number:064x}", archive_modified=to_iso(day.end + 1000 * number),
            content_hash=f"{number:016x}", version="0.1.0",
        )
        for number, day in enumerate(YEAR)
    }  # fmt: skip
    metadata = encode(HOURS, "binance", entries)
    assert decode(metadata, "2024", HOURS.interval).entries == entries
    assert sum(len(text.encode()) for text in metadata.values()) < 40_000


def test_the_shares_of_a_file_add_up_to_its_size() -> None:
    day = PartitionEntry(rows=0, verdict="complete", source="rest", missing=[], first=None, last=None)
    empty = locate(Path("x"), 1000, dict.fromkeys(YEAR[:3], day))
    assert [entry.size for entry in empty.values()] == [333, 333, 334]
    whole = PartitionEntry(rows=3, verdict="complete", source="rest", missing=[], first=None, last=None)
    mixed = locate(Path("x"), 1000, {YEAR[0]: day, YEAR[1]: whole, YEAR[2]: whole})
    assert [entry.size for entry in mixed.values()] == [0, 500, 500]


@pytest.mark.parametrize(
    "change",
    [
        {"partitions": "{"},
        {"partitions": "[]"},
        {"partitions": '{"keys": [], "fields": []}'},
        {"partitions": '{"keys": [["2024-01-01", "2025-01-01"]], "fields": {}}'},
        {"partitions": '{"keys": [["0001-01-01", "9999-12-31"]], "fields": {}}'},
        {"partitions": '{"keys": [["2024-01-01", "2024-01-01"]], "fields": {}}'},
        {"partitions": '{"keys": [["2024-01-01", "2024-01-02"]], "fields": {"rows": {"each": [1]}}}'},
        {"partitions": '{"keys": [["2024-01-01", "2024-01-01"]], "fields": {"verdict": {"default": 7}}}'},
        {"partitions": "[" * 100_000},
        {"layout": "two"},
        {"series": None},
        {"partitions": None},
    ],
    ids=str,
)
def test_metadata_that_is_not_ours_is_refused_in_one_line(change: dict[str, Any]) -> None:
    entry = PartitionEntry(rows=1, verdict="complete", source="rest", missing=[], first=None, last=None)
    metadata = encode(HOURS, "sandbox", {YEAR[0]: entry}) | change
    metadata = {name: text for name, text in metadata.items() if text is not None}
    with pytest.raises(ValueError, match=r"\A[^\n]+\Z"):
        decode(metadata, "2024", HOURS.interval)


@pytest.mark.parametrize(
    "hashes",
    [
        *('["a","b"]', '["a","a"]', '["","b"]', '["a", "b"]', '[ "a","b"]', '["a",null]', '["é","b"]'),
        *('["]}","b"]', '["a\\"","b"]', '["a\\\\","b"]', '["\\u0061","b"]', '["a,b","c"]', '["\\",\\"","b"]'),
        *('["a"]', '["a","b","c"]', "[]", '["a",1]', '["a","b",]', '["a" "b"]', '["a\n","b"]', '[["a"],"b"]'),
        *('"a","b"', '["a","b"],"each":["c"]', '["a","b"]},"content_hash":{"each":[1,2]'),
        *('["a","b"]},"content_hash":{"default":"removed"', '["a","b"]},"rows":{"default":"removed"'),
        '["a","b"]},"later":{"content_hash":{"each":["c"]}',
    ],
)  # fmt: skip
def test_the_summary_of_a_file_is_what_its_metadata_says_whatever_its_hashes_are(hashes: str) -> None:
    """The second time, what the first one remembered counts."""
    keys, fields = (
        '"keys":[["2024-01-01","2024-01-02"]]',
        '"verdict":{"default":"complete"},"source":{"default":"rest"}',
    )
    before = '"later":{"content_hash":{"each":["x","y"]}},'
    for earlier in ("", before):
        text = f'{{{keys},"fields":{{{fields},{earlier}"content_hash":{{"each":{hashes}}}}}}}'
        metadata = {"layout": "2", "series": str(HOURS), "venue": "", "partitions": text}
        for _ in range(2):
            try:
                decoded = decode(metadata, "2024", HOURS.interval)
            except ValueError:
                with pytest.raises(ValueError, match=r"\A[^\n]+\Z"):
                    summarize(metadata, "2024", HOURS.interval)
            else:
                assert summarize(metadata, "2024", HOURS.interval) == summary_of(decoded)


@pytest.mark.parametrize("note", ["", "é" * 70, "\x18\x06layout\x18\x012", "x" * 20_000, '"series"'])
def test_the_metadata_of_an_intact_file_is_what_polars_reads(note: str) -> None:
    entry = PartitionEntry(rows=1, verdict="complete", source="rest", missing=[], first=None, last=None, note=note)
    metadata = encode(HOURS, "sandbox", {YEAR[0]: entry})
    content = to_parquet(pl.DataFrame({"open_time": [1]}), metadata)
    footer = content[-footer_length(content, len(content)) :]
    assert file_metadata(footer) == {name: metadata[name] for name in ("layout", "series", "venue", "partitions")}
    others = {name: text for name, text in metadata.items() if name != "layout"}
    content = to_parquet(pl.DataFrame({"open_time": [1]}), others)
    assert file_metadata(content[-footer_length(content, len(content)) :]).items() > others.items()


def test_a_later_layout_is_not_read() -> None:
    with pytest.raises(LaterLayout):
        decode({"layout": "3", "series": str(HOURS)}, "2024", HOURS.interval)


@pytest.mark.parametrize("interval", INTERVALS, ids=str)
def test_every_partition_belongs_to_the_span_that_lists_it(interval: Any) -> None:
    partitions = partitions_between(dt.date(2023, 1, 1), dt.date(2025, 1, 1), interval)
    for name, members in by_span(partitions, interval).items():
        assert is_span_name(name, interval)
        assert partitions_of_file(name, interval) == members


def test_a_file_of_layout_1_holds_one_partition_and_other_names_hold_none() -> None:
    minute = parse_interval("1m")
    assert partitions_of_file("2024-01-31", minute) == [partition_for_key("2024-01-31", minute)]
    for name in ("2024-13", "2024-02-30", "9999", "0000"):
        assert partitions_of_file(name, minute) == []
    assert [span_name("2024-01-31", parse_interval(text)) for text in ("1s", "1m", "5m", "15m", "1mo")] == [
        "2024-01-31",
        "2024-01",
        "2024-01",
        "2024",
        "2024",
    ]
