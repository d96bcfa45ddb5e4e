"""The sandbox's archive has the files, the format and the defects of the public archive, with the candles of klines."""

from __future__ import annotations

import hashlib
import io
import re
import threading
import time
import zipfile
from collections.abc import Iterator
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from pathlib import Path
from typing import Any

import pytest
import requests

from binance_assets.model.intervals import INTERVALS
from binance_assets.model.markets import MARKETS, SANDBOX_HEADER, USED_WEIGHT_HEADER
from binance_assets.model.timestamps import DAY, HOUR, MINUTE, SECOND
from binance_assets.sandbox import Fault, Sandbox, SandboxOptions, running_sandbox
from binance_assets_tests.support.recorded import RECORDED, missing_recordings, missing_zips

HEADER = (
    "open_time,open,high,low,close,volume,close_time,quote_volume,count,taker_buy_volume,taker_buy_quote_volume,ignore"
)
Row = list[str]

needs_zips = pytest.mark.skipif(missing_zips() is not None, reason=missing_zips() or "")
needs_recordings = pytest.mark.skipif(missing_recordings() is not None, reason=missing_recordings() or "")


def ms(text: str) -> int:
    return int(datetime.fromisoformat(text).replace(tzinfo=UTC).timestamp()) * SECOND


def offset_to(moment: str) -> int:
    """Return the clock offset that sets the sandbox's clock to ``moment``."""
    return ms(moment) - time.time_ns() // 1_000_000


DAY_START = ms("2024-01-10")


@pytest.fixture(scope="module")
def sandbox() -> Iterator[Sandbox]:
    with running_sandbox(SandboxOptions(clock_offset_ms=offset_to("2026-08-15T12:00:00"))) as running:
        yield running


@pytest.fixture
def faulty_sandbox(sandbox: Sandbox) -> Iterator[Sandbox]:
    yield sandbox
    sandbox.faults.clear()


@pytest.fixture(scope="module")
def replay() -> Iterator[Sandbox]:
    with running_sandbox(SandboxOptions(replay=RECORDED)) as running:
        yield running


def path_of(date: str, market: str = "spot", symbol: str = "BTCUSDT", interval: str = "1m") -> str:
    partition = "daily" if len(date) == 10 else "monthly"
    folder = f"/data/{MARKETS[market].archive}/{partition}/klines/{symbol}/{interval}"
    return f"{folder}/{symbol}-{interval}-{date}.zip"


def span_of(date: str) -> tuple[int, int]:
    if len(date) == 10:
        return ms(date), ms(date) + DAY
    year, month = map(int, date.split("-"))
    return ms(f"{date}-01"), ms(f"{year + month // 12}-{month % 12 + 1:02d}-01")


MINUTES = path_of("2024-01-10")
MONTH = path_of("2024-01", interval="1h")


def send(sandbox: Sandbox, path: str, method: str = "GET") -> requests.Response:
    return requests.request(method, sandbox.url + path, timeout=60)


def fetch(sandbox: Sandbox, path: str) -> bytes:
    response = send(sandbox, path)
    assert response.status_code == 200, response.text
    return response.content


def checksum(sandbox: Sandbox, path: str) -> str:
    """Return the hash in the file's ``.CHECKSUM``."""
    text = fetch(sandbox, path + ".CHECKSUM").decode()
    match = re.fullmatch(r"([0-9a-f]{64})  (\S+\.zip)", text)
    assert match is not None, text
    assert match[2] == path.rsplit("/", 1)[1]
    return match[1]


def text_of(body: bytes) -> str:
    with zipfile.ZipFile(io.BytesIO(body)) as archive:
        (member,) = archive.namelist()
        return archive.read(member).decode()


def rows_of(body: bytes) -> list[Row]:
    """Return the rows of a zip, without the header row."""
    return [line.split(",") for line in text_of(body).splitlines() if line[:1].isdigit()]


def rows(sandbox: Sandbox, path: str) -> list[Row]:
    return rows_of(fetch(sandbox, path))


def open_times(sandbox: Sandbox, path: str) -> list[int]:
    return [int(row[0]) for row in rows(sandbox, path)]


def has_header(sandbox: Sandbox, path: str) -> bool:
    text = text_of(fetch(sandbox, path))
    assert text.count(HEADER) == text.startswith(HEADER + "\n")
    return text.startswith(HEADER)


def as_text(klines: list[list[Any]], unit: int = 1) -> list[Row]:
    """Convert rows of klines to the format of the archive."""
    return [
        [str(row[0] * unit), *row[1:6], str(row[6] * unit + unit - 1), row[7], str(row[8]), *row[9:]] for row in klines
    ]


# --- files -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("market", "symbol", "interval", "date", "unit"),
    [
        ("spot", "BTCUSDT", "1m", "2024-12-31", 1),
        ("spot", "BTCUSDT", "1m", "2025-01-01", 1000),
        ("spot", "BTCUSDT", "1s", "2025-01-01", 1000),
        ("spot", "PEPEUSDT", "15m", "2024-12", 1),
        ("spot", "PEPEUSDT", "15m", "2025-01", 1000),
        ("spot", "ETHUSDT", "1d", "2024-02-29", 1),
        ("usdm", "BTCUSDT", "1m", "2025-03", 1),
        ("usdm", "ETHUSDT", "1h", "2025-03-01", 1),
        ("usdm", "币安人生USDT", "1h", "2025-11", 1),
        ("coinm", "BTCUSD_PERP", "1m", "2025-03-01", 1),
        ("coinm", "BTCUSD_PERP", "1mo", "2025-03", 1),
    ],
)
def test_a_file_contains_the_candles_of_klines(
    sandbox: Sandbox, market: str, symbol: str, interval: str, date: str, unit: int
) -> None:
    path = path_of(date, market, symbol, interval)
    body = fetch(sandbox, path)
    start, end = span_of(date)
    assert rows_of(body) == as_text(sandbox.rows(market, symbol, interval, start, end), unit)
    assert checksum(sandbox, path) == hashlib.sha256(body).hexdigest()
    with zipfile.ZipFile(io.BytesIO(body)) as archive:
        (member,) = archive.infolist()
        assert member.filename == path.rsplit("/", 1)[1].removesuffix(".zip") + ".csv"
        assert member.compress_type == zipfile.ZIP_DEFLATED
        assert archive.testzip() is None


def test_close_times_in_microseconds_end_with_999999(sandbox: Sandbox) -> None:
    first = rows(sandbox, path_of("2025-01-01"))[0]
    assert (first[0], first[6], first[11]) == ("1735689600000000", "1735689659999999", "0")
    last = rows(sandbox, path_of("2024-12"))[-1]
    assert (last[0], last[6], last[11]) == ("1735689540000", "1735689599999", "0")


@pytest.mark.parametrize(
    ("market", "symbol", "date", "header"),
    [
        ("spot", "BTCUSDT", "2026-06", False),
        ("usdm", "BTCUSDT", "2022-06", False),
        ("usdm", "BTCUSDT", "2022-06-30", False),
        ("usdm", "BTCUSDT", "2022-07-01", True),
        ("usdm", "BTCUSDT", "2026-06", True),
        ("coinm", "BTCUSD_PERP", "2021-12-31", False),
        ("coinm", "BTCUSD_PERP", "2022-01", True),
    ],
)
def test_newer_futures_files_have_a_header(sandbox: Sandbox, market: str, symbol: str, date: str, header: bool) -> None:
    path = path_of(date, market, symbol, "1h")
    assert has_header(sandbox, path) == header
    assert len(rows(sandbox, path)) in (24, 30 * 24, 31 * 24)


def test_files_are_deterministic(sandbox: Sandbox) -> None:
    bodies = [fetch(sandbox, MONTH), fetch(sandbox, MONTH)]
    with running_sandbox(SandboxOptions(clock_offset_ms=offset_to("2025-01-01T00:00:00"))) as other:
        bodies.append(fetch(other, MONTH))
        assert checksum(other, MONTH) == checksum(sandbox, MONTH)
    assert len(set(bodies)) == 1


def test_responses_have_the_headers_of_an_object_store(sandbox: Sandbox) -> None:
    for path in (MONTH, MONTH + ".CHECKSUM"):
        whole, head = send(sandbox, path), send(sandbox, path, "HEAD")
        assert (head.status_code, head.content) == (200, b"")
        for name in ("ETag", "Last-Modified", "Content-Length", "Content-Type", SANDBOX_HEADER):
            assert head.headers[name] == whole.headers[name]
        assert int(whole.headers["Content-Length"]) == len(whole.content)
        assert re.fullmatch(r'"[0-9a-f]{32}"', whole.headers["ETag"])
        assert parsedate_to_datetime(whole.headers["Last-Modified"]) == datetime(2024, 2, 3, 8, 30, tzinfo=UTC)
        assert whole.headers[SANDBOX_HEADER] == "1"
        assert not any(USED_WEIGHT_HEADER.lower().startswith(name.lower()) for name in whole.headers)
    assert send(sandbox, MONTH).headers["ETag"] != send(sandbox, MONTH + ".CHECKSUM").headers["ETag"]


@pytest.mark.parametrize(
    "path",
    [
        path_of("2024-01-10", symbol="NOSUCHUSDT"),
        path_of("2024-01-10", interval="7m"),
        path_of("2024-01", interval="1M"),
        path_of("2024-01", market="usdm", interval="1s"),
        path_of("2024-01-10", interval="3d"),
        path_of("2024-01-10", interval="1w"),
        path_of("2024-01-10", market="usdm", interval="1mo"),
        path_of("2024-02-30"),
        path_of("2024-13"),
        path_of("2017-08-16"),
        path_of("2017-07", interval="1h"),
        path_of("2019-12-30", market="usdm"),
        path_of("2019-11", market="usdm", interval="1h"),
        path_of("2020-08-10", market="coinm", symbol="BTCUSD_PERP"),
        path_of("2020-09-26", market="coinm", symbol="BTCUSD_200925"),
        path_of("2020-10", market="coinm", symbol="BTCUSD_200925", interval="1h"),
        path_of("2026-08-15"),
        path_of("2027-01"),
        MINUTES.replace("daily", "monthly"),
        MINUTES.replace("BTCUSDT-1m", "ETHUSDT-1m"),
        MINUTES.replace("spot", "futures"),
        MINUTES.replace("klines", "trades"),
        MINUTES + ".checksum",
        "/data/",
    ],
)
def test_nonexistent_files_are_not_found(sandbox: Sandbox, path: str) -> None:
    for target in (path, path + ".CHECKSUM"):
        response = send(sandbox, target)
        assert response.status_code == 404
        assert response.headers["Content-Type"] == "application/xml"
        assert "<Error><Code>NoSuchKey</Code>" in response.text
        assert send(sandbox, target, "HEAD").status_code == 404


def test_files_begin_with_the_listing_or_with_the_archive_of_the_market(sandbox: Sandbox) -> None:
    assert open_times(sandbox, path_of("2017-08", interval="1h"))[0] == ms("2017-08-17T04:00:00")
    assert len(rows(sandbox, path_of("2017-08-17"))) == 20 * 60
    assert open_times(sandbox, path_of("2017-08", interval="1mo")) == [ms("2017-08-01")]
    assert len(rows(sandbox, path_of("2019-12-31", market="usdm"))) == 1440
    assert open_times(sandbox, path_of("2019-12", market="usdm", interval="1d")) == [ms("2019-12-31")]
    coinm = path_of("2020-08", market="coinm", symbol="BTCUSD_PERP", interval="1d")
    assert open_times(sandbox, coinm)[0] == ms("2020-08-11")
    assert len(rows(sandbox, path_of("2020-09-25", market="coinm", symbol="BTCUSD_200925", interval="1h"))) == 8


@pytest.mark.parametrize(
    ("path", "before", "since"),
    [
        (path_of("2025-06-10"), "2025-06-11T08:29:50", "2025-06-11T08:30:00"),
        (path_of("2025-06", interval="1h"), "2025-07-03T08:29:50", "2025-07-03T08:30:00"),
        (path_of("2025-06", interval="1mo"), "2025-07-03T08:29:50", "2025-07-03T08:30:00"),
    ],
)
def test_a_file_appears_at_its_publication_time(path: str, before: str, since: str) -> None:
    options = SandboxOptions(clock_offset_ms=offset_to(before))
    with running_sandbox(options) as sandbox:
        assert send(sandbox, path).status_code == 404
        assert send(sandbox, path + ".CHECKSUM").status_code == 404
        options.clock_offset_ms = offset_to(since)
        assert send(sandbox, path).status_code == 200
        options.clock_offset_ms = offset_to(before)
        assert send(sandbox, path).status_code == 404


def test_a_week_that_closes_after_publication_is_added_to_its_month() -> None:
    path = path_of("2025-06", interval="1w")
    options = SandboxOptions(clock_offset_ms=offset_to("2025-07-03T09:00:00"))
    with running_sandbox(options) as sandbox:
        weeks = [ms(f"2025-06-{day:02d}") * 1000 for day in (2, 9, 16, 23, 30)]
        first = send(sandbox, path)
        assert [int(row[0]) for row in rows_of(first.content)] == weeks[:4]
        options.clock_offset_ms = offset_to("2025-07-07T00:00:00")
        assert open_times(sandbox, path) == weeks
        assert checksum(sandbox, path) != hashlib.sha256(first.content).hexdigest()
        later = parsedate_to_datetime(send(sandbox, path).headers["Last-Modified"])
        assert later > parsedate_to_datetime(first.headers["Last-Modified"])


@pytest.mark.parametrize("interval", ["3d", "1w"])
def test_monthly_files_of_multi_day_candles_are_contiguous(sandbox: Sandbox, interval: str) -> None:
    times = [
        time for month in (1, 2, 3) for time in open_times(sandbox, path_of(f"2024-{month:02d}", interval=interval))
    ]
    assert times == [row[0] for row in sandbox.rows("spot", "BTCUSDT", interval, ms("2024-01-01"), ms("2024-04-01"))]


def test_daily_files_exist_for_intervals_up_to_a_day(sandbox: Sandbox) -> None:
    for interval in INTERVALS:
        response = send(sandbox, path_of("2024-01-10", interval=interval.name), "HEAD")
        assert response.status_code == (404 if interval.is_multi_day else 200)
        if interval.name != "1s":
            assert send(sandbox, path_of("2024-01", interval=interval.name), "HEAD").status_code == 200


def test_archive_requests_are_logged_with_zero_weight() -> None:
    with running_sandbox() as sandbox:
        paths = [MONTH, MONTH + ".CHECKSUM", path_of("2017-01"), "/data/elsewhere"]
        for path in paths:
            send(sandbox, path)
        assert [(request.path, request.status, request.weight) for request in sandbox.requests] == [
            (path, status, 0) for path, status in zip(paths, (200, 200, 404, 404), strict=True)
        ]
        summary = requests.get(f"{sandbox.url}/sandbox/requests", timeout=60).json()
        assert summary == {"count": 4, "by_status": {"200": 2, "404": 2}, "weight": {}}


def test_concurrent_requests_get_the_same_file(sandbox: Sandbox) -> None:
    path = path_of("2023-05", symbol="ADAUSDT")
    bodies: list[bytes] = []
    clients = [threading.Thread(target=lambda: bodies.append(fetch(sandbox, path))) for _ in range(6)]
    for client in clients:
        client.start()
    for client in clients:
        client.join()
    assert len(bodies) == 6
    assert len(set(bodies)) == 1


# --- faults ----------------------------------------------------------------------------------------------

AT_NOON: dict[str, Any] = {"start": DAY_START + 12 * HOUR, "end": DAY_START + 12 * HOUR + MINUTE}


def corrupted_day(
    sandbox: Sandbox, kind: str, value: int | None = None, path: str = "archive"
) -> tuple[list[Row], list[Row]]:
    """Return the rows of a day with a fault at noon, and the expected rows; check that zip and checksum agree."""
    expected = as_text(sandbox.rows("spot", "BTCUSDT", "1m", DAY_START, DAY_START + DAY))
    sandbox.faults.replace([Fault(kind, path=path, value=value, **AT_NOON)])
    body = fetch(sandbox, MINUTES)
    assert checksum(sandbox, MINUTES) == hashlib.sha256(body).hexdigest()
    text = text_of(body)
    return [line.split(",") for line in text.splitlines()], expected


@pytest.mark.parametrize("path", ["archive", "archive/daily"])
def test_rows_of_a_file_can_be_corrupted(faulty_sandbox: Sandbox, path: str) -> None:
    noon = 720
    actual, expected = corrupted_day(faulty_sandbox, "missing_row", path=path)
    assert actual == expected[:noon] + expected[noon + 1 :]
    actual, _ = corrupted_day(faulty_sandbox, "doubled_row", path=path)
    assert actual == expected[: noon + 1] + expected[noon:]
    actual, _ = corrupted_day(faulty_sandbox, "off_grid", 250, path)
    assert int(actual[noon][0]) == int(expected[noon][0]) + 250
    actual, _ = corrupted_day(faulty_sandbox, "outside", path=path)
    assert (actual[1:], int(actual[0][0])) == (expected, DAY_START - MINUTE)
    actual, _ = corrupted_day(faulty_sandbox, "unordered", path=path)
    assert actual != expected
    assert sorted(actual) == expected
    assert corrupted_day(faulty_sandbox, "empty", path=path)[0] == []
    assert {len(row) for row in corrupted_day(faulty_sandbox, "fields_11", path=path)[0]} == {11}
    assert {len(row) for row in corrupted_day(faulty_sandbox, "fields_13", path=path)[0]} == {13}
    for kind, price in (("nan", "NaN"), ("empty_strings", ""), ("null", "")):
        assert corrupted_day(faulty_sandbox, kind, path=path)[0][noon][4] == price
    row = corrupted_day(faulty_sandbox, "bad_prices", path=path)[0][noon]
    assert float(row[3]) > float(row[2])
    assert corrupted_day(faulty_sandbox, "negative_volume", path=path)[0][noon][5].startswith("-")
    faulty_sandbox.faults.clear()
    assert rows(faulty_sandbox, MINUTES) == expected


def test_rows_in_microseconds_can_be_corrupted(faulty_sandbox: Sandbox) -> None:
    path = path_of("2025-02-01", interval="1h")
    faulty_sandbox.faults.add(
        Fault("off_grid", path="archive", value=5, start=ms("2025-02-01"), end=ms("2025-02-01T01:00:00"))
    )
    first, second = rows(faulty_sandbox, path)[:2]
    assert (first[0], first[6]) == ("1738368000005000", "1738371599999999")
    assert second[0] == "1738371600000000"


def test_a_fault_without_effect_leaves_the_bytes_of_a_file_unchanged(faulty_sandbox: Sandbox) -> None:
    for market, symbol, date in (("spot", "BTCUSDT", "2025-05"), ("coinm", "BTCUSD_PERP", "2023-05")):
        path = path_of(date, market, symbol, "15m")
        faulty_sandbox.faults.clear()
        body = fetch(faulty_sandbox, path)
        faulty_sandbox.faults.replace(
            [Fault("numbers_as_strings"), Fault("truncated_file", path="archive", value=2**50)]
        )
        assert fetch(faulty_sandbox, path) == body


@pytest.mark.parametrize("value", [None, DAY_START + 3 * HOUR])
def test_a_valid_file_can_end_early(faulty_sandbox: Sandbox, value: int | None) -> None:
    actual, expected = corrupted_day(faulty_sandbox, "truncated_file", value)
    assert actual == expected[: 576 if value is None else 180]


def test_the_header_can_be_unexpected(faulty_sandbox: Sandbox) -> None:
    futures = path_of("2024-01-10", "usdm")
    assert (has_header(faulty_sandbox, MINUTES), has_header(faulty_sandbox, futures)) == (False, True)
    expected = rows(faulty_sandbox, MINUTES), rows(faulty_sandbox, futures)
    faulty_sandbox.faults.replace(
        [Fault("header", path="archive", market="spot"), Fault("no_header", path="archive/daily", market="usdm")]
    )
    assert (has_header(faulty_sandbox, MINUTES), has_header(faulty_sandbox, futures)) == (True, False)
    assert (rows(faulty_sandbox, MINUTES), rows(faulty_sandbox, futures)) == expected


def test_the_last_column_can_contain_junk(faulty_sandbox: Sandbox) -> None:
    actual, expected = corrupted_day(faulty_sandbox, "junk_last_column")
    assert all(float(row[11]) for row in actual)
    assert [row[:11] for row in actual] == [row[:11] for row in expected]


def test_a_zip_can_have_two_members(faulty_sandbox: Sandbox) -> None:
    faulty_sandbox.faults.add(Fault("two_members", path="archive"))
    body = fetch(faulty_sandbox, MINUTES)
    with zipfile.ZipFile(io.BytesIO(body)) as archive:
        assert len(archive.namelist()) == 2
    assert checksum(faulty_sandbox, MINUTES) == hashlib.sha256(body).hexdigest()


def test_a_file_can_be_reissued(faulty_sandbox: Sandbox) -> None:
    before = send(faulty_sandbox, MINUTES)
    faulty_sandbox.faults.add(Fault("reissued", path="archive/daily"))
    assert checksum(faulty_sandbox, MINUTES) != hashlib.sha256(before.content).hexdigest()
    again = send(faulty_sandbox, MINUTES)
    assert rows_of(again.content) == rows_of(before.content)
    assert checksum(faulty_sandbox, MINUTES) == hashlib.sha256(again.content).hexdigest()
    assert again.headers["ETag"] != before.headers["ETag"]
    assert parsedate_to_datetime(again.headers["Last-Modified"]) > parsedate_to_datetime(
        before.headers["Last-Modified"]
    )


def test_a_zip_can_be_truncated_with_a_matching_checksum(faulty_sandbox: Sandbox) -> None:
    whole = fetch(faulty_sandbox, MINUTES)
    faulty_sandbox.faults.add(Fault("truncated_zip", path="archive"))
    body = fetch(faulty_sandbox, MINUTES)
    assert body == whole[: len(whole) // 2]
    assert checksum(faulty_sandbox, MINUTES) == hashlib.sha256(body).hexdigest()
    with pytest.raises(zipfile.BadZipFile):
        zipfile.ZipFile(io.BytesIO(body))


@pytest.mark.parametrize("path", ["archive", "archive/daily", "archive/checksum"])
def test_a_checksum_can_mismatch(faulty_sandbox: Sandbox, path: str) -> None:
    body = fetch(faulty_sandbox, MINUTES)
    faulty_sandbox.faults.add(Fault("checksum_mismatch", path=path, times=1))
    assert fetch(faulty_sandbox, MINUTES) == body
    assert checksum(faulty_sandbox, MINUTES) != hashlib.sha256(body).hexdigest()
    assert checksum(faulty_sandbox, MINUTES) == hashlib.sha256(body).hexdigest()


def test_an_html_page_can_replace_a_file(faulty_sandbox: Sandbox) -> None:
    faulty_sandbox.faults.add(Fault("not_a_zip", path="archive/daily", times=1))
    response = send(faulty_sandbox, MINUTES)
    assert (response.status_code, response.headers["Content-Type"]) == (200, "text/html")
    assert response.text.startswith("<!DOCTYPE html>")
    assert checksum(faulty_sandbox, MINUTES) == hashlib.sha256(fetch(faulty_sandbox, MINUTES)).hexdigest()


@pytest.mark.parametrize(
    ("value", "code"), [(403, "AccessDenied"), (404, "NoSuchKey"), (500, "InternalError"), (503, "SlowDown")]
)
def test_an_error_status_has_the_body_of_the_object_store(faulty_sandbox: Sandbox, value: int, code: str) -> None:
    faulty_sandbox.faults.add(Fault("status", path="archive", value=value, times=2))
    for path in (MINUTES, MINUTES + ".CHECKSUM"):
        response = send(faulty_sandbox, path)
        assert response.status_code == value
        assert f"<Code>{code}</Code>" in response.text
        assert response.headers[SANDBOX_HEADER] == "1"
        assert faulty_sandbox.requests[-1].status == value
    assert send(faulty_sandbox, MINUTES).status_code == 200


def test_connection_faults_apply_to_the_archive(faulty_sandbox: Sandbox) -> None:
    faulty_sandbox.faults.replace([Fault("reset", path="archive/daily", times=1)])
    with pytest.raises(requests.exceptions.ConnectionError, match="reset"):
        send(faulty_sandbox, MINUTES)
    assert faulty_sandbox.requests[-1].status == 0
    faulty_sandbox.faults.replace([Fault("reset_amid_body", path="archive/daily", times=1)])
    with pytest.raises(requests.exceptions.RequestException, match="reset"):
        send(faulty_sandbox, MINUTES)
    faulty_sandbox.faults.replace([Fault("truncated_body", path="archive/daily", times=1)])
    with pytest.raises(requests.exceptions.ChunkedEncodingError, match="IncompleteRead"):
        send(faulty_sandbox, MINUTES)
    faulty_sandbox.faults.replace([Fault("hang", path="archive/checksum", times=1)])
    with pytest.raises(requests.exceptions.ReadTimeout):
        requests.get(faulty_sandbox.url + MINUTES + ".CHECKSUM", timeout=0.3)
    assert checksum(faulty_sandbox, MINUTES) == hashlib.sha256(fetch(faulty_sandbox, MINUTES)).hexdigest()


def test_a_fault_affects_only_the_files_it_selects(faulty_sandbox: Sandbox) -> None:
    def status(path: str) -> int:
        return send(faulty_sandbox, path).status_code

    def fail(**selection: Any) -> None:
        faulty_sandbox.faults.replace([Fault("status", **selection)])

    fail(path="archive/daily")
    assert [status(path) for path in (MINUTES, MINUTES + ".CHECKSUM", MONTH)] == [500, 200, 200]
    fail(path="archive/monthly")
    assert [status(path) for path in (MINUTES, MONTH, MONTH + ".CHECKSUM")] == [200, 500, 200]
    fail(path="archive/checksum")
    assert [status(path) for path in (MINUTES, MINUTES + ".CHECKSUM", MONTH + ".CHECKSUM")] == [200, 500, 500]
    fail(path="archive", market="usdm", symbol="ETHUSDT")
    assert [status(path_of("2024-01-10", "usdm", symbol)) for symbol in ("BTCUSDT", "ETHUSDT")] == [200, 500]
    assert status(path_of("2024-01-10", symbol="ETHUSDT")) == 200
    fail(path="archive", start=DAY_START, end=DAY_START + 1)
    days = [path_of(f"2024-01-{day:02d}") for day in (9, 10, 11)]
    assert [status(path) for path in (*days, MONTH, MONTH.replace("2024-01", "2024-02"))] == [200, 500, 200, 500, 200]
    fail(path="archive", market="spot", value=404)
    assert status(path_of("2024-02-30")) == 404


def test_faults_of_klines_and_of_the_archive_are_independent(faulty_sandbox: Sandbox) -> None:
    def klines() -> int:
        return len(requests.get(f"{faulty_sandbox.url}/api/v3/klines?symbol=BTCUSDT&interval=1m", timeout=60).json())

    faulty_sandbox.faults.replace([Fault("empty"), Fault("status", path="time")])
    assert len(rows(faulty_sandbox, MINUTES)) == 1440
    faulty_sandbox.faults.replace([Fault("empty", path="archive"), Fault("status", path="archive")])
    assert klines() == 500
    assert requests.get(f"{faulty_sandbox.url}/api/v3/time", timeout=60).status_code == 200


@pytest.mark.parametrize(
    ("kind", "path"),
    [
        ("truncated_zip", "klines"),
        ("not_a_zip", "time"),
        ("json_object", "archive"),
        ("broken_json", "archive/daily"),
        ("missing_row", "archive/checksum"),
        ("reissued", "archive/checksum"),
        ("status", "archive/yearly"),
    ],
)
def test_faults_that_do_not_apply_to_their_path_are_rejected(kind: str, path: str) -> None:
    with pytest.raises(ValueError, match=r"does not apply|unknown fault path"):
        Fault(kind, path=path)


# --- versions: zip and checksum belong together ---------------------------------------------------------------


@pytest.mark.parametrize("order", ["zip first", "checksum first", "zip first, HEAD", "checksum twice", "HEAD first"])
def test_a_fault_with_times_1_corrupts_one_zip_and_its_checksum(faulty_sandbox: Sandbox, order: str) -> None:
    expected = hashlib.sha256(fetch(faulty_sandbox, MINUTES)).hexdigest()
    faulty_sandbox.faults.add(Fault("missing_row", path="archive/daily", times=1, **AT_NOON))

    def fetch_both() -> tuple[str, str]:
        """Return the hash of the zip and the hash in its checksum."""
        if order == "HEAD first":
            send(faulty_sandbox, MINUTES, "HEAD")
        stated = checksum(faulty_sandbox, MINUTES) if order.startswith("checksum") else None
        if order == "checksum twice":
            assert checksum(faulty_sandbox, MINUTES) == stated
        body = fetch(faulty_sandbox, MINUTES)
        if order.endswith("HEAD"):
            assert int(send(faulty_sandbox, MINUTES, "HEAD").headers["Content-Length"]) == len(body)
        return hashlib.sha256(body).hexdigest(), stated or checksum(faulty_sandbox, MINUTES)

    corrupted, stated = fetch_both()
    assert stated == corrupted != expected
    assert fetch_both() == (expected, expected)
    assert fetch_both() == (expected, expected)


def test_a_checksum_belongs_to_the_zip_served_last(faulty_sandbox: Sandbox) -> None:
    expected = hashlib.sha256(fetch(faulty_sandbox, MINUTES)).hexdigest()
    faulty_sandbox.faults.add(Fault("missing_row", path="archive", times=2, **AT_NOON))
    first, second, third = (hashlib.sha256(fetch(faulty_sandbox, MINUTES)).hexdigest() for _ in range(3))
    assert first == second != expected
    assert third == expected == checksum(faulty_sandbox, MINUTES)


def test_versions_of_different_files_are_independent(faulty_sandbox: Sandbox) -> None:
    other = path_of("2024-01-11")
    faulty_sandbox.faults.add(Fault("doubled_row", path="archive", times=1))
    stated = checksum(faulty_sandbox, MINUTES), checksum(faulty_sandbox, other)
    bodies = fetch(faulty_sandbox, other), fetch(faulty_sandbox, MINUTES)
    assert stated == (hashlib.sha256(bodies[1]).hexdigest(), hashlib.sha256(bodies[0]).hexdigest())
    assert [len(rows_of(body)) for body in bodies] == [1440, 1441]


def test_an_undelivered_response_does_not_count_for_file_faults(faulty_sandbox: Sandbox) -> None:
    faulty_sandbox.faults.add(Fault("doubled_row", path="archive/daily", times=1))
    for kind in ("status", "reset_amid_body", "truncated_body"):
        faulty_sandbox.faults.add(Fault(kind, path="archive/daily", times=1))
    failures = 0
    for _ in range(3):
        try:
            failures += send(faulty_sandbox, MINUTES).status_code == 500
        except requests.exceptions.RequestException:
            failures += 1
    assert failures == 3
    assert [len(rows(faulty_sandbox, MINUTES)) for _ in range(2)] == [1441, 1440]


def test_files_are_valid_as_soon_as_faults_are_cleared(faulty_sandbox: Sandbox) -> None:
    expected = hashlib.sha256(fetch(faulty_sandbox, MINUTES)).hexdigest()
    faulty_sandbox.faults.add(Fault("missing_row", path="archive", **AT_NOON))
    assert hashlib.sha256(fetch(faulty_sandbox, MINUTES)).hexdigest() != expected
    faulty_sandbox.faults.clear()
    assert checksum(faulty_sandbox, MINUTES) == expected
    faulty_sandbox.faults.add(Fault("missing_row", path="archive", start=DAY_START, end=DAY_START + HOUR))
    assert len(rows(faulty_sandbox, MINUTES)) == 1380


def test_a_share_of_the_files_can_be_corrupted(faulty_sandbox: Sandbox) -> None:
    faulty_sandbox.faults.add(Fault("doubled_row", path="archive/daily", share=0.5))
    paths = [path_of(f"2024-03-{day:02d}", interval="1h") for day in range(1, 31)]
    corrupted = 0
    for path in paths:
        body = fetch(faulty_sandbox, path)
        assert checksum(faulty_sandbox, path) == hashlib.sha256(body).hexdigest()
        corrupted += len(rows_of(body)) == 25
    assert 5 <= corrupted <= 25


# --- replay ----------------------------------------------------------------------------------------------


@needs_zips
@pytest.mark.parametrize("recorded", sorted(RECORDED.glob("*/*.zip")), ids=lambda path: path.name)
def test_recorded_files_are_served_unchanged(replay: Sandbox, recorded: Path) -> None:
    symbol, interval, date = recorded.stem.split("-", 2)
    body = fetch(replay, path_of(date, recorded.parent.name, symbol, interval))
    assert text_of(body) == text_of(recorded.read_bytes())
    month = path_of(date[:7], recorded.parent.name, symbol, interval)
    assert set(text_of(body).splitlines()) <= set(text_of(fetch(replay, month)).splitlines())
    assert checksum(replay, month) == hashlib.sha256(fetch(replay, month)).hexdigest()


@needs_recordings
def test_recorded_months_contain_exactly_the_recorded_rows(replay: Sandbox) -> None:
    assert len(rows(replay, path_of("2020-01"))) == 3 * 1440
    for name in ("BTCUSDT-1h-2024-12", "BTCUSDT-1h-2025-01"):
        served = fetch(replay, path_of(name[-7:], interval="1h"))
        recorded = (RECORDED / "spot" / f"{name}.csv").read_text("utf-8").replace("\r\n", "\n")
        assert text_of(served) == recorded
    assert send(replay, path_of("2020-01-04")).status_code == 404
    assert send(replay, path_of("2020-02")).status_code == 404
    assert send(replay, path_of("2020-01-01", symbol="ETHUSDT")).status_code == 200


def test_replayed_rows_keep_their_number_format_in_the_archive(tmp_path: Path) -> None:
    (tmp_path / "usdm").mkdir()
    line = "1704067200000,2,2.50,1,2.0,33013,1704067259999,66026.0,7,0,0,0\n"
    (tmp_path / "usdm" / "NEWUSDT-1m-2024-01-01.csv").write_text(line)
    with running_sandbox(SandboxOptions(replay=tmp_path)) as sandbox:
        for date in ("2024-01-01", "2024-01"):
            assert text_of(fetch(sandbox, path_of(date, "usdm", "NEWUSDT"))) == f"{HEADER}\n{line}"
