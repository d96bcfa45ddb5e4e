"""The interactive chart in a browser: what it draws, what it shows under the pointer, and that it asks for nothing.

With ``UPDATE_PICTURES=1`` the screenshot replaces ``docs/pictures/chart.png``.
"""

from __future__ import annotations

import base64
import datetime as dt
import io
import os
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from PIL import Image, ImageColor
from selenium import webdriver
from selenium.webdriver.common.action_chains import ActionChains
from selenium.webdriver.support.ui import WebDriverWait

import binance_assets as ba
from binance_assets.api.chart_spans import Absence
from binance_assets.api.plotting import chart_of
from binance_assets.charts.content import DOWN, LOOKS, UP, ChartSpan
from binance_assets.model.partitions import Partition, partitions_between
from binance_assets.model.results import PartitionResult
from binance_assets.model.series import parse_series
from binance_assets.model.timestamps import DAY, HOUR, MINUTE, to_ms
from binance_assets.sandbox import Sandbox
from binance_assets.storage.lake import Lake
from binance_assets_tests.e2e.test_browser import CHROMEDRIVER, CHROMIUM, PICTURES, find_program, start_chromium
from binance_assets_tests.support.candles import expected

pytestmark = pytest.mark.servers

BTC = parse_series("spot/BTCUSDT/1m")
MARCH = partitions_between(dt.date(2023, 3, 1), dt.date(2023, 4, 1), BTC.interval)
OUTAGE = to_ms(dt.date(2023, 3, 24)) + 12 * HOUR + 40 * MINUTE
REFUSED, ABSENT = "2023-03-10", ("2023-03-17", "2023-03-18")
EVIL = "no candles for 2023-03-10 12:00 to 12:01 </script><img src=x onerror=\"document.title='hit'\"> $$x$$"
SECONDS = 60

IDLE = "return !!window.Bokeh && Bokeh.documents.length === 1 && Bokeh.documents[0].is_idle"
# Where a time and a share of the height of a plot are in the window.
PLACE = """
const [name, time, share] = arguments;
const view = Bokeh.index.find_one_by_id ? Bokeh.index.find_one_by_id(
  Bokeh.documents[0].get_model_by_name(name).id) : null;
const canvas = view.canvas_view.el.getBoundingClientRect(), frame = view.frame.bbox;
return [canvas.x + view.frame.x_scale.compute(time), canvas.y + frame.top + frame.height * share];
"""
# The texts under the pointer; each is in a shadow tree.
TIPS = """
const texts = [], trees = [document];
for (const tree of trees)
  for (const element of tree.querySelectorAll("*")) {
    if (element.shadowRoot) trees.push(element.shadowRoot);
    if (element.classList.contains("bk-tooltip-content")) texts.push(element.textContent);
  }
return texts;
"""
ZOOM = """
const plot = Bokeh.documents[0].get_model_by_name("price");
[plot.x_range.start, plot.x_range.end] = arguments;
"""
AXIS = "const axis = Bokeh.documents[0].get_model_by_name('price').y_range; return [axis.start, axis.end]"
DRAWN = "return performance.getEntriesByType('resource').length + document.querySelectorAll('[src], link').length"


def day_of(sandbox: Sandbox, partition: Partition) -> PartitionResult:
    """Return a day of the sandbox's candles; on the day of the known outage without the candles that it cost."""
    candles = expected(BTC.market, sandbox.rows("spot", "BTCUSDT", "1m", partition.start, partition.end))
    gap = (OUTAGE, OUTAGE + 80 * MINUTE)
    if not partition.start <= OUTAGE < partition.end:
        return PartitionResult(partition, "complete", candles)
    kept = candles.filter(~pl.col("open_time").to_physical().is_between(*gap, "left"))
    return PartitionResult(partition, "outage", kept, (gap,))


@pytest.fixture(scope="module")
def chart(shared_sandbox: Sandbox, tmp_path_factory: pytest.TempPathFactory) -> ba.CandleChart:
    """A month of 1m with an outage, a refused day, and two days that were never fetched."""
    lake = Lake(tmp_path_factory.mktemp("chart") / "lake")
    lake.prepare("sandbox")
    held = [partition for partition in MARCH if partition.key not in (REFUSED, *ABSENT)]
    lake.write_all(BTC, (day_of(shared_sandbox, partition) for partition in held))
    reasons = {REFUSED: Absence("lost", EVIL)}
    return chart_of(lake, BTC, (None, None), None, lambda lake, series, partitions: reasons)


@pytest.fixture(scope="module")
def browser() -> Iterator[webdriver.Chrome]:
    for names in (CHROMIUM, CHROMEDRIVER):
        find_program(*names)
    driver = start_chromium()
    yield driver
    driver.quit()


@pytest.fixture(scope="module")
def page(
    browser: webdriver.Chrome, chart: ba.CandleChart, tmp_path_factory: pytest.TempPathFactory
) -> webdriver.Chrome:
    """The browser, with the chart of the month on its page."""
    show(browser, chart.save(tmp_path_factory.mktemp("page") / "chart.html"))
    return browser


def show(browser: webdriver.Chrome, path: Path) -> None:
    browser.get(path.as_uri())
    until(browser, "the chart to be drawn", lambda: browser.execute_script(IDLE))


def until(browser: webdriver.Chrome, message: str, done: Any) -> Any:
    return WebDriverWait(browser, SECONDS, 0.1).until(lambda _: done() or False, f"not within {SECONDS} s: {message}")


def seen(browser: webdriver.Chrome) -> Image.Image:
    return Image.open(io.BytesIO(browser.get_screenshot_as_png())).convert("RGB")


def pixels(image: Image.Image, color: str) -> int:
    """Return how many pixels have exactly this color."""
    colors = {found: count for count, found in image.getcolors(image.width * image.height) or []}
    return colors.get(ImageColor.getrgb(color), 0)


def point_at(browser: webdriver.Chrome, plot: str, time: float, share: float) -> None:
    x, y = browser.execute_script(PLACE, plot, time, share)
    actions = ActionChains(browser)
    actions.w3c_actions.pointer_action.move_to_location(round(x), round(y))  # type: ignore[no-untyped-call]
    actions.perform()


def text_at(browser: webdriver.Chrome, plot: str, time: float, share: float, expected: str) -> str:
    """Point at a place, and return the text that shows up there and contains ``expected``."""
    point_at(browser, plot, time, share)

    def found() -> str | None:
        return next((text for text in browser.execute_script(TIPS) if expected in text), None)

    text: str = until(browser, f"{expected!r} under the pointer", found)
    return text


def test_a_month_is_drawn_with_its_gaps_and_without_a_request_or_a_message(
    page: webdriver.Chrome, chart: ba.CandleChart
) -> None:
    image = seen(page)
    for color in (UP, DOWN, LOOKS["outage"].color, LOOKS["refused"].color):
        assert pixels(image, color) > 50, color
    assert page.execute_script(DRAWN) == 0
    messages = [entry for entry in page.get_log("browser") if entry["level"] != "INFO"]  # type: ignore[no-untyped-call]
    assert messages == []
    assert page.title == "BTCUSDT · spot · 1m, shown as 15m candles"
    if os.environ.get("UPDATE_PICTURES") == "1":
        point_at(page, "spans", OUTAGE + 40 * MINUTE, 0.5)
        text_at(page, "spans", OUTAGE + 40 * MINUTE, 0.5, "outage")
        clip = {"x": 0, "y": 0, "width": 1400, "height": 800, "scale": 1}
        taken = page.execute_cdp_cmd("Page.captureScreenshot", {"format": "png", "clip": clip})["data"]
        (PICTURES / "chart.png").write_bytes(base64.b64decode(taken))


def test_the_pointer_shows_a_candle_and_why_another_is_missing(page: webdriver.Chrome, chart: ba.CandleChart) -> None:
    first = chart.content.start
    candle = text_at(page, "price", first + 5 * DAY + 7 * MINUTE, 0.5, "opens (UTC)")
    assert "2023-03-06 00:00" in candle
    outage = text_at(page, "spans", OUTAGE + 40 * MINUTE, 0.5, "outage of the exchange")
    assert "2023-03-24 14:00 (1 h 20 min)" in outage
    assert "spot outage of 2023-03-24 12:39 to 2023-03-24 14:00" in outage
    assert EVIL in text_at(page, "price", first + 9.5 * DAY, 0.5, "lost")
    assert "(2 d)" in text_at(page, "volume", first + 17 * DAY, 0.5, "not in the lake")
    assert page.title != "hit"


def test_the_price_axis_follows_what_is_in_view(page: webdriver.Chrome, chart: ba.CandleChart) -> None:
    start, end = chart.content.start + 20 * DAY, chart.content.start + 21 * DAY
    day = chart.content.candles.filter(pl.col("open_time").to_physical().is_between(start, end, "left"))
    low, high = float(day["low"].min()), float(day["high"].max())  # type: ignore[arg-type]
    page.execute_script(ZOOM, start, end)

    def fits() -> bool:
        bottom, top = page.execute_script(AXIS)
        return bool(low - (high - low) < bottom < low and high < top < high + (high - low))

    until(page, "an axis around the prices of the day", fits)


def test_a_gap_of_a_minute_in_a_year_can_be_seen(
    browser: webdriver.Chrome, chart: ba.CandleChart, tmp_path: Path
) -> None:
    """A year of 1m as 4h candles is what the docs measure: the time until it is drawn is printed, and nothing else."""
    start = to_ms(dt.date(2023, 1, 1))
    minute = start + 100 * DAY
    times = pl.int_range(start, start + 365 * DAY, 4 * HOUR, eager=True).cast(chart.content.candles["open_time"].dtype)
    year = pl.concat([chart.content.candles] * 2)[: len(times)].with_columns(
        open_time=times, end=times.dt.offset_by("4h")
    )
    gap = ChartSpan("outage", minute, minute + MINUTE, "a minute")
    content = replace(chart.content, start=start, end=start + 365 * DAY, candles=year, spans=[gap])
    show(browser, replace(chart, content=content).save(tmp_path / "year.html"))
    milliseconds = browser.execute_script("return Math.round(performance.now())")
    print(f"a year of 4h candles was drawn {milliseconds} ms after its page was opened", file=sys.stderr)
    assert pixels(seen(browser), LOOKS["outage"].color) > 40
    assert "2023-04-11 00:01 (1 min)" in text_at(browser, "spans", minute, 0.5, "outage of the exchange")
