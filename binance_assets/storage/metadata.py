"""What a file of the lake says about each of its partitions, in its own Parquet key-value metadata.

The format is public. Layout 2 has these keys:

- ``layout``: ``2``.
- ``series``: the name of the series, such as ``spot/BTCUSDT/1m``.
- ``version``: the version of the program that last wrote the file.
- ``venue``: ``binance`` or ``sandbox``; an empty string if it is not known.
- ``partitions``: JSON, an object with ``keys`` and ``fields``.
- ``body_crc32``, ``footer_crc32``: see :mod:`binance_assets.storage.checksums`.

``keys`` lists the partitions as ranges of consecutive keys, ``[["2024-01-01", "2024-01-31"]]``, both ends included.
``fields`` has an object for each field that is set. ``{"default": "complete", "except": {"2024-01-05": "outage"}}``
gives the value of most partitions and those that differ; ``{"each": [...]}`` gives one value per partition, in the
order of the keys. A field that is absent is null for all partitions. These are the fields:

- ``verdict``, ``source``, ``note``, ``archive_sha256``, ``derived_from``, ``accepted_by``, ``accepted_because``: as in
  :class:`StoredPartition`.
- ``rows``: the number of candles.
- ``content_hash``: the hash of the candles, see :mod:`binance_assets.candles.content_hash`.
- ``first_open``, ``last_open``: open time of the first and the last candle, ms after the start of the partition.
- ``missing``: gaps, each a pair of ISO times in UTC, half-open.
- ``archive_file``: the name of the archive file, in which ``{partition}`` stands for the partition's key and
  ``{month}`` for its first seven characters.
- ``archive_modified``: when the archive last changed that file, ms UTC.
- ``replaced``: what the partition replaced, an object with ``verdict``, ``content_hash``, ``archive_sha256``, and
  ``at``, the time of the replacement, ms UTC; what is null is absent.
- ``version``: the version of the program that wrote the partition.

A program keeps the fields that it does not know. Layout 1 had one partition per file, with the fields as keys.
"""

from __future__ import annotations

import datetime as dt
import json
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, fields, replace
from functools import lru_cache
from itertools import accumulate
from operator import sub
from typing import Any, Final, cast

import polars as pl

from binance_assets import __version__
from binance_assets.candles.content_hash import content_hash, content_hashes
from binance_assets.model.bucket_paths import LakePath
from binance_assets.model.intervals import Interval
from binance_assets.model.outside import printable, whole_number
from binance_assets.model.partitions import (
    Partition,
    merge_ranges,
    next_partition_first_day,
    partition_for_key,
    partitions_between,
)
from binance_assets.model.results import (
    ACCEPTED,
    IN_DOUBT,
    UNNAMED_OUTAGE,
    PartitionResult,
    Quality,
    Verdict,
    quality,
)
from binance_assets.model.series import Series
from binance_assets.model.timestamps import CANDLE_TIMES, DAY, from_iso, to_date, to_iso
from binance_assets.storage.spans import KEY, span_name

# Rows up to which the calls for a table take longer than the hash of its values.
_SMALL: Final = 500

LAYOUT: Final = 2
"""The layout that this version writes; it reads layout 1 too."""

# What a number of the metadata can be: also one of a later layout, a month of 1s, and a time until the year 2100.
_LAYOUTS: Final = range(1, 1_000_000)
_ROWS: Final = range(10_000_000)
_TIMES: Final = range(CANDLE_TIMES.stop)

_MOST_LEVELS: Final = 16  # of a field that a later version adds
_MOST_SHOWN: Final = 40


@dataclass(frozen=True, slots=True, kw_only=True)
class Replaced:
    """What a partition was before it was replaced.

    Attributes:
        verdict: Its verdict.
        content_hash: Hash of its candles; None if it was not stored.
        archive_sha256: SHA-256 of the archive's file that its candles came from; None without a file.
        at: When it was replaced, as an ISO time in UTC.
    """

    verdict: str
    at: str
    content_hash: str | None = None
    archive_sha256: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class PartitionEntry:
    """What the metadata of a file says about one of its partitions.

    Attributes:
        rows: Number of candles.
        verdict: The verdict with which the partition was accepted.
        source: Source of the candles, such as ``rest``, ``archive``, or ``rest+archive``; ``derived`` for a derived
            series.
        missing: Gaps, each a pair of ISO times in UTC, half-open.
        first: Open time of the first candle, ms UTC; None if the partition has no candles.
        last: Open time of the last candle, ms UTC; None if the partition has no candles.
        content_hash: Hash of the candles; None if the program that wrote the partition did not store it.
        note: A remark in one line, such as the name of an outage or why another source had to help; None if there is
            nothing to remark.
        archive_file: Name of the archive's file that the candles come from; None for candles from REST or from a base
            series.
        archive_sha256: SHA-256 of that file, in hex; None without a file.
        archive_modified: When the archive last changed that file, as an ISO time in UTC; None without a file, or if the
            archive does not say.
        derived_from: Name of the base series; None for a fetched series.
        accepted_by: The person who accepted the partition although it was refused; None if nobody did.
        accepted_because: The reason that this person gave; None if nobody did.
        replaced: What the partition replaced the last time that its candles or its verdict changed; None if they never
            did.
        version: The version of the program that wrote the partition.
        unknown: Fields of a later version, by name; a rewrite of the file keeps them.
    """

    rows: int
    verdict: Verdict
    source: str
    missing: list[list[str]]
    first: int | None
    last: int | None
    content_hash: str | None = None
    note: str | None = None
    archive_file: str | None = None
    archive_sha256: str | None = None
    archive_modified: str | None = None
    derived_from: str | None = None
    accepted_by: str | None = None
    accepted_because: str | None = None
    replaced: Replaced | None = None
    version: str | None = None
    unknown: Mapping[str, Any] = field(default_factory=dict)

    @property
    def is_accepted(self) -> bool:
        """Whether the partition counts as stored: by a verdict that this version knows, or by a person."""
        return self.verdict in ACCEPTED or self.accepted_by is not None

    @property
    def is_in_doubt(self) -> bool:
        """Whether fresh evidence may change its verdict; a partition that a person accepted is not in doubt."""
        return self.verdict in IN_DOUBT and self.accepted_by is None

    @property
    def quality(self) -> Quality:
        """How good the partition is, lower is better."""
        missing = [(from_iso(start), from_iso(end)) for start, end in self.missing]
        return quality(self.verdict, missing, self.rows == 0)

    def may_replace(self, stored: PartitionEntry) -> bool:
        """Return whether this entry may replace a stored one: it is not worse, or a person accepted it.

        For the same candles, every verdict says more than ``unproved``, which only means that there was no evidence.
        """
        if self.accepted_by is not None:
            return True
        is_same = stored.content_hash == self.content_hash is not None
        if is_same and "unproved" in (stored.verdict, self.verdict):
            return stored.verdict == "unproved"
        return self.quality <= stored.quality

    def replacing(self, stored: PartitionEntry, at: str) -> PartitionEntry:
        """Return this entry with what it replaces; the same candles with the same verdict replace nothing.

        Args:
            stored: The replaced entry.
            at: The time, in ISO format.
        """
        if (stored.verdict, stored.content_hash) == (self.verdict, self.content_hash):
            return replace(self, replaced=stored.replaced)
        before = Replaced(
            verdict=stored.verdict, at=at, content_hash=stored.content_hash, archive_sha256=stored.archive_sha256
        )
        return replace(self, replaced=before)

    @property
    def texts(self) -> dict[str, str]:
        """The optional attributes that are set, by name, in a fixed order."""
        return {name: text for name in _TEXTS if (text := getattr(self, name)) is not None}


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredPartition(PartitionEntry):
    """A partition in the lake: its entry, and where it is.

    Attributes:
        path: The file that holds it, and the other partitions of its span.
        size: Its share of the size of that file in bytes, by number of candles; the shares of a file add up to its
            size.
        declined: A result that a write did not store, because this partition is better; None otherwise. It is not in
            the file.
    """

    path: LakePath
    size: int
    declined: PartitionEntry | None = None


_TEXTS: Final = (
    "note",
    "archive_file",
    "archive_sha256",
    "archive_modified",
    "derived_from",
    "accepted_by",
    "accepted_because",
)

Entries = dict[Partition, PartitionEntry]
"""The entries of a file by partition, ascending."""


@dataclass(frozen=True, slots=True)
class FileMetadata:
    """The metadata of a file.

    Attributes:
        series: Name of the series.
        layout: The layout that the file was written in.
        venue: The venue of the candles; None if the file does not say.
        entries: The entries of its partitions, ascending.
    """

    series: str
    layout: int
    venue: str | None
    entries: Entries


@dataclass(frozen=True, slots=True)
class FileSummary:
    """What the metadata of a file says about its partitions, as columns: all that a table of many files needs.

    Attributes:
        series: Name of the series.
        partitions: Its partitions, which other files may share.
    """

    series: str
    partitions: SummaryColumns


@dataclass(frozen=True, slots=True)
class SummaryColumns:
    """The partitions of a file, ascending: each column has a value for each of them.

    Attributes:
        starts: When they start, ms UTC.
        verdicts: Their verdicts.
        rows: Their numbers of candles.
        by_person: Whether a person accepted them although they were refused.
        unnamed_outages: Whether they have an outage that the table of known outages does not name.
    """

    starts: Sequence[int]
    verdicts: Sequence[str]
    rows: Sequence[int]
    by_person: Sequence[bool]
    unnamed_outages: Sequence[bool]


class LaterLayout(Exception):
    """A later version of the program wrote the file in a layout that this version cannot read."""


def entries_of(results: Sequence[PartitionResult]) -> list[PartitionEntry]:
    """Return the entries of results that are about to be written."""
    if not results:
        return []
    ends = list(accumulate(result.candles.height for result in results))
    opens = pl.concat([result.candles["open_time"] for result in results]).to_physical()
    edges = [
        (opens[start], opens[end - 1]) if start < end else (None, None)
        for start, end in zip([0, *ends], ends, strict=False)
    ]
    return [_entry_of(*parts) for parts in zip(results, _hashes(results, ends), edges, strict=True)]


def _hashes(results: Sequence[PartitionResult], ends: Sequence[int]) -> list[str]:
    """Return the content hashes of the candles; of many small tables, in one call over all of them.

    ``ends`` are the numbers of candles up to and including each result.
    """
    if ends[-1] > _SMALL * len(ends):
        return [content_hash(result.candles) for result in results]
    whole = pl.concat([result.candles for result in results])
    return content_hashes(whole, list(zip([0, *ends], ends, strict=False)))


def entry_of(result: PartitionResult) -> PartitionEntry:
    """Return the entry of a result that is about to be written."""
    return entries_of([result])[0]


def _entry_of(result: PartitionResult, digest: str, edges: tuple[int | None, int | None]) -> PartitionEntry:
    """Return the entry of a result whose candles have the hash ``digest`` and open from the first to the last edge."""
    provenance = result.provenance
    return PartitionEntry(
        rows=result.candles.height,
        verdict=result.verdict,
        source=provenance.source,
        missing=[[to_iso(start), to_iso(end)] for start, end in result.missing],
        first=edges[0],
        last=edges[1],
        content_hash=digest,
        note=result.reason or None,
        archive_file=provenance.file,
        archive_sha256=provenance.sha256,
        archive_modified=to_iso(provenance.modified) if provenance.modified is not None else None,
        derived_from=provenance.base_series,
        accepted_by=result.accepted_by or None,
        accepted_because=result.accepted_because or None,
        version=__version__,
    )


def locate(path: LakePath, size: int, entries: Entries) -> dict[Partition, StoredPartition]:
    """Return the stored partitions of the file ``path`` of ``size`` bytes."""
    stored, names = {}, [attribute.name for attribute in fields(PartitionEntry)]
    shares = shares_of(size, [entry.rows for entry in entries.values()])
    for (partition, entry), share in zip(entries.items(), shares, strict=True):
        values = {name: getattr(entry, name) for name in names}
        stored[partition] = StoredPartition(**values, path=path, size=share)
    return stored


def shares_of(size: int, rows: Sequence[int]) -> list[int]:
    """Return the share of each partition in the ``size`` of its file in bytes, by number of candles."""
    weights = rows if any(rows) else [1] * len(rows)
    total = sum(weights)
    ends = [size * weight // total for weight in accumulate(weights)]
    return list(map(sub, ends, [0, *ends]))


def encode(series: Series, venue: str | None, entries: Entries) -> dict[str, str]:
    """Return the metadata of a file with ``entries``, which are ascending."""
    partitions = list(entries)
    values = [_values(partition, entry) for partition, entry in entries.items()]
    names = dict.fromkeys(name for value in values for name in value)
    document = {
        "keys": [
            [to_date(start).isoformat(), _last_key(end, series.interval)] for start, end in merge_ranges(partitions)
        ],
        "fields": {name: _column(partitions, [value.get(name) for value in values]) for name in names},
    }
    return {
        "layout": str(LAYOUT),
        "series": str(series),
        "version": __version__,
        "venue": venue or "",
        "partitions": _to_json(document),
    }


def decode(metadata: Mapping[str, str], name: str, interval: Interval) -> FileMetadata:
    """Return what the metadata of a file says.

    Args:
        metadata: The key-value metadata.
        name: Name of the file without its ending: that of a span, or the key of a partition in layout 1.
        interval: The interval of the series in whose folder the file is.

    Raises:
        LaterLayout: The file was written by a later version.
        ValueError: It is not the metadata of a file of the lake.
    """
    with _only_damage():
        if "layout" not in metadata:
            return _decode_layout_1(metadata, name, interval)
        layout, partitions, columns = _columns(metadata, name, interval)
        columns |= {field: _open_times(columns[field], partitions) for field in _OFFSETS if field in columns}
        venue = _text(metadata["venue"]) or None
        return FileMetadata(_text(metadata["series"]), layout, venue, _entries(partitions, columns))


def summarize(metadata: Mapping[str, str], name: str, interval: Interval) -> FileSummary:
    """Return what :func:`decode` returns as columns, without an object for each partition: many times as fast.

    It refuses the same files, so it checks also the fields that it does not return. Files of a span often differ only
    in the hashes of their candles; what the rest of their metadata says is remembered.

    Raises:
        LaterLayout, ValueError: As for :func:`decode`.
    """
    with _only_damage():
        if "layout" not in metadata:
            return _summary_of(_decode_layout_1(metadata, name, interval))
        columns = _shared_columns(metadata, name, interval) or _summary_columns(metadata, name, interval)[0]
        _text(metadata["venue"])
        return FileSummary(_text(metadata["series"]), columns)


def _summary_of(file: FileMetadata) -> FileSummary:
    entries = file.entries.values()
    columns = SummaryColumns(
        starts=[partition.start for partition in file.entries],
        verdicts=[entry.verdict for entry in entries],
        rows=[entry.rows for entry in entries],
        by_person=[entry.accepted_by is not None for entry in entries],
        unnamed_outages=[UNNAMED_OUTAGE in (entry.note or "") for entry in entries],
    )
    return FileSummary(file.series, columns)


def _shared_columns(metadata: Mapping[str, str], name: str, interval: Interval) -> SummaryColumns | None:
    """Return the columns of a file that are the same without the hashes of its candles; None if that is not certain."""
    rest, count = _without_hashes(metadata.get("partitions", ""))
    if not count or len(rest) > _LONGEST_SHARED:
        return None
    try:
        columns, is_removed = _remembered_columns(metadata["layout"], rest, name, interval)
    except Exception:  # the error has to name what the file says, not what is left
        return None
    return columns if is_removed and len(columns.starts) == count else None


def _without_hashes(text: str) -> tuple[str, int]:
    """Return the JSON of partitions without the hash of each, and the number of hashes; 0 if they are not certain.

    They are certain if all quotes are those around them and nothing is escaped: then they are texts and nothing else.
    """
    found = text.find(_EACH_HASH)
    start = found + len(_EACH_HASH)
    end = text.find('"]}', start) + 1
    hashes = text[start:end]
    count = hashes.count('","') + 1
    if found < 0 or end <= start or hashes[0] != '"' or hashes.count('"') != 2 * count:
        return text, 0
    if "\\" in hashes or not (hashes.isascii() and hashes.isprintable()):
        return text, 0
    return text[:found] + _REMOVED_HASH + text[end + 2 :], count


_EACH_HASH: Final = '"content_hash":{"each":['
_REMOVED: Final = "removed"
_REMOVED_HASH: Final = f'"content_hash":{{"default":"{_REMOVED}"}}'
_LONGEST_SHARED: Final = 2_000


@lru_cache(maxsize=1_024)
def _remembered_columns(layout: str, text: str, name: str, interval: Interval) -> tuple[SummaryColumns, bool]:
    return _summary_columns({"layout": layout, "partitions": text}, name, interval)


def _summary_columns(metadata: Mapping[str, str], name: str, interval: Interval) -> tuple[SummaryColumns, bool]:
    """Return the columns of a file, and whether the hashes of its candles were removed.

    Raises:
        LaterLayout, ValueError, TypeError: As for :func:`_columns`.
    """
    _, partitions, values = _columns(metadata, name, interval)
    nothing = [None] * len(partitions)
    columns = SummaryColumns(
        starts=[partition.start for partition in partitions],
        verdicts=values["verdict"],
        rows=values.get("rows") or [0] * len(partitions),
        by_person=[person is not None for person in values.get("accepted_by") or nothing],
        unnamed_outages=[UNNAMED_OUTAGE in (note or "") for note in values.get("note") or nothing],
    )
    return columns, set(values.get("content_hash", ())) == {_REMOVED}


@contextmanager
def _only_damage() -> Iterator[None]:
    """Raise whatever fails as ValueError: whatever the JSON holds, the file is damaged and nothing else."""
    try:
        yield
    except (LaterLayout, ValueError):
        raise
    except Exception as error:
        raise ValueError(f"{type(error).__name__}: {error}") from None


def _last_key(end: int, interval: Interval) -> str:
    """Return the key of the partition that ends at ``end``, ms UTC."""
    last_day = to_date(end - DAY)
    return (last_day.replace(day=1) if interval.is_multi_day else last_day).isoformat()


def _columns(
    metadata: Mapping[str, str], name: str, interval: Interval
) -> tuple[int, list[Partition], dict[str, list[Any]]]:
    """Return the layout, the partitions, and the values of each field, checked and as the entries have them.

    Open times are still relative to the start of their partitions.

    Raises:
        LaterLayout: The file was written by a later version.
        ValueError, TypeError: A field has a value that it cannot have.
    """
    if (layout := _number(metadata["layout"], _LAYOUTS)) > LAYOUT:
        raise LaterLayout(f"layout {layout}")
    document = json.loads(metadata["partitions"])
    partitions = _partitions_of(document["keys"], name, interval)
    columns = {
        field_name: _values_of(column, partitions, _CHECKS.get(field_name, _shallow))
        for field_name, column in document["fields"].items()
    }
    for field_name in _OFFSETS:
        _check_offsets(columns.get(field_name, ()), partitions)
    if partitions and not {"verdict", "source"} <= columns.keys():
        raise ValueError("a partition has no verdict or no source")
    return layout, partitions, columns


def _partitions_of(ranges: Sequence[Sequence[str]], name: str, interval: Interval) -> list[Partition]:
    """Return the partitions of ranges of keys, all in the span ``name``.

    Raises:
        ValueError: They are not in it, or not ascending: the same range a million times would fill the memory.
    """
    partitions: list[Partition] = []
    for first, last in ranges:
        following = _partitions_in(first, last, name, interval)
        if partitions and following[0].start < partitions[-1].end:
            raise ValueError(f"the partitions {first} to {last} are not in order")
        partitions += following
    return partitions


@lru_cache(maxsize=4_096)  # the files of many series have the same spans
def _partitions_in(first: str, last: str, name: str, interval: Interval) -> tuple[Partition, ...]:
    """Return the partitions from one key to another, at least one.

    Raises:
        ValueError: They are not in the span ``name``, or not ascending.
    """
    if {span_name(first, interval), span_name(last, interval)} != {name}:
        raise ValueError(f"the partitions {first} to {last} do not belong to {name}")
    start, end = dt.date.fromisoformat(first), next_partition_first_day(dt.date.fromisoformat(last), interval)
    if start >= end:
        raise ValueError(f"the partitions {first} to {last} are not in order")
    return tuple(partitions_between(start, end, interval))


def _column(partitions: Sequence[Partition], values: Sequence[Any]) -> dict[str, Any]:
    """Return the shorter form of a field: a default with exceptions, or each value."""
    texts = [_to_json(value) for value in values]
    common = Counter(texts).most_common(1)[0][0]
    exceptions = {
        partition.key: value for partition, value, text in zip(partitions, values, texts, strict=True) if text != common
    }
    each = {"each": list(values)}
    default = {"default": json.loads(common), **({"except": exceptions} if exceptions else {})}
    return default if len(_to_json(default)) <= len(_to_json(each)) else each


def _to_json(value: object) -> str:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))


def _values_of(column: Mapping[str, Any], partitions: Sequence[Partition], check: Callable[[Any], Any]) -> list[Any]:
    """Return the values of a field, one for each partition, each checked and converted by ``check``."""
    if "each" in column:
        values = column["each"]
        if len(values) != len(partitions):
            raise ValueError(f"{len(values)} values for {len(partitions)} partitions")
        if check is _optional_text and isinstance(values, list) and _OPTIONAL_TEXT.issuperset(map(type, values)):
            return values  # as the check would: hashes are half of what there is to check
        return list(map(check, values))
    if not partitions:
        return []
    default, exceptions = check(column["default"]), column.get("except")
    if not exceptions:
        return [default] * len(partitions)
    keys = (partition.key for partition in partitions)
    return [check(exceptions[key]) if key in exceptions else default for key in keys]


def _check_offsets(offsets: Sequence[int | None], partitions: Sequence[Partition]) -> None:
    """Check times after the start of their partitions, ms.

    Raises:
        ValueError: One of them is after the end.
    """
    if max((offset for offset in set(offsets) if offset is not None), default=0) < DAY:
        return  # no partition is shorter
    for partition, offset in zip(partitions, offsets, strict=True):
        if offset is not None and offset >= partition.end - partition.start:
            raise ValueError(f"{offset} ms after its start, the partition {partition} has ended")


def _open_times(offsets: Sequence[int | None], partitions: Sequence[Partition]) -> list[int | None]:
    """Return open times, ms UTC, given as ms after the start of their partition."""
    pairs = zip(partitions, offsets, strict=True)
    return [None if offset is None else partition.start + offset for partition, offset in pairs]


def _values(partition: Partition, entry: PartitionEntry) -> dict[str, Any]:
    """Return the fields of an entry that are set, as the file spells them."""
    values = {
        "verdict": entry.verdict,
        "source": entry.source,
        "rows": entry.rows,
        "first_open": None if entry.first is None else entry.first - partition.start,
        "last_open": None if entry.last is None else entry.last - partition.start,
        "content_hash": entry.content_hash,
        "missing": entry.missing or None,
        "note": entry.note,
        "archive_file": None if entry.archive_file is None else _template(partition, entry.archive_file),
        "archive_sha256": entry.archive_sha256,
        "archive_modified": None if entry.archive_modified is None else from_iso(entry.archive_modified),
        "derived_from": entry.derived_from,
        "accepted_by": entry.accepted_by,
        "accepted_because": entry.accepted_because,
        "replaced": None if entry.replaced is None else _replaced_fields(entry.replaced),
        "version": entry.version,
        **entry.unknown,
    }
    return {name: value for name, value in values.items() if value is not None}


def _replaced_fields(replaced: Replaced) -> dict[str, Any]:
    values = asdict(replaced) | {"at": from_iso(replaced.at)}
    return {name: value for name, value in values.items() if value is not None}


def _replaced(value: Mapping[str, Any] | None) -> Replaced | None:
    if value is None:
        return None
    return Replaced(
        verdict=_text(value["verdict"]),
        at=to_iso(_number(value["at"], _TIMES)),
        content_hash=_optional_text(value.get("content_hash")),
        archive_sha256=_optional_text(value.get("archive_sha256")),
    )


def _template(partition: Partition, file: str) -> str:
    return file.replace(partition.key, "{partition}").replace(partition.key[:7], "{month}")


def _entries(partitions: Sequence[Partition], columns: Mapping[str, Sequence[Any]]) -> Entries:
    """Return the entry of each partition, given the values of each field."""
    known, nothing = {**columns}, [None] * len(partitions)
    take = known.pop
    rows = take("rows", [0] * len(partitions))
    names = ("verdict", "source", "missing", *_OFFSETS, "archive_file", "archive_modified", "replaced", *_PLAIN_TEXTS)
    values = [take(name, nothing) for name in names]
    entries = {}
    for position, (partition, count, row) in enumerate(zip(partitions, rows, zip(*values, strict=True), strict=True)):
        verdict, source, missing, first, last, file, modified, replaced, *texts = row
        key = partition.key
        entries[partition] = PartitionEntry(
            rows=count,
            verdict=verdict,  # the caller refuses a verdict that this version does not know
            source=source,
            missing=missing or [],
            first=first,
            last=last,
            archive_file=None if file is None else file.replace("{partition}", key).replace("{month}", key[:7]),
            archive_modified=modified,
            replaced=replaced,
            **dict(zip(_PLAIN_TEXTS, texts, strict=True)),
            unknown={name: column[position] for name, column in known.items() if column[position] is not None},
        )
    return entries


_PLAIN_TEXTS: Final = (
    "content_hash",
    "note",
    "archive_sha256",
    "derived_from",
    "accepted_by",
    "accepted_because",
    "version",
)


def _text(value: object) -> str:
    if not isinstance(value, str):
        raise TypeError(f"{printable(value, _MOST_SHOWN)} is not text")
    return value


def _number(value: object, bounds: range) -> int:
    """Return a number of the metadata.

    Raises:
        ValueError: It is not a whole number within ``bounds``.
    """
    number = whole_number(value, bounds)
    if number is None:
        raise ValueError(f"{printable(value, _MOST_SHOWN)} is not a number from {bounds.start} to {bounds.stop - 1}")
    return number


def _gaps(pairs: Sequence[Sequence[str]] | None) -> list[list[str]]:
    """Return gaps of the metadata.

    Raises:
        ValueError, TypeError: One of them is not a pair of times, which a comparison of two partitions would meet.
    """
    gaps = [[_text(start), _text(end)] for start, end in pairs or []]
    for gap in gaps:
        for text in gap:
            _number(from_iso(text), _TIMES)
    return gaps


def _shallow(value: object, levels: int = _MOST_LEVELS) -> object:
    """Return a value that this version does not know, if a rewrite of the file can keep it.

    Raises:
        ValueError: It is nested so deep that JSON could not be made of it everywhere.
    """
    if levels == 0:
        raise ValueError(f"a field is nested deeper than {_MOST_LEVELS} levels")
    if isinstance(value, (list, dict)):
        for member in value.values() if isinstance(value, dict) else value:
            _shallow(member, levels - 1)
    return value


def _optional_text(value: object) -> str | None:
    return None if value is None else _text(value)


def _optional_time(value: object) -> int | None:
    return None if value is None else _number(value, _TIMES)


_OFFSETS: Final = ("first_open", "last_open")
_OPTIONAL_TEXT: Final = {str, type(None)}
_CHECKS: Final[Mapping[str, Callable[[Any], Any]]] = {
    **dict.fromkeys(_OFFSETS, _optional_time),
    "rows": lambda value: _number(value, _ROWS),
    "verdict": _text,
    "source": _text,
    "missing": _gaps,
    "archive_file": _optional_text,
    "archive_modified": lambda value: None if value is None else to_iso(_number(value, _TIMES)),
    "replaced": _replaced,
    **dict.fromkeys(_PLAIN_TEXTS, _optional_text),
}
"""What checks and converts a value of each field; a field of a later version has none."""


def _decode_layout_1(metadata: Mapping[str, str], key: str, interval: Interval) -> FileMetadata:
    """Return what the metadata of a file of layout 1 says: one partition, and an empty string for None."""
    if not KEY.fullmatch(key):
        raise ValueError(f"{key} is not the key of a partition")
    entry = PartitionEntry(
        rows=_number(metadata["rows"], _ROWS),
        verdict=cast("Verdict", _text(metadata["verdict"])),
        source=_text(metadata["source"]),
        missing=_gaps(json.loads(metadata["missing"])),
        first=_optional_number(metadata["first_open_time"]),
        last=_optional_number(metadata["last_open_time"]),
        **_optional_texts(metadata),
    )
    return FileMetadata(_text(metadata["series"]), 1, None, {partition_for_key(key, interval): entry})


def _optional_texts(metadata: Mapping[str, str]) -> dict[str, Any]:
    return {name: metadata.get(name) or None for name in (*_TEXTS, "version")}


def _optional_number(text: str) -> int | None:
    return _number(text, _TIMES) if text else None
