"""Iteration in another thread: order, errors, turns while nothing arrives, and its end."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import closing
from itertools import count

import pytest

from binance_assets.orchestration.background import BackgroundIterator
from binance_assets_tests.support.polling import until


def test_items_arrive_in_order_and_then_the_error_of_the_iterator() -> None:
    received: list[int] = []

    def items() -> Iterator[int]:
        yield from range(100)
        raise ZeroDivisionError("after the items")

    with closing(BackgroundIterator(items())) as background, pytest.raises(ZeroDivisionError, match="after the items"):
        received.extend(item for item in background if item is not None)
    assert received == list(range(100))


def test_none_is_yielded_from_time_to_time_while_no_item_arrives() -> None:
    proceed = threading.Event()

    def items() -> Iterator[str]:
        proceed.wait(60)
        yield "late"

    with closing(BackgroundIterator(items())) as background:
        arriving = iter(background)
        assert next(arriving) is None
        proceed.set()
        assert [item for item in arriving if item is not None] == ["late"]


def test_few_items_are_computed_ahead_and_none_after_the_end() -> None:
    computed: list[int] = []
    threads: list[threading.Thread] = []

    def items() -> Iterator[int]:
        threads.append(threading.current_thread())
        for number in count():
            computed.append(number)
            yield number

    with closing(BackgroundIterator(items())) as background:
        assert next(iter(background)) == 0
        until(120, lambda: len(computed) > 5)
    threads[0].join(60)
    assert not threads[0].is_alive()
    assert len(computed) < 20
