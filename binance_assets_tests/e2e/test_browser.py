"""Clicks in Dagster's user interface as a user does, in a browser: a real ``dagster dev`` on the sandbox.

With ``UPDATE_PICTURES=1`` the screenshots replace the pictures in ``docs/pictures/``; otherwise they go to the test's
temporary folder.
"""

from __future__ import annotations

import base64
import datetime as dt
import os
import shutil
import time
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
from binance_assets_tests.support.alert_hook import Hook, serving_hook
from binance_assets_tests.support.dagster_dev import DagsterDev, dagster_dev
from binance_assets_tests.support.dg_project import write_project
from binance_assets_tests.support.environment import CHECKOUT
from binance_assets_tests.support.file_server import serving

# The tests share one Dagster and one browser, which the first test starts.
pytestmark = [pytest.mark.servers, pytest.mark.timeout(600)]

UNIVERSE = """\
series:
  - {market: spot, symbols: [BTCUSDT], intervals: [1m], derive: [1h]}
  - {market: spot, symbols: [ETHUSDT], intervals: [1m]}
"""
# A second code location: the project of a user who has added the component, as `dg scaffold defs` writes it.
PROJECT_LOCATION = """\
  - python_module:
      module_name: mine.definitions
      working_directory: project/src
      location_name: mine
"""
COMPONENT_FILE = "src/mine/defs/candles/defs.yaml"
COMPONENT = """\
type: binance_assets.BinanceCandlesComponent

attributes:
  series:
    - market: coinm
      symbols:
        - BTCUSD_PERP
      intervals:
        - 1h
"""
PICTURES = CHECKOUT / "docs" / "pictures"
SECONDS = 240
# An XPath of the input for partitions: in the dialog of the overview, and on the Partitions tab.
PARTITIONS_INPUT = "//input[starts-with(@placeholder, 'ex:')]"
AUTOMATIONS = ("spot_daily_schedule", "spot_catch_up", "derived_candles", "coverage", "reissued_archives")
CHROMIUM = ("chromium", "chromium-browser", "google-chrome")
CHROMEDRIVER = ("chromedriver",)
# While Dagster redraws its page, an element may be gone, or hidden behind another element for a moment.
REDRAWN = (StaleElementReferenceException, ElementClickInterceptedException, ElementNotInteractableException)

PAUSED = "{ instance { autoMaterializePaused } }"
# What a page of another site sends, and what a page learns of it.
ATTACK = """
<script>
const url = "{url}", query = "mutation {{ setAutoMaterializePaused(paused: false) }}", outcomes = [];
const body = JSON.stringify({{query}}), get = url + "/graphql?query=" + encodeURIComponent(query);
const post = (type, mode) => fetch(url + "/graphql", {{method: "POST", mode, headers: {{"Content-Type": type}}, body}});
const opened = (create) => new Promise((done) => create(done));
(async () => {{
  await post("text/plain", "no-cors");
  await fetch(get, {{mode: "no-cors"}});
  await opened((done) => {{
    const image = new Image();
    image.onload = image.onerror = done;
    image.src = get;
  }});
  outcomes.push(await post("application/json", "cors").then(() => "sent", () => "not sent"));
  outcomes.push(await opened((done) => {{
    const socket = new WebSocket(url.replace("http", "ws") + "/graphql", "graphql-ws");
    socket.onopen = () => done("open");
    socket.onerror = () => done("not open");
  }}));
  document.body.append(outcomes.join(", "));
}})();
</script><body></body>
"""

Result = TypeVar("Result")


def skip_without(program: str) -> NoReturn:
    """Skip the test because ``program`` is missing; fail if the variable CI is set."""
    message = f"the tests in a browser need {program}"
    if os.environ.get("CI"):
        pytest.fail(message)
    pytest.skip(message)


def find_program(*names: str) -> str:
    """Return the path of the first program of ``names`` that is installed."""
    for name in names:
        if path := shutil.which(name):
            return path
    skip_without(" or ".join(names))


def with_text(text: str) -> str:
    """Return an XPath of the innermost elements whose text contains ``text``."""
    contains = f"contains(normalize-space(.), '{text}')"
    return f"//*[{contains} and not(*[{contains}])]"


def button(text: str) -> str:
    """Return an XPath of the buttons whose text contains ``text``."""
    return f"//button[contains(normalize-space(.), '{text}')]"


def asset(key: str) -> str:
    """Return an XPath of the links to the page of an asset."""
    return f"//a[contains(@href, '/assets/{key}')]"


class User:
    """A user in front of a browser, who waits for what becomes visible and clicks it."""

    def __init__(self, driver: webdriver.Chrome, url: str) -> None:
        self.driver = driver
        self.url = url

    def until(self, message: str, done: Callable[[], Result | None]) -> Result:
        """Call ``done`` until it returns a true value, and return that value."""
        try:
            return WebDriverWait(self.driver, SECONDS, 0.1, REDRAWN).until(lambda _: done() or False)
        except TimeoutException:
            page = self.driver.find_element(By.TAG_NAME, "body").text
            raise AssertionError(
                f"not within {SECONDS} s: {message}; {self.driver.current_url} shows:\n{page}"
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
        """Click until the element is gone: an element that has just appeared may ignore the first click."""
        self.see(xpath)

        def gone() -> bool:
            element = self.visible(xpath)
            if element:
                element.click()
            return element is None

        self.until(f"to click away {xpath}", gone)

    def enter(self, xpath: str, text: str) -> None:
        """Replace the text of an input, and press Enter."""

        def entered() -> bool:
            if element := self.visible(xpath):
                element.send_keys(Keys.CONTROL, "a")
                element.send_keys(text, Keys.ENTER)
            return element is not None

        self.until(f"to type into {xpath}", entered)

    def go(self, page: str) -> None:
        """Click a page of the navigation."""
        self.click(f"//a[normalize-space(.)='{page}']")

    def open_automation(self, name: str) -> None:
        """Open the page of a schedule or a sensor."""
        self.go("Automation")
        self.click(f"//*[text()='{name}']")

    def switch_on(self) -> None:
        """Start the schedule or the sensor whose page is open."""
        row = "//tr[contains(., 'Running')]"
        self.click(f"{row}//label[.//input[@type='checkbox']]")
        self.until("the switch to be on", lambda: self.driver.find_element(By.XPATH, f"{row}//input").is_selected())

    def open_asset(self, key: str) -> None:
        self.go("Catalog")
        self.click(asset(key))
        self.see(with_text("Latest materialization"))

    def open_tab(self, name: str) -> None:
        self.click(f"//*[@role='tab'][contains(., '{name}')]")

    def materialize(self, key: str, days: str) -> None:
        """Materialize partitions of an asset in the dialog of its page."""
        self.open_asset(key)
        self.click(button("Materialize"))
        self.click(with_text("Show all partitions"))
        self.enter(PARTITIONS_INPUT, days)
        self.click("//button[starts-with(normalize-space(.), 'Launch') and not(@disabled)]")
        self.until("the dialog to close", lambda: not self.visible(with_text("Launch runs to materialize")))

    def select_days(self, key: str, days: str) -> None:
        """Open an asset's partitions and select ``days``."""
        self.open_asset(key)
        self.open_tab("Partitions")
        self.enter(PARTITIONS_INPUT, days)

    def select_days_until(self, key: str, days: str, shown: str) -> None:
        """Select ``days`` again and again until the page shows ``shown``, as a user reloads a page.

        A page follows the runs that Dagster's web pages have seen in progress, with Dagster's own storage as well. One
        that was opened before a run of a second, or before events outside of runs, does not notice the end.
        """

        def is_shown() -> bool:
            self.select_days(key, days)
            deadline = time.monotonic() + 5
            while time.monotonic() < deadline and not self.visible(shown):
                time.sleep(0.2)
            return bool(self.visible(shown))

        self.until(f"the partitions tab of {key} to show {shown}", is_shown)

    def take_picture(self, path: Path, left: float = 0, height: float | None = None) -> None:
        """Save what the window shows after it has stopped changing; icons appear last.

        Args:
            path: The PNG to write. What the README shows must not name a folder of this machine.
            left: Cut off what is left of this, pixels.
            height: Cut off what is below this, pixels.
        """
        width, whole = self.driver.execute_script("return [innerWidth, innerHeight]")
        clip = {"x": left, "y": 0, "width": width - left, "height": height or whole, "scale": 1}
        taken: list[str] = []

        def unchanged() -> bool:
            taken.append(self.driver.execute_cdp_cmd("Page.captureScreenshot", {"format": "png", "clip": clip})["data"])
            return taken[-3:] == taken[-1:] * 3 or len(taken) == 10  # an animation never stops

        self.until("a page that stays the same", unchanged)
        path.write_bytes(base64.b64decode(taken[-1]))


@pytest.fixture(scope="module")
def hook() -> Iterator[Hook]:
    """What receives the alerts."""
    with serving_hook() as running:
        yield running


@pytest.fixture(scope="module")
def started(shared_sandbox: Sandbox, hook: Hook, tmp_path_factory: pytest.TempPathFactory) -> Iterator[DagsterDev]:
    """A ``dagster dev`` with the project's ``dagster.yaml``, in a folder of its own; it may not be ready yet."""
    for names in (CHROMIUM, CHROMEDRIVER):
        find_program(*names)
    folder = tmp_path_factory.mktemp("browser")
    shutil.copy(CHECKOUT / "dagster.yaml", folder)
    (folder / "universe.yaml").write_text(UNIVERSE)
    write_project(folder / "project")
    (folder / "project" / COMPONENT_FILE).parent.mkdir()
    (folder / "project" / COMPONENT_FILE).write_text(COMPONENT)
    alerts = {"BINANCE_ASSETS_ALERT_URL": hook.url.get_secret_value()}
    with dagster_dev(shared_sandbox, folder, PROJECT_LOCATION, alerts) as dev:
        yield dev


@pytest.fixture(scope="module")
def browser(started: DagsterDev) -> Iterator[webdriver.Chrome]:
    """A headless Chromium, which starts while Dagster starts."""
    driver = start_chromium()
    yield driver
    driver.quit()


def start_chromium() -> webdriver.Chrome:
    """Start a headless Chromium that keeps the messages of its console."""
    options = webdriver.ChromeOptions()
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    options.binary_location = find_program(*CHROMIUM)
    for name in ("headless=new", "no-sandbox", "disable-gpu", "disable-dev-shm-usage", "disable-background-networking",
                 "no-first-run", "lang=en-US", "window-size=1400,940"):  # fmt: skip
        options.add_argument(f"--{name}")
    service = Service(find_program(*CHROMEDRIVER), env={**os.environ, "TZ": "UTC"})
    return webdriver.Chrome(options=options, service=service)


@pytest.fixture(scope="module")
def user(browser: webdriver.Chrome, started: DagsterDev, shared_sandbox: Sandbox) -> User:
    """A user who has just launched a backfill of three months, of which one day is bad.

    Dagster looks for backfills only every thirty seconds, so this backfill is launched first and checked later.
    """
    noon = to_ms(dt.date(2024, 2, 4)) + 12 * HOUR
    for path in ("klines", "archive"):
        shared_sandbox.faults.add(
            Fault("missing_row", symbol="BTCUSDT", start=noon, end=noon + MINUTE, path=path, interval="1m")
        )
    started.wait_until_ready()
    user = User(browser, started.url)
    browser.get(started.url)
    user.materialize("spot/BTCUSDT/1m", "[2024-01-01...2024-03-31]")
    return user


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    return PICTURES if os.environ.get("UPDATE_PICTURES") == "1" else tmp_path


def test_one_day_is_materialized_by_a_click(user: User) -> None:
    user.materialize("spot/ETHUSDT/1m", "2024-01-05")
    user.select_days_until("spot/ETHUSDT/1m", "2024-01-05", with_text("Materialized (1)"))
    user.click("//*[text()='2024-01-05']")
    user.see("//tr[contains(., 'verdict') and contains(., 'complete')]")
    user.see("//tr[contains(., 'row_count') and contains(., '1440')]")


def test_schedules_and_sensors_are_listed(user: User) -> None:
    user.go("Automation")
    for name in AUTOMATIONS:
        user.see(f"//*[text()='{name}']")


def test_a_range_shows_good_days_green_and_the_bad_day_red_with_its_reason(user: User, pictures: Path) -> None:
    # A day is failed once its run is over, so the other numbers do not change after that.
    user.select_days_until("spot/BTCUSDT/1m", "[2024-01-01...2024-03-31]", with_text("Failed (1)"))
    user.see(with_text("Materialized (90)"))
    user.enter(PARTITIONS_INPUT, "[2024-01-29...2024-02-09]")
    user.click("//*[text()='2024-02-04']")
    user.see(with_text("failed, and did not materialize this asset"))
    user.take_picture(pictures / "partitions.png")
    user.click(button("View all historical events"))
    user.click("//td//*[normalize-space(text())='2024-02-04']")  # unfolds the observation
    user.see("//tr[contains(., 'reason') and contains(., 'no candles for 2024-02-04 12:00')]")
    user.click_away(button("OK"))
    user.open_tab("Checks")
    user.see(with_text("1 refused: 2024-02-04 lost: no candles for 2024-02-04 12:00"))
    user.see(with_text("Failed"))
    user.take_picture(pictures / "check.png")


def test_a_schedule_is_started_by_its_switch_and_its_run_succeeds(user: User, pictures: Path) -> None:
    user.open_automation("spot_daily_schedule")
    user.see(with_text("Schedule has never run"))
    assert not user.visible(with_text("Next tick"))
    user.switch_on()
    user.see(with_text("Next tick"))
    # The schedule does not become due during this test.
    user.click(button("Preview tick result"))
    user.click_away(button("Continue"))
    user.see(with_text("1 run requests"))
    user.click(button("Launch all"))
    user.see(with_text("Run id is"))  # the list of runs, which has only this one
    user.see(with_text("spot_daily_schedule"))
    user.click("//a[starts-with(@href, '/runs/')]")
    user.see(with_text("Success"))
    user.go("Automation")
    user.see(with_text("12:07 AM UTC"))
    last = user.see("//*[text()='spot_daily_schedule']")
    user.take_picture(pictures / "automation.png", height=last.rect["y"] + 60)


def test_after_a_run_over_another_day_the_check_still_names_the_bad_day(user: User) -> None:
    user.open_asset("spot/BTCUSDT/1m")
    user.open_tab("Checks")
    user.see(with_text("1 asked for earlier and not in the lake: 2024-02-04 lost: no candles for 2024-02-04 12:00"))


def test_the_sensors_of_alerts_are_started_by_their_switches_and_remember_where_the_alerts_begin(user: User) -> None:
    names = ("run_failures", "check_failures")
    for name in names:
        user.open_automation(name)
        user.switch_on()
    for name in names:
        user.open_automation(name)
        user.see(with_text('{"after": '))  # after the first tick
    # The alerts are looked for below: the sensors look every thirty seconds, and the next test uses this time.
    user.materialize("spot/BTCUSDT/1m", "2024-02-04")


def test_the_component_of_a_dg_project_adds_its_series_jobs_and_checks(user: User) -> None:
    user.open_asset("own")
    user.materialize("coinm/BTCUSD_PERP/1h", "2024-01-05")
    user.select_days_until("coinm/BTCUSD_PERP/1h", "2024-01-05", with_text("Materialized (1)"))
    user.click("//*[text()='2024-01-05']")
    user.see("//tr[contains(., 'row_count') and contains(., '24')]")
    user.open_tab("Checks")
    user.see(with_text("gap_free"))
    user.see(with_text("Passed"))
    user.go("Automation")
    user.see("//*[text()='coinm_daily_schedule']")


def test_a_failed_run_and_a_failed_check_have_reached_the_hook(user: User, hook: Hook) -> None:
    def reasons() -> dict[str, str]:
        return {alert["check"] or "run": alert["reason"] for alert in hook.received if alert["check"] != "fresh"}

    user.until("both alerts", lambda: len(reasons()) == 2)
    assert set(reasons()) == {"run", "gap_free"}
    for reason in reasons().values():
        assert "lost: no candles for 2024-02-04 12:00" in reason


def test_a_file_that_is_deleted_is_named_by_the_check_and_its_days_are_red(user: User, started: DagsterDev) -> None:
    (started.folder / "lake/market=coinm/symbol=BTCUSD_PERP/interval=1h/2024.parquet").unlink()
    user.select_days_until("coinm/BTCUSD_PERP/1h", "2024-01-05", with_text("Failed (1)"))
    user.open_tab("Checks")
    user.see(with_text("1 asked for earlier and not in the lake: 2024-01-05: not in the lake anymore"))


def test_a_page_of_another_site_changes_nothing(user: User) -> None:
    """A browser refuses to send only the JSON: the guard refuses the rest."""
    page = ATTACK.format(url=user.url).encode()
    with serving({"/": page}, {"Content-Type": "text/html"}) as url:
        user.driver.switch_to.new_window("tab")
        user.driver.get(url)
        user.see(with_text("not sent, not open"))
        user.driver.close()
    user.driver.switch_to.window(user.driver.window_handles[0])
    response = requests.post(f"{user.url}/graphql", json={"query": PAUSED}, timeout=60).json()
    assert response["data"]["instance"]["autoMaterializePaused"] is True


def test_the_coverage_asset_shows_a_table_and_a_picture(user: User, pictures: Path) -> None:
    # The sensor has derived them.
    user.select_days_until("spot/BTCUSDT/1h", "[2024-01-01...2024-03-31]", with_text("Materialized (90)"))
    user.open_asset("spot/coverage")
    user.click(button("Materialize"))
    user.click("//*[.='View' and (self::a or self::button)]")  # in the message that a run was launched
    user.see(with_text("Success"))
    user.open_asset("spot/coverage")
    user.open_tab("Events")
    for key in ("spot/BTCUSDT/1m", "spot/BTCUSDT/1h"):
        user.see(f"//tr[td[1][.='{key}'] and td[2][.='2024-01-01']]")
    user.driver.set_window_size(1600, 1000)  # the table is wide
    left, below = user.see("//*[text()='Assets']").rect["x"] - 24, user.see("//tr[starts-with(., 'path')]").rect["y"]
    user.take_picture(pictures / "coverage.png", left, below)
    user.click(with_text("[Show Markdown]"))  # Dagster shows Markdown of a thousand characters and more this way
    chart = user.see("//img[starts-with(@src, 'data:image/png')]").rect
    user.take_picture(pictures / "coverage_chart.png", chart["x"] - 100, chart["y"] + chart["height"] + 20)
