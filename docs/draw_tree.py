"""Write a tree of all packages and modules, with the first paragraph of their docstrings, into ``architecture.md``.

The order is that of the layers in ``pyproject.toml``, from the highest to the lowest; modules that are in no layer come
last. ``--check`` writes nothing and exits with 1 if the page is out of date.
"""

from __future__ import annotations

import ast
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Final

CHECKOUT: Final = Path(__file__).resolve().parents[1]
PACKAGE: Final = CHECKOUT / "binance_assets"
PAGE: Final = CHECKOUT / "docs" / "architecture.md"
BEGIN: Final = "<!-- tree: drawn by docs/draw_tree.py, do not edit -->"
END: Final = "<!-- end of tree -->"


def read_layers() -> list[str]:
    """Return the names of the layers, highest first; layers on one line keep their order."""
    with (CHECKOUT / "pyproject.toml").open("rb") as file:
        contracts = tomllib.load(file)["tool"]["importlinter"]["contracts"]
    (layers,) = (contract["layers"] for contract in contracts if contract["type"] == "layers")
    return [name.strip() for layer in layers for name in layer.split("|")]


def summary_of(path: Path) -> str:
    """Return the first paragraph of a module's docstring, one or two sentences, as Markdown.

    Raises:
        ValueError: The module has no docstring.
    """
    docstring = ast.get_docstring(ast.parse(path.read_text(encoding="utf-8")))
    if not docstring:
        raise ValueError(f"{path.relative_to(CHECKOUT)} has no docstring")
    return " ".join(docstring.partition("\n\n")[0].split()).replace("``", "`")


def draw_package(folder: Path, indent: str) -> Iterator[str]:
    """Yield the lines for a package and everything in it, its subpackages last."""
    yield f"{indent}- **`{folder.name}/`** {summary_of(folder / '__init__.py')}"
    yield from draw_modules(folder, f"{indent}  ")
    for package in sorted(path.parent for path in folder.glob("*/__init__.py")):
        yield from draw_package(package, f"{indent}  ")


def draw_modules(folder: Path, indent: str) -> Iterator[str]:
    """Yield a line for each module of a package."""
    for path in sorted(folder.glob("*.py")):
        if path.name != "__init__.py":
            yield f"{indent}- `{path.name}` {summary_of(path)}"


def draw_tree() -> str:
    """Return the whole tree as nested Markdown lists."""
    layers = read_layers()
    entries = [path for path in PACKAGE.iterdir() if path.suffix == ".py" or (path / "__init__.py").is_file()]
    entries.sort(key=lambda path: (layers.index(path.stem) if path.stem in layers else len(layers), path.stem))
    lines = [f"- **`{PACKAGE.name}/`** {summary_of(PACKAGE / '__init__.py')}"]
    for path in entries:
        if path.is_dir():
            lines += draw_package(path, "  ")
        elif path.name != "__init__.py":
            lines.append(f"  - `{path.name}` {summary_of(path)}")
    return "\n".join(lines)


def main() -> int:
    """Update the page, or check it with ``--check``.

    Returns:
        The exit code: 1 if ``--check`` finds the page out of date, otherwise 0.
    """
    text = PAGE.read_text(encoding="utf-8")
    before, _, rest = text.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not end:
        raise ValueError(f"{PAGE.name} lacks the markers {BEGIN!r} and {END!r}")
    drawn = f"{before}{BEGIN}\n\n{draw_tree()}\n\n{END}{after}"
    if "--check" in sys.argv[1:]:
        if drawn != text:
            print(f"{PAGE.name} is out of date; run: python docs/draw_tree.py", file=sys.stderr)
        return int(drawn != text)
    PAGE.write_text(drawn, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
