"""Charts: which candles they show, what they shade and why, and files that load nothing and believe no text."""

from __future__ import annotations

import datetime as dt
import itertools
import sys
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import polars as pl
import pytest
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image, ImageColor

import binance_assets as ba
from binance_assets.api.chart_spans import Absence, spans_of, summary_of
from binance_assets.api.plotting import chart_of
from binance_assets.charts.content import LOOKS, UP, ChartSpan, Kind, clipped_to, decimals, duration_text, joined
from binance_assets.charts.interactive_page import POLICY, page_of
from binance_assets.charts.range_picture import time_labels
from binance_assets.charts.shown_interval import MOST_ASKED, MOST_CANDLES, check_count, check_every, shown_interval
from binance_assets.cli.main import cli
from binance_assets.model.intervals import INTERVALS, parse_derived_interval, parse_interval
from binance_assets.model.partitions import partitions_between
from binance_assets.model.results import PartitionResult, Verdict
from binance_assets.model.series import parse_series
from binance_assets.model.timestamps import DAY, HOUR, MINUTE, SECOND, to_date, to_ms
from binance_assets.settings import ConfigurationError
from binance_assets.storage.lake import Lake
from binance_assets_tests.support.environment import without_progress
from binance_assets_tests.support.exports import candles_of
from binance_assets_tests.support.results import result_of

HOURS, COIN, MONTHS = map(parse_series, ("spot/BTCUSDT/1h", "coinm/BTCUSD_PERP/1h", "spot/BTCUSDT/1mo"))
KEYS = [f"2023-03-{day}" for day in range(22, 29)]
EVIL = "</script><img src=x onerror=alert(1)> $$x$$ {{7*7}} @close"


def day(key: str, verdict: Verdict = "complete", kept: range = range(24), **more: str) -> PartitionResult:
    """Return a day of hours of which only the hours ``kept`` are there; the others of it are missing."""
    whole = result_of(HOURS, key)
    start = whole.partition.start
    hours = pl.int_range(pl.len())
    candles = whole.candles.filter(hours.is_between(kept.start, kept.stop - 1))
    spans = ((start, start + kept.start * HOUR), (start + kept.stop * HOUR, start + DAY))
    missing = tuple((first, end) for first, end in spans if first < end) if verdict in ("outage", "lost") else ()
    return PartitionResult(whole.partition, verdict, candles, missing, strict=False, **more)  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def lake(tmp_path_factory: pytest.TempPathFactory) -> Lake:
    """A week of hours: a listing, a known outage, an absent day, a suspension, a gap that ada accepted, a delisting."""
    lake = Lake(tmp_path_factory.mktemp("charts") / "lake")
    lake.prepare("sandbox")
    days = [
        day(KEYS[0], "listing", range(20, 24)),
        day(KEYS[1]),
        day(KEYS[2], "outage", range(13), reason="unused"),
        day(KEYS[4], "suspended", range(0)),
        day(KEYS[5], "lost", range(5, 24), accepted_by="ada", accepted_because=EVIL),
        day(KEYS[6], "delisted", range(12)),
    ]
    lake.write_all(HOURS, days)
    lake.write_all(COIN, [result_of(COIN, key) for key in KEYS[:2]])
    lake.write_all(MONTHS, [result_of(MONTHS, f"2023-0{month}-01") for month in (1, 2)])
    return lake


@pytest.fixture(scope="module")
def chart(lake: Lake) -> ba.CandleChart:
    """The chart of the week, with the reason why a day was refused."""
    refused = {KEYS[3]: Absence("unbalanced", EVIL)}
    return chart_of(lake, HOURS, (None, None), None, lambda lake, series, partitions: refused)


# -- which candles --------------------------------------------------------------------------------------------------


@given(st.sampled_from(INTERVALS), st.integers(1, 3_500 * DAY))
def test_the_shown_interval_is_the_finest_with_few_enough_candles(interval: ba.Interval, length: int) -> None:
    shown = shown_interval(interval, length)
    finer = [
        other for other in INTERVALS if interval.step <= other.step < shown.step and not other.step % interval.step
    ]
    assert all(-(-length // other.step) > MOST_CANDLES for other in finer)
    if interval.is_multi_day:
        assert shown == interval
    else:
        assert shown.step % interval.step == 0 == DAY % shown.step
        assert -(-length // shown.step) <= MOST_CANDLES or shown.name == "1d"


@pytest.mark.parametrize(
    ("name", "length", "shown"),
    [("1m", 366 * DAY, "4h"), ("1m", 31 * DAY, "15m"), ("1m", DAY, "1m"), ("1s", DAY, "1m"), ("45m", 365 * DAY, "6h")],
)
def test_the_shown_interval_of_usual_ranges(name: str, length: int, shown: str) -> None:
    assert shown_interval(parse_derived_interval(name), length).name == shown


def test_a_page_has_few_bytes_for_each_candle_so_that_the_longest_by_itself_opens_at_once(
    chart: ba.CandleChart,
) -> None:
    """A year of 1m has 2,190 candles; the rest of the page are the scripts, which do not grow."""
    few, most = (replace(chart.content, candles=_candles(count), spans=()) for count in (10, MOST_CANDLES))
    sizes = [len(page_of(content).encode()) for content in (few, most)]
    assert sizes[1] - sizes[0] <= 150 * MOST_CANDLES
    assert sizes[1] <= 2_000_000


def _candles(count: int) -> pl.DataFrame:
    """Return candles as long as those of Binance."""
    step, first = 4 * HOUR, to_ms(dt.date(2023, 3, 22))
    candles = candles_of(HOURS, range(first, first + count * step, step))
    return candles.with_columns(end=pl.col("open_time").dt.offset_by("4h"))


def test_an_interval_that_does_not_fit_or_shows_too_much_is_refused() -> None:
    with pytest.raises(ValueError, match="candles of 1h do not add up to 90m"):
        check_every(parse_interval("1h"), parse_derived_interval("90m"))
    with pytest.raises(ValueError, match=r"candles of 1w do not add up to 1d"):
        check_every(parse_interval("1w"), parse_interval("1d"))
    check_count(parse_interval("1m"), MOST_ASKED * MINUTE)
    with pytest.raises(ValueError, match=r"525,600 candles of 1m are too many .* 20,000; .* shorter range, or 4h"):
        check_count(parse_interval("1m"), 365 * DAY)


def test_coarse_candles_keep_every_high_and_low_and_the_range_is_widened_to_them(lake: Lake) -> None:
    chart = ba.plot(HOURS, "2023-03-23", KEYS[3], every="6h", lake=lake)
    fine = ba.load(HOURS, "2023-03-23", KEYS[3], lake=lake)
    shown = chart.content.candles
    assert (chart.interval.name, chart.rows, shown.height) == ("6h", 37, 7)
    traded = fine.filter(pl.col("trades") > 0)
    assert (shown["high"].max(), shown["low"].min()) == (traded["high"].max(), traded["low"].min())
    assert shown["volume"].sum() == fine["volume"].sum()
    assert chart.content.title == "BTCUSDT · spot · 1h, shown as 6h candles"
    assert chart.content.notes[0] == (
        "2023-03-23 to 2023-03-25 UTC: 37 candles of 1h, resampled to 7 of 6h by the exchange's rule; "
        "every high and low is kept."
    )
    assert "no finer candles" in chart.content.hint
    first = to_ms(to_date(chart.content.start))
    widened = ba.plot(HOURS, chart.content.candles["open_time"][0].replace(hour=7), KEYS[2], "6h", lake=lake)
    assert (widened.content.start, widened.content.end) == (first + 6 * HOUR, first + DAY)
    assert widened.file_name == "spot-BTCUSDT-1h-2023-03-23T0600-2023-03-24.html"


def test_a_chart_of_all_candles_has_the_units_of_its_market(lake: Lake) -> None:
    coin = ba.plot(COIN, lake=lake).content
    assert (coin.title, coin.price_unit, coin.volume_unit) == ("BTCUSD_PERP · COIN-M futures · 1h", "USD", "contracts")
    assert coin.notes[1] == "Every partition is in the lake, and none has a gap."
    assert (coin.hint, coin.spans) == ("", [])
    months = ba.plot(MONTHS, lake=lake).content
    ends = months.candles["end"].to_list()
    assert [f"{end:%Y-%m-%d}" for end in ends] == ["2023-02-01", "2023-03-01"]
    assert (months.price_unit, months.volume_unit) == ("USDT", "BTC")


# -- what is missing ------------------------------------------------------------------------------------------------


def test_each_time_without_candles_is_a_span_with_its_reason(chart: ba.CandleChart) -> None:
    start = chart.content.start
    hours = [(span.kind, (span.start - start) // HOUR, (span.end - start) // HOUR) for span in chart.content.spans]
    assert hours == [
        ("untraded", 0, 20),
        ("outage", 61, 72),
        ("refused", 72, 96),
        ("suspended", 96, 120),
        ("accepted", 120, 125),
        ("untraded", 156, 168),
    ]
    reasons = [span.reason for span in chart.content.spans]
    assert reasons[1] == "spot outage of 2023-03-24 12:39 to 2023-03-24 14:00"
    assert reasons[2] == f"unbalanced: {EVIL}"
    assert reasons[4] == f"lost, accepted by ada: {EVIL}"
    assert summary_of(chart.content.spans) == (
        "outage of the exchange 11 h, trading suspended 1 d, gap that a person accepted 5 h, refused 1 d, "
        "before the first or after the last candle 1 d 8 h"
    )


def test_days_that_the_lake_lacks_are_one_span_unless_their_reasons_differ(lake: Lake) -> None:
    days = partitions_between(to_date(0), to_date(4 * DAY), HOURS.interval)
    lost = {days[2].key: Absence("", "its run failed before the partition was written")}
    spans = spans_of(HOURS, days, {}, lost, 6 * HOUR, 4 * DAY)
    assert [(span.kind, span.start // HOUR, span.end // HOUR, span.reason) for span in spans] == [
        ("missing", 6, 48, "the lake does not hold it"),
        ("missing", 48, 72, "its run failed before the partition was written"),
        ("missing", 72, 96, "the lake does not hold it"),
    ]


kinds: st.SearchStrategy[Kind] = st.sampled_from(sorted(LOOKS))


@given(st.lists(st.tuples(st.integers(1, 50), st.integers(0, 2), kinds), max_size=30), st.integers(0, 400))
def test_joined_spans_cover_the_same_times_and_clipped_ones_those_in_the_range(
    drawn: list[tuple[int, int, Kind]], start: int
) -> None:
    spans, time = [], 0
    for length, pause, kind in drawn:
        spans.append(ChartSpan(kind, time + pause, time + pause + length, ""))
        time += pause + length
    merged = joined(spans)

    def covered(some: list[ChartSpan]) -> dict[int, Kind]:
        return {at: span.kind for span in some for at in range(span.start, span.end)}

    assert covered(merged) == covered(spans)
    touching = itertools.pairwise(merged)
    assert all(span.end < following.start or span.kind != following.kind for span, following in touching)
    inside = {at: kind for at, kind in covered(spans).items() if start <= at < start + 100}
    assert covered(list(clipped_to(merged, start, start + 100))) == inside


@pytest.mark.parametrize(
    ("length", "text"),
    [(80 * MINUTE, "1 h 20 min"), (2 * DAY, "2 d"), (DAY + MINUTE, "1 d"), (3 * SECOND, "3 s"), (1, "0 s")],
)
def test_a_length_of_time_has_two_units(length: int, text: str) -> None:
    assert duration_text(length) == text


@pytest.mark.parametrize(("numbers", "count"), [([1.0, 20.0], 0), ([0.1, 20.25], 2), ([0.00000123], 8)])
def test_prices_have_as_many_decimals_as_they_need(numbers: list[float], count: int) -> None:
    assert decimals(pl.DataFrame({"close": numbers}), "close") == count


# -- files ----------------------------------------------------------------------------------------------------------


class Elements(HTMLParser):
    """Collects the elements of a page, their attributes, and the text that is shown."""

    def __init__(self) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str | None]] = []
        self.text = ""

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += attributes

    def handle_data(self, data: str) -> None:
        if self.tags[-1:] not in (["script"], ["style"]):
            self.text += data


def test_a_page_loads_nothing_and_shows_text_from_outside_as_text(chart: ba.CandleChart) -> None:
    page = chart.html()
    elements = Elements()
    elements.feed(page)
    assert not {"img", "link", "iframe", "object", "base", "form"} & set(elements.tags)
    names = {name for name, _ in elements.attributes}
    assert not {"src", "href", "srcset", "action"} & names
    assert not any(name.startswith("on") for name in names)
    assert ("content", POLICY) in elements.attributes
    assert "http" not in POLICY
    assert "unsafe-eval" not in POLICY
    assert f"unbalanced: {EVIL}" in elements.text
    assert len(page) < 2_000_000


def test_in_a_notebook_a_chart_is_a_frame_that_can_do_nothing_but_run_its_scripts(chart: ba.CandleChart) -> None:
    elements = Elements()
    elements.feed(chart._repr_html_())
    assert elements.tags == ["iframe"]
    assert ("sandbox", "allow-scripts") in elements.attributes
    assert dict(elements.attributes)["srcdoc"].startswith("<!DOCTYPE html>")  # type: ignore[union-attr]
    assert repr(chart) == "<CandleChart BTCUSDT · spot · 1h, 72 candles>"


def test_a_picture_has_candles_and_every_kind_of_span_in_its_color(chart: ba.CandleChart, tmp_path: Path) -> None:
    image = Image.open(chart.save(tmp_path / "CHART.PNG")).convert("RGB")
    assert image.size == (1950, 1050)
    colors = {color for _, color in image.getcolors(image.width * image.height) or []}
    expected = [UP, *(LOOKS[kind].color for kind in ("outage", "refused", "suspended", "accepted", "untraded"))]
    assert {ImageColor.getrgb(color) for color in expected} <= colors


def test_a_picture_of_a_symbol_that_the_font_lacks_prints_no_warning(chart: ba.CandleChart) -> None:
    content = replace(chart.content, title="币安人生USDT", volume_unit="币安人生")
    assert replace(chart, content=content).png().startswith(b"\x89PNG")  # a warning would be an error here


def test_a_chart_is_saved_as_a_whole_and_replaces_only_what_it_may(chart: ba.CandleChart, tmp_path: Path) -> None:
    path = chart.save(tmp_path / "chart.html")
    assert path.read_text(encoding="utf-8").rstrip().endswith("</html>")
    before = path.stat().st_ino
    with pytest.raises(ConfigurationError, match=r"chart\.html exists; name another file, or replace it"):
        chart.save(path)
    assert path.stat().st_ino == before
    assert chart.save(str(path), overwrite=True) == path
    assert [file.name for file in tmp_path.iterdir()] == ["chart.html"]


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("chart.svg", r"chart\.svg is no file for a chart; its name must end with \.html \(interactive\) or \.png"),
        ("chart", "is no file for a chart"),
        ("nowhere/chart.png", "there is no folder .*nowhere; create it first"),
        ("folder.html", r"folder\.html is a folder; name a file"),
        (f"{'x' * 300}.html", "cannot be written: File name too long"),
        ("\0.html", "is no path: it holds a NUL character"),
    ],
)
def test_a_name_that_is_none_of_a_chart_is_refused(
    chart: ba.CandleChart, tmp_path: Path, name: str, message: str
) -> None:
    (tmp_path / "folder.html").mkdir()
    with pytest.raises(ConfigurationError, match=message):
        chart.save(tmp_path / name)
    assert [file.name for file in tmp_path.iterdir()] == ["folder.html"]


# -- the command ----------------------------------------------------------------------------------------------------


@pytest.fixture
def plotted(lake: Lake, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working folder for the command, on the lake."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("BINANCE_ASSETS_LAKE", str(lake.root))
    return tmp_path


def test_the_command_prints_the_path_of_the_file_and_refuses_to_replace_it(plotted: Path) -> None:
    arguments = ["plot", "coinm/BTCUSD_PERP/1h", "--end", KEYS[1]]
    result = CliRunner().invoke(cli, arguments)
    assert (result.exit_code, result.stdout) == (0, f"coinm-BTCUSD_PERP-1h-{KEYS[0]}-{KEYS[1]}.html\n")
    assert "none has a gap" in result.stderr
    again = CliRunner().invoke(cli, arguments)
    assert (again.exit_code, len(without_progress(again.stderr))) == (2, 1)
    assert "--overwrite" in again.stderr
    assert CliRunner().invoke(cli, [*arguments, "--overwrite"]).exit_code == 0


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["spot/ETHUSDT/1h"], "run binance-assets download ETHUSDT --market spot --interval 1h"),
        (["spot/BTCUSDT/1h", "--start", "2024-01-01", "--end", "2024-01-03"], "lacks 2024-01-01, 2024-01-02 of"),
        (
            ["spot/BTCUSDT/1h", "--start", KEYS[4], "--end", KEYS[5]],
            "has no candles from 2023-03-26 00:00 .*: suspended",
        ),
        (["spot/BTCUSDT/1h", "--start", "2024-01-01"], "has no candles of spot/BTCUSDT/1h between"),
        (["spot/BTCUSDT/1h", "--end", "2099"], "later than today's midnight"),
    ],
)
def test_a_range_without_candles_is_an_error_in_one_line(plotted: Path, arguments: list[str], message: str) -> None:
    result = CliRunner().invoke(cli, ["plot", *arguments])
    assert (result.exit_code, len(without_progress(result.stderr))) == (2, 1), result.output
    assert pl.Series([result.stderr]).str.contains(message).item(), result.stderr
    assert list(plotted.iterdir()) == []


@pytest.mark.parametrize(("name", "library"), [("chart.html", "bokeh"), ("chart.png", "matplotlib")])
def test_without_the_extra_the_error_names_it(
    plotted: Path, chart: ba.CandleChart, monkeypatch: pytest.MonkeyPatch, name: str, library: str
) -> None:
    monkeypatch.setitem(sys.modules, library, None)
    result = CliRunner().invoke(cli, ["plot", "spot/BTCUSDT/1h", "-o", name])
    assert (result.exit_code, result.stderr) == (
        2,
        f"error: a chart as {name[6:]} needs {library}; pip install 'binance-assets[plot]'\n",
    )
    with pytest.raises(ImportError, match="binance-assets\\[plot\\]"):
        chart.save(name)


def test_a_series_or_an_interval_that_cannot_be_shown_is_refused(lake: Lake) -> None:
    with pytest.raises(ConfigurationError, match="every=30m: candles of 1h do not add up to 30m"):
        ba.plot(HOURS, every="30m", lake=lake)
    with pytest.raises(ConfigurationError, match="every: 7m cannot be derived"):
        ba.plot(HOURS, every="7m", lake=lake)
    with pytest.raises(ConfigurationError, match="is not a series"):
        ba.plot("BTCUSDT", lake=lake)


def ticks(*texts: str) -> list[dt.datetime]:
    return [dt.datetime.fromisoformat(text).replace(tzinfo=dt.UTC) for text in texts]


@pytest.mark.parametrize(
    ("times", "labels"),
    [
        (
            ticks("2023-03-24", "2023-03-24T12:00", "2023-03-25"),
            ["00:00\n2023-03-24", "12:00", "00:00\n2023-03-25"],
        ),
        (ticks("2023-03-31", "2023-04-01", "2023-04-02", "2023-04-03"), ["31\nMar 2023", "01\nApr 2023", "02"]),
        (ticks("2022-11-01", "2023-01-01", "2023-03-01", "2023-05-01"), ["Nov\n2022", "Jan\n2023", "Mar"]),
        (ticks("2021-01-01", "2022-01-01", "2023-01-01"), ["2021", "2022"]),
    ],
)
def test_the_time_axis_of_a_picture_names_the_days_and_months_of_its_range_only(
    times: list[dt.datetime], labels: list[str]
) -> None:
    assert list(time_labels(times, times[-1]).values()) == labels
