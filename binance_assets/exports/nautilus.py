"""NautilusTrader: bars as its ``ParquetDataCatalog`` stores them.

``data/bar/BTCUSDT.BINANCE-1-MINUTE-LAST-EXTERNAL/<first>_<last>.parquet``; the name holds the first and the last
``ts_init``. The columns are ``open, high, low, close, volume``, each a whole number of 1e-16 as 16 bytes (the *high
precision* of the wheels for Linux and macOS), and ``ts_event, ts_init`` (ns UTC). The metadata of the schema names the
bar type, the instrument, and the decimals of prices and amounts. Here, the decimals are the fewest that represent every
exported number. A bar is labeled by the close time of its candle, as the tool's own adapter for Binance labels it.

Instruments are not written: the lake does not know tick sizes, fees, and limits, and invents nothing.

Source: ``nautilus_trader/persistence/catalog/parquet.py``, ``serialization/arrow/schema.py``, and
``adapters/binance/common/``, nautilus_trader 1.221.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, cast

import polars as pl

from binance_assets.candles.columns import PRICES
from binance_assets.exports.streams import batches, write_parquet_batches
from binance_assets.exports.target import Candles, File, Item, Target, accept_all
from binance_assets.model.markets import AMOUNT_DECIMALS, SPOT
from binance_assets.model.series import Series
from binance_assets.waiting import phase

_RAW: Final = pl.Decimal(38, 16)
"""Its 128-bit integers are the numbers of the format."""

_VALUES: Final = (*PRICES, "volume")
_TIMES: Final = ("ts_event", "ts_init")
_LARGEST: Final = 17_014_118_346_046.0
"""The largest price (``PRICE_MAX``); amounts may be twice as large."""

_UNITS: Final = {"s": "SECOND", "m": "MINUTE", "h": "HOUR", "d": "DAY", "w": "WEEK", "mo": "MONTH"}


def instrument_of(series: Series) -> str:
    """Return the name that the tool's adapter for Binance gives: ``BTCUSDT.BINANCE``, ``BTCUSDT-PERP.BINANCE``."""
    symbol = series.symbol
    if series.market is not SPOT and not symbol[-1].isdigit():
        symbol = symbol.replace("_", "-") if symbol.endswith("_PERP") else f"{symbol}-PERP"
    return f"{symbol}.BINANCE"


def bar_type_of(item: Item) -> str:
    """Return the bar type: ``BTCUSDT.BINANCE-1-MINUTE-LAST-EXTERNAL``."""
    count = item.interval.name.rstrip("smhdwo")
    unit = _UNITS[item.interval.name.removeprefix(count)]
    return f"{instrument_of(item.series)}-{count}-{unit}-LAST-EXTERNAL"


@dataclass(frozen=True, slots=True)
class _Facts:
    """What the file needs to name before its first row is written; times in ms UTC."""

    price_decimals: int
    size_decimals: int
    first_close: int
    last_close: int


def _facts(candles: Candles) -> _Facts:
    """Return the facts about a table, from one pass over it, a batch at a time.

    Raises:
        ValueError: A number is larger than the format allows.
    """
    decimals, largest, times = dict.fromkeys(_VALUES, 0), 0.0, []
    for batch in batches(candles.table.select(*_VALUES, "close_time")):
        for name in _VALUES:
            decimals[name] = _decimals(batch[name], decimals[name])
        largest = max(largest, *(cast(float, batch[name].max() or 0.0) for name in _VALUES))
        times += [batch["close_time"].to_physical()[place] for place in (0, -1)]
    if largest > _LARGEST:
        raise ValueError(f"{candles.item.series} has the number {largest}, larger than NautilusTrader can hold")
    return _Facts(max(decimals[price] for price in PRICES), decimals["volume"], times[0], times[-1])


def _decimals(values: pl.Series, least: int) -> int:
    """Return the fewest decimals, but not fewer than ``least``, that represent each of the values."""
    exact = (count for count in range(least, AMOUNT_DECIMALS) if (values.round(count) == values).all())
    return next(exact, AMOUNT_DECIMALS)


class _SixteenBytes:
    """An Arrow array of 128-bit decimals that gives itself out as one of 16 bytes each: the layout is the same."""

    def __init__(self, column: pl.Series) -> None:
        self._array = _array(column)

    def __arrow_c_array__(self, requested_schema: object = None) -> tuple[object, object]:
        from arro3.core import DataType, Field

        return Field("", DataType.binary(16), nullable=True).__arrow_c_schema__(), self._array.__arrow_c_array__()[1]


def _array(column: pl.Series) -> Any:
    from arro3.core import ChunkedArray

    return ChunkedArray(column).combine_chunks()


def _raw(values: pl.Series, decimals: int) -> Any:
    from arro3.core import Array

    return Array(_SixteenBytes(_exact(values, decimals).cast(_RAW)))


def _exact(values: pl.Series, decimals: int) -> pl.Series:
    """Return the decimals nearest to positive numbers.

    The cast of Polars multiplies by a power of ten as a double, which is off by some units above 2**53. So the whole
    part and the rest are cast by themselves.
    """
    dtype, whole = pl.Decimal(38, decimals), values.floor()
    return whole.cast(pl.Int64).cast(dtype) + (values - whole).cast(dtype)


def _bars(candles: Candles, facts: _Facts, schema: Any) -> Iterator[Any]:
    """Yield the rows of the file as Arrow batches."""
    from arro3.core import RecordBatch

    for batch in batches(candles.table.select(*_VALUES, "close_time")):
        prices = [_raw(batch[price], facts.price_decimals) for price in PRICES]
        time = _array(batch["close_time"].dt.epoch("ns").cast(pl.UInt64))
        yield RecordBatch.from_arrays([*prices, _raw(batch["volume"], facts.size_decimals), time, time], schema=schema)


def _schema(item: Item, facts: _Facts) -> Any:
    from arro3.core import DataType, Field, Schema

    values = [Field(name, DataType.binary(16), nullable=False) for name in _VALUES]
    times = [Field(name, DataType.uint64(), nullable=False) for name in _TIMES]
    return Schema(
        [*values, *times],
        metadata={
            "bar_type": bar_type_of(item),
            "instrument_id": instrument_of(item.series),
            "price_precision": str(facts.price_decimals),
            "size_precision": str(facts.size_decimals),
        },
    )


def _stamp(time: int) -> str:
    """Return a time (ms UTC) as file names have it: ``2024-01-01T00-00-59-999000000Z``."""
    import datetime as dt

    moment = dt.datetime.fromtimestamp(time // 1_000, dt.UTC)
    return f"{moment:%Y-%m-%dT%H-%M-%S}-{time % 1_000:03}000000Z"


def _folder(item: Item) -> str:
    return f"data/bar/{bar_type_of(item)}"


def _write(candles: Sequence[Candles], folder: Path) -> Iterator[File]:
    for entry in candles:
        with phase(f"writing {entry.item.series}"):
            facts = _facts(entry)
            relative = f"{_folder(entry.item)}/{_stamp(facts.first_close)}_{_stamp(facts.last_close)}.parquet"
            (folder / relative).parent.mkdir(parents=True, exist_ok=True)
            schema = _schema(entry.item, facts)
            write_parquet_batches(schema, _bars(entry, facts, schema), folder / relative, _TIMES)
        yield File(relative, (str(entry.item.series),))


NAUTILUS: Final = Target(
    "nautilus",
    lambda item: 'ParquetDataCatalog("{folder}").bars()',
    lambda items: [f"{_folder(item)}/*.parquet" for item in items],
    _write,
    accept_all,
)
