"""Metrics as text: what Prometheus reads is what was measured, whatever the labels hold."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from prometheus_client.parser import text_string_to_metric_families

from binance_assets.model.exposition import Metric, exposition

TEXT = st.text(st.characters(blacklist_categories=["Cs"], blacklist_characters="\r"), max_size=20)
VALUE = st.one_of(st.integers(-(10**15) + 1, 10**15 - 1), st.booleans())


@given(st.lists(st.tuples(st.dictionaries(st.sampled_from(["symbol", "group"]), TEXT), VALUE), min_size=1), TEXT)
def test_a_reader_gets_the_values_the_labels_and_the_meaning(
    samples: list[tuple[dict[str, str], float]], meaning: str
) -> None:
    text = exposition([Metric("candles", meaning, samples)])
    (family,) = text_string_to_metric_families(text)
    assert family.type == "gauge"
    assert [(sample.labels, sample.value) for sample in family.samples] == samples


def test_a_metric_without_values_is_left_out() -> None:
    assert exposition([Metric("candles", "Candles.", [])]) == ""
