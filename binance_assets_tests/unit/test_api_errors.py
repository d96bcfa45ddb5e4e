"""What the functions of the Python API raise: for every cause the kind of error that their docstrings name."""

from __future__ import annotations

import datetime as dt
import inspect
from collections.abc import Callable
from pathlib import Path
from typing import Any

import polars as pl
import pytest

import binance_assets as ba
from binance_assets.storage.parquet_files import to_parquet
from binance_assets_tests.support.lakes import change, local
from binance_assets_tests.support.results import result_of

HOURS = ba.parse_series("spot/BTCUSDT/1h")
NAME, KEY = str(HOURS), "2024-03-01"
DAY = ("2024-03-01", "2024-03-02")
NOBODY = "http://127.0.0.1:9"
READERS: list[Callable[..., Any]] = [ba.scan, ba.load, ba.plot, lambda name, **more: ba.panel([name], **more)]
ALL: list[Callable[..., Any]] = [*READERS, lambda name, **more: ba.export(name, "csv", **more)]
AHEAD = dt.datetime.min.replace(tzinfo=dt.timezone(dt.timedelta(hours=14)))


@pytest.fixture(autouse=True)
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("SPOT", "USDM", "COINM", "ARCHIVE"):
        monkeypatch.setenv(f"BINANCE_{name}_URL", NOBODY)


def lake_with(*keys: str) -> ba.Lake:
    lake = ba.Lake(Path("lake"))
    lake.prepare("sandbox")
    lake.write_all(HOURS, [result_of(HOURS, key) for key in keys])
    return lake


def raised(kind: type[Exception], call: Callable[..., Any], *arguments: Any, **options: Any) -> str:
    """Return the message of an error of exactly this kind, which is one line."""
    with pytest.raises(kind) as caught:
        call(*arguments, **options)
    assert caught.type is kind
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize("read", ALL)
def test_a_partition_that_the_lake_lacks_is_missing(read: Callable[..., Any]) -> None:
    lake_with(KEY)
    assert "run binance-assets download" in raised(ba.MissingPartitions, read, "spot/ETHUSDT/1h")
    assert issubclass(ba.MissingPartitions, ba.LakeError)


@pytest.mark.parametrize("read", ALL)
def test_candles_that_are_not_those_that_were_written_are_an_error_of_the_lake(read: Callable[..., Any]) -> None:
    change(lake_with(KEY), HOURS, KEY, content_hash="0" * 16)
    assert "its candles are not those that were written" in raised(ba.LakeError, read, NAME)


def test_a_file_of_a_later_version_is_an_error_of_the_lake_for_the_coverage() -> None:
    lake = lake_with(KEY)
    assert ba.coverage(lake=lake)["missing"].item() > 0
    (path,) = local(lake.root).rglob("*.parquet")
    metadata = pl.read_parquet_metadata(path) | {"layout": "99"}
    path.write_bytes(to_parquet(pl.read_parquet(path, hive_partitioning=False), metadata))
    for read in (ba.coverage, lambda: ba.scan(NAME)):
        assert "layout 99" in raised(ba.LakeError, read)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: ba.scan(5), "5 is not a series"),  # type: ignore[arg-type]
        (lambda: ba.coverage(5), "5 is not a series"),  # type: ignore[arg-type]
        (lambda: ba.plot([NAME]), "is not a series"),  # type: ignore[arg-type]
        (lambda: ba.download([]), "no series is named"),
        (lambda: ba.scan(NAME, every="7m"), "every: 7m cannot be derived"),
        (lambda: ba.scan(NAME, start=AHEAD), "Binance opened in July 2017"),
        (lambda: ba.scan(NAME, lake=5), "5 is no path"),  # type: ignore[arg-type]
        (lambda: ba.load(NAME, lake="gs://candles"), "must be a folder, or s3://"),
        (lambda: ba.panel([NAME], column="price"), "has no column 'price'"),
        (lambda: ba.export(NAME, "excel"), "there is no target 'excel'"),  # type: ignore[arg-type]
        (lambda: ba.export(NAME, "csv", 5), "5 is no path"),  # type: ignore[arg-type]
        (lambda: ba.symbols(5), "5 is not a market"),  # type: ignore[arg-type]
        (lambda: ba.symbols("spot", quote=5), "quote: must be a name"),  # type: ignore[arg-type]
        (lambda: ba.symbols("spot", contract="PERPETUAL"), "spot has no contracts"),
        (lambda: ba.symbols("spot", match="("), "not a regular expression"),
        (lambda: ba.download(NAME, *DAY, source="ftp"), "source='ftp' is none of 'auto', 'rest', 'archive'"),  # type: ignore[arg-type]
        (lambda: ba.download("spot/BTCUSDT/45m", *DAY), "is derived and cannot be fetched"),
        (lambda: ba.download(NAME, "2024-03-01", "2024-03-01"), "is not after start"),
    ],
)
def test_an_argument_that_is_not_valid_is_an_error_of_the_configuration(call: Callable[[], Any], message: str) -> None:
    assert message in raised(ba.ConfigurationError, call)


@pytest.mark.parametrize(
    "call", [ba.coverage, lambda: ba.scan(NAME), lambda: ba.symbols("spot"), lambda: ba.download(NAME)]
)
def test_a_setting_that_is_not_valid_is_an_error_of_the_configuration(
    call: Callable[[], Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("BINANCE_ASSETS_SOURCE", "ftp")
    assert "BINANCE_ASSETS_SOURCE" in raised(ba.ConfigurationError, call)


def test_a_ledger_that_cannot_be_used_is_an_error_of_the_ledger(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BINANCE_ASSETS_LEDGER", ".")
    for call in (lambda: ba.download(NAME, *DAY), lambda: ba.symbols("spot")):
        assert "set BINANCE_ASSETS_LEDGER to another file" in raised(ba.LedgerError, call)
    assert issubclass(ba.LedgerError, ba.ConfigurationError)


def test_what_a_series_a_market_or_an_interval_is_called_is_a_value() -> None:
    for parse in (ba.parse_series, ba.parse_market, ba.parse_interval):
        assert "x" in raised(ValueError, parse, "x")


def test_load_has_the_parameters_of_scan_and_returns_a_table() -> None:
    scanned, loaded = inspect.signature(ba.scan), inspect.signature(ba.load)
    assert list(loaded.parameters.values()) == list(scanned.parameters.values())
    assert (scanned.return_annotation, loaded.return_annotation) == ("pl.LazyFrame", "pl.DataFrame")
    lake = lake_with(KEY)
    assert ba.load(NAME, *DAY, "2h", lake=lake).equals(ba.scan(NAME, *DAY, "2h", lake=lake).collect())
