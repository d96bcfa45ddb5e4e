"""Exports without the tools: names, columns, labels, gaps, files of others, interrupts, and bad input."""

from __future__ import annotations

import array
import json
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any, get_args

import polars as pl
import pytest
from click.testing import CliRunner
from hypothesis import given, settings
from hypothesis import strategies as st

import binance_assets as ba
from binance_assets.api.exporting import ExportTarget
from binance_assets.cli.main import cli
from binance_assets.exports.choices import MISSING_BY_TARGET
from binance_assets.exports.freqtrade import pair_of
from binance_assets.exports.nautilus import bar_type_of
from binance_assets.exports.publication import MANIFEST, publication
from binance_assets.exports.streams import batches, write_csv, write_feather, write_parquet, write_parquet_batches
from binance_assets.exports.target import File, Item
from binance_assets.exports.targets import TARGETS
from binance_assets.model.series import parse_any_series
from binance_assets.settings import ConfigurationError
from binance_assets.storage.lake import Lake, LakeError
from binance_assets_tests.exports.versions import VERSIONS
from binance_assets_tests.support.environment import CHECKOUT, without_progress
from binance_assets_tests.support.exports import (
    COIN_DELIVERY,
    COINM_HOURS,
    SPOT_HOURS,
    SPOT_MINUTES,
    USDM_HOURS,
    export_lake,
    rows_of,
)
from binance_assets_tests.support.lakes import local

DAY = {"start": "2024-03-02", "end": "2024-03-03"}  # the day with the gap


@pytest.fixture(scope="module")
def lake(tmp_path_factory: pytest.TempPathFactory) -> Lake:
    return export_lake(tmp_path_factory.mktemp("exports") / "lake")


def files_in(folder: Path) -> set[str]:
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}


# -- formats ----------------------------------------------------------------------------------------------------------


def test_every_target_has_a_name_a_type_and_a_default() -> None:
    assert list(TARGETS) == list(MISSING_BY_TARGET) == list(get_args(ExportTarget))


@pytest.mark.parametrize("target", ["parquet", "csv", "feather"])
@pytest.mark.parametrize("missing", ["keep", "null", "flat"])
def test_a_plain_table_is_what_scan_returns(
    target: ExportTarget, missing: ba.Missing, lake: Lake, tmp_path: Path
) -> None:
    exported = ba.export([SPOT_HOURS, COINM_HOURS], target, tmp_path, missing=missing, lake=lake)
    assert set(exported.files) == {f"spot-BTCUSDT-1h.{target}", f"coinm-BTCUSD_PERP-1h.{target}"}
    for entry, name in zip(exported.series, (SPOT_HOURS, COINM_HOURS), strict=True):
        path = tmp_path / entry.files[0]
        expected = ba.load(name, missing=missing, lake=lake)
        read = {"parquet": pl.read_parquet, "feather": pl.read_ipc}.get(target)
        table = read(path) if read else pl.read_csv(path, schema_overrides={"trades": pl.Int64}).with_columns(
            pl.col("open_time", "close_time").str.to_datetime(time_unit="ms", time_zone="UTC"),
            *(pl.col(flag).cast(pl.Boolean) for flag in expected.columns if flag == "is_filled"),
        )  # fmt: skip
        assert table.equals(expected)
        assert table.schema == expected.schema
        assert (entry.rows, entry.first, entry.last) == (
            expected.height, "2024-03-01T00:00:00Z", "2024-03-03T23:00:00Z"
        )  # fmt: skip


@pytest.mark.parametrize(
    ("name", "pair"),
    [
        ("spot/ETHBUSD/1m", "ETH/BUSD"),
        ("usdm/1000SHIBUSDT/1m", "1000SHIB/USDT:USDT"),
        ("usdm/BTCUSDT_240628/1m", "BTC/USDT:USDT-240628"),
        ("coinm/BTCUSD_PERP/1m", "BTC/USD:BTC"),
        ("coinm/ETHUSD_240628/1m", "ETH/USD:ETH-240628"),
    ],
)
def test_a_pair_of_freqtrade_is_the_unified_symbol_of_ccxt(name: str, pair: str) -> None:
    assert pair_of(parse_any_series(name)) == pair


def test_freqtrade_files_have_the_names_that_its_loader_looks_for(lake: Lake, tmp_path: Path) -> None:
    exported = ba.export([SPOT_MINUTES, USDM_HOURS, COINM_HOURS, COIN_DELIVERY], "freqtrade", tmp_path, lake=lake)
    assert set(exported.files) == {
        "BTC_USDT-1m.feather",
        "futures/ETH_USDT_USDT-1h-futures.feather",
        "futures/BTC_USD_BTC-1h-futures.feather",
        "futures/BTC_USDT_USDT-240628-1h-futures.feather",
    }
    table = pl.read_ipc(tmp_path / "BTC_USDT-1m.feather")
    assert table.columns == ["date", "open", "high", "low", "close", "volume"]
    assert table.with_columns(pl.col("date").to_physical()).rows() == rows_of(lake, SPOT_MINUTES)


@pytest.mark.parametrize(
    ("name", "bar_type"),
    [
        ("spot/BTCUSDT/1M", "BTCUSDT.BINANCE-1-MONTH-LAST-EXTERNAL"),
        ("spot/BTCUSDT/45m", "BTCUSDT.BINANCE-45-MINUTE-LAST-EXTERNAL"),
        ("usdm/BTCUSDT/1w", "BTCUSDT-PERP.BINANCE-1-WEEK-LAST-EXTERNAL"),
        ("usdm/BTCUSDT_240628/4h", "BTCUSDT_240628.BINANCE-4-HOUR-LAST-EXTERNAL"),
        ("coinm/BTCUSD_PERP/3d", "BTCUSD-PERP.BINANCE-3-DAY-LAST-EXTERNAL"),
    ],
)
def test_a_bar_type_is_named_as_the_adapter_for_binance_names_it(name: str, bar_type: str) -> None:
    series = parse_any_series(name)
    assert bar_type_of(Item(series, series.interval)) == bar_type


def test_nautilus_numbers_are_whole_multiples_of_1e_16_with_the_fewest_decimals(lake: Lake, tmp_path: Path) -> None:
    (name,) = ba.export(SPOT_HOURS, "nautilus", tmp_path, **DAY, lake=lake).files  # type: ignore[arg-type]
    folder = "data/bar/BTCUSDT.BINANCE-1-HOUR-LAST-EXTERNAL"
    assert name == f"{folder}/2024-03-02T00-59-59-999000000Z_2024-03-02T23-59-59-999000000Z.parquet"
    table = pl.read_parquet(tmp_path / name)
    expected = ba.load(SPOT_HOURS, **DAY, lake=lake)  # type: ignore[arg-type]
    for column in ("open", "high", "low", "close", "volume"):
        raw = [int.from_bytes(value, "little", signed=True) for value in table[column]]
        assert [number / 10**16 for number in raw] == expected[column].to_list()
    times = expected["close_time"].to_physical() * 1_000_000
    assert table["ts_event"].to_list() == table["ts_init"].to_list() == times.to_list()


@settings(max_examples=30)
@given(st.lists(st.tuples(st.integers(1, 10**11), st.integers(0, 8)), min_size=1, max_size=20))
def test_the_fewest_decimals_are_never_more_than_the_exchange_used(numbers: list[tuple[int, int]]) -> None:
    from binance_assets.exports.nautilus import _decimals

    values = pl.Series([float(f"{mantissa}e-{decimals}") for mantissa, decimals in numbers])
    fewest = _decimals(values, 0)
    assert fewest <= max(decimals for _, decimals in numbers)
    assert [float(f"{value:.{fewest}f}") for value in values] == values.to_list()


@given(st.lists(st.integers(0, 17 * 10**20), min_size=1, max_size=20))
def test_large_numbers_with_all_decimals_are_the_same_numbers_for_nautilus(units: list[int]) -> None:
    from binance_assets.exports.nautilus import _exact

    values = [float(f"{unit}e-8") for unit in units]
    assert [float(number) for number in _exact(pl.Series(values), 8)] == values


def test_qlib_files_share_a_calendar_and_begin_at_their_place_in_it(lake: Lake, tmp_path: Path) -> None:
    exported = ba.export(SPOT_HOURS, "qlib", tmp_path, lake=lake)
    calendar = (tmp_path / "calendars/60min.txt").read_text().splitlines()
    assert (len(calendar), calendar[0], calendar[-1]) == (72, "2024-03-01 00:00:00", "2024-03-03 23:00:00")
    instruments = (tmp_path / "instruments/all.txt").read_text()
    assert instruments == "BTCUSDT\t2024-03-01 00:00:00\t2024-03-03 23:00:00\n"
    assert len(exported.files) == 10
    values = array.array("f")
    values.frombytes((tmp_path / "features/btcusdt/close.60min.bin").read_bytes())
    assert (len(values), values[0]) == (73, 0.0)
    assert [place for place, value in enumerate(values[1:]) if value != value] == [34]  # 2024-03-02 10:00


def test_zipline_labels_a_minute_by_its_end_and_a_day_by_its_date(lake: Lake, tmp_path: Path) -> None:
    ba.export(SPOT_MINUTES, "zipline", tmp_path, lake=lake)
    ba.export(SPOT_MINUTES, "zipline", tmp_path, every="1d", lake=lake)
    minutes = (tmp_path / "minute/BTCUSDT.csv").read_text().splitlines()
    days = (tmp_path / "daily/BTCUSDT.csv").read_text().splitlines()
    assert minutes[0] == days[0] == "date,open,high,low,close,volume"
    assert (minutes[1][:19], minutes[-1][:19]) == ("2024-03-01 00:01:00", "2024-03-04 00:00:00")
    assert [line[:19] for line in days[1:]] == [f"2024-03-0{day} 00:00:00" for day in (1, 2, 3)]


def test_backtesting_has_its_columns_and_times_without_a_zone(lake: Lake, tmp_path: Path) -> None:
    ba.export(COINM_HOURS, "backtesting", tmp_path, lake=lake)
    table = pl.read_csv(tmp_path / "coinm-BTCUSD_PERP-1h.csv", try_parse_dates=True)
    assert table.columns == ["Time", "Open", "High", "Low", "Close", "Volume"]
    values = table.with_columns(pl.col("Time").dt.epoch("ms")).rows()
    assert values == rows_of(lake, COINM_HOURS, volume="base_volume")


def test_the_page_shows_the_line_that_loads_each_target_and_the_versions_that_were_tried() -> None:
    page = (CHECKOUT / "docs" / "exports.md").read_text()
    for name, target in TARGETS.items():
        series = parse_any_series("spot/BTCUSDT/1d" if name == "zipline" else SPOT_MINUTES)
        item = Item(series, series.interval)
        file = f"exports/{name}/{target.claims([item])[0]}"
        assert target.load(item).replace("{folder}", f"exports/{name}").replace("{file}", file) in page, name
        assert f"| [`{name}`](#" in page
    for requirement in VERSIONS.values():
        assert requirement.replace("==", " ") in page


@pytest.mark.parametrize(
    ("name", "target", "every", "line"),
    [
        (SPOT_MINUTES, "zipline", None, 'csvdir_equities(["minute"], '),
        (SPOT_MINUTES, "zipline", "1d", 'csvdir_equities(["daily"], '),
        (SPOT_HOURS, "freqtrade", None, "/out --show-timerange"),
        (COINM_HOURS, "freqtrade", None, "/out --trading-mode futures --show-timerange"),
    ],
)
def test_the_line_that_loads_an_export_is_for_what_was_exported(
    name: str, target: ExportTarget, every: str | None, line: str, lake: Lake, tmp_path: Path
) -> None:
    assert line in ba.export(name, target, tmp_path / "out", every=every, lake=lake).load


# -- the folder -------------------------------------------------------------------------------------------------------


def test_an_export_replaces_the_files_of_an_earlier_one_and_leaves_nothing_else(lake: Lake, tmp_path: Path) -> None:
    first = ba.export(SPOT_HOURS, "nautilus", tmp_path, end="2024-03-03", lake=lake)
    second = ba.export(SPOT_HOURS, "nautilus", tmp_path, lake=lake)
    assert set(first.files) != set(second.files)
    assert files_in(tmp_path) == {*second.files, MANIFEST}
    ba.export(USDM_HOURS, "nautilus", tmp_path, lake=lake)
    assert set(second.files) < files_in(tmp_path)


def test_a_file_of_somebody_else_is_kept_unless_the_user_says_so(lake: Lake, tmp_path: Path) -> None:
    name = "BTC_USDT-1h.feather"
    (tmp_path / name).write_bytes(b"downloaded by freqtrade")
    with pytest.raises(ConfigurationError, match=r"not written by an export, or changed since: .*overwrite=True"):
        ba.export(SPOT_HOURS, "freqtrade", tmp_path, lake=lake)
    assert files_in(tmp_path) == {name}
    assert (tmp_path / name).read_bytes() == b"downloaded by freqtrade"
    ba.export(SPOT_HOURS, "freqtrade", tmp_path, overwrite=True, lake=lake)
    assert pl.read_ipc(tmp_path / name).height == 71


def test_a_file_that_has_changed_since_is_somebody_elses(lake: Lake, tmp_path: Path) -> None:
    (name,) = ba.export(SPOT_HOURS, "csv", tmp_path, lake=lake).files
    content = (tmp_path / name).read_bytes()
    (tmp_path / name).write_bytes(content.replace(b"2024", b"2025", 1))
    with pytest.raises(ConfigurationError, match="changed since"):
        ba.export(SPOT_HOURS, "csv", tmp_path, lake=lake)


@pytest.mark.parametrize("listed", [b"", b"{", b"[]", b'{"files": 3}', b'{"files": {"a.csv": 1}}', b"\xff"])
def test_a_list_that_nobody_can_read_makes_no_file_ours(listed: bytes, lake: Lake, tmp_path: Path) -> None:
    (tmp_path / MANIFEST).write_bytes(listed)
    (tmp_path / "a.csv").write_text("mine")
    with pytest.raises(ConfigurationError), publication(tmp_path, ["*.csv"], overwrite=False):
        pass
    assert (tmp_path / "a.csv").read_text() == "mine"


def interrupted_export(folder: Path) -> None:
    with publication(folder, ["a.csv"], overwrite=False) as published:
        (published.staging / "a.csv").write_text("half")
        raise KeyboardInterrupt


def test_an_interrupted_export_leaves_no_folder_and_no_file(tmp_path: Path) -> None:
    folder = tmp_path / "new" / "folder"
    with pytest.raises(KeyboardInterrupt):
        interrupted_export(folder)
    assert list(tmp_path.iterdir()) == []


def test_an_interrupted_export_keeps_what_was_there(tmp_path: Path) -> None:
    with publication(tmp_path, ["a.csv"], overwrite=False) as published:
        (published.staging / "a.csv").write_text("first")
        published.publish([File("a.csv", ("spot/BTCUSDT/1h",))], "csv")
    before = files_in(tmp_path)
    with pytest.raises(KeyboardInterrupt):
        interrupted_export(tmp_path)
    assert files_in(tmp_path) == before == {"a.csv", MANIFEST}
    assert (tmp_path / "a.csv").read_text() == "first"


def test_no_file_moves_if_the_folder_of_another_one_cannot_be_created(lake: Lake, tmp_path: Path) -> None:
    (tmp_path / "futures").write_text("a file in the place of a folder")
    with pytest.raises(ConfigurationError, match="cannot be written"):
        ba.export([SPOT_HOURS, USDM_HOURS], "freqtrade", tmp_path, lake=lake)
    assert files_in(tmp_path) == {"futures"}


@pytest.mark.parametrize("name", ["spot-BTCUSDT-1h.csv", MANIFEST])
def test_a_folder_in_the_place_of_a_file_is_never_replaced(name: str, lake: Lake, tmp_path: Path) -> None:
    (tmp_path / name).mkdir()
    with pytest.raises(ConfigurationError, match=r"a folder is in the place of a file: .*; choose another output"):
        ba.export(SPOT_HOURS, "csv", tmp_path, overwrite=True, lake=lake)
    assert files_in(tmp_path) == set()


@pytest.mark.parametrize("inside", ["", "exports", "market=spot/symbol=BTCUSDT/interval=1h"])
def test_nothing_is_exported_into_the_lake(inside: str, lake: Lake, tmp_path: Path) -> None:
    before = files_in(local(lake.root))
    link = tmp_path / "link"
    link.symlink_to(local(lake.root))
    for root in (local(lake.root), link):
        with pytest.raises(ConfigurationError, match=r"is in the folder of the lake, .*; choose another output"):
            ba.export(SPOT_HOURS, "parquet", root / inside, lake=lake)
    assert files_in(local(lake.root)) == before


def test_a_file_of_the_lake_that_is_gone_is_not_an_error_of_the_output(tmp_path: Path) -> None:
    with pytest.raises(LakeError, match="the candles cannot be exported: "), publication(tmp_path, [], False):
        list(batches(pl.scan_parquet(tmp_path / "gone.parquet")))


def test_what_a_killed_export_left_behind_is_removed(lake: Lake, tmp_path: Path) -> None:
    with publication(tmp_path, [], overwrite=False) as published:
        name = published.staging.name
    (tmp_path / name / "data").mkdir(parents=True)
    (tmp_path / name / "data" / "half.csv").write_text("half")
    exported = ba.export(SPOT_HOURS, "csv", tmp_path, lake=lake)
    assert files_in(tmp_path) == {*exported.files, MANIFEST}


# -- bad input --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"to": "moon"}, "there is no target 'moon'; choose one of parquet, csv"),
        ({"to": "nautilus", "missing": "null"}, "missing='null' is none of 'keep', 'flat', 'raise'"),
        ({"to": "csv", "missing": "raise"}, "spot/BTCUSDT/1h has no candles for 2024-03-02 10:00 to 11:00"),
        ({"to": "csv", "every": "7m"}, "every: 7m cannot be derived"),
        ({"to": "csv", "every": "30m"}, "candles of spot/BTCUSDT/1h do not add up to it"),
        ({"to": "csv", "start": "2024-03-05"}, "holds no partition of spot/BTCUSDT/1h"),
        ({"to": "csv", "start": "2024-02", "end": "2024-04"}, "pass allow_missing=True"),
        ({"to": "zipline"}, "zipline has bars of 1m and 1d only, not of 1h; resample with every='1d'"),
        ({"to": "qlib", "series": [SPOT_HOURS, SPOT_MINUTES]}, "a folder of qlib holds one frequency, not 1h, 1m"),
        ({"to": "qlib", "series": [SPOT_HOURS, COIN_DELIVERY, "usdm/BTCUSDT/1h"]}, "qlib has one instrument BTCUSDT"),
        ({"to": "freqtrade", "series": "spot/BTCXYZ/1h"}, "does not show its quote asset"),
        ({"to": "csv", "series": [SPOT_HOURS, SPOT_MINUTES], "every": "1h"},
         "spot/BTCUSDT/1h and spot/BTCUSDT/1m would be the same file spot-BTCUSDT-1h.csv"),
        ({"to": "csv", "series": []}, "no series is named"),
    ],
)  # fmt: skip
def test_bad_input_is_answered_in_one_line_and_nothing_is_written(
    arguments: dict[str, Any], message: str, lake: Lake, tmp_path: Path
) -> None:
    with pytest.raises(ConfigurationError) as raised:
        ba.export(**{"series": SPOT_HOURS, "output": tmp_path / "out", "lake": lake, **arguments})
    assert message in str(raised.value)
    assert "\n" not in str(raised.value)
    assert list(tmp_path.iterdir()) == []


def test_zipline_refuses_days_with_a_gap_as_its_ingest_would(tmp_path: Path) -> None:
    from binance_assets_tests.support.results import result_of

    series, lake = parse_any_series("spot/BTCUSDT/1d"), Lake(tmp_path / "lake")
    lake.prepare("sandbox")
    empty = result_of(series, "2024-03-02", 0, "suspended")
    lake.write_all(series, [result_of(series, "2024-03-01"), empty, result_of(series, "2024-03-03")])
    with pytest.raises(ConfigurationError, match="1 of 3 days have no candle, and zipline refuses"):
        ba.export(series, "zipline", tmp_path / "out", lake=lake)
    exported = ba.export(series, "zipline", tmp_path / "out", missing="flat", lake=lake)
    assert exported.series[0].rows == 3


@pytest.mark.parametrize("write", [write_parquet, write_feather, partial(write_csv, time_format="%Y")])
def test_a_full_disk_is_an_error_of_the_system(write: Callable[[pl.LazyFrame, Path], None]) -> None:
    with pytest.raises(OSError, match="No space left on device"):
        write(pl.LazyFrame({"close": [float(number) for number in range(300_000)]}), Path("/dev/full"))


def test_rows_after_a_failed_write_are_not_computed() -> None:
    from arro3.core import Table

    asked: list[int] = []

    def parts() -> Iterator[Any]:
        for number in range(50):
            asked.append(number)
            yield from Table(pl.DataFrame({"close": [float(number)] * 100_000})).to_batches()

    schema = Table(pl.DataFrame(schema={"close": pl.Float64})).schema
    with pytest.raises(OSError, match="No space left on device"):
        write_parquet_batches(schema, parts(), Path("/dev/full"), [])
    assert len(asked) < 50


@pytest.mark.parametrize("write", [write_parquet, write_feather, partial(write_csv, time_format="%Y")])
def test_an_interrupt_while_rows_are_computed_ends_the_write(
    write: Callable[[pl.LazyFrame, Path], None], tmp_path: Path
) -> None:
    def interrupt(column: pl.Series) -> pl.Series:
        raise KeyboardInterrupt

    rows = pl.LazyFrame({"close": [1.0]}).select(pl.col("close").map_batches(interrupt, return_dtype=pl.Float64))
    with pytest.raises((KeyboardInterrupt, LakeError)):
        write(rows, tmp_path / "file")


def test_a_folder_that_is_a_file_is_named(lake: Lake, tmp_path: Path) -> None:
    (tmp_path / "out").write_text("a file")
    with pytest.raises(ConfigurationError, match="out cannot be written: "):
        ba.export(SPOT_HOURS, "csv", tmp_path / "out", lake=lake)


@pytest.mark.parametrize(
    ("output", "message"),
    [
        ("x" * 300, "cannot be written: .*File name too long"),
        ("loop", "loop cannot be written: "),
        ("\0", "is no path: it holds a NUL character"),
    ],
)
def test_a_folder_that_cannot_exist_is_an_error_in_one_line(
    output: str, message: str, lake: Lake, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("loop").symlink_to("loop")
    with pytest.raises(ConfigurationError, match=message):
        ba.export(SPOT_HOURS, "csv", output, lake=lake)


def test_the_home_of_a_user_who_does_not_exist_is_the_name_of_a_folder(
    lake: Lake, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    exported = ba.export(SPOT_HOURS, "csv", "~nobody-has-this-name", lake=lake)
    assert files_in(Path("~nobody-has-this-name")) == {*exported.files, MANIFEST}


# -- the command ------------------------------------------------------------------------------------------------------


def test_the_command_names_options_where_the_api_names_arguments(
    lake: Lake, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    environment = {"BINANCE_ASSETS_LAKE": str(lake.root)}

    def run(*arguments: str) -> tuple[int, str]:
        result = CliRunner().invoke(cli, ["export", SPOT_HOURS, *arguments], env=environment)
        return result.exit_code, "\n".join(without_progress(result.stderr))

    code, message = run("--to", "csv", "--start", "2024-02", "--end", "2024-04")
    assert (code, "give --allow-missing" in message) == (2, True)
    code, message = run("--to", "csv", "--missing", "raise")
    assert (code, message.rstrip().endswith("another --missing goes on")) == (2, True)
    (tmp_path / "exports" / "csv").mkdir(parents=True)
    (tmp_path / "exports" / "csv" / "spot-BTCUSDT-1h.csv").write_text("mine")
    code, message = run("--to", "csv")
    assert (code, "give --overwrite" in message) == (2, True)
    assert run("--to", "csv", "--overwrite") == (0, "")
    assert json.loads((tmp_path / "exports" / "csv" / MANIFEST).read_text())["format"] == 1
