"""YAML as plain values, read with libyaml: twenty times as fast as by the reader that keeps comments.

Readers of YAML differ in what ``yes``, ``1_000``, or a duplicate key means, and in their messages. So this one reads
only what all understand alike, as nearly every universe is written, and leaves the rest to ruamel.yaml.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any, Final

import yaml

# Wheels of PyYAML have it; without it, PyYAML is as slow as ruamel.yaml.
_PARSER: Final[Any] = getattr(yaml, "CSafeLoader", None)
_WORD: Final = re.compile(r"[^\W\d_][\w.@:-]*\w|[^\W\d_]")  # BTCUSDT, PERPETUAL, team:data, data@example.com
_NUMBERED: Final = re.compile(r"[1-9][0-9]*(?![eExXoObB]+[0-9]*$)[A-Za-z][A-Za-z0-9]*")  # 1m, 1000SATSUSDT; not 1e5
_NUMBER: Final = re.compile(r"0|[1-9][0-9]{0,17}")
_CONSTANTS: Final = {
    **dict.fromkeys(("true", "True", "TRUE"), True),
    **dict.fromkeys(("false", "False", "FALSE"), False),
    **dict.fromkeys(("", "null", "Null", "NULL"), None),
}
_MARKS: Final = re.compile("[\t\v\f\x85\u2028\u2029\ufeff]")  # breaks of lines for some readers, and not for others
_DEEPEST: Final = 12


class UnusualYaml(Exception):
    """The text is not YAML, or has something that not all readers understand alike."""


def plain_document(text: str, most: int) -> Any:
    """Return the value of a YAML document: dicts, lists, texts, ints, bools, and None.

    Args:
        text: The document.
        most: How many values it may have.

    Raises:
        UnusualYaml: The text has something else, or more values; another reader has to read it.
    """
    if _PARSER is None or _MARKS.search(text):
        raise UnusualYaml
    try:
        return _Document(yaml.parse(text, Loader=_PARSER), most).value()
    except (yaml.YAMLError, ValueError) as error:
        raise UnusualYaml from error


class _Document:
    def __init__(self, events: Iterator[Any], most: int) -> None:
        self._events = events
        self._left = most

    def value(self) -> Any:
        next(self._events)  # the start of the stream
        start = next(self._events)
        if not isinstance(start, yaml.DocumentStartEvent) or start.explicit:
            raise UnusualYaml
        value = self._value(next(self._events), 1)
        next(self._events)  # the end of the document
        if not isinstance(next(self._events), yaml.StreamEndEvent):
            raise UnusualYaml
        return value

    def _value(self, event: Any, depth: int) -> Any:
        self._left -= 1
        if depth > _DEEPEST or self._left < 0 or isinstance(event, yaml.AliasEvent):
            raise UnusualYaml
        if event.anchor is not None or event.tag is not None:
            raise UnusualYaml
        if isinstance(event, yaml.ScalarEvent):
            return _plain_scalar(event.value) if event.implicit[0] else event.value
        members = self._members(depth)
        return list(members) if isinstance(event, yaml.SequenceStartEvent) else _as_dict(members)

    def _members(self, depth: int) -> Iterator[Any]:
        while not isinstance(event := next(self._events), yaml.CollectionEndEvent):
            yield self._value(event, depth + 1)


def _as_dict(members: Iterator[Any]) -> dict[str, Any]:
    values: dict[str, Any] = {}
    for key in members:
        if not isinstance(key, str) or key in values:
            raise UnusualYaml
        values[key] = next(members)
    return values


def _plain_scalar(text: str) -> str | int | bool | None:
    """Return the value of a text without quotes."""
    if text in _CONSTANTS:
        return _CONSTANTS[text]
    if _WORD.fullmatch(text) or _NUMBERED.fullmatch(text):
        return text
    if _NUMBER.fullmatch(text):
        return int(text)
    raise UnusualYaml
