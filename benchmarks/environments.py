"""The virtual environments of other tools, kept between runs: those of the race, and those that load exports."""

from __future__ import annotations

import importlib.metadata
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Final

OWN_PACKAGE: Final = "binance-assets"
_INSTALL_SECONDS: Final = 900
_QUERY_SECONDS: Final = 60
_VERSION_PROGRAM: Final = "import importlib.metadata, sys; print(importlib.metadata.version(sys.argv[1]))"


class InstallError(Exception):
    """A package could not be installed."""


class Environments:
    """One virtual environment per package, below a folder. A package may be pinned: ``freqtrade==2026.9``.

    Args:
        folder: Where they are kept.
        upgrade: Whether to look for newer releases of packages that are already installed.
    """

    def __init__(self, folder: Path, upgrade: bool) -> None:
        """Create nothing yet."""
        self._folder = folder
        self._upgrade = upgrade
        self._ready: set[str] = set()

    def python(self, package: str) -> str:
        """Return the interpreter of a package's environment; the first call installs the package.

        Args:
            package: Its name in the package index, which ``==`` and a version may follow; empty for this project, which
                runs in the environment of the caller.

        Raises:
            InstallError: The package could not be installed.
        """
        if not package:
            return sys.executable
        interpreter = self._folder / package.partition("==")[0] / "bin" / "python"
        if package not in self._ready:
            self._install(package, interpreter)
            self._ready.add(package)
        return str(interpreter)

    def version(self, package: str) -> str:
        """Return the installed version of a package.

        Raises:
            InstallError: The package could not be installed.
        """
        if not package:
            return importlib.metadata.version(OWN_PACKAGE)
        return _run([self.python(package), "-c", _VERSION_PROGRAM, package.partition("==")[0]], _QUERY_SECONDS).strip()

    def _install(self, package: str, interpreter: Path) -> None:
        if not interpreter.exists():
            _run([sys.executable, "-m", "venv", str(interpreter.parent.parent)], _INSTALL_SECONDS)
        elif not self._upgrade and _is_installed(interpreter, package):
            return
        print(f"installing {package} ...", flush=True)
        pip = [str(interpreter), "-m", "pip", "install", "--disable-pip-version-check", "--quiet"]
        _run([*pip, "--upgrade", package], _INSTALL_SECONDS)


def _is_installed(interpreter: Path, package: str) -> bool:
    name, _, version = package.partition("==")
    command = [str(interpreter), "-c", _VERSION_PROGRAM, name]
    done = subprocess.run(command, capture_output=True, text=True, timeout=_QUERY_SECONDS, check=False)
    return done.returncode == 0 and done.stdout.strip() == (version or done.stdout.strip())


def _run(command: Sequence[str], seconds: float) -> str:
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=seconds, check=True)
    except subprocess.CalledProcessError as error:
        raise InstallError("\n".join(str(error.stderr).strip().splitlines()[-3:])) from None
    except subprocess.TimeoutExpired:
        raise InstallError(f"it took longer than {seconds:.0f} s") from None
    return done.stdout
