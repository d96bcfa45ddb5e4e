"""What a user notices: the fourth table of ``python -m benchmarks.run``, or ``python -m benchmarks.users`` alone.

How it measures:

- *Silence* is that of :mod:`benchmarks.silence`: a download at round trips of a second in a pseudo-terminal, with a
  tenth of Binance's limits, interrupted after half a minute. Its end is part of it.
- *An export* writes ten years of 1m, see :mod:`benchmarks.exports`; its peak is that of a process of its own.
- *A chart* shows a year of 1m. The browser is a Chromium without a window, if there is one, with selenium; its own
  clock counts from the navigation to the page until everything is drawn.
"""

from __future__ import annotations

import datetime as dt
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from rich.console import Console
from rich.table import Table

from benchmarks.exports import END, FIRST, MAX_MEGABYTES, SERIES, run_export, write_lake
from benchmarks.silence import MAX_SILENCE_SECONDS, STEPS, measure, slow_exchange
from binance_assets.storage.lake import Lake

MAX_OPEN_SECONDS: Final = 1
_MOST_SECONDS: Final = 60
_YEAR: Final = dt.date(2023, 1, 1), dt.date(2024, 1, 1)
_IDLE: Final = "return !!window.Bokeh && Bokeh.documents.length === 1 && Bokeh.documents[0].is_idle"
_NOW: Final = "return performance.now() / 1000"
_BROWSERS: Final = ("chromium", "chromium-browser", "google-chrome")


@dataclass(frozen=True)
class UserRow:
    """One line of the table.

    Attributes:
        what: What was measured.
        result: The measured number, with its unit.
        target: What it may be at most, with the unit.
        met: Whether it is.
    """

    what: str
    result: str
    target: str
    met: bool


def user_rows() -> Iterator[UserRow]:
    """Measure all rows."""
    yield from _silence_rows()
    with tempfile.TemporaryDirectory(prefix="users-") as name:
        folder = Path(name)
        write_lake(Lake(folder / "lake"), FIRST, END)
        run = run_export(folder, "csv")
        what = f"export of ten years of 1m to csv, {run.written:.0f} MB, peak memory"
        yield _row(what, run.megabytes, MAX_MEGABYTES, "MB")
        yield from _chart_rows(folder)


def _silence_rows() -> Iterator[UserRow]:
    with slow_exchange() as url, tempfile.TemporaryDirectory(prefix="users-") as name:
        recording = measure(STEPS[0], url, Path(name))
    yield _row("from the start of `download` until the first words", recording.first, MAX_SILENCE_SECONDS, "s")
    longest = recording.longest.seconds
    yield _row("longest silence of a download at round trips of 1 s", longest, MAX_SILENCE_SECONDS, "s")


def _chart_rows(folder: Path) -> Iterator[UserRow]:
    page = folder / "chart.html"
    days = ["--start", str(_YEAR[0]), "--end", str(_YEAR[1])]
    command = [sys.executable, "-m", "binance_assets", "plot", SERIES, *days, "-o", str(page)]
    subprocess.run(command, cwd=folder, capture_output=True, check=True)
    seconds = _seconds_to_open(page)
    what = f"a chart of a year of 1m, {page.stat().st_size / 1e6:.1f} MB, is drawn"
    if seconds is None:
        yield UserRow(what, "no browser here", f"<= {MAX_OPEN_SECONDS} s", met=False)
    else:
        yield _row(what, seconds, MAX_OPEN_SECONDS, "s")


def _seconds_to_open(page: Path) -> float | None:
    """Return the seconds until a browser has drawn a page; None if there is no browser, or no selenium."""
    program = next((found for name in _BROWSERS if (found := shutil.which(name))), None)
    driver = shutil.which("chromedriver")
    try:
        from selenium import webdriver
    except ImportError:
        return None
    if program is None or driver is None:
        return None
    options = webdriver.ChromeOptions()
    options.binary_location = program
    for argument in ("--headless=new", "--no-sandbox", "--disable-gpu", "--window-size=1600,1000"):
        options.add_argument(argument)
    browser = webdriver.Chrome(options=options, service=webdriver.ChromeService(executable_path=driver))
    try:
        browser.get(page.absolute().as_uri())
        deadline = time.monotonic() + _MOST_SECONDS
        while not browser.execute_script(_IDLE):
            if time.monotonic() > deadline:
                raise TimeoutError(f"{page} is not drawn within {_MOST_SECONDS} s")
        return float(browser.execute_script(_NOW))
    finally:
        browser.quit()


def _row(what: str, number: float, most: float, unit: str) -> UserRow:
    digits = 2 if unit == "s" else 0
    return UserRow(what, f"{number:.{digits}f} {unit}", f"<= {most:g} {unit}", number <= most)


def print_user_rows(console: Console, rows: Sequence[UserRow]) -> None:
    """Print the table."""
    table = Table(title="what a user notices", box=None, pad_edge=False, header_style="bold")
    table.add_column("work", no_wrap=True)
    for name in ("result", "target", "met"):
        table.add_column(name, justify="right", no_wrap=True)
    for row in rows:
        table.add_row(row.what, row.result, row.target, "yes" if row.met else "[bold red]no[/]")
    console.print(table)


if __name__ == "__main__":
    print_user_rows(Console(width=120), list(user_rows()))
