"""Files that are written a batch of rows at a time, so that memory is bounded and an interrupt ends a write at once.

The sinks of Polars do the same, but a signal reaches Python only at their end (SIGTERM), or their Parquet writer
prints a Rust backtrace (SIGINT, Polars 2.1).
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from io import BufferedWriter, FileIO
from itertools import chain
from pathlib import Path
from queue import Empty, Full, Queue
from typing import TYPE_CHECKING, Any, Final

import polars as pl

from binance_assets.model.outside import reason_of
from binance_assets.storage.lake import LakeError

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer as Buffer
    from arro3.core import RecordBatch, Schema

_ROWS: Final = 100_000
_POLL_SECONDS: Final = 0.1


def batches(table: pl.LazyFrame) -> Iterator[pl.DataFrame]:
    """Yield the rows of a table in order, at most a hundred thousand at a time.

    Raises:
        LakeError: The candles cannot be read or computed. The error is not that of a file that is written.
    """
    found = table.collect_batches(maintain_order=True, engine="streaming")
    while True:
        try:
            batch = next(found, None)
        except (OSError, pl.exceptions.PolarsError) as error:
            raise LakeError(f"the candles cannot be exported: {reason_of(error)}") from None
        if batch is None:
            return
        yield from (part for part in batch.iter_slices(_ROWS) if not part.is_empty())


def write_csv(table: pl.LazyFrame, path: Path, time_format: str) -> None:
    """Write a table as CSV: floats with the fewest digits that give the same number back, nulls as empty fields.

    Raises:
        OSError: The file cannot be written.
    """
    with path.open("wb") as file:
        for number, batch in enumerate(batches(table)):
            batch.write_csv(file, include_header=number == 0, datetime_format=time_format)


def write_feather(table: pl.LazyFrame, path: Path) -> None:
    """Write a table as Feather, version 2, which is the Arrow IPC file format; compressed with LZ4, as pandas does.

    Raises:
        OSError: The file cannot be written.
    """
    from arro3.io import write_ipc

    _write(*_arrow(table), path, lambda reader, file: write_ipc(reader, file, compression="LZ4"))


def write_parquet(table: pl.LazyFrame, path: Path) -> None:
    """Write a table as Parquet, compressed with zstd.

    Raises:
        OSError: The file cannot be written.
    """
    deltas = [name for name, dtype in table.collect_schema().items() if dtype.is_integer() or dtype.is_temporal()]
    write_parquet_batches(*_arrow(table), path, deltas)


def write_parquet_batches(schema: Schema, parts: Iterable[RecordBatch], path: Path, deltas: Sequence[str]) -> None:
    """Write Arrow batches as Parquet, encoded as in the lake; the metadata of the schema goes into the file.

    Args:
        schema: The schema.
        parts: The batches.
        path: The file.
        deltas: The names of the columns of which differences are stored: whole numbers and times.

    Raises:
        OSError: The file cannot be written.
    """
    from arro3 import io

    def write(reader: Any, file: Any) -> None:
        io.write_parquet(
            reader,
            file,
            compression="zstd(1)",
            max_row_group_size=_ROWS,
            dictionary_enabled=False,
            column_encoding=dict.fromkeys(deltas, "delta_binary_packed"),
        )

    _write(schema, parts, path, write)


def _arrow(table: pl.LazyFrame) -> tuple[Schema, Iterator[RecordBatch]]:
    from arro3.core import Table

    parts = (part for batch in batches(table) for part in Table(batch).to_batches())
    return Table(pl.DataFrame(schema=table.collect_schema())).schema, parts


class _Forgiving(BufferedWriter):
    """A file whose writes do not fail: the error is kept, because arro3 panics at one (0.9)."""

    def __init__(self, path: Path) -> None:
        super().__init__(FileIO(path, "w"))
        self.error: OSError | None = None

    def write(self, content: Buffer, /) -> int:
        """Write the content; after an error, do nothing."""
        if self.error is None:
            with self._kept():
                super().write(content)
        return len(memoryview(content))

    def flush(self) -> None:
        """Write what is buffered."""
        with self._kept():
            super().flush()

    @contextmanager
    def _kept(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            self.error = error


def _write(schema: Schema, parts: Iterable[RecordBatch], path: Path, write: Callable[[Any, Any], None]) -> None:
    """Write batches: this thread computes them, another one writes them.

    Python and Polars raise an interrupt in the main thread; raised in a callback of arro3, it would make that panic.

    Raises:
        OSError: The file cannot be written.
    """
    from arro3.core import RecordBatchReader

    waiting: Queue[RecordBatch | None] = Queue(2)
    ended = threading.Event()

    def arriving() -> Iterator[RecordBatch]:
        while (part := _next(waiting, ended)) is not None:
            if file.error is not None:
                return
            yield part

    with _Forgiving(path) as file, ThreadPoolExecutor(1) as executor:
        future = executor.submit(write, RecordBatchReader.from_batches(schema, arriving()), file)
        try:
            for part in chain(parts, [None]):
                while not future.done() and not _was_put(waiting, part):
                    pass
                if future.done():  # it failed, so the other rows need not be computed
                    break
        finally:
            ended.set()
        future.result()
    if file.error is not None:
        raise file.error


def _was_put(waiting: Queue[RecordBatch | None], part: RecordBatch | None) -> bool:
    try:
        waiting.put(part, timeout=_POLL_SECONDS)
    except Full:
        return False
    return True


def _next(waiting: Queue[RecordBatch | None], ended: threading.Event) -> RecordBatch | None:
    """Return the next batch; None if there is no other, or if none will arrive any more."""
    while True:
        try:
            return waiting.get(timeout=_POLL_SECONDS)
        except Empty:
            if ended.is_set():
                return None
