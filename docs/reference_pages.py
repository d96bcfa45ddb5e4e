"""The reference pages of the site, generated from the code that they describe.

They are generated while the site is built, and not committed: so they cannot differ from the code, and a change of the
code needs no second commit. Each function returns one page as Markdown; ``REFERENCE`` names them all.
"""

from __future__ import annotations

import inspect
import json
import re
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Final

import click
from pydantic import TypeAdapter

import binance_assets
from binance_assets.candles.columns import DESCRIPTIONS, columns
from binance_assets.cli.examples import EXAMPLES
from binance_assets.cli.json_output import OUTPUTS
from binance_assets.cli.main import cli
from binance_assets.model.markets import MARKETS
from binance_assets.settings import Settings
from binance_assets.storage import metadata

PROGRAM: Final = "binance-assets"

# The public names by what they are for. The names that are left, types mostly, come last.
API: Final = {
    "Reading": ["load", "scan", "panel", "as_pandas", "as_arrow", "coverage", "symbols"],
    "Charts and exports": ["plot", "CandleChart", "export", "Exported", "ExportedSeries", "ExportTarget"],
    "Downloading": ["download", "Downloaded", "DownloadProgress", "DownloadOptions"],
    "Dagster": ["candle_definitions", "BinanceCandlesComponent"],
    "The lake": ["Lake", "PartitionWriter", "StoredPartition"],
    "Names": ["parse_series", "Series", "parse_market", "Market", "parse_interval", "Interval", "partitions_between"],
    "Results": ["Partition", "PartitionResult", "Provenance", "Verdict"],
    "Settings": ["read_settings", "Settings", "Source"],
    "Errors": [
        "MissingPartitions", "MissingCandles", "LakeError", "LedgerError", "ConfigurationError", "ExchangeError",
        "Cancelled",
    ],
}  # fmt: skip


def commands_page() -> str:
    """Return the reference of the command line, from click's own description of it."""
    lines = [
        "# Commands",
        "",
        f"Generated from `{PROGRAM} --help`. [The guide](../commands.md) explains how the commands work together.",
        "",
    ]
    return "\n".join([*lines, *_command(cli, None, PROGRAM)])


def _command(command: click.Command, parent: click.Context | None, name: str) -> Iterator[str]:
    """Yield the lines about a command and its subcommands.

    The package ``mkdocs-click`` leaves out arguments and the examples at the end of a help, so it is not used.
    """
    context = click.Context(command, parent, info_name=name)
    path = context.command_path
    if parent is not None:
        yield from (f"## `{path.removeprefix(PROGRAM).strip()}`", "")
    yield from (_as_markdown(inspect.cleandoc(command.help or "")), "")
    yield from ("```text", f"{path} {' '.join(command.collect_usage_pieces(context))}", "```", "")
    options = [option.get_help_record(context) for option in command.params if isinstance(option, click.Option)]
    if shown := [record for record in options if record is not None]:
        yield from ("| option | meaning |", "|---|---|")
        yield from (f"| <code>{_cell(names)}</code> | {_cell(help_text)} |" for names, help_text in shown)
        yield ""
    words = path.removeprefix(PROGRAM).strip()
    if words and (examples := [example for example in EXAMPLES if f"{example} ".startswith(f"{words} ")]):
        yield from ("Examples:", "", "```bash", *(f"{PROGRAM} {example}" for example in examples), "```", "")
    for subcommand in command.commands.values() if isinstance(command, click.Group) else ():
        yield from _command(subcommand, context, str(subcommand.name))


def settings_page() -> str:
    """Return the table of the environment variables, from the Pydantic model of the settings."""
    lines = [
        "# Settings",
        "",
        "Environment variables. Dagster and the command line also read `.env` in the working folder. Relative paths",
        "are relative to the working folder. A value that cannot be used ends a command with one line and exit code 2,",
        f"and so does a variable `BINANCE_ASSETS_…` that is not in this table. `{PROGRAM} init` writes them all, with",
        "their defaults, into `.env.example`.",
        "",
        "| variable | default | meaning |",
        "|---|---|---|",
    ]
    for field in Settings.model_fields.values():
        meaning = _cell(field.description or "").replace("<", "&lt;") + _bounds(field)
        lines.append(f"| `{field.alias}` | {_default(field)} | {meaning} |")
    lines += [
        "",
        "None of these is part of a run's configuration: a run uses the hosts, the lake, and the ledger of the",
        "settings, whoever launches it.",
        "",
        "Dagster keeps its state in `$DAGSTER_HOME` if that is set, otherwise in `.dagster/` in the working folder;",
        "see `dagster.yaml`.",
    ]
    return "\n".join(lines)


def _default(field: Any) -> str:
    if field.default_factory is not None:
        return "in the user's state folder"
    if field.default is None:
        return "none"
    return f"`{int(field.default) if isinstance(field.default, bool) else field.default}`"


def _bounds(field: Any) -> str:
    """Return the bounds of a number as the end of a sentence; empty without bounds."""
    signs = {"ge": "at least", "gt": "more than", "le": "at most", "lt": "less than"}
    found = [
        f"{words} {getattr(bound, name):,.12g}"
        for bound in field.metadata
        for name, words in signs.items()
        if hasattr(bound, name)
    ]
    return f" ({', '.join(found)})" if found else ""


def columns_page() -> str:
    """Return the columns of the candle table of each market, from the schema."""
    lines = [
        "# Columns",
        "",
        "Every file of the lake has the columns of its market, in this order and with these types. None is ever null.",
        "Readers of the folder add `market`, `symbol`, and `interval` from the names of the folders.",
        "[The lake](../lake.md) describes the files.",
    ]
    tables: dict[str, list[str]] = {}
    for market in MARKETS.values():
        rows = "\n".join(
            f"| `{name}` | {_type_name(dtype)} | {_cell(DESCRIPTIONS[name])} |"
            for name, dtype in columns(market).items()
        )
        tables.setdefault(rows, []).append(market.name)
    for rows, names in tables.items():
        lines += ["", f"## {' and '.join(f'`{name}`' for name in names)}", ""]
        lines += ["| column | type | meaning |", "|---|---|---|", rows]
    return "\n".join(lines)


def _type_name(dtype: Any) -> str:
    return "Datetime, ms, UTC" if hasattr(dtype, "time_zone") else str(dtype)


def metadata_page() -> str:
    """Return the description of the file metadata, from the docstring of the module that writes it."""
    text = _as_markdown(inspect.cleandoc(metadata.__doc__ or "").partition("\n\n")[2])
    attributes = inspect.cleandoc(metadata.PartitionEntry.__doc__ or "").partition("Attributes:\n")[2]
    lines = [
        "# File metadata",
        "",
        "Each file of the lake names its series, and for each of its partitions the verdict and where its candles came",
        "from, in its Parquet key-value metadata. `polars.read_parquet_metadata` returns it, and so does every Parquet",
        "library. [The lake](../lake.md#metadata) has an example.",
        "",
        text,
        "",
        "## The fields of a partition",
        "",
        "| field | meaning |",
        "|---|---|",
    ]
    for name, meaning in re.findall(r"^    (\w+): (.*?)(?=^    \w+: |\Z)", attributes, re.MULTILINE | re.DOTALL):
        if name != "unknown":
            lines.append(f"| `{name}` | {_cell(_as_markdown(meaning))} |")
    return "\n".join(lines)


def json_page() -> str:
    """Return the JSON Schema of what each command prints with ``--json``, from the types that the commands return."""
    lines = [
        "# JSON output",
        "",
        "Every command that prints a table prints the same as JSON with `--json`. Its keys are public: none is renamed",
        "or removed without a note in the [changelog](../changelog.md). Days are keys of partitions, such as",
        "`2024-01-31`, and times are ISO 8601 in UTC, such as `2024-01-31T12:00:00Z`.",
    ]
    for command, output in OUTPUTS.items():
        schema = TypeAdapter(output).json_schema()
        lines += ["", f"## `{command} --json`", ""]
        for name, definition in _objects(schema).items():
            lines += [f"**{name}.** {_as_markdown(definition.get('description', ''))}", "", "| key | type | meaning |"]
            lines.append("|---|---|---|")
            for key, value in definition["properties"].items():
                lines.append(f"| `{key}` | {_json_type(value)} | {_cell(_as_markdown(value.get('description', '')))} |")
            lines.append("")
        lines += ['??? note "JSON Schema"', "", "    ```json"]
        lines += [f"    {line}" for line in json.dumps(schema, indent=2).splitlines()]
        lines += ["    ```"]
    return "\n".join(lines)


def _objects(schema: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """Return the definitions of a schema that have keys, in the order in which they are used first."""
    definitions = schema.get("$defs", {})
    order: list[str] = []

    def visit(value: Any) -> None:
        if isinstance(value, dict):
            name = str(value.get("$ref", "")).removeprefix("#/$defs/")
            if name and name not in order:
                order.append(name)
                visit(definitions[name])
            for key, item in value.items():
                if key != "$defs":
                    visit(item)
        elif isinstance(value, list):
            for item in value:
                visit(item)

    visit(schema)
    return {name: definitions[name] for name in order if "properties" in definitions[name]}


def _json_type(value: Mapping[str, Any]) -> str:
    """Return a type in a JSON Schema in a few words."""
    if "$ref" in value:
        return str(value["$ref"]).removeprefix("#/$defs/")
    if "anyOf" in value:
        return " or ".join(dict.fromkeys(_json_type(option) for option in value["anyOf"]))
    if "complete|" in value.get("pattern", ""):
        return "a verdict"
    if "const" in value:
        return f"`{json.dumps(value['const'])}`"
    if "enum" in value:
        return "a verdict" if len(value["enum"]) > 4 else " or ".join(f"`{name}`" for name in value["enum"])
    if value.get("type") == "array":
        return f"list of {_json_type(value['items'])}"
    if value.get("type") == "object":
        values = value.get("additionalProperties") or next(iter(value["patternProperties"].values()))
        return f"object of {_json_type(values)}"
    return {"string": "text", "integer": "integer", "number": "number", "boolean": "true or false"}.get(
        str(value.get("type")), str(value.get("type"))
    )


def python_page() -> str:
    """Return the reference of the public names, from their docstrings, which mkdocstrings reads."""
    lines = [
        "# Python API",
        "",
        "`import binance_assets as ba` is the public API; everything else may change without notice. It loads names on",
        "first use, so the import itself is fast. [Reading](../reading.md) shows how to use it.",
    ]
    named = [name for names in API.values() for name in names]
    rest = [name for name in binance_assets.__all__ if name not in named and name != "__version__"]
    for title, names in {**API, "Other names": rest}.items():
        lines += ["", f"## {title}"]
        for name in names:
            if name not in binance_assets.__all__:
                raise ValueError(f"{name} is not public; remove it from API in {__file__}")
            lines += ["", f"::: binance_assets.{name}"]
    return "\n".join(lines)


def _as_markdown(text: str) -> str:
    """Return the text of a docstring or of a help as Markdown: without roles, and with single backticks."""
    return re.sub(r":\w+:`~?([^`]+)`", r"`\1`", text).replace("``", "`")


def _cell(text: str) -> str:
    """Return text as the cell of a table: in one line, with brackets that are no links."""
    return " ".join(text.split()).replace("|", "&#124;").replace("[", "&#91;")


REFERENCE: Final[Mapping[str, Callable[[], str]]] = {
    "reference/cli.md": commands_page,
    "reference/settings.md": settings_page,
    "reference/columns.md": columns_page,
    "reference/metadata.md": metadata_page,
    "reference/json.md": json_page,
    "reference/python.md": python_page,
}
"""The function that generates each page of the reference, by the page's path in the site."""
