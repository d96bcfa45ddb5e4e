"""The page of a single partition: bars that keep what the candles have, a small PNG, and a preview."""

from __future__ import annotations

import base64
import io

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from binance_assets.charts.candle_chart import draw_candles
from binance_assets.model.intervals import Interval
from binance_assets.model.partitions import partition_for_key
from binance_assets.model.series import derived_series, parse_series
from binance_assets.model.timestamps import DAY, MINUTE
from binance_assets.orchestration.day_page import chart, chart_bars, preview
from binance_assets.sandbox import Sandbox
from binance_assets_tests.support.candles import expected
from binance_assets_tests.unit.test_resampling import FIRST, candle, table

BTC = parse_series("spot/BTCUSDT/1m")
prices = st.tuples(*[st.integers(1, 10**7).map(lambda cents: cents / 100)] * 4).map(
    lambda drawn: (drawn[0], max(drawn), min(drawn), drawn[3])
)
traded_minutes = st.dictionaries(
    st.integers(0, 1439), st.tuples(prices, st.integers(1, 10**6)), min_size=1, max_size=80
)


@given(traded_minutes)
@settings(max_examples=40)
def test_bars_keep_first_open_last_close_highs_lows_and_sums(
    drawn: dict[int, tuple[tuple[float, float, float, float], int]],
) -> None:
    minutes = table([candle(minute, of, 1, volume) for minute, (of, volume) in sorted(drawn.items())])
    bars, interval = chart_bars(BTC, minutes)
    assert interval.name == "5m"
    assert bars.height == len({minute // 5 for minute in drawn})
    assert (bars["open"][0], bars["close"][-1]) == (minutes["open"][0], minutes["close"][-1])
    assert (bars["high"].max(), bars["low"].min()) == (minutes["high"].max(), minutes["low"].min())
    assert bars["volume"].sum() == minutes["volume"].sum()
    slots = minutes.group_by_dynamic("open_time", every="5m").agg(pl.max("high"), pl.min("low"), pl.sum("volume"))
    assert bars.select(slots.columns).equals(slots)


@pytest.mark.parametrize(
    ("fetched", "bars"), [("1s", "5m"), ("3m", "6m"), ("5m", "5m"), ("1h", "1h"), ("1d", "1d"), ("1w", "1w")]
)
def test_the_bars_are_the_finest_of_which_a_day_has_at_most_288(fetched: str, bars: str) -> None:
    assert chart_bars(parse_series(f"spot/BTCUSDT/{fetched}"), table([candle(0, (1, 1, 1, 1), 1)]))[1].name == bars


@pytest.mark.parametrize("step", [16_000, 2 * MINUTE, 4 * MINUTE, 288_000])
def test_the_bars_of_any_derived_interval_divide_the_day(step: int) -> None:
    name = f"{step // 1_000}s"
    series = derived_series(BTC.market, BTC.symbol, Interval(name, name, step))
    found = chart_bars(series, table([candle(0, (1, 1, 1, 1), 1)]))[1]
    assert found.step % step == 0
    assert DAY % found.step == 0
    assert DAY // found.step <= 288


def pixels(markdown: str) -> tuple[Image.Image, int]:
    """Return the picture in Markdown, and its size in bytes."""
    png = base64.b64decode(markdown.removeprefix("![candles and volume](data:image/png;base64,").removesuffix(")"))
    return Image.open(io.BytesIO(png)), len(png)


@pytest.mark.parametrize("name", ["spot/BTCUSDT/1m", "spot/币安人生USDT/1w"])
def test_a_chart_is_a_small_png(shared_sandbox: Sandbox, name: str) -> None:
    series = parse_series(name)
    minutes = expected(BTC.market, shared_sandbox.rows("spot", "BTCUSDT", "1m", FIRST, FIRST + DAY))
    candles = minutes if series == BTC else minutes[:1]
    image, size = pixels(chart(series, partition_for_key("2024-01-01", series.interval), candles))
    assert image.format == "PNG"
    assert image.width > 2 * image.height > 400
    assert size <= 60_000
    assert image.convert("RGB").getcolors() != [(image.width * image.height, (255, 255, 255))]


def test_a_missing_bar_leaves_its_time_empty_and_a_day_without_trades_has_an_axis() -> None:
    bars = table([candle(minute, (2, 2, 2, 2), 0, 0) for minute in (0, 60)])
    upper, lower = draw_candles(bars, 60 * MINUTE, "$title$").axes
    assert upper.get_title(loc="left") == "$title$"
    assert [text.get_text() for text in lower.get_xticklabels()][::4] == ["00:00", "12:00", "24:00"]
    low, high = lower.get_xlim()
    assert (high - low) == pytest.approx(1)
    assert lower.get_ylim() == (0, 1)


def test_a_preview_has_the_first_and_the_last_three_candles() -> None:
    minutes = table([candle(minute, (1, 4, 1, 2), 3, minute) for minute in range(1440)])
    shown = preview(BTC, minutes)
    assert [record.data["open_time"] for record in shown.records] == [
        f"2024-01-01 {time}:00.000" for time in ("00:00", "00:01", "00:02", "23:57", "23:58", "23:59")
    ]
    assert [record.data["volume"] for record in shown.records] == [0, 1, 2, 1437, 1438, 1439]
    assert [column.name for column in shown.schema.columns] == minutes.columns
    assert len(preview(BTC, minutes[:5]).records) == 5
