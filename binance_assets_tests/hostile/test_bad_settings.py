"""Settings that cannot be used: the command ends with exit code 2 and one line that names the variable."""

from __future__ import annotations

import contextlib
import io
import os
import re
import subprocess
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, redirect_stderr
from pathlib import Path
from tempfile import TemporaryDirectory
from unittest.mock import patch

import pytest
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st

from binance_assets.cli.main import cli
from binance_assets.definitions import candle_definitions
from binance_assets.sandbox import Sandbox
from binance_assets.settings import ConfigurationError, Settings, read_settings
from binance_assets_tests.support.environment import Run, cli_environment, without_progress
from binance_assets_tests.support.instances import copy_state_of_working_folder
from binance_assets_tests.support.warm_python import WarmPython

NAMES = {field: str(info.alias) for field, info in Settings.model_fields.items()}
HOOKS = [NAMES["alert_url"]]
URLS = [name for name in NAMES.values() if name.endswith("_URL") and name not in HOOKS]
PATHS = [NAMES[field] for field in ("lake", "universe", "ledger")]
NUMBERS = [NAMES[field] for field in ("max_workers", "warmup", "catch_up_days", "weight_share", "ban_patience",
                                      "connect_timeout", "read_timeout", "series_per_run")]  # fmt: skip
CHOICES = [NAMES[field] for field in ("source", "strict")]
LEDGER, EGRESS = [NAMES["ledger"]], [NAMES["egress"]]

EVIL = "\x1b[2J\x1b]0;owned\x07"
HOSTILE: Mapping[str, list[str]] = {
    "url": [
        "ftp://x", "https://", "https://:80", "https://a b", "https://a/b", "https://a?b", "https://a#b", "https://[::1",
        "https://a:99999", "https://a:0", "https://a:b", "https://a\\@b", "//a", "a", "https://a\nb", f"https://{EVIL}",
        "https://me:secret@host", "me:secret@host", "https://me:se/cret@host", "https://me:\x1bsecret@host",
        "https://me:secret@", "9" * 5_000, "\udcff",
    ],
    "hook": [
        "ftp://x/secret", "secret", "https:///secret", "https://a/secret b", "https://a/secret#b", "https://[::1/secret",
        "https://a:99999/secret", "https://a:0/secret", "https://me:secret@a/b", "https://a\\@secret/", "https://a/secret\n",
        f"https://a/secret{EVIL}", "https://secret\u2100/", "https://a/secret\u202e", "https://a/secret" + "9" * 5_000,
        "https://a/secret\udcff",
    ],
    "path": [
        "~nosuchuser", "~nosuchuser/x", "x" * 300, "x/" * 5_000, "/dev/null/x", f"a{EVIL}", "a\nb", "\u202ea", "\udcff",
    ],
    "number": [
        "inf", "-inf", "nan", "1e999", "-1", "0x10", "five", "1,5", "²", "٣", "9" * 5_000, "1e30", EVIL, "5\n6",
        "\udcff",
    ],
    "ledger": [
        "postgresql://me:secret@a/b", "postgresql+psycopg2://me:se/cret@a/b", "postgresql+psycopg2://me:secret@a",
        "postgresql+psycopg2://me:secret@more@a/b", f"postgresql+psycopg2://a/b{EVIL}", "redis://me:secret@a/0",
    ],
    "name": ["two words", "a/b", "x" * 5_000, "²", "a\nb", EVIL, "\udcff"],
    "choice": ["maybe", "2", "inf", "REST ", EVIL, "x" * 5_000, "\udcff"],
}  # fmt: skip
TABLE = [
    (name, value)
    for kind, names in (
        ("url", URLS),
        ("hook", HOOKS),
        ("path", PATHS),
        ("number", NUMBERS),
        ("choice", CHOICES),
        ("name", EGRESS),
        ("ledger", LEDGER),
    )
    for name in names
    for value in HOSTILE[kind]
]


class Command:
    """The command line in this process, with settings of its own, in a temporary folder."""

    def __init__(self, patch: pytest.MonkeyPatch, capture: pytest.CaptureFixture[str]) -> None:
        self._patch = patch
        self._capture = capture

    def error(self, *arguments: str, **environment: str) -> str:
        """Run a command that must end with exit code 2 and one line; return the line."""
        with self._patch.context() as patch:
            for name, value in environment.items():
                patch.setenv(name, value)
            with pytest.raises(SystemExit) as ended:
                cli.main([*arguments])
        output, error = self._capture.readouterr()
        assert (ended.value.code, output) == (2, ""), error
        assert error.startswith("error: ")
        assert error.endswith("\n")
        line = error[:-1]
        assert line.isprintable(), error
        assert len(line) < 2_100
        return line


@pytest.fixture
def command(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> Command:
    for name in os.environ:
        if name.startswith("BINANCE_"):
            monkeypatch.delenv(name)
    monkeypatch.chdir(tmp_path)
    return Command(monkeypatch, capsys)


def test_every_setting_is_in_the_table() -> None:
    assert {name for name, _ in TABLE} == set(NAMES.values())


@pytest.mark.parametrize("name", NAMES.values())
def test_a_value_that_cannot_be_used_ends_the_command_in_one_line(name: str, command: Command) -> None:
    for value in (value for setting, value in TABLE if setting == name):
        line = command.error("series", **{name: value})
        assert line.startswith(f"error: {name}="), value
        assert "secret" not in line


@given(name=st.sampled_from(list(NAMES.values())), value=st.text(st.characters(exclude_characters="\0")))
def test_any_value_is_used_or_refused_in_one_line(name: str, value: str) -> None:
    try:
        shown = [str(entry) for entry in read_settings({name: value}).model_dump().values()]
    except ConfigurationError as error:
        shown = [str(error)]
    assert all(text.isprintable() for text in shown)
    assert len(shown) > 1 or shown[0].startswith(f"{name}=")


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("BINANCE_ASSETS_LAK", "did you mean BINANCE_ASSETS_LAKE?"),
        ("BINANCE_ASSETS_MAXWORKERS", "did you mean BINANCE_ASSETS_MAX_WORKERS?"),
        ("binance_assets_strict", "did you mean BINANCE_ASSETS_STRICT?"),
        ("BINANCE_SPOTS_URL", "did you mean BINANCE_SPOT_URL?"),
        ("BINANCE_COIN_M_URL", "did you mean BINANCE_COINM_URL?"),
        ("BINANCE_SOPT_URL", "did you mean BINANCE_SPOT_URL?"),
        ("BINANCE_SPT_URL", "did you mean BINANCE_SPOT_URL?"),
        ("BINANCE_USMD_URL", "did you mean BINANCE_USDM_URL?"),
        ("BINANCE_USD_M_URL", "did you mean BINANCE_USDM_URL?"),
        ("BINANCE_USDS_M_URL", "did you mean BINANCE_USDM_URL?"),
        ("BINANCE_COINN_URL", "did you mean BINANCE_COINM_URL?"),
        ("BINANCE_ARCHIVES_URL", "did you mean BINANCE_ARCHIVE_URL?"),
        ("BINANCE_ARCHIBE_URL", "did you mean BINANCE_ARCHIVE_URL?"),
        ("BINANCE_ASSETS_PORTS", "is not a setting"),
        ("BINANCE_ASSETS_PORT_80", "is not a setting"),
        ("BINANCE_ASSETS_", "did you mean"),
        ("BINANCE_ASSETS_\x1b[31m", "is not a setting"),
        ("BINANCE_ASSETS_" + "X" * 5_000, "is not a setting"),
    ],
)
def test_an_unknown_variable_is_refused_with_the_nearest_name(name: str, message: str, command: Command) -> None:
    assert message in command.error("series", **{name: "1"})


@pytest.mark.parametrize(
    "name",
    [
        "BINANCE_API_KEY", "BINANCE_WS_URL", "BINANCE_SPOT_WS_URL", "BINANCE_COINM_WS_URL", "BINANCE_FUTURES_URL",
        "BINANCE_USDT_URL", "BINANCE_USDC_URL", "BINANCE_ASSETS_RECORDED",
        # Kubernetes sets these where there is a service `binance-assets`, or `binance-assets-ui`.
        "BINANCE_ASSETS_PORT", "BINANCE_ASSETS_SERVICE_HOST", "BINANCE_ASSETS_SERVICE_PORT",
        "BINANCE_ASSETS_SERVICE_PORT_HTTP", "BINANCE_ASSETS_PORT_80_TCP", "BINANCE_ASSETS_PORT_80_TCP_ADDR",
        "BINANCE_ASSETS_PORT_80_TCP_PORT", "BINANCE_ASSETS_PORT_80_TCP_PROTO", "BINANCE_ASSETS_UI_SERVICE_HOST",
    ],
)  # fmt: skip
def test_a_variable_of_another_program_is_ignored(name: str) -> None:
    assert read_settings({name: "1"}) == read_settings({})


def test_the_code_location_names_a_misspelled_variable_in_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BINANCE_ASSETS_LAK", "x")
    with pytest.raises(ConfigurationError) as raised:
        candle_definitions()
    assert str(raised.value) == "BINANCE_ASSETS_LAK is not a setting; did you mean BINANCE_ASSETS_LAKE?"


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("BINANCE_ASSETS_LAKE=lüke\n".encode("latin-1"), ".env is not UTF-8 text"),
        (b"BINANCE_ASSETS_LAKE=l\0ke\n", "BINANCE_ASSETS_LAKE cannot be set: embedded null byte"),
        (b"A\0B=1\n", "A B cannot be set: "),
        (b"'A=B'=1\n", "A=B cannot be set: "),
        (b"BINANCE_ASSETS_LAKES=x\n", "did you mean BINANCE_ASSETS_LAKE?"),
        (b"BINANCE_ASSETS_WARMUP=inf\n", "BINANCE_ASSETS_WARMUP='inf'"),
        (b'BINANCE_ASSETS_LAKE="a\\nb"\n', "BINANCE_ASSETS_LAKE="),
    ],
)
def test_an_unusable_env_file_is_reported_in_one_line(content: bytes, message: str, command: Command) -> None:
    Path(".env").write_bytes(content)
    assert message in command.error("series")


@given(
    content=st.one_of(
        st.binary(),
        st.lists(st.sampled_from([b"A", b"=", b"\n", b"\0", b"'", b'"', b"\\", b"$", b"{", b"}", b"\xe4", b" ", b"#",
                                  b"export ", b"BINANCE_ASSETS_LAKE", b":-", b"\xef\xbb\xbf"])).map(b"".join),
    )
)  # fmt: skip
def test_any_env_file_is_read_or_refused_in_one_line(content: bytes) -> None:
    error = io.StringIO()
    with TemporaryDirectory() as folder, contextlib.chdir(folder), patch.dict(os.environ), redirect_stderr(error):
        Path(".env").write_bytes(content)
        with pytest.raises(SystemExit) as ended:
            cli.main(["no-such-command"])
    assert ended.value.code == 2
    *warnings, line = error.getvalue().splitlines()
    assert line.startswith("error: ")
    assert line.isprintable()
    assert all(warning.startswith("python-dotenv could not parse") for warning in warnings)


@pytest.mark.parametrize("arguments", [["series"], ["verify"], ["ui"],
                                       ["untrack", "BTCUSDT", "--market", "spot", "--interval", "1m"]])  # fmt: skip
def test_a_universe_that_was_named_must_exist(arguments: list[str], command: Command) -> None:
    line = command.error(*arguments, BINANCE_ASSETS_UNIVERSE="nowhere.yaml")
    assert line.startswith("error: BINANCE_ASSETS_UNIVERSE='nowhere.yaml': there is no such file")
    assert not list(Path().iterdir())


def test_the_default_universe_may_be_absent(run_cli: Run) -> None:
    result = run_cli("series")
    (line,) = without_progress(result.stderr)  # a loaded machine is so slow that progress is shown
    assert (result.returncode, "tracks no series yet" in line) == (0, True), line


def test_the_status_of_a_lake_that_was_moved_names_the_setting(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    line = "there is no lake at moved yet; BINANCE_ASSETS_LAKE names another place\n"
    for exists in (False, True):
        result = CliRunner().invoke(cli, ["status", "spot/BTCUSDT/1h"], env={"BINANCE_ASSETS_LAKE": "moved"})
        assert result.exit_code == 0
        assert result.stderr.endswith(line) is not exists
        Path("moved").mkdir(exist_ok=True)


def test_a_process_reports_a_bad_setting_in_one_line(run_cli: Run) -> None:
    result = run_cli("series", BINANCE_SPOT_URL="https://me:secret@api.binance.com")
    line = "error: BINANCE_SPOT_URL='...@api.binance.com': must not contain a user name or a password\n"
    assert (result.returncode, result.stdout, result.stderr) == (2, "", line)


# The state of Dagster, and a user without a name.

DOWNLOAD = ["download", "BTCUSDT", "--market", "spot", "--interval", "1m", "--start", "2024-01-01", "--end",
            "2024-01-02", "--source", "rest"]  # fmt: skip

# Every module is loaded before the user changes, who may be unable to read the interpreter's files.
AS_NOBODY = """
import os
import binance_assets.definitions, binance_assets.cli.download, binance_assets.cli.output, binance_assets.cli.progress
import binance_assets.ingest.request, binance_assets.orchestration.backfill
from binance_assets.cli.main import main
os.setgroups([])
os.setgid(54321)
os.setuid(54321)
main()
"""


def needs_root() -> None:
    if os.geteuid() != 0:
        pytest.skip("only root can become another user, and mount a file system")


@contextmanager
def small_disk(folder: Path, kilobytes: int) -> Iterator[Path]:
    """Mount a file system of a few kilobytes."""
    needs_root()
    folder.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", f"size={kilobytes}k", "none", str(folder)]
    if subprocess.run(command, capture_output=True, check=False).returncode:
        pytest.skip("this root may not mount")
    try:
        yield folder
    finally:
        subprocess.run(["umount", str(folder)], check=True)


def test_a_full_disk_under_dagsters_state_is_reported_before_anything_is_written(run_cli: Run, tmp_path: Path) -> None:
    with small_disk(tmp_path / "home", 64) as home:
        (home / "dagster.yaml").touch()
        result = run_cli(*DOWNLOAD, DAGSTER_HOME=str(home))
    (line,) = without_progress(result.stderr)
    assert re.fullmatch(f"error: the Dagster instance in {home} is not usable: .*full", line)
    assert (result.returncode, result.stdout) == (2, "")
    assert not (tmp_path / "lake").exists()


def test_a_disk_that_is_full_when_the_run_begins_is_reported_in_one_line(run_cli: Run, tmp_path: Path) -> None:
    copy_state_of_working_folder(tmp_path / "state")
    databases = sum(path.stat().st_size for path in (tmp_path / "state").rglob("*") if path.is_file())
    assert databases > 100_000
    with small_disk(tmp_path / "home", databases // 1024 + 120) as home:
        (home / "dagster.yaml").touch()
        result = run_cli(*DOWNLOAD, DAGSTER_HOME=str(home))
    *_, line = result.stderr.splitlines()
    assert line.startswith("error: Dagster cannot use its state in $DAGSTER_HOME or .dagster: "), result.stderr
    assert "Traceback" not in result.stderr
    assert result.returncode == 1


class Nobody:
    """A user whom the system does not know, without a home folder, in a folder that only its owner may write.

    Attributes:
        folder: The working folder.
    """

    def __init__(self, folder: Path, sandbox: Sandbox, python: WarmPython) -> None:
        folder.chmod(0o755)
        self.folder = folder
        self._environment = cli_environment(sandbox, folder)
        self._python = python
        self._program = folder / "as_nobody.py"
        self._program.write_text(AS_NOBODY)

    def run(self, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
        """Run the command line."""
        needs_root()
        whole = self._environment | environment
        known = {name: value for name, value in whole.items() if name != "HOME"}
        if "XDG_STATE_HOME" not in environment:
            known.pop("XDG_STATE_HOME", None)
        return self._python.run([str(self._program), *arguments], self.folder, known, timeout=60)


@pytest.fixture
def nobody(sandbox: Sandbox, warm_python: WarmPython) -> Iterator[Nobody]:
    with TemporaryDirectory() as folder:  # pytest's folders are closed to other users
        yield Nobody(Path(folder), sandbox, warm_python)


def test_a_user_without_a_home_folder_must_say_where_the_ledger_is_to_use_it(nobody: Nobody) -> None:
    result = nobody.run(*DOWNLOAD, BINANCE_ASSETS_LEDGER="")
    line = (
        r"error: BINANCE_ASSETS_LEDGER is not set, and its default is '~/.*': ~ stands for a home folder that is not "
    )
    (printed,) = without_progress(result.stderr)
    assert re.fullmatch(line + "known; set BINANCE_ASSETS_LEDGER to a file", printed), printed
    assert result.returncode == 2
    assert nobody.run("series", BINANCE_ASSETS_LEDGER="").returncode == 0


@pytest.mark.parametrize("fault", ["not a folder", "closed to the user"])
def test_a_default_ledger_that_cannot_be_used_stops_only_what_opens_it(nobody: Nobody, fault: str) -> None:
    state = nobody.folder / "state"
    if fault == "not a folder":
        state.touch()
    else:
        state.mkdir(0o700)
        (state / "binance-assets").mkdir()
    environment = {"BINANCE_ASSETS_LEDGER": "", "XDG_STATE_HOME": str(state)}
    for folder in (nobody.folder / "lake", nobody.folder / "lake.state"):
        folder.mkdir()
        folder.chmod(0o777)
    nobody.folder.chmod(0o777)
    for command in ("series", "migrate"):
        result = nobody.run(command, **environment)
        assert result.returncode == 0, result.stderr
    download = nobody.run(*DOWNLOAD, **environment)
    reason = "Not a directory" if fault == "not a folder" else "Permission denied"
    line = rf"error: BINANCE_ASSETS_LEDGER is not set, and its default is '{state}/.*': cannot be used: {reason}; "
    (printed,) = without_progress(download.stderr)
    assert re.fullmatch(line + "set BINANCE_ASSETS_LEDGER to a file", printed)
    assert download.returncode == 2


def test_a_folder_that_the_user_may_not_write_is_reported_in_one_line(nobody: Nobody) -> None:
    with TemporaryDirectory() as folder:
        Path(folder).chmod(0o777)
        result = nobody.run(*DOWNLOAD, BINANCE_ASSETS_LEDGER=f"{folder}/ledger.sqlite")
    (line,) = without_progress(result.stderr)
    assert line.startswith(f"error: the Dagster instance in {nobody.folder}/.dagster is not usable: ")
    assert result.returncode == 2
