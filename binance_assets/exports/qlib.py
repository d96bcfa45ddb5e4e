"""qlib: the binary files of its ``dump_bin``: a calendar, the instruments, and one file per instrument and field.

- ``calendars/1min.txt``: the open times, UTC, one per line. A frequency is ``day`` or a number of minutes (``60min``).
- ``instruments/all.txt``: instrument, first and last open time, separated by tabs.
- ``features/btcusdt/open.1min.bin``: Float32, little-endian: the place of the first value in the calendar, then a value
  for each time of the calendar, NaN where there is no candle.

The fields are ``open, high, low, close, volume`` (base asset), ``amount`` (quote asset; on COIN-M, USD), ``vwap`` and
``factor`` (always 1: there are no splits). The calendar is the whole grid from the first candle to the last, of all
series. Float32 keeps about seven digits.

Source: ``scripts/dump_bin.py`` and ``qlib/data/storage/file_storage.py``, pyqlib 0.9.7.
"""

from __future__ import annotations

import array
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import BinaryIO, Final

import polars as pl

from binance_assets.candles.columns import PRICES, TIME
from binance_assets.exports.streams import batches
from binance_assets.exports.target import Candles, File, Item, Target, base_volume
from binance_assets.model.intervals import Interval
from binance_assets.model.series import Series
from binance_assets.model.timestamps import DAY, MINUTE
from binance_assets.waiting import phase

_FIELDS: Final = (*PRICES, "volume", "amount", "vwap", "factor")
_ROWS: Final = 100_000
"""How many times of the calendar are in memory at once."""


def frequency_of(interval: Interval) -> str:
    """Return qlib's name of an interval: ``day``, ``1min``, ``60min``."""
    return "day" if interval.step == DAY else f"{interval.step // MINUTE}min"


def _time_format(interval: Interval) -> str:
    return "%Y-%m-%d" if interval.step == DAY else "%Y-%m-%d %H:%M:%S"


def _feature(item: Item, field: str) -> str:
    return f"features/{item.series.symbol.lower()}/{field}.{frequency_of(item.interval)}.bin"


def _calendar_path(interval: Interval) -> str:
    return f"calendars/{frequency_of(interval)}.txt"


_INSTRUMENTS: Final = "instruments/all.txt"


def _claims(items: Sequence[Item]) -> list[str]:
    """Return the files of the frequency: the places in the files of all instruments refer to the one calendar.

    Raises:
        ValueError: The items differ in interval, or two have the same symbol.
    """
    intervals = sorted({item.interval.name for item in items})
    if len(intervals) > 1:
        raise ValueError(f"a folder of qlib holds one frequency, not {', '.join(intervals)}; give one, or every='1h'")
    symbols = [item.series.symbol for item in items]
    for item in items:
        if symbols.count(item.series.symbol) > 1:
            raise ValueError(f"qlib has one instrument {item.series.symbol} in a folder; export one market at a time")
    frequency = frequency_of(items[0].interval)
    return [_calendar_path(items[0].interval), _INSTRUMENTS, f"features/*/*.{frequency}.bin"]


def _check(item: Item) -> None:
    if item.interval.step % MINUTE or item.interval.step > DAY:
        raise ValueError(f"qlib has frequencies from a minute to a day, not {item.interval}")


def _write(candles: Sequence[Candles], folder: Path) -> Iterator[File]:
    interval = candles[0].item.interval
    first, last = min(entry.first for entry in candles), max(entry.last for entry in candles)
    everything = tuple(str(entry.item.series) for entry in candles)
    for name in ("calendars", "instruments"):
        (folder / name).mkdir()
    with phase("writing the calendar"):
        _write_calendar(folder / _calendar_path(interval), first, last, interval)
    yield File(_calendar_path(interval), everything)
    _write_instruments(folder / _INSTRUMENTS, candles)
    yield File(_INSTRUMENTS, everything)
    for entry in candles:
        with phase(f"writing {entry.item.series}"):
            _write_features(entry, folder, (entry.first - first) // interval.step)
        for field in _FIELDS:
            yield File(_feature(entry.item, field), (str(entry.item.series),))


def _write_calendar(path: Path, first: int, last: int, interval: Interval) -> None:
    times = pl.int_range(first, last + 1, interval.step, dtype=pl.Int64, eager=True).cast(TIME)
    times.to_frame("time").lazy().sink_csv(path, include_header=False, datetime_format=_time_format(interval))


def _write_instruments(path: Path, candles: Sequence[Candles]) -> None:
    rows = [(entry.item.series.symbol, entry.first, entry.last) for entry in candles]
    table = pl.DataFrame(rows, schema={"symbol": pl.String, "first": pl.Int64, "last": pl.Int64}, orient="row")
    text = table.cast({"first": TIME, "last": TIME}).write_csv(
        include_header=False, separator="\t", datetime_format=_time_format(candles[0].item.interval)
    )
    path.write_text(text, encoding="utf-8")


def _fields(series: Series) -> pl.Expr:
    """Return the fields as Float32, NaN where there is no value."""
    size = series.market.contract_size(series.symbol)
    base = pl.col(base_volume(series.market))
    amount = pl.col("quote_volume") if size is None else pl.col("volume") * size
    exprs = {
        **{price: pl.col(price) for price in PRICES},
        "volume": base,
        "amount": amount,
        "vwap": pl.when(base > 0).then(amount / base),
        "factor": pl.when(base.is_not_null()).then(1.0),
    }
    return pl.struct([value.cast(pl.Float32).fill_null(float("nan")).alias(name) for name, value in exprs.items()])


def _write_features(candles: Candles, folder: Path, place: int) -> None:
    """Write the files of one instrument, whose first value stands at ``place`` of the calendar."""
    item, step = candles.item, candles.item.interval.step
    (folder / _feature(item, _FIELDS[0])).parent.mkdir(parents=True)
    with ExitStack() as stack:
        files = {field: stack.enter_context((folder / _feature(item, field)).open("wb")) for field in _FIELDS}
        for file in files.values():
            _append(file, [float(place)])
        following = candles.first
        for batch in batches(candles.table):
            end = batch["open_time"].to_physical()[-1] + step
            for start in range(following, end, _ROWS * step):
                _append_values(files, batch, item.series, range(start, min(end, start + _ROWS * step), step))
            following = end


def _append_values(files: Mapping[str, BinaryIO], batch: pl.DataFrame, series: Series, opens: range) -> None:
    """Append a value for each of the open times, ms UTC, to each file."""
    grid = (
        pl.int_range(opens.start, opens.stop, opens.step, dtype=pl.Int64, eager=True).cast(TIME).to_frame("open_time")
    )
    fields = grid.join(batch, on="open_time", how="left", maintain_order="left").select(_fields(series).alias("all"))
    for name, column in fields["all"].struct.unnest().to_dict().items():
        _append(files[name], column.to_list())


def _append(file: BinaryIO, values: list[float]) -> None:
    numbers = array.array("f", values)
    if sys.byteorder == "big":
        numbers.byteswap()
    numbers.tofile(file)


QLIB: Final = Target("qlib", lambda item: 'qlib.init(provider_uri="{folder}", region="us")', _claims, _write, _check)
