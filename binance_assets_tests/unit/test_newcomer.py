"""The message about what a newcomer mistypes names what to write, and what is printed can be read."""

from __future__ import annotations

import os
import pty
import sys
import threading
from pathlib import Path

import pytest

import binance_assets as ba
from binance_assets.cli.main import cli
from binance_assets.cli.output import _least_width, build_table, print_table
from binance_assets.exchange.errors import ExchangeError, NotSent, cause_of
from binance_assets.settings import ConfigurationError, env_file_values
from binance_assets.storage.universe import UniverseError, read_universe


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("series:\n  - market: spot\n    symbols: [BTCUSDT\n    intervals: [1d]\n", "is not YAML: line 4, column 14: "),
        ("series:\n  - market: spot\n\tsymbols: [A]\n", "is not YAML: line 3, column 1: "),
        ("series:\n  - {market: spot, symbol: [A], intervals: [1d]}\n", "there is no such key (did you mean symbols?)"),
        ("series:\n  - {market: spot, symbols: [A]}\n", "intervals: the key is missing"),
        ("series:\n  - {market: spot, symbols: [A], intervals: 1d}\n", "intervals: write a list, such as [A, B]"),
    ],
)  # fmt: skip
def test_a_half_written_universe_is_answered_with_the_place_and_the_key(
    text: str, message: str, tmp_path: Path
) -> None:
    (tmp_path / "universe.yaml").write_text(text)
    with pytest.raises(UniverseError) as refused:
        read_universe(tmp_path / "universe.yaml")
    assert message in str(refused.value)
    assert "unicode string" not in str(refused.value)


def test_a_line_of_the_env_file_that_sets_nothing_is_named_without_its_text(tmp_path: Path) -> None:
    (tmp_path / ".env").write_text("# lake\nA=1\n\nsecret words\n")
    with pytest.raises(ConfigurationError, match="line 4 does not read NAME=value") as refused:
        env_file_values(tmp_path / ".env")
    assert "secret" not in str(refused.value)
    (tmp_path / ".env").write_text('A="open\n')
    with pytest.raises(ConfigurationError, match="line 1"):
        env_file_values(tmp_path / ".env")
    (tmp_path / ".env").write_text("A=1\nexport A\n")  # python-dotenv would unset it
    with pytest.raises(ConfigurationError, match="line 2"):
        env_file_values(tmp_path / ".env")


@pytest.mark.parametrize(
    "content",
    [
        b"export A='b c' # why\n", b'A="b c"', b"# A\n\n  \n\tA = b c # why\n\n", b"\r\n# A\r\nA='b c'\r\n",
        b"\xef\xbb\xbfA=b c\n", b"\xef\xbb\xbf# A\r\n\r\nA=b c\r\n",
    ],
)  # fmt: skip
def test_the_env_file_may_have_whatever_shells_and_editors_write(content: bytes, tmp_path: Path) -> None:
    (tmp_path / ".env").write_bytes(content)
    assert env_file_values(tmp_path / ".env") == {"A": "b c"}


def test_where_the_env_file_is_a_pipe_it_is_read_once(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / ".env")
    threading.Thread(target=(tmp_path / ".env").write_text, args=("A=1\n",), daemon=True).start()
    assert env_file_values(tmp_path / ".env") == {"A": "1"}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["download", "spot/BTCUSDT/1h"], "For spot/BTCUSDT/1h, write BTCUSDT --market spot --interval 1h"),
        (["verify", "--against", "archiv"], "(did you mean archive?)"),
        (["export", "spot/BTCUSDT/1h", "--to", "freqtrde"], "(did you mean freqtrade?)"),
    ],
)  # fmt: skip
def test_what_is_mistyped_is_answered_with_what_to_write(
    arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        cli.main(arguments)
    assert ended.value.code == 2
    assert message in capsys.readouterr().err


def test_what_is_no_series_is_a_configuration_error() -> None:
    with pytest.raises(ConfigurationError, match="123 is not a series"):
        ba.load(123)  # type: ignore[arg-type]


def test_a_table_cuts_off_nothing_and_ends_lines_without_spaces(capsys: pytest.CaptureFixture[str]) -> None:
    table = build_table(["series"], ["candles"], ["last run"])
    table.add_row("spot/BTCUSDT/1h", "1,234,567", "")
    table.add_row("spot/BTCUSDT/1d", "12", "success 2024-01-01 00:00")
    assert _least_width(table) == len("spot/BTCUSDT/1h  1,234,567  2024-01-01")
    sizes = build_table(["series"], ["size"])
    sizes.add_row("spot/币安人生USDT/1h", "3.6 kB")
    assert _least_width(sizes) == len("spot/--------USDT/1h  3.6 kB")
    print_table(table)
    lines = capsys.readouterr().out.splitlines()
    assert lines[1] == "spot/BTCUSDT/1h  1,234,567"
    assert all(line == line.rstrip() for line in lines)


def test_a_terminal_shows_the_header_in_bold_and_no_line_that_spaces_fill(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.delenv("NO_COLOR", raising=False)
    table = build_table(["fact"], wrapped=["value"])
    table.add_row("hash", "f" * 200)
    table.add_row("rows", "24")
    controller, descriptor = pty.openpty()
    try:
        with os.fdopen(descriptor, "w") as terminal:
            monkeypatch.setattr(sys, "stdout", terminal)
            print_table(table)
            header, *rows = os.read(controller, 65_536).decode().splitlines()
    finally:
        os.close(controller)
    assert header.startswith("\x1b[1mfact")
    assert header.endswith("value\x1b[0m")
    assert rows == ["hash  " + "f" * 200, "rows  24"]


def test_the_cause_of_a_request_that_was_not_sent_is_the_one_that_failed() -> None:
    gone = ExchangeError("gone", "http://127.0.0.1/")
    assert cause_of(NotSent.after(NotSent.after(gone))) is gone
