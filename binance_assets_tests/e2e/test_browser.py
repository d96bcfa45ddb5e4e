"""What a user does in Dagster's interface, done by a browser: clicks in a real ``dagster dev`` on the sandbox.

With ``UPDATE_PICTURES=1`` the README's pictures are taken anew; otherwise they go to the test's temporary folder.
"""

from __future__ import annotations

import base64
import datetime as dt
import os
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NoReturn, TypeVar

import pytest
import requests
from selenium import webdriver
from selenium.common.exceptions import (
    ElementClickInterceptedException,
    ElementNotInteractableException,
    StaleElementReferenceException,
    TimeoutException,
)
from selenium.webdriver.chrome.service import Service
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys
from selenium.webdriver.remote.webelement import WebElement
from selenium.webdriver.support.ui import WebDriverWait

from binance_assets.model.timestamps import HOUR, MINUTE, to_ms
from binance_assets.sandbox import Fault, Sandbox
from binance_assets_tests.support.environment import CHECKOUT, cli_environment
from binance_assets_tests.support.user_interface import WORKSPACE, until

# The tests share one Dagster and one browser, and whoever comes first starts both.
pytestmark = pytest.mark.timeout(300)

UNIVERSE = """\
series:
  - {market: spot, symbols: [BTCUSDT], intervals: [1m], derive: [1h]}
  - {market: spot, symbols: [ETHUSDT], intervals: [1m]}
"""
PICTURES = CHECKOUT / "docs" / "pictures"
SECONDS = 60
# An XPath of the input for days: in the dialog of the overview, and on the tab of partitions.
DAYS = "//input[starts-with(@placeholder, 'ex:')]"
AUTOMATIONS = ("spot_daily_schedule", "spot_catch_up", "derived_candles", "coverage", "reissued_archives")
# While Dagster draws its page anew, what was found in the old one is gone, or behind something else for a moment.
REDRAWN = (StaleElementReferenceException, ElementClickInterceptedException, ElementNotInteractableException)

Result = TypeVar("Result")


def not_here(what: str) -> NoReturn:
    """Skips for want of ``what``; where CI is set, that is a failure."""
    message = f"the tests in a browser need {what}"
    if os.environ.get("CI"):
        pytest.fail(message)
    pytest.skip(message)


def program(*names: str) -> str:
    for name in names:
        if path := shutil.which(name):
            return path
    not_here(" or ".join(names))


def saying(text: str) -> str:
    """An XPath of the innermost elements whose text contains ``text``."""
    contains = f"contains(normalize-space(.), '{text}')"
    return f"//*[{contains} and not(*[{contains}])]"


def button(text: str) -> str:
    return f"//button[contains(normalize-space(.), '{text}')]"


def asset(key: str) -> str:
    """An XPath of the links to the page of an asset."""
    return f"//a[contains(@href, '/assets/{key}')]"


class User:
    """Somebody in front of a browser: looks for what is visible, waits for it, clicks."""

    def __init__(self, driver: webdriver.Chrome, url: str) -> None:
        self.driver = driver
        self.url = url

    def until(self, message: str, done: Callable[[], Result | None]) -> Result:
        """What ``done`` returns as soon as it is something."""
        try:
            return WebDriverWait(self.driver, SECONDS, 0.2, REDRAWN).until(lambda _: done() or False)
        except TimeoutException:
            page = self.driver.find_element(By.TAG_NAME, "body").text
            raise AssertionError(
                f"not within {SECONDS} s: {message}; {self.driver.current_url} says:\n{page}"
            ) from None

    def visible(self, xpath: str) -> WebElement | None:
        found = self.driver.find_elements(By.XPATH, xpath)
        return next((element for element in found if element.is_displayed()), None)

    def see(self, xpath: str) -> WebElement:
        return self.until(f"to see {xpath}", lambda: self.visible(xpath))

    def click(self, xpath: str) -> None:
        def clicked() -> bool:
            if element := self.visible(xpath):
                element.click()
            return element is not None

        self.until(f"to click {xpath}", clicked)

    def click_away(self, xpath: str) -> None:
        """Clicks until there is nothing left to click: what has just appeared may be deaf at first."""
        self.see(xpath)

        def gone() -> bool:
            element = self.visible(xpath)
            if element:
                element.click()
            return element is None

        self.until(f"to click away {xpath}", gone)

    def enter(self, xpath: str, text: str) -> None:
        """Replaces what stands in an input, and presses Enter."""

        def entered() -> bool:
            if element := self.visible(xpath):
                element.send_keys(Keys.CONTROL, "a")
                element.send_keys(text, Keys.ENTER)
            return element is not None

        self.until(f"to type into {xpath}", entered)

    def go(self, page: str) -> None:
        """Clicks a page of the navigation."""
        self.click(f"//a[normalize-space(.)='{page}']")

    def open_asset(self, key: str) -> None:
        self.go("Catalog")
        self.click(asset(key))
        self.see(saying("Latest materialization"))

    def open_tab(self, name: str) -> None:
        self.click(f"//*[@role='tab'][contains(., '{name}')]")

    def materialize(self, key: str, days: str) -> None:
        """Asks for days of an asset in the dialog of its page."""
        self.open_asset(key)
        self.click(button("Materialize"))
        self.click(saying("Show all partitions"))
        self.enter(DAYS, days)
        self.click("//button[starts-with(normalize-space(.), 'Launch') and not(@disabled)]")
        self.until("the dialog to close", lambda: not self.visible(saying("Launch runs to materialize")))

    def choose_days(self, key: str, days: str) -> None:
        """Opens an asset's partitions and chooses ``days``."""
        self.open_asset(key)
        self.open_tab("Partitions")
        self.enter(DAYS, days)

    def take_picture(self, path: Path, left: float = 0, height: float | None = None) -> None:
        """Saves what the window shows once it has stopped changing: the icons come last.

        Args:
            path: Where to; what the README shows names no folder of this machine.
            left: What is left of this is cut off, pixels.
            height: What is below this is cut off, pixels.
        """
        width, whole = self.driver.execute_script("return [innerWidth, innerHeight]")
        clip = {"x": left, "y": 0, "width": width - left, "height": height or whole, "scale": 1}
        taken: list[str] = []

        def unchanged() -> bool:
            taken.append(self.driver.execute_cdp_cmd("Page.captureScreenshot", {"format": "png", "clip": clip})["data"])
            return taken[-3:] == taken[-1:] * 3 or len(taken) == 10  # something turns round and round

        self.until("a page that stays the same", unchanged)
        path.write_bytes(base64.b64decode(taken[-1]))


@pytest.fixture(scope="module")
def browser() -> Iterator[webdriver.Chrome]:
    options = webdriver.ChromeOptions()
    options.binary_location = program("chromium", "chromium-browser", "google-chrome")
    for name in ("headless=new", "no-sandbox", "disable-gpu", "disable-dev-shm-usage", "disable-background-networking",
                 "no-first-run", "lang=en-US", "window-size=1400,940"):  # fmt: skip
        options.add_argument(f"--{name}")
    service = Service(program("chromedriver"), env={**os.environ, "TZ": "UTC"})
    driver = webdriver.Chrome(options=options, service=service)
    yield driver
    driver.quit()


@pytest.fixture(scope="module")
def dagster_url(shared_sandbox: Sandbox, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A ``dagster dev`` with the project's own instance, in a folder of its own."""
    folder = tmp_path_factory.mktemp("browser")
    shutil.copy(CHECKOUT / "dagster.yaml", folder)
    (folder / "universe.yaml").write_text(UNIVERSE)
    (folder / "workspace.yaml").write_text(WORKSPACE)
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    url = f"http://127.0.0.1:{port}"
    with (folder / "log").open("w") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "dagster", "dev", "-w", "workspace.yaml", "-h", "127.0.0.1", "-p", str(port)],
            cwd=folder, env=cli_environment(shared_sandbox, folder) | {"DAGSTER_HOME": str(folder)},
            stdout=log, stderr=subprocess.STDOUT, start_new_session=True,
        )  # fmt: skip

    def responses() -> bool:
        try:
            return requests.get(f"{url}/server_info", timeout=2).ok
        except requests.RequestException:
            return False

    try:
        until(SECONDS, responses)
        yield url
    finally:
        os.killpg(process.pid, signal.SIGINT)
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)


@pytest.fixture(scope="module")
def user(browser: webdriver.Chrome, dagster_url: str, shared_sandbox: Sandbox) -> User:
    """Somebody who has just asked for three months, of which one day is bad.

    Dagster looks for backfills only every thirty seconds, so this one is asked for first and seen later.
    """
    noon = to_ms(dt.date(2024, 2, 4)) + 12 * HOUR
    for path in ("klines", "archive"):
        shared_sandbox.faults.add(
            Fault("missing_row", symbol="BTCUSDT", start=noon, end=noon + MINUTE, path=path, interval="1m")
        )
    user = User(browser, dagster_url)
    browser.get(dagster_url)
    user.materialize("spot/BTCUSDT/1m", "[2024-01-01...2024-03-31]")
    return user


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    return PICTURES if os.environ.get("UPDATE_PICTURES") == "1" else tmp_path


def test_one_day_is_materialized_by_a_click(user: User) -> None:
    user.materialize("spot/ETHUSDT/1m", "2024-01-05")
    user.choose_days("spot/ETHUSDT/1m", "2024-01-05")
    user.see(saying("Materialized (1)"))
    user.click("//*[text()='2024-01-05']")
    user.see("//tr[contains(., 'verdict') and contains(., 'complete')]")
    user.see("//tr[contains(., 'row_count') and contains(., '1440')]")


def test_schedules_and_sensors_are_listed(user: User) -> None:
    user.go("Automation")
    for name in AUTOMATIONS:
        user.see(f"//*[text()='{name}']")


def test_of_a_range_the_good_days_are_green_and_the_bad_one_is_red_with_its_reason(user: User, pictures: Path) -> None:
    user.choose_days("spot/BTCUSDT/1m", "[2024-01-01...2024-03-31]")
    user.see(saying("Materialized (90)"))
    user.see(saying("Failed (1)"))
    user.enter(DAYS, "[2024-01-29...2024-02-09]")
    user.click("//*[text()='2024-02-04']")
    user.see(saying("failed, and did not materialize this asset"))
    user.take_picture(pictures / "partitions.png")
    user.open_tab("Checks")
    user.see(saying("1 refused: 2024-02-04 lost: no candles for 2024-02-04 12:00"))
    user.see(saying("Failed"))
    user.take_picture(pictures / "check.png")


def test_a_schedule_is_started_by_its_switch_and_its_run_succeeds(user: User, pictures: Path) -> None:
    user.go("Automation")
    user.click("//*[text()='spot_daily_schedule']")
    user.see(saying("Schedule has never run"))
    assert not user.visible(saying("Next tick"))
    user.click("//tr[contains(., 'Running')]//label[.//input[@type='checkbox']]")
    user.see(saying("Next tick"))
    assert user.driver.find_element(By.XPATH, "//tr[contains(., 'Running')]//input").is_selected()
    # The clock will not reach its time within this test.
    user.click(button("Preview tick result"))
    user.click_away(button("Continue"))
    user.see(saying("1 run requests"))
    user.click(button("Launch all"))
    user.see(saying("Run id is"))  # the list of runs, with this one alone
    user.see(saying("spot_daily_schedule"))
    user.click("//a[starts-with(@href, '/runs/')]")
    user.see(saying("Success"))
    user.go("Automation")
    user.see(saying("12:07 AM UTC"))
    last = user.see("//*[text()='spot_daily_schedule']")
    user.take_picture(pictures / "automation.png", height=last.rect["y"] + 60)


def test_the_coverage_shows_a_table_and_a_picture(user: User, pictures: Path) -> None:
    user.choose_days("spot/BTCUSDT/1h", "[2024-01-01...2024-03-31]")
    user.see(saying("Materialized (90)"))  # the sensor has derived them
    user.open_asset("spot/coverage")
    user.click(button("Materialize"))
    user.click("//*[.='View' and (self::a or self::button)]")  # in the message that a run was launched
    user.see(saying("Success"))
    user.open_asset("spot/coverage")
    user.open_tab("Events")
    for key in ("spot/BTCUSDT/1m", "spot/BTCUSDT/1h"):
        user.see(f"//tr[td[1][.='{key}'] and td[2][.='2024-01-01']]")
    user.see("//img[starts-with(@src, 'data:image/png')]")
    user.driver.set_window_size(1600, 1000)  # the table is wide
    left, below = user.see("//*[text()='Assets']").rect["x"] - 24, user.see("//tr[starts-with(., 'path')]").rect["y"]
    user.take_picture(pictures / "coverage.png", left, below)
