"""A project of ``dg`` that has an asset of its own."""

from __future__ import annotations

from pathlib import Path

# What `create-dagster project` writes, as far as `dg` needs it.
PROJECT = {
    "pyproject.toml": '[tool.dg]\ndirectory_type = "project"\n[tool.dg.project]\nroot_module = "mine"\n',
    "src/mine/__init__.py": "",
    "src/mine/definitions.py": (
        "from pathlib import Path\nimport dagster as dg\n"
        "@dg.definitions\ndef defs():\n"
        "    return dg.load_from_defs_folder(path_within_project=Path(__file__).parent)\n"
    ),
    "src/mine/defs/__init__.py": "",
    "src/mine/defs/own.py": "import dagster as dg\n@dg.asset\ndef own(): ...\n",
}


def write_project(folder: Path) -> None:
    """Write the project into a folder."""
    for name, text in PROJECT.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)
