"""Damaged files of a lake, read in a process with little memory.

``python -m binance_assets_tests.support.mutated_lake <folder> <layout> <part> <first> <count>`` writes a lake into the
folder, damages a part of its file in as many ways, reads each, and prints what came of it as JSON. The number of each
damage goes to standard error before it is tried, so that the last one names what ended the process.
"""

from __future__ import annotations

import json
import os
import random
import resource
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Final, Literal

import polars as pl

from binance_assets.model.partitions import Partition
from binance_assets.model.series import Series, parse_series
from binance_assets.storage.lake import Lake
from binance_assets_tests.support.environment import CHECKOUT
from binance_assets_tests.support.lakes import local
from binance_assets_tests.support.results import result_of, write_as_layout_1

Part = Literal["footer", "body"]

SERIES: Final = parse_series("spot/BTCUSDT/1h")

_MEMORY: Final = 4 << 30
# What is written over the bytes: sizes of lists and texts in the compact form of Thrift, and the largest numbers.
_PATCHES: Final = (
    *(b"\xff\xff\xff\xff\x0f", b"\xfc\xff\xff\xff\x7f", b"\xf6\xff\xff\xff\x7f", b"\xf8\xff\xff\xff\x07"),
    *(b"\xfe\xff\xff\xff\xff\xff\xff\xff\x7f", b"\x7f", b"\x00", b"\xff"),
)


def damaged(content: bytes, part: Part, number: int) -> bytes:
    """Return a Parquet file that is damaged in its footer or before it, in the way with the given number."""
    chance = random.Random(number)
    start = len(content) - 8 - int.from_bytes(content[-8:-4], "little")
    first, last = (start, len(content) - 8) if part == "footer" else (4, start)
    changed = bytearray(content)
    for _ in range(chance.choice([1, 1, 1, 2, 3])):
        place = chance.randrange(first, last)
        match chance.randrange(4):
            case 0:
                changed[place] ^= 1 << chance.randrange(8)
            case 1:
                changed[place] = chance.randrange(256)
            case 2:
                patch = chance.choice(_PATCHES)
                changed[place : place + len(patch)] = patch
            case _:  # a size takes the place of a shorter one, and what follows moves
                changed[place : place + 1] = chance.choice(_PATCHES)
    if part == "footer":
        changed[-8:-4] = (len(changed) - 8 - start).to_bytes(4, "little")
    return bytes(changed)


def read_damaged(layout: int, part: Part, first: int, count: int) -> tuple[Counter[str], str]:
    """Read as many damaged files in a process of its own; return what came of them and an empty string.

    If the process dies, return an empty counter, and a text that names the damage of which it died.
    """
    with tempfile.TemporaryDirectory() as folder:
        arguments = [folder, str(layout), part, str(first), str(count)]
        result = subprocess.run(
            [sys.executable, "-m", "binance_assets_tests.support.mutated_lake", *arguments],
            cwd=CHECKOUT,
            capture_output=True,
            text=True,
            check=False,
        )
    if result.returncode:
        return Counter(), f"exit code {result.returncode} after: {result.stderr[-500:]}"
    return Counter(json.loads(result.stdout)), ""


def _main(folder: str, layout: str, part: Part, first: str, count: str) -> None:
    lake, intact = Lake(Path(folder) / "lake"), dict[Partition, pl.DataFrame]()
    lake.prepare("sandbox")
    keys = [f"2024-01-{day:02}" for day in range(1, 6 if layout == "2" else 2)]
    results = [result_of(SERIES, key) for key in keys]
    intact = {result.partition: result.candles for result in results}
    if layout == "2":
        lake.write_all(SERIES, results)
        path = local(lake.path(SERIES, results[0].partition))
    else:
        path = write_as_layout_1(lake.root, SERIES, results[0])
    content = path.read_bytes()
    resource.setrlimit(resource.RLIMIT_AS, (_MEMORY, _MEMORY))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    outcomes = Counter[str]()
    for number in range(int(first), int(first) + int(count)):
        os.write(2, f"{number}\n".encode())
        path.write_bytes(damaged(content, part, number))
        outcomes += _outcomes(lake, SERIES, intact)
    print(json.dumps(outcomes))


def _outcomes(lake: Lake, series: Series, intact: Mapping[Partition, pl.DataFrame]) -> Counter[str]:
    """Read the file in every way; return how many partitions are intact, not readable, or wrong, and of the file."""
    outcomes = Counter[str]()
    lake.stored_partitions(series)
    messages = lake.damaged(series)
    for partition, _, candles in lake.read_each(series, list(intact)):
        if isinstance(candles, str):
            messages.append(candles)
            outcomes["unreadable"] += 1
        else:
            outcomes["intact" if candles.equals(intact[partition]) else "wrong"] += 1
    outcomes["not in one line"] += sum(not message.isprintable() for message in messages)
    return outcomes


if __name__ == "__main__":
    _main(*sys.argv[1:])  # type: ignore[arg-type]
