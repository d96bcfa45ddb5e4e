"""Metrics as text, in the exposition format that Prometheus and compatible monitors read (version 0.0.4).

All of them are gauges: a process that answers a scrape has not seen what the other processes counted. Their text is
three kinds of lines, so the package has no library for it; the tests read it with the parser of ``prometheus-client``.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

CONTENT_TYPE: Final = "text/plain; version=0.0.4; charset=utf-8"

_IN_HELP: Final = str.maketrans({"\\": r"\\", "\n": r"\n"})
_IN_LABELS: Final = str.maketrans({"\\": r"\\", "\n": r"\n", '"': r"\""})

Sample = tuple[Mapping[str, str], float]
"""The labels of a value, and the value."""


@dataclass(frozen=True, slots=True)
class Metric:
    """A metric with its values.

    Attributes:
        name: Its name: letters, digits, and underscores.
        meaning: What a value is, in one line.
        samples: Its values; none, if there is nothing to measure.
    """

    name: str
    meaning: str
    samples: Sequence[Sample]


def exposition(metrics: Iterable[Metric]) -> str:
    """Return metrics as text; those without values are left out."""
    return "".join(f"{line}\n" for metric in metrics if metric.samples for line in _lines(metric))


def _lines(metric: Metric) -> Iterator[str]:
    yield f"# HELP {metric.name} {metric.meaning.translate(_IN_HELP)}"
    yield f"# TYPE {metric.name} gauge"
    for labels, value in metric.samples:
        pairs = ",".join(f'{name}="{text.translate(_IN_LABELS)}"' for name, text in labels.items())
        yield f"{metric.name}{{{pairs}}} {value:.15g}" if pairs else f"{metric.name} {value:.15g}"
