"""The command line ``binance-assets``: its commands, and how it ends after an error or an interrupt.

Exit codes: 0 every requested partition is in the lake; 1 not all of them; 2 bad input or configuration, with one line
that names the cause and the fix; 130 interrupted.
"""

from __future__ import annotations

import errno
import os
import signal
import sys
import time
from pathlib import Path
from types import FrameType
from typing import Any, Final, NoReturn, TextIO

import click

from binance_assets import __version__
from binance_assets.cli.download import download_command
from binance_assets.cli.examples import epilog
from binance_assets.cli.exit_codes import BAD_INPUT, INCOMPLETE, INTERRUPTED, CommandFailed
from binance_assets.cli.export import export_command
from binance_assets.cli.init import init_command
from binance_assets.cli.metrics import metrics_command
from binance_assets.cli.migrate import migrate_command
from binance_assets.cli.plot import plot_command
from binance_assets.cli.sandbox import demo_command, sandbox_command
from binance_assets.cli.schedules import schedules_command
from binance_assets.cli.status import show_command, status_command
from binance_assets.cli.symbols import symbols_command
from binance_assets.cli.ui import ui_command
from binance_assets.cli.universe import series_command, track_command, universe_group, untrack_command
from binance_assets.cli.verify import accept_command, verify_command
from binance_assets.model.outside import MESSAGE, first_line, printable
from binance_assets.settings import ConfigurationError, env_file_values

_ENV_FILE: Final = Path(".env")


class CommandGroup(click.Group):
    """A group of commands that ends every error with one line on standard error and an exit code."""

    def main(self, *arguments: Any, **options: Any) -> Any:
        """Read ``.env``, run the command that the arguments name, and exit with a code if it fails.

        Args:
            *arguments: As in :meth:`click.Command.main`: the command's arguments first.
            **options: As in :meth:`click.Command.main`.
        """
        options["standalone_mode"] = False  # otherwise click prints its errors itself, in several lines
        try:
            _read_env_file()
            return super().main(*arguments, **options)
        except click.exceptions.NoArgsIsHelpError as error:
            click.echo(error.format_message())
            sys.exit(BAD_INPUT)
        except click.UsageError as error:
            _fail(_usage_message(error), BAD_INPUT)
        except click.ClickException as error:
            _fail(error.format_message(), BAD_INPUT)
        except ConfigurationError as error:
            _fail(str(error), BAD_INPUT)
        except CommandFailed as error:
            _fail(str(error), INCOMPLETE)
        except (KeyboardInterrupt, click.Abort) as error:
            # click turns the one into the other; a command that keeps something else has its own message.
            own = str(error.__cause__ if isinstance(error, click.Abort) and error.__cause__ else error)
            kept = "interrupted; finished partitions are kept, and the same command continues from there"
            _fail(own or kept, INTERRUPTED)
        except BrokenPipeError:
            os._exit(INCOMPLETE)  # nobody reads the output; a normal exit would fail again when it flushes
        except Exception as error:
            if "--debug" in sys.argv:
                raise
            reason = first_line(str(error))
            if type(error).__name__ == "DagsterPostgresException":  # of dagster-postgres, which is an extra
                reason = first_line(str(error.__cause__ or error))
                _fail(f"Dagster cannot reach its storage on Postgres: {reason}", INCOMPLETE)
            if _is_of_dagster_state(error):
                remedy = "check that its disk has room and can be written"
                _fail(f"Dagster cannot use its state in $DAGSTER_HOME or .dagster: {reason}; {remedy}", INCOMPLETE)
            if isinstance(error, OSError) and error.errno == errno.ENOSPC:
                _fail("no space is left on the device to which the command writes", INCOMPLETE)
            _fail(
                f"unexpected {type(error).__name__}: {reason} (--debug before the command shows the traceback)",
                INCOMPLETE,
            )


def _is_of_dagster_state(error: Exception) -> bool:
    """Return whether a database of the Dagster instance failed, such as on a full disk; only Dagster uses SQLAlchemy.

    The name of the module shows it, because the import of SQLAlchemy takes time that every command would pay.
    """
    return any(base.__module__ == "sqlalchemy.exc" for base in type(error).__mro__)


def _usage_message(error: click.UsageError) -> str:
    """Return a usage error in one line, with the help that describes the usage.

    A value that cannot be used has a message of its own, which names the right spelling.
    """
    message = error.format_message()
    is_value = isinstance(error, click.BadParameter) and not isinstance(error, click.MissingParameter)
    if is_value or error.ctx is None:
        return message
    path = error.ctx.command_path
    return f"{message} See {path} --help" if message.endswith("?") else f"{message.rstrip('.')}; see {path} --help"


def _read_env_file() -> None:
    """Add the variables of ``.env`` in the working folder; they override the environment, as Dagster has it.

    Raises:
        ConfigurationError: The file cannot be read, or holds a variable that no process can have.
    """
    values = env_file_values(_ENV_FILE)
    for name, value in values.items():
        try:
            os.environ[name] = value
        except (OSError, ValueError) as error:  # such as a NUL character, or a name with an equals sign
            raise ConfigurationError(f"{_ENV_FILE}: {printable(name)} cannot be set: {error}") from None


def _fail(message: str, code: int) -> NoReturn:
    click.echo(f"error: {printable(message, MESSAGE)}", err=True)
    _drop_unwritable_output()
    sys.exit(code)


def _drop_unwritable_output() -> None:
    """Drop what standard output does not accept: Python would fail again at its end, with an exit code of its own."""
    stream: TextIO | None = sys.stdout  # none if the caller has closed it
    try:
        if stream is not None:
            stream.flush()
    except OSError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


@click.group(
    "binance-assets",
    cls=CommandGroup,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110},
)
@click.version_option(__version__)
@click.option("--debug", is_flag=True, help="Show the traceback of an unexpected error.")
def cli(debug: bool) -> None:
    """Binance candles you can trust, as Dagster assets."""


for command in (
    download_command,
    track_command,
    untrack_command,
    series_command,
    symbols_command,
    universe_group,
    status_command,
    metrics_command,
    show_command,
    plot_command,
    verify_command,
    accept_command,
    export_command,
    migrate_command,
    init_command,
    ui_command,
    schedules_command,
    sandbox_command,
    demo_command,
):
    cli.add_command(command)


def _add_examples(group: click.Group, path: str = "") -> None:
    for name, command in group.commands.items():
        command.epilog = epilog(f"{path}{name}")
        if isinstance(command, click.Group):
            _add_examples(command, f"{path}{name} ")


_add_examples(cli)


def main() -> None:
    """Run the command line as a process: handle its signals, and exit with its code."""
    # Windows has no SIGHUP. A signal that is ignored already stays ignored: `nohup` or a script did that.
    for number in (signal.SIGINT, signal.SIGTERM, getattr(signal, "SIGHUP", signal.SIGTERM)):
        if number == signal.SIGTERM or signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, _interrupt)
    if sys.stdout is None:  # the caller has closed it
        sys.stdout = open(os.devnull, "w")  # noqa: SIM115 - until the process ends
    try:
        cli.main()
    finally:
        if _first_interrupt is not None:
            # While Python ends, it would restore the default: a second Ctrl-C would kill it, with another exit code.
            signal.signal(signal.SIGINT, signal.SIG_IGN)


_first_interrupt: float | None = None

# The end of a command takes two seconds at most, whatever hangs. A user who interrupts it after this time means it.
_PATIENCE_SECONDS: Final = 5


def _interrupt(_signal: int, _frame: FrameType | None) -> None:
    """Interrupt the command, once: a second exception would interrupt what the first one has set going.

    With the default handler, a Ctrl-C that is pressed twice may leave a run that is neither finished nor canceled.
    """
    global _first_interrupt
    if _first_interrupt is None:
        _first_interrupt = time.monotonic()
        raise KeyboardInterrupt
    if time.monotonic() - _first_interrupt > _PATIENCE_SECONDS:
        os._exit(INTERRUPTED)
