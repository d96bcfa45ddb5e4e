"""The formats of a chart: the extension of the file chooses one, and each needs a library of the extra ``plot``.

Nothing here loads a library, so that a command refuses a wrong name before it imports anything large.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Final, Literal

from binance_assets.charts.figures import is_installed
from binance_assets.model.outside import printable

Format = Literal["html", "png"]

_LIBRARIES: Final[dict[Format, str]] = {"html": "bokeh", "png": "matplotlib"}
_EXTENSIONS: Final[dict[str, Format]] = {".html": "html", ".htm": "html", ".png": "png"}


def format_of(path: Path) -> Format:
    """Return the format that the extension of a file chooses.

    Raises:
        ValueError: No format has the extension.
    """
    try:
        return _EXTENSIONS[path.suffix.lower()]
    except KeyError:
        raise ValueError(
            f"{printable(path)} is no file for a chart; its name must end with .html (interactive) or .png"
        ) from None


def require(chosen: Format) -> None:
    """Check that the library of a format is installed.

    Raises:
        ImportError: It is not; the message names the extra.
    """
    library = _LIBRARIES[chosen]
    if not is_installed(library):
        raise ImportError(f"a chart as {chosen} needs {library}; pip install 'binance-assets[plot]'", name=library)


def check_target(path: Path, overwrite: bool) -> None:
    """Check that a chart may be written to a file.

    Raises:
        ValueError: The extension is unknown, the folder does not exist, or the file exists and must be kept.
    """
    format_of(path)
    # `os.path` answers no for what cannot exist, such as a name that is too long; some versions of `Path` raise.
    if os.path.isdir(path):
        raise ValueError(f"{printable(path)} is a folder; name a file")
    if not os.path.isdir(path.parent):
        raise ValueError(f"there is no folder {printable(path.parent)}; create it first")
    if not overwrite and os.path.exists(path):
        raise ValueError(f"{printable(path)} exists; name another file, or replace it (--overwrite, overwrite=True)")
