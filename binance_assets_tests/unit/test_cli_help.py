"""The command line without its work: examples, completion, bad input before heavy imports, a new project."""

from __future__ import annotations

import json
import os
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import click
import pytest
from click.shell_completion import ShellComplete
from click.testing import CliRunner
from dotenv import dotenv_values

from binance_assets.cli import main
from binance_assets.cli.examples import EXAMPLES
from binance_assets.cli.main import cli
from binance_assets.settings import Settings, read_settings
from binance_assets.storage.universe import read_universe
from binance_assets_tests.support.environment import CHECKOUT

UNIVERSE = "series: [{market: spot, symbols: [BTCUSDT], intervals: [1m], derive: [45m]}, " \
    "{market: usdm, symbols: [BNBUSDT], intervals: [1h]}]"  # fmt: skip


def commands_of(group: click.Group) -> Iterator[list[str]]:
    for name, command in group.commands.items():
        yield [name]
        if isinstance(command, click.Group):
            yield from ([name, *path] for path in commands_of(command))


@pytest.mark.parametrize("path", list(commands_of(cli)), ids=" ".join)
def test_the_help_of_each_command_shows_its_examples(path: list[str]) -> None:
    examples = [example for example in EXAMPLES if shlex.split(example)[: len(path)] == path]
    assert examples
    help_text = CliRunner().invoke(cli, [*path, "--help"]).stdout
    assert [line.strip() for line in help_text.partition("Examples:\n")[2].splitlines()] == [
        f"binance-assets {example}" for example in examples
    ]


@pytest.mark.parametrize("example", EXAMPLES)
def test_each_example_is_valid_input(example: str) -> None:
    name, *arguments = shlex.split(example)
    command = cli.commands[name]
    if isinstance(command, click.Group):
        command, arguments = command.commands[arguments[0]], arguments[1:]
    assert command.make_context(name, arguments).args == []


def completions(words: str, incomplete: str) -> list[str]:
    complete = ShellComplete(cli, {}, "binance-assets", "_BINANCE_ASSETS_COMPLETE")
    return [item.value for item in complete.get_completions(words.split(), incomplete)]


@pytest.mark.parametrize(
    ("words", "incomplete", "expected"),
    [
        ("download BTCUSDT --market", "", ["spot", "usdm", "coinm"]),
        ("download BTCUSDT --interval", "3", ["3m", "30m", "3d"]),
        ("download", "b", ["BTCUSDT", "BNBUSDT"]),
        ("download --market usdm", "b", ["BNBUSDT"]),
        ("export spot/BTCUSDT/1m --to", "f", ["feather", "freqtrade"]),
        ("show", "spot/", ["spot/BTCUSDT/1m", "spot/BTCUSDT/45m"]),
        ("verify spot/BTCUSDT/1m", "u", ["usdm/BNBUSDT/1h"]),
    ],
)
def test_markets_intervals_symbols_and_series_are_completed(
    words: str, incomplete: str, expected: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("universe.yaml").write_text(UNIVERSE)
    assert completions(words, incomplete) == expected


BAD_INPUT = [
    ["download", "BTCUSDT", "--market", "moon", "--interval", "1m"],
    ["download", "BTC?USDT", "--market", "spot", "--interval", "1m"],
    ["download", "BTCUSD_PERP", "--market", "usdm", "--interval", "1m"],
    ["download", "--market", "spot", "--interval", "1m"],
    ["download", "--symbols-from", "quote=USDT moon=1", "--market", "spot", "--interval", "1m"],
    ["download", "--symbols-from", f"moon={'1' * 300}", "--market", "spot", "--interval", "1m"],
    ["track", "--symbols-from", "no.txt", "--market", "spot", "--interval", "1m"],
    ["symbols", "spot", "--match", "("],
    ["symbols", "spot", "--contract", "perpetual"],
    ["download", "BTCUSDT", "--market", "spot", "--interval", "1m", "--start", "2024/01/01"],
    ["download", "BTCUSDT", "--market", "spot", "--interval", "1m", "--start", "2024", "--end", "2023"],
    ["download", "BTCUSDT", "--market", "spot", "--interval", "1M", "--start", "2024-01-02"],
    ["show", "spot/BTCUSDT", "2024-01-01"],
    ["show", "spot/BTCUSDT/1M", "2024-01-02"],
    ["status", "spot"],
    ["plot", "spot/BTCUSDT"],
    ["plot", "spot/BTCUSDT/1m", "--start", "2024", "--end", "2023"],
    ["plot", "spot/BTCUSDT/1m", "-o", "chart.gif"],
    ["plot", "spot/BTCUSDT/1m", "-o", "nowhere/chart.html"],
    ["plot", "spot/BTCUSDT/1m", "--every", "7m"],
    ["plot", "spot/BTCUSDT/1h", "--every", "90m"],
    ["verify", "moon/BTCUSDT/1m"],
    ["accept", "spot/BTCUSDT/1m", "2010", "--reason", "x"],
    ["schedules", "on"],
    ["export", "spot/BTCUSDT/1m", "--to", "moon"],
    ["export", "spot/BTCUSDT/1m", "--to", "qlib", "--missing", "keep"],
    ["export", "spot/BTCUSDT/1m", "--to", "csv", "--every", "7m"],
    ["export", "spot/BTCUSDT", "--to", "csv"],
]
_PROGRAM = """
import json, sys
from click.testing import CliRunner
from binance_assets.cli.main import cli
heavy = ["dagster", "polars", "pandera", "requests", "numpy", "sqlalchemy"]
runs = [(arguments, CliRunner().invoke(cli, arguments)) for arguments in json.loads(sys.argv[1])]
print(json.dumps([[name for name in heavy if name in sys.modules],
                  [[result.exit_code, result.stderr] for _, result in runs]]))
"""


def test_bad_input_is_found_before_the_heavy_imports(tmp_path: Path) -> None:
    command = [sys.executable, "-c", _PROGRAM, json.dumps(BAD_INPUT)]
    result = subprocess.run(
        command, cwd=tmp_path, env={"PYTHONPATH": str(CHECKOUT)}, capture_output=True, text=True, check=True
    )
    loaded, runs = json.loads(result.stdout)
    assert loaded == []
    for arguments, (code, stderr) in zip(BAD_INPUT, runs, strict=True):
        assert (code, stderr.count("\n")) == (2, 1), (arguments, stderr)


def test_init_writes_a_project_and_keeps_what_exists(tmp_path: Path) -> None:
    folder = tmp_path / "new"
    folder.mkdir()
    (folder / "universe.yaml").write_text(UNIVERSE)
    result = CliRunner().invoke(cli, ["init", str(folder)])
    assert result.exit_code == 0, result.output
    written = {"dagster.yaml", "universe.yaml", "workspace.yaml", ".env.example"}
    assert {path.name for path in folder.iterdir()} == written
    assert (folder / "universe.yaml").read_text() == UNIVERSE
    assert "universe.yaml exists and is kept" in result.stdout
    assert (folder / "dagster.yaml").read_text() == (CHECKOUT / "dagster.yaml").read_text()


def test_the_files_of_a_new_project_are_valid(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert CliRunner().invoke(cli, ["init"]).exit_code == 0
    assert read_universe(Path("universe.yaml")).tracked == ()
    assert CliRunner().invoke(cli, ["track", "BTCUSDT", "--market", "spot", "--interval", "1m"]).exit_code == 0
    assert [str(series) for series in read_universe(Path("universe.yaml")).series] == ["spot/BTCUSDT/1m"]
    assert "# The tracked series" in Path("universe.yaml").read_text()
    assert dotenv_values(".env.example") == {}
    text = Path(".env.example").read_text().replace("\n#", "\n")
    lines = [line for line in text.splitlines() if line.startswith("BINANCE_")]
    environment = dict(line.split("=", 1) for line in lines)
    assert set(environment) == {field.alias for field in Settings.model_fields.values()}
    assert read_settings(environment) == read_settings({})


def test_init_where_nothing_can_be_written_is_an_error_in_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    result = CliRunner().invoke(cli, ["init", str(tmp_path / "file" / "folder")])
    assert (result.exit_code, result.stderr.count("\n")) == (2, 1)


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (["dowload"], "No such command 'dowload'. Did you mean 'download'? See binance-assets --help"),
        (["nope"], "No such command 'nope'; see binance-assets --help"),
        (["schedules", "lst"], "No such command 'lst'. Did you mean 'list'? See binance-assets schedules --help"),
        (["universe", "x"], "No such command 'x'; see binance-assets universe --help"),
        (["status", "--jsn"], "--json"),
        (["--versoin"], "--version"),
        (["ui", "now"], "see binance-assets ui --help"),
        (["track", "BTCUSDT", "--market", "spot"], "Missing option '--interval'; see binance-assets track --help"),
        (["status", "--jsn"], "See binance-assets status --help"),
        (["ui", "--port", "0"], "0 is not in the range 1<=x<=65535."),
    ],
)
def test_wrong_usage_is_one_line_that_names_the_way_out(arguments: list[str], line: str) -> None:
    result = CliRunner().invoke(cli, arguments, prog_name="binance-assets")
    assert (result.exit_code, result.stdout, result.stderr.count("\n")) == (2, "", 1)
    assert line in result.stderr


def test_a_second_interrupt_does_not_disturb_the_end_that_the_first_one_began(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(main, "_first_interrupt", None)
    with pytest.raises(KeyboardInterrupt):
        main._interrupt(signal.SIGINT, None)
    main._interrupt(signal.SIGINT, None)


def test_an_interrupt_long_after_the_first_one_ends_the_process(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(main, "_first_interrupt", time.monotonic() - 6)
    monkeypatch.setattr(os, "_exit", sys.exit)
    with pytest.raises(SystemExit) as ended:
        main._interrupt(signal.SIGINT, None)
    assert ended.value.code == 130
