"""The test of the documentation notices what a reader would notice, and nothing that only varies."""

from __future__ import annotations

import pytest

from binance_assets_tests.support.documented_blocks import Block, blocks_in
from binance_assets_tests.support.documented_session import commands_of, compare

TABLE = "series           candles  seconds  workers\nspot/BTCUSDT/1m   44,640      1.3       16"
PAGE = """
<!-- setup: binance-assets init -->
<!-- servers -->
<!-- exit: 0 1 -->
```console
$ first
> more
output
$ second
```

<!-- not run: needs systemd -->
```bash
systemctl status
```

<!-- not run: a sentence is between this and the block -->
Text.

```yaml title="universe.yaml"
series: []
```
"""


@pytest.mark.parametrize(
    ("shown", "printed"),
    [
        (TABLE, "series  candles  seconds  workers\nspot/BTCUSDT/1m  44,640  9.9  12"),
        ("took 1.3 s, 15 MB", "took 2.4 s, 16 MB"),
        ("at 127.0.0.1:8900, 2026-11-26", "at 127.0.0.1:9000, 2027-01-01 12:00"),
        ("first\n...\nlast", "first\none\ntwo\nlast"),
        ("a ... z", "a b c z"),
        ("done", "12:00:00 working\ndone"),
    ],
)
def test_what_varies_is_not_compared(shown: str, printed: str) -> None:
    compare(shown, [printed], "page.md:1")


@pytest.mark.parametrize(
    ("shown", "printed"),
    [
        (TABLE, TABLE.replace("44,640", "44,639")),
        (TABLE, TABLE.replace("seconds", "minutes")),
        ("2024-01-10 is lost", "2024-01-11 is lost"),
        ("first\nlast", "first\nmiddle\nlast"),
        ("a ... z", "a b\nc z"),
        ("done", "done\nand more"),
    ],
)
def test_everything_else_is_compared(shown: str, printed: str) -> None:
    with pytest.raises(AssertionError, match=r"^page\.md:1"):
        compare(shown, [printed], "page.md:1")


def test_comments_belong_to_the_block_right_after_them() -> None:
    setup, console, bash, universe = blocks_in(PAGE, "page.md")
    assert (setup.language, setup.text) == ("setup", "binance-assets init")
    assert (console.is_for_servers, console.exit_codes, console.line) == (True, (0, 1), 5)
    assert bash.not_run == "needs systemd"
    assert (universe.title, universe.not_run, universe.is_for_servers) == ("universe.yaml", "", False)


def test_commands_are_separated_from_their_output() -> None:
    _, console, bash, _ = blocks_in(PAGE, "page.md")
    assert [(command.text, command.shown) for command in commands_of(console)] == [
        ("first\nmore", "output"),
        ("second", None),
    ]
    assert [command.text for command in commands_of(bash)] == ["systemctl status"]
    shell = Block("page.md", 1, "bash", "cd x\nls | wc -l\n")
    assert [command.text for command in commands_of(shell)] == ["cd x\nls | wc -l\n"]
