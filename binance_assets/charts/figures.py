"""Figures: whether Matplotlib is installed, and a figure as PNG in Markdown.

Matplotlib is loaded on first use: that takes half a second, and most processes draw nothing.
"""

from __future__ import annotations

import base64
import importlib.util
import io
import warnings
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from matplotlib.figure import Figure

NO_LIBRARY: Final = "The picture needs the extra `plot`: `pip install 'binance-assets[plot]'`."
"""What a page shows in place of a picture."""


def can_draw() -> bool:
    """Return whether Matplotlib is installed."""
    return is_installed("matplotlib")


def is_installed(library: str) -> bool:
    """Return whether a library is installed, without loading it."""
    try:
        return importlib.util.find_spec(library) is not None
    except ValueError:  # something without a spec stands in its place
        return False


def save_png(figure: Figure, png: io.BytesIO, **options: Any) -> None:
    """Write a figure as PNG. A letter that the font of Matplotlib lacks, such as those of ``币安人生USDT``, is a box.

    Args:
        figure: The figure.
        png: Where to write.
        options: Arguments for ``savefig``.
    """
    with warnings.catch_warnings():  # it would print two lines for each of these letters
        warnings.filterwarnings("ignore", "Glyph .* missing from font", UserWarning)
        figure.savefig(png, format="png", **options)


def as_markdown(figure: Figure, title: str) -> str:
    """Return a figure as Markdown with the PNG inside, 80 pixels per inch.

    Args:
        figure: The figure.
        title: The alternative text.
    """
    png = io.BytesIO()
    save_png(figure, png, dpi=80)
    return f"![{title}](data:image/png;base64,{base64.b64encode(_with_palette(png)).decode()})"


def _with_palette(png: io.BytesIO) -> bytes:
    """Return the picture with at most 64 colors: fewer bytes, and the event log keeps them."""
    from PIL import Image  # Matplotlib depends on it

    # The coverage of the palette is the largest, because the default merges colors that few pixels have.
    small = io.BytesIO()
    with Image.open(png) as image:
        image.convert("RGB").quantize(64, Image.Quantize.MAXCOVERAGE).save(small, format="PNG", optimize=True)
    return small.getvalue()
