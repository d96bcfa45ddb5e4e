"""A file of the archive is its checksum, its zip, the only member of the zip, and the candles in that member."""

from __future__ import annotations

import contextlib
import hashlib
import re
from collections.abc import Callable

import pytest
import requests
from hypothesis import given
from hypothesis import settings as settings_of_hypothesis
from hypothesis import strategies as st

from binance_assets.candles.parsing import csv_rows
from binance_assets.exchange.archive import Archive, unzip
from binance_assets.exchange.archive_files import ArchiveFile, daily_files_only, most_csv_bytes
from binance_assets.exchange.errors import BadFile, ExchangeError, UnexpectedResponse
from binance_assets.exchange.retry import Retrier
from binance_assets.model.markets import SANDBOX_HEADER
from binance_assets.model.partitions import partition_for_key
from binance_assets.model.results import PartitionResult
from binance_assets.model.series import parse_series
from binance_assets.model.timestamps import DAY, HOUR, MINUTE
from binance_assets.sandbox import Fault, Sandbox
from binance_assets.settings import Settings, Source
from binance_assets_tests.support.exchange import assert_exact, days_of
from binance_assets_tests.support.file_server import serving, sidecar_of, zip_of

DAY_KEY = "2024-01-02"
TEXT = b"1704153600000,1,2,1,2,5,1704157199999,8,3,2,3,0\n"
AT_ONCE = Retrier(lambda seconds, stop: stop.wait(0))


def file_of(name: str = "spot/BTCUSDT/1h") -> ArchiveFile:
    series = parse_series(name)
    partition = partition_for_key(DAY_KEY, series.interval)
    (file,) = daily_files_only(series, [partition], partition.end + 30 * DAY)
    return file


FILE = file_of()
CSV = FILE.name.replace(".zip", ".csv")
MOST = most_csv_bytes(FILE)
ZIP = zip_of({CSV: TEXT})
SHA256 = hashlib.sha256(ZIP).hexdigest()


def fetch(settings: Settings, body: bytes, sidecar: bytes, file: ArchiveFile = FILE) -> bytes | ExchangeError:
    """Return the text of the only file of an archive, or the error."""
    with serving({file.path: body, f"{file.path}.CHECKSUM": sidecar}) as url:
        archive = Archive(
            file.series.market, settings.model_copy(update={"archive_url": url}), lambda series: None, AT_ONCE
        )
        try:
            ((_, outcome),) = archive.stream([file], lambda _, content: content.text)
        finally:
            archive.close()
    return outcome


@pytest.mark.parametrize(
    "sidecar",
    [
        f"{SHA256}  {FILE.name}",
        f"{SHA256}  {FILE.name}\n",
        f"{SHA256}  {FILE.name}\r\n",
        f"{SHA256} *{FILE.name}\n",
        f"{SHA256.upper()}  {FILE.name}",
        f"{SHA256.upper()} *{FILE.name}",
    ],
)
def test_sidecar_may_be_in_any_form_that_sha256sum_reads(settings: Settings, sidecar: str) -> None:
    assert fetch(settings, ZIP, sidecar.encode()) == TEXT


@pytest.mark.parametrize(
    ("sidecar", "reason"),
    [
        (f"{SHA256}  ETHUSDT-1h-2024-01-02.zip", "but that of 'ETHUSDT-1h-2024-01-02.zip'"),
        (f"{SHA256}  {CSV}", f"but that of '{CSV}'"),
        (f"{SHA256}", "does not hold the SHA-256 of that file"),
        (f"{SHA256[1:]}  {FILE.name}", "does not hold the SHA-256 of that file"),
        (f"{SHA256}  {FILE.name} {FILE.name}", "does not hold the SHA-256 of that file"),
        ("<html></html>", "does not hold the SHA-256 of that file"),
        ("", "does not hold the SHA-256 of that file"),
    ],
)
def test_sidecar_of_another_file_is_refused(settings: Settings, sidecar: str, reason: str) -> None:
    error = fetch(settings, ZIP, sidecar.encode())
    assert isinstance(error, UnexpectedResponse)
    assert f"{FILE.name}.CHECKSUM from the archive does not hold the SHA-256 of that file" in str(error)
    assert reason in str(error)


@pytest.mark.parametrize(
    "member",
    [
        "ETHUSDT-1h-2024-01-02.csv",
        "BTCUSDT-1h-2024-01-03.csv",
        "BTCUSDT-1m-2024-01-02.csv",
        "BTCUSDT-1h-2024-01-02.zip",
        "btcusdt-1h-2024-01-02.csv",
        "folder/BTCUSDT-1h-2024-01-02.csv",
        "BTCUSDT-1h-2024-01-02.csv\n",
        "BTCUSDT-1h-2024-01-02.csv/",
    ],
)
def test_zip_of_another_file_is_refused_and_the_reason_names_both(settings: Settings, member: str) -> None:
    body = zip_of({member: b"" if member.endswith("/") else TEXT})
    error = fetch(settings, body, sidecar_of(body, FILE.name))
    assert isinstance(error, BadFile)
    assert str(error) == f"{FILE.name} from the archive is not valid: the zip holds {member!r} instead of {CSV}"


@pytest.mark.parametrize("count", [0, 2])
def test_zip_of_no_file_or_of_two_is_refused(settings: Settings, count: int) -> None:
    body = zip_of({CSV if n == 0 else f"{n}.csv": TEXT for n in range(count)})
    error = fetch(settings, body, sidecar_of(body, FILE.name))
    assert isinstance(error, BadFile)
    assert f"the zip holds {count} files instead of 1" in str(error)


def encrypted(body: bytes) -> bytes:
    """Return the zip with the flag of an encrypted member in both of its headers."""
    changed = bytearray(body)
    changed[6] |= 1
    changed[body.index(b"PK\x01\x02") + 8] |= 1
    return bytes(changed)


def without_utf8_flag(body: bytes) -> bytes:
    """Return the zip as programs write it that store names in UTF-8 and do not say so."""
    changed = bytearray(body)
    changed[7] &= ~8
    changed[body.index(b"PK\x01\x02") + 9] &= ~8
    return bytes(changed)


def of_unknown_method(body: bytes) -> bytes:
    changed = bytearray(body)
    changed[8] = 99
    changed[body.index(b"PK\x01\x02") + 10] = 99
    return bytes(changed)


@pytest.mark.parametrize(
    "change", [encrypted, of_unknown_method, lambda body: body[:-9], lambda body: body[9:], lambda body: TEXT]
)
def test_zip_that_cannot_be_read_is_refused(settings: Settings, change: Callable[[bytes], bytes]) -> None:
    body = change(ZIP)
    error = fetch(settings, body, sidecar_of(body, FILE.name))
    assert isinstance(error, BadFile)
    assert str(error).startswith(f"{FILE.name} from the archive is not valid: the zip cannot be read: ")
    assert "\n" not in str(error)


@pytest.mark.parametrize("change", [bytes, without_utf8_flag])
def test_member_may_have_a_name_in_another_alphabet(settings: Settings, change: Callable[[bytes], bytes]) -> None:
    file = file_of("usdm/币安人生USDT/1h")
    body = change(zip_of({file.name.replace(".zip", ".csv"): TEXT}))
    assert fetch(settings, body, sidecar_of(body, file.name), file) == TEXT


@pytest.mark.parametrize("name", ["spot/BTCUSDT/1h", "usdm/ETHUSDT/1h", "coinm/BTCUSD_PERP/1h"])
def test_files_of_the_sandbox_have_the_form_of_the_archive(sandbox: Sandbox, name: str) -> None:
    file = file_of(name)
    body = requests.get(sandbox.url + file.path, timeout=60).content
    assert requests.get(f"{sandbox.url}{file.path}.CHECKSUM", timeout=60).content == sidecar_of(body, file.name)
    text = unzip(body, file.name.replace(".zip", ".csv"), MOST)
    assert LINES.fullmatch(text), text[:500]


@pytest.mark.parametrize(
    ("name", "path"),
    [
        ("spot/BTCUSDT/1m", "/api/v3/klines?symbol=BTCUSDT"),
        ("usdm/ETHUSDT/1m", "/fapi/v1/klines?symbol=ETHUSDT"),
        ("coinm/BTCUSD_PERP/1m", "/dapi/v1/klines?symbol=BTCUSD_PERP"),
    ],
)
def test_pages_of_the_sandbox_have_the_form_of_klines(sandbox: Sandbox, name: str, path: str) -> None:
    start = parse_series(name).market.max_limit * MINUTE + file_of(name).start
    window = f"&interval=1m&limit=1000&startTime={start}&endTime={start + 10 * HOUR}"
    body = requests.get(sandbox.url + path + window, timeout=60).content
    assert PAGE.fullmatch(body), body[:500]
    assert csv_rows(body) == body.replace(b"[", b",").replace(b"]", b"\n")[:-1], "it needs no JSON parser"


DECIMAL = rb"(0|[1-9][0-9]*)(\.[0-9]+)?"
LINES = re.compile(
    rb"([a-z_]+(,[a-z_]+){11}\n)?([0-9]{13}(,%s){5},[0-9]{13},%s,[0-9]+,%s,%s,0\n){24}" % ((DECIMAL,) * 4)
)
ROW = rb'\[[0-9]{13}(,"%s"){5},[0-9]{13},"%s",[0-9]+,"%s","%s","0"\]' % ((DECIMAL,) * 4)
PAGE = re.compile(rb"\[(%s,)*%s\]" % (ROW, ROW))


@settings_of_hypothesis(max_examples=500)
@given(st.lists(st.tuples(st.integers(0, 250), st.binary(max_size=4), st.integers(0, 4)), min_size=1, max_size=3))
def test_mutated_zips_are_their_content_or_a_value_error(changes: list[tuple[int, bytes, int]]) -> None:
    body = ZIP
    for position, patch, cut in changes:
        body = body[:position] + patch + body[position + cut :]
    with contextlib.suppress(ValueError):
        assert unzip(body, CSV, MOST) == TEXT


@given(st.binary(max_size=300))
def test_any_bytes_are_a_value_error(body: bytes) -> None:
    with pytest.raises(ValueError, match="the zip cannot be read"):
        unzip(body, CSV, MOST)


# A repeated row, and a source without candles


def test_a_file_with_every_row_written_twice_is_sound(settings: Settings, sandbox: Sandbox) -> None:
    text = text_of_day(sandbox)
    doubled = b"".join(line + line for line in text.splitlines(keepends=True))
    for content in (doubled, text + text):
        (day,) = days_from(settings, zip_of({CSV: content}))
        assert (day.verdict, day.provenance.source) == ("complete", "archive"), day.reason
        assert_exact(sandbox, NAME, [day])


@pytest.mark.parametrize("source", ["archive", "auto", "rest"])
def test_a_defective_file_is_named_although_rest_has_no_candles(
    settings: Settings, sandbox: Sandbox, source: Source
) -> None:
    sandbox.faults.add(Fault("empty", interval="1h"))
    first, second, *_ = text_of_day(sandbox).splitlines(keepends=True)
    (day,) = days_from(settings, zip_of({CSV: first + second.replace(b",", b",+", 1)}), source)
    assert day.verdict == "lost"
    assert "no candles for 2024-01-02" in day.reason
    price = second.split(b",")[1].decode()
    assert (
        f"{FILE.name} from the archive is not valid: line 2 is not a candle: '+{price}' is not a number" in day.reason
    )
    assert day.reason.count("line 2") == 1


NAME = "spot/BTCUSDT/1h"


def text_of_day(sandbox: Sandbox) -> bytes:
    return unzip(requests.get(sandbox.url + FILE.path, timeout=60).content, CSV, MOST)


def days_from(settings: Settings, body: bytes, source: Source = "archive") -> list[PartitionResult]:
    """Return the results for the day, by the sandbox's API and by an archive with one file."""
    header = {SANDBOX_HEADER: "1"}
    with serving({FILE.path: body, f"{FILE.path}.CHECKSUM": sidecar_of(body, FILE.name)}, header) as url:
        with_file = settings.model_copy(update={"archive_url": url})
        return days_of(with_file, NAME, "2024-01-02", "2024-01-03", source)
