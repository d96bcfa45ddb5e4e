"""Text from outside on its way to people: a terminal, the log and the metadata of Dagster, and Markdown."""

from __future__ import annotations

import json
import re
import unicodedata
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import dagster as dg
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from binance_assets.cli.output import print_findings
from binance_assets.definitions import build_defs
from binance_assets.ingest.verify import Finding
from binance_assets.model.markets import SPOT
from binance_assets.model.outside import markdown, printable
from binance_assets.model.partitions import partition_for_key
from binance_assets.model.results import PartitionResult
from binance_assets.model.series import Series, parse_series
from binance_assets.orchestration.checks import gap_free_result
from binance_assets.orchestration.events import materialization
from binance_assets.orchestration.metrics import RunMetrics
from binance_assets.settings import read_settings
from binance_assets.storage.coverage import coverage_markdown, coverage_table
from binance_assets.storage.lake import Lake
from binance_assets.storage.writer import PartitionWriter
from binance_assets_tests.support.environment import Run
from binance_assets_tests.support.instances import fetch, new_instance, universe_of
from binance_assets_tests.support.results import result_of

BTCUSDT = parse_series("spot/BTCUSDT/1m")
ESCAPES = "\x1b[2J\x1b]0;owned\x07\x9b31m\u202e"
EVIL = f"{ESCAPES}\n| `x` | <script>alert(1)</script> ![](https://evil.example/x.png) [/red] :smile: &#27; end"
NOT_SHOWN = {"Cc", "Cf", "Cs", "Co", "Zl", "Zp"}
METRICS = RunMetrics(1, 1, 1, 1, None, 0, 1.0)
# Any text, with more of the characters that mean something.
SPECIAL = st.sampled_from("\x1b\n\r|`<>[]&*\\@:/ ")
OUTSIDE = st.text(st.one_of(st.characters(), SPECIAL))


def refused(reason: str) -> PartitionResult:
    return replace(result_of(BTCUSDT, "2024-01-01", rows=0), verdict="unreachable", reason=reason)


def texts_of(value: object) -> Iterator[str]:
    """Yield all texts in metadata."""
    if isinstance(value, dg.TableMetadataValue):
        for record in value.records:
            yield from texts_of(dict(record.data))
    elif isinstance(value, dg.MetadataValue):
        yield from texts_of(value.value)
    elif isinstance(value, Mapping):
        for entry in value.values():
            yield from texts_of(entry)
    elif isinstance(value, str):
        yield value


def is_clean(text: str) -> bool:
    """Return whether a text holds nothing but lines of characters that are shown."""
    return not {unicodedata.category(character) for character in text if character != "\n"} & NOT_SHOWN


# The two functions for text.


@given(OUTSIDE, st.integers(1, 300))
def test_markdown_shows_the_text_itself(text: str, limit: int) -> None:
    shown = markdown(text, limit)
    assert re.sub(r"\\([\\`*\[\]<>|&])", r"\1", shown) == printable(text, limit)
    assert not re.search(r"[`*\[\]<>|&]", re.sub(r"\\.", "", shown))


@given(st.text(st.one_of(st.characters(codec="utf-8"), SPECIAL)))  # a table of Polars cannot hold a surrogate
def test_a_row_of_a_table_keeps_its_cells(text: str) -> None:
    table = coverage_table([]).vstack(pl.DataFrame({name: [text if kind == pl.String else 1] for name, kind in
                                                    coverage_table([]).schema.items()},
                                                   schema=coverage_table([]).schema))  # fmt: skip
    header, _, *rows = coverage_markdown(table).split("\n")
    assert len(rows) == 1
    assert len(re.findall(r"(?<!\\)\|", re.sub(r"\\\\", "", rows[0]))) == header.count("|")


@given(user=st.text(st.characters(exclude_characters="/?# \t\r\n\x0b\x0c", exclude_categories=["Z", "C"]), min_size=1))
def test_a_url_is_shown_without_user_and_password(user: str) -> None:
    assert printable(f"no response of https://{user}@host:1/x", 2_000) == "no response of https://...@host:1/x"


# Dagster: the check, the event, the log.


@given(OUTSIDE)
def test_the_check_of_a_refused_partition_is_printable(text: str) -> None:
    result = gap_free_result([refused(text)], {}, METRICS)
    (listed,) = [value for name, value in result.metadata.items() if name == "refused"]
    assert all(is_clean(shown) and "\n" not in shown for shown in (result.description or "", *texts_of(listed)))


def test_the_check_shows_markup_as_text() -> None:
    result = gap_free_result([refused(EVIL)], {}, METRICS)
    assert result.description is not None
    assert re.search(r"\\<script\\>alert\(1\)\\</script\\> !\\\[\\\]\(https://evil.example/x.png\)", result.description)


def test_what_a_file_says_is_printable_in_the_event(tmp_path: Path) -> None:
    lake = Lake(tmp_path / "lake")
    lake.prepare("sandbox")
    writer = PartitionWriter(lake, BTCUSDT)
    accepted = replace(result_of(BTCUSDT, "2024-01-01"), reason="x", accepted_by=EVIL, accepted_because=EVIL)
    writer.add(accepted)
    writer.flush()
    ((partition, stored),) = lake.stored_partitions(BTCUSDT).items()
    stored = replace(stored, note=EVIL)  # as a file of another machine may say
    event = materialization(BTCUSDT, partition, stored)
    shown = [text for text in texts_of(event.metadata) if "end" in text]
    assert len(shown) == 3
    assert all(is_clean(text) for text in shown)


@contextmanager
def hostile_exchange() -> Iterator[str]:
    """A server that answers every request with an error whose message is hostile; yields its URL."""
    body = json.dumps({"code": -1100, "msg": EVIL}).encode()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(400)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: object) -> None:
            """Print nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def hostile_environment(url: str) -> dict[str, str]:
    return {f"BINANCE_{name}_URL": url for name in ("SPOT", "USDM", "COINM", "ARCHIVE")}


def test_an_error_of_the_exchange_reaches_the_terminal_in_one_printable_line(run_cli: Run) -> None:
    with hostile_exchange() as url:
        arguments = "download BTCUSDT --market spot --interval 1m --start 2024-01-01 --end 2024-01-02 --source rest"
        result = run_cli(*arguments.split(), **hostile_environment(url))
    assert result.returncode in (1, 2)
    assert "alert(1)" in result.stderr
    assert is_clean(result.stdout + result.stderr)


def test_an_error_of_the_exchange_reaches_dagster_in_one_printable_line(tmp_path: Path) -> None:
    with hostile_exchange() as url, new_instance(tmp_path / "dagster") as instance:
        settings = read_settings(hostile_environment(url) | {
            "BINANCE_ASSETS_LAKE": str(tmp_path / "lake"), "BINANCE_ASSETS_LEDGER": str(tmp_path / "ledger.sqlite"),
            "BINANCE_ASSETS_SOURCE": "rest"})  # fmt: skip
        definitions = build_defs(settings, universe_of(BTCUSDT))
        (run,) = fetch(definitions, instance, [BTCUSDT], ["2024-01-01"])
        assert not run.success
        messages = [entry.user_message for entry in instance.all_logs(run.run_id)]
        (evaluation,) = run.get_asset_check_evaluations()
    attacks = [message for message in messages if "alert(1)" in message]
    assert attacks
    assert all(is_clean(message) for message in attacks)
    assert all(is_clean(text) for text in (evaluation.description or "", *texts_of(evaluation.metadata)))


# The terminal.


def test_a_table_on_the_terminal_shows_markup_as_text(capsys: pytest.CaptureFixture[str]) -> None:
    print_findings([Finding(BTCUSDT, partition_for_key("2024-01-01", BTCUSDT.interval), EVIL)])
    output = capsys.readouterr().out
    assert is_clean(output)
    assert "[/red] :smile: &#27; end" in " ".join(output.split())


def test_arguments_are_reported_in_one_printable_line(run_cli: Run) -> None:
    for arguments in (["track", EVIL, "--market", "spot", "--interval", "1m"], ["verify", EVIL], [EVIL]):
        result = run_cli(*arguments)
        assert (result.returncode, result.stdout, result.stderr.count("\n")) == (2, "", 1)
        assert is_clean(result.stderr)


# Symbols, which become paths.


@pytest.mark.parametrize(
    "symbol",
    ["", ".", "..", "../x", "A/B", "A\\B", "A\0", "A\n", "A\x1b[31m", "A B", "A=B", "A|B",
     "A\u202eB", "A\u200bB", "_", "A" * 41, "é\u0301", "\udcff", "A\x85", "~", "币" * 41],
)  # fmt: skip
def test_a_symbol_that_could_be_anything_else_is_refused(symbol: str) -> None:
    with pytest.raises(ValueError, match=r"not a symbol|too long") as raised:
        Series(SPOT, symbol, BTCUSDT.interval)
    assert str(raised.value).isprintable()


def test_a_symbol_in_another_script_is_tracked(run_cli: Run) -> None:
    result = run_cli("track", "币安人生USDT", "--market", "usdm", "--interval", "1m")
    assert (result.returncode, result.stdout) == (0, "usdm/币安人生USDT/1m is now tracked\n")


@given(OUTSIDE)
def test_any_symbol_is_one_part_of_a_path_or_refused(text: str) -> None:
    try:
        series = Series(SPOT, text, BTCUSDT.interval)
    except ValueError:
        return
    folder = Lake(Path("lake")).folder(series)
    assert folder == Path("lake/market=spot") / f"symbol={text}" / "interval=1m"
    assert len(folder.parts) == 4
    assert text.isprintable()
    assert len(f"symbol={text}".encode()) < 255
