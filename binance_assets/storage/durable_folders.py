"""Folders whose entries are on the disk when a call returns, so that a power failure does not lose them.

Here belongs what waits for the disk. What does not belong here: which files are written (``local_store``,
``edited_file``).
"""

from __future__ import annotations

import os
from pathlib import Path


def create_folder(folder: Path) -> None:
    """Create a folder where it does not exist; return once its name, and those of its parents, are on the disk.

    Raises:
        OSError: It cannot be created.
    """
    if folder.is_dir():
        return
    create_folder(folder.parent)
    folder.mkdir(exist_ok=True)
    sync_folder(folder.parent)


def sync_folder(folder: Path) -> None:
    """Return once the names of the files in ``folder`` are on the disk; Windows does so by itself.

    Raises:
        OSError: The folder cannot be read.
    """
    if os.name == "nt":
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
