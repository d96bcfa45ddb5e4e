"""The folder of an export: files appear in it complete or not at all, and foreign files stay as they are.

Files are written into a folder beside their places first, and renamed at the end. ``.binance-assets-export.json`` lists
what was written, with hashes, so that the next export replaces exactly that. A file that is not listed, or that has
changed since, belongs to somebody else: it is replaced only if the user asks for it.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Final

from binance_assets.exports.target import File
from binance_assets.model.outside import printable, reason_of
from binance_assets.model.wording import name_some
from binance_assets.settings import ConfigurationError
from binance_assets.storage.durable_folders import create_folder, sync_folder
from binance_assets.storage.locks import LOCK_NAME, file_lock

MANIFEST: Final = ".binance-assets-export.json"
_STAGING: Final = ".binance-assets-export"
_MOST_BYTES: Final = 64_000_000  # of the list: some hundred thousand files
_MAX_NAMED: Final = 3


class Publication:
    """Files on their way into a folder; see :func:`publication`.

    Attributes:
        staging: The folder into which the files are written first.
    """

    def __init__(self, folder: Path, stale: Sequence[Path]) -> None:
        self.staging = folder / _STAGING
        self._folder = folder
        self._stale = stale

    def publish(self, files: Sequence[File], target: str) -> dict[str, int]:
        """Rename the files to their places, and return the size of each in bytes.

        From the first rename on, an interrupt does not stop it: the files are complete, and there is little left to do.

        Raises:
            OSError: A file cannot be renamed.
        """
        entries = {file.path: _entry(self.staging / file.path, file, target) for file in files}
        pending = [(self.staging / path, self._folder / path) for path in entries]
        removed = [path for path in self._stale if path.relative_to(self._folder).as_posix() not in entries]
        done = False
        while not done:
            with suppress(KeyboardInterrupt):
                self._move(pending, removed, entries)
                done = True
        return {path: entry["bytes"] for path, entry in entries.items()}

    def _move(
        self, pending: Sequence[tuple[Path, Path]], removed: Sequence[Path], entries: dict[str, dict[str, Any]]
    ) -> None:
        """Move all files; it may begin again from the start."""
        for _, place in pending:  # what cannot be created ends the export before the first file has moved
            create_folder(place.parent)
        for source, place in pending:
            if source.exists():
                os.replace(source, place)
        for path in removed:
            path.unlink(missing_ok=True)
        gone = {path.relative_to(self._folder).as_posix() for path in removed}
        listed = {path: entry for path, entry in _listed(self._folder).items() if path not in gone} | entries
        incoming = self.staging / MANIFEST
        incoming.write_text(json.dumps({"format": 1, "files": listed}, indent=1, ensure_ascii=False), encoding="utf-8")
        os.replace(incoming, self._folder / MANIFEST)
        for folder in {place.parent for _, place in pending} | {self._folder}:
            sync_folder(folder)


@contextmanager
def publication(folder: Path, claims: Sequence[str], overwrite: bool) -> Iterator[Publication]:
    """Prepare a folder for an export, and leave no trace in it unless files are published.

    Args:
        folder: The folder; it is created where it does not exist.
        claims: Glob patterns, relative to the folder, of the files that the export replaces.
        overwrite: Whether files of somebody else may be among them.

    Raises:
        ConfigurationError: The folder cannot be written, or has files of somebody else in their places.
    """
    created = _missing_folders(folder)
    try:
        create_folder(folder)
        with file_lock(folder / LOCK_NAME):
            try:
                stale = _replaceable(folder, claims, overwrite)
                shutil.rmtree(folder / _STAGING, ignore_errors=True)  # that of a process that was killed
                (folder / _STAGING).mkdir()
                yield Publication(folder, stale)
            finally:
                shutil.rmtree(folder / _STAGING, ignore_errors=True)
                (folder / LOCK_NAME).unlink(missing_ok=True)
    except OSError as error:
        raise ConfigurationError(f"{printable(folder)} cannot be written: {reason_of(error)}") from None
    finally:
        for path in created:
            with suppress(OSError):  # something was published into it
                path.rmdir()


def _missing_folders(folder: Path) -> list[Path]:
    """Return the folder and its parents that do not exist yet, deepest first."""
    return [path for path in (folder, *folder.parents) if not os.path.exists(path)]  # `Path` may raise


def _replaceable(folder: Path, claims: Sequence[str], overwrite: bool) -> list[Path]:
    """Return the files that the export replaces.

    Raises:
        ConfigurationError: Some are not those that an export wrote, and they may not be overwritten.
    """
    found = sorted({path for pattern in claims for path in folder.glob(pattern)})
    if folders := [path for path in (*found, folder / MANIFEST) if path.is_dir()]:
        raise ConfigurationError(f"a folder is in the place of a file: {_named(folders)}; choose another output")
    listed = _listed(folder)
    if foreign := [] if overwrite else [path for path in found if not _is_ours(path, folder, listed)]:
        raise ConfigurationError(
            f"not written by an export, or changed since: {_named(foreign)}; pass overwrite=True, or choose another "
            "output"
        )
    return found


def _named(paths: Sequence[Path]) -> str:
    return name_some([printable(path) for path in paths], _MAX_NAMED)


def _is_ours(path: Path, folder: Path, listed: dict[str, Any]) -> bool:
    entry = listed.get(path.relative_to(folder).as_posix())
    return (
        isinstance(entry, dict)
        and path.is_file()
        and entry.get("bytes") == path.stat().st_size
        and entry.get("sha256") == _hash(path)
    )


def _listed(folder: Path) -> dict[str, Any]:
    """Return what is known of the files that exports wrote into a folder; nothing if the list cannot be read."""
    try:
        with (folder / MANIFEST).open("rb") as file:
            content = json.loads(file.read(_MOST_BYTES))
    except (OSError, ValueError, RecursionError):
        return {}
    files = content.get("files") if isinstance(content, dict) else None
    return files if isinstance(files, dict) else {}


def _entry(path: Path, file: File, target: str) -> dict[str, Any]:
    """Return the entry of the list for a file; the file is on the disk then."""
    with path.open("rb+") as opened:
        os.fsync(opened.fileno())
    return {"target": target, "series": list(file.series), "bytes": path.stat().st_size, "sha256": _hash(path)}


def _hash(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
