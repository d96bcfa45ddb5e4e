"""The borders of the project: where bytes from outside become a value, or the border's own error."""

from __future__ import annotations

import datetime as dt
import io
import json
import tempfile
import zipfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Final

from binance_assets.candles.parsing import csv_rows, parse_archive, parse_rows
from binance_assets.exchange.archive import unzip
from binance_assets.exchange.errors import ExchangeError, RateLimited, UnexpectedResponse, error_for_response
from binance_assets.exchange.http import HttpResponse, reading, used_weight
from binance_assets.exchange.listing import read_listing
from binance_assets.exchange.rate_limit.ledger import Ledger, LedgerError, RateLimitGroup
from binance_assets.exchange.rate_limit.policy import blocked_for
from binance_assets.exchange.symbols import read_first_open_time, read_symbols, read_volumes
from binance_assets.model.markets import COINM, SPOT, USED_WEIGHT_HEADER
from binance_assets.model.partitions import partitions_between
from binance_assets.model.series import Series, parse_series
from binance_assets.model.timestamps import MINUTE, to_ms
from binance_assets.settings import ConfigurationError, read_settings
from binance_assets.storage.lake import Lake, LakeError
from binance_assets.storage.universe import UniverseError, read_universe
from binance_assets.storage.universe_lock import read_lock
from binance_assets_tests.support.lakes import local
from binance_assets_tests.support.results import result_of

Read = Callable[[bytes], object]

MINUTES: Final = parse_series("spot/BTCUSDT/1m")
HOURS: Final = parse_series("spot/BTCUSDT/1h")
START: Final = dt.date(2024, 1, 1)


@dataclass(frozen=True, slots=True)
class Border:
    """A place where bytes from outside are read.

    Attributes:
        name: Its name.
        samples: Returns good inputs.
        reader: Returns the function that reads an input, given an empty folder for its files.
        errors: The errors of the border; a function that needs none never fails.
    """

    name: str
    samples: Callable[[], list[bytes]]
    reader: Callable[[Path], Read]
    errors: tuple[type[BaseException], ...] = ()


def _rows(count: int, step: int = MINUTE) -> list[list[object]]:
    first = to_ms(START)
    return [
        [
            *(first + number * step, "42283.58000000", "42298.62000000", "42261.02000000", "42298.61000000"),
            *("35.92724000", first + (number + 1) * step - 1, "1518744.19060540", 1327, "20.18512000"),
            *("853346.08650270", "0"),
        ]
        for number in range(count)
    ]


def _page(rows: Sequence[Sequence[object]]) -> bytes:
    return json.dumps(rows, separators=(",", ":")).encode()


def _pages() -> list[bytes]:
    spaced = json.dumps(_rows(2)).encode()
    return [b"[]", _page(_rows(1)), _page(_rows(5)), spaced]


def _csv(rows: Sequence[Sequence[object]]) -> bytes:
    return "".join(",".join(map(str, row)) + "\n" for row in rows).encode()


def _csvs() -> list[bytes]:
    microseconds = [[f"{row[0]}000", *row[1:6], f"{row[6]}999", *row[7:]] for row in _rows(3)]
    header = b"open_time,open,high,low,close,volume,close_time,quote_volume,count,buy_volume,buy_quote_volume,ignore\n"
    return [_csv(_rows(1)), _csv(_rows(5)), header + _csv(_rows(3)), _csv(microseconds)]


_ZIPPED: Final = "BTCUSDT-1m-2024-01-01.csv"


def _zips() -> list[bytes]:
    zips = []
    for method in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        content = io.BytesIO()
        with zipfile.ZipFile(content, "w", method) as zipped:
            zipped.writestr(_ZIPPED, _csv(_rows(20)))
        zips.append(content.getvalue())
    return zips


def _error_bodies() -> list[bytes]:
    bodies = [{"code": -1121, "msg": "Invalid symbol."}, {"code": -1003, "msg": "banned until 1704067200000."}]
    return [*(json.dumps(body).encode() for body in bodies), b"<html><body>403</body></html>", b""]


def _exchange_infos() -> list[bytes]:
    limits = [{"rateLimitType": "REQUEST_WEIGHT", "interval": "MINUTE", "intervalNum": 1, "limit": 6000}]
    spot = {"symbol": "BTCUSDT", "status": "TRADING"}
    coinm = {"symbol": "BTCUSD_240329", "contractStatus": "TRADING", "deliveryDate": 1711699200000}
    return [json.dumps({"rateLimits": limits, "symbols": [entry]}).encode() for entry in (spot, coinm)]


def _response(body: bytes) -> HttpResponse:
    return HttpResponse(body, {}, 0.0, 0.1, "http://localhost/api/v3/klines")


def _answer(read: Callable[[HttpResponse], object]) -> Read:
    """Return how the session reads a response: whatever is wrong with it becomes its named error."""

    def read_body(body: bytes) -> object:
        with reading(UnexpectedResponse):
            return read(_response(body))

    return read_body


def _klines_error(body: bytes) -> ExchangeError:
    return error_for_response(400, {}, body, "http://localhost/api/v3/klines?symbol=BTCUSDT")


def _block(value: str) -> int:
    error = RateLimited("too many requests", headers={"Retry-After": value}, message=value)
    return blocked_for(error, to_ms(START))


def _parquet_samples(series: Series, days: int) -> bytes:
    with tempfile.TemporaryDirectory() as folder:
        lake = Lake(Path(folder) / "lake")
        lake.prepare("sandbox")
        partitions = partitions_between(START, START + dt.timedelta(days), series.interval)
        lake.write_all(series, [result_of(series, partition.key) for partition in partitions])
        return local(lake.path(series, partitions[0])).read_bytes()


def _lake_file(series: Series) -> Callable[[Path], Read]:
    def reader(folder: Path) -> Read:
        lake = Lake(folder / "lake")
        partitions = partitions_between(START, START + dt.timedelta(3), series.interval)
        path = local(lake.path(series, partitions[0]))
        path.parent.mkdir(parents=True, exist_ok=True)

        def read(content: bytes) -> object:
            path.write_bytes(content)
            return lake.stored_partitions(series), lake.damaged(series), list(lake.read_each(series, partitions))

        return read

    return reader


def _state_file(name: str, ask: Callable[[Lake], object]) -> Callable[[Path], Read]:
    def reader(folder: Path) -> Read:
        lake = Lake(folder / "lake")
        local(lake.root).mkdir(exist_ok=True)
        (folder / "lake.state" / name).parent.mkdir(parents=True, exist_ok=True)

        def read(content: bytes) -> object:
            (folder / "lake.state" / name).write_bytes(content)
            return ask(lake)

        return read

    return reader


def _file_index() -> bytes:
    with tempfile.TemporaryDirectory() as folder:
        lake = Lake(Path(folder) / "lake")
        lake.prepare("sandbox")
        lake.write(MINUTES, result_of(MINUTES, "2024-01-01"))
        lake.remember_files(SPOT, lake.file_index(SPOT, [MINUTES]))
        return (Path(folder) / "lake.state" / "files" / "spot.parquet").read_bytes()


def _file(name: str, ask: Callable[[Path], object]) -> Callable[[Path], Read]:
    def reader(folder: Path) -> Read:
        def read(content: bytes) -> object:
            (folder / name).write_bytes(content)
            return ask(folder / name)

        return read

    return reader


def _universes() -> list[bytes]:
    return [
        b"series:\n  - market: spot\n    symbols: [BTCUSDT, ETHUSDT]  # majors\n    intervals: [1m, 1d]\n",
        b"series:\n  - {market: usdm, symbols: [BTCUSDT], intervals: [1m], source: rest, derive: [45m]}\n",
        b"series: &a\n  - market: coinm\n    symbols:\n      - BTCUSD_PERP\n    intervals: [1M]\n",
        b'series: [{market: spot, symbols: {quote: USDT, match: "(A|B).*", top: 9}, intervals: [1d]}]\n',
    ]


def _universe_locks() -> list[bytes]:
    return [
        b"version: 1\nrefreshed: 2026-11-26\ncatalog:\n  spot: {listed: 342}\nrules:\n  - market: spot\n"
        b'    rule: {"quote": ["USDT"], "match": "B.*", "top": 3}\n    symbols:\n'
        b'      "BTCUSDT": {since: 2026-11-26, first: 2017-08-17, last: 2022-11-28, listed: false}\n'
    ]


def _listings() -> list[bytes]:
    return [
        b'<?xml version="1.0" encoding="UTF-8"?><ListBucketResult><IsTruncated>true</IsTruncated>'
        b"<NextMarker>data/B/</NextMarker><CommonPrefixes><Prefix>data/A/</Prefix></CommonPrefixes>"
        b"<Contents><Key>data/A.zip</Key><Size>91</Size></Contents></ListBucketResult>"
    ]


def _tickers() -> list[bytes]:
    entry = {"symbol": "BTCUSDT", "volume": "35.92724000", "quoteVolume": "1518744.19060540"}
    return [json.dumps([entry, entry | {"symbol": "ETHUSDT"}]).encode()]


def _settings(content: bytes) -> object:
    """Read settings of which each line is a variable and its value."""
    lines = content.decode("utf-8", "surrogateescape").split("\n")
    return read_settings(dict(line.split("=", 1) for line in lines if "=" in line))


def _all_settings() -> list[bytes]:
    values = {
        "BINANCE_SPOT_URL": "https://api.binance.com",
        "BINANCE_ASSETS_LAKE": "/data/lake",
        "BINANCE_ASSETS_SOURCE": "auto",
        "BINANCE_ASSETS_MAX_WORKERS": "50",
        "BINANCE_ASSETS_WEIGHT_SHARE": "0.5",
        "BINANCE_ASSETS_BAN_PATIENCE": "900",
        "BINANCE_ASSETS_READ_TIMEOUT": "15",
        "BINANCE_ASSETS_STRICT": "1",
    }
    return ["\n".join(f"{name}={value}" for name, value in values.items()).encode()]


def _ledger(path: Path) -> object:
    for leftover in (path.with_name(path.name + "-wal"), path.with_name(path.name + "-shm")):
        leftover.unlink(missing_ok=True)
    ledger = Ledger(path)
    try:
        with ledger.transaction(RateLimitGroup("localhost", "spot")) as transaction:
            return transaction.limit(), transaction.block(), transaction.minute(1, 6_000), transaction.clock()
    finally:
        ledger.close()


def _ledgers() -> list[bytes]:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "ledger.sqlite"
        ledger = Ledger(path)
        with ledger.transaction(RateLimitGroup("localhost", "spot")) as transaction:
            transaction.add_ours(1, 100)
            transaction.record_seen(1, at_least=120)
        ledger.close()
        return [path.read_bytes()]


_VALUE: Final = (ValueError,)

BORDERS: Final = {
    border.name: border
    for border in (
        Border("page", _pages, lambda _: lambda body: parse_rows(SPOT, csv_rows(body)), _VALUE),
        Border("page of COIN-M", _pages, lambda _: lambda body: parse_rows(COINM, csv_rows(body)), _VALUE),
        Border("archive file", _csvs, lambda _: lambda text: parse_archive(SPOT, text), _VALUE),
        Border("zip", _zips, lambda _: lambda body: unzip(body, _ZIPPED, 100_000), _VALUE),
        Border("error body", _error_bodies, lambda _: _klines_error),
        Border("exchangeInfo", _exchange_infos, lambda _: _answer(read_symbols), (ExchangeError,)),
        Border("ticker", _tickers, lambda _: _answer(partial(read_volumes, SPOT)), (ExchangeError,)),
        Border("listing", _listings, lambda _: lambda body: read_listing(body, "data/", ""), _VALUE),
        Border("first row", _pages, lambda _: _answer(read_first_open_time), (ExchangeError,)),
        Border(
            "used weight",
            lambda: [b"1", b"5999"],
            lambda _: lambda value: used_weight({USED_WEIGHT_HEADER: value.decode("latin-1")}, 6_000),
        ),
        Border(
            "Retry-After",
            lambda: [b"1", b"120", b"banned until 1704067200000", b"Mon, 01 Jan 2024 00:01:00 GMT"],
            lambda _: lambda value: _block(value.decode("latin-1")),
        ),
        Border(
            "lake file",
            lambda: [_parquet_samples(MINUTES, 1), _parquet_samples(MINUTES, 3)],
            _lake_file(MINUTES),
            (LakeError,),
        ),
        Border(
            "small lake file",
            lambda: [_parquet_samples(HOURS, 1), _parquet_samples(HOURS, 3)],
            _lake_file(HOURS),
            (LakeError,),
        ),
        Border(
            "marker",
            lambda: [b'{"origin": "sandbox", "layout": 2}\n', b'{"origin": "binance"}'],
            _state_file("lake.json", lambda lake: lake.venue),
            (LakeError,),
        ),
        Border(
            "first candles",
            lambda: [b'{"spot/BTCUSDT/1m": 1502942400000}'],
            _state_file("first_candles.json", lambda lake: lake.first_open(MINUTES)),
        ),
        Border(
            "file index",
            lambda: [_file_index()],
            _state_file("files/spot.parquet", lambda lake: lake.file_index(SPOT, [MINUTES])),
        ),
        Border("universe", _universes, _file("universe.yaml", read_universe), (UniverseError,)),
        Border("universe lock", _universe_locks, _file("universe.lock.yaml", read_lock), (UniverseError,)),
        Border("settings", _all_settings, lambda _: _settings, (ConfigurationError,)),
        Border("ledger", _ledgers, _file("ledger.sqlite", _ledger), (LedgerError,)),
    )
}
"""The borders by name."""
