"""The universe file: anything may be in it, and an edit must keep what a user has arranged around it."""

from __future__ import annotations

import os
import stat
import time
from contextlib import suppress
from pathlib import Path
from typing import Final

import pytest
from hypothesis import given
from hypothesis import strategies as st

from binance_assets.model.series import parse_series
from binance_assets.storage.universe import UniverseError, read_universe
from binance_assets.storage.universe_editor import track, untrack

BTC: Final = parse_series("spot/BTCUSDT/1m")
ETH: Final = parse_series("spot/ETHUSDT/1m")
TEXT: Final = "# mine\nseries:\n  - market: spot\n    symbols: [BTCUSDT]\n    intervals: [1m]\n"


def aliases(levels: int, width: int = 10) -> str:
    """Return a document whose lists refer to each other: written out, ``width`` to the power of ``levels`` values."""
    lists = [f"  - &l0 [{', '.join('x' * width)}]", *_levels(levels, width)]
    return "series:\n" + "\n".join(lists) + "\n"


def _levels(levels: int, width: int) -> list[str]:
    return [f"  - &l{level} [{', '.join([f'*l{level - 1}'] * width)}]" for level in range(1, levels + 1)]


def product(symbols: int, intervals: int) -> str:
    lists = f"symbols: [{', '.join('A' * symbols)}], intervals: [{', '.join(['1m'] * intervals)}]"
    return f"series:\n  - {{market: spot, {lists}}}\n"


HOSTILE: Final = {
    "brackets": b"[" * 5_000,
    "brackets under series": b"series: " + b"[" * 5_000,
    "braces": b"{" * 5_000,
    "brackets and braces": b"[{" * 5_000,
    "pairs": b"[a, " * 5_000,
    "closed brackets": b"[" * 5_000 + b"]" * 5_000,
    "dashes": b"- " * 5_000,
    "question marks": b"? " * 5_000,
    "indentation": b"".join(b" " * level + b"a:\n" for level in range(1_200)),
    "aliases": aliases(10).encode(),
    "aliases of braces": aliases(10).replace("[", "{a: [").replace("]", "]}").encode(),
    "a list in itself": b"series: &a [*a]",
    "an entry in itself": b"series:\n  - &a {market: *a, symbols: *a, intervals: *a}",
    "merged aliases": b"series:\n  - &a\n    <<: *a\n",
    "a product of lists": product(1_100, 1_000).encode(),
    "an anchor twice": b"series:\n  - &a 1\n  - &a 2\n  - *a\n",
    "a number of 5,000 digits": b"series: " + b"1" * 5_000,
    "infinity": b"series: [1e999, .inf, .nan]",
    "a date that is none": b"series: 2024-99-99",
    "base64 that is none": b"series: !!binary x",
    "an object of Python": b"series: !!python/object/apply:os.system [exit]",
    "an unknown tag": b"series: !<\x1b[2J> x",
    "escape sequences": b'series:\n  - {market: "\\e[2J\\n", symbols: [A], intervals: [1m]}\n',
    "escape sequences in a key": b'series:\n  - {"\\e[2J\\n": 1}\n',
    "escape sequences in a symbol": b'series:\n  - {market: spot, symbols: ["\\e[2J\\n"], intervals: [1m]}\n',
    "a long symbol": b"series:\n  - {market: spot, symbols: [" + b"A" * 100_000 + b"], intervals: [1m]}\n",
    "NUL": b"\0",
    "latin-1": "series: [é]".encode("latin-1"),
    "UTF-16": TEXT.encode("utf-16"),
    "a list": b"- market: spot\n",
    "a complex key": b"? [a, b]\n: 1\n",
    "two documents": b"series: []\n---\nseries: []\n",
    "large": b"#" * 10_000_001,
}


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "universe.yaml"


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_file_is_refused_at_once_in_a_line_that_names_it_and_is_left_alone(path: Path, name: str) -> None:
    path.write_bytes(HOSTILE[name])
    before = time.process_time()
    for use in (read_universe, lambda path: track(path, [BTC])):
        with pytest.raises(UniverseError) as error:
            use(path)
        message = str(error.value)
        assert message.startswith(str(path))
        assert message.isprintable()
        assert len(message) < 700
    assert time.process_time() - before < 10
    assert path.read_bytes() == HOSTILE[name]
    assert {entry.name for entry in path.parent.iterdir()} <= {path.name, f".{path.name}.lock"}


def test_a_file_of_a_gigabyte_is_not_read(path: Path) -> None:
    with path.open("wb") as file:
        file.truncate(1 << 30)
    with pytest.raises(UniverseError, match=r"universe\.yaml is larger than 10,000,000 bytes"):
        read_universe(path)


def test_a_hundred_thousand_series_are_read(path: Path) -> None:
    symbols = ", ".join(f"S{number}USDT" for number in range(6_250))
    intervals = "1s, 1m, 3m, 5m, 15m, 30m, 1h, 2h, 4h, 6h, 8h, 12h, 1d, 3d, 1w, 1mo"
    path.write_text(f"series:\n  - market: spot\n    symbols: [{symbols}]\n    intervals: [{intervals}]\n")
    assert len(read_universe(path).tracked) == 100_000


def test_aliases_and_brackets_that_a_user_may_write_are_read(path: Path) -> None:
    path.write_text(
        "# [[[[[ a comment\n"
        "series:\n"
        "  - {market: spot, symbols: [BTCUSDT], intervals: &usual [1m, 1h]} # see [1] [2\n"
        "  - {market: spot, symbols: [ETHUSDT], intervals: *usual}\n" + "# [" * 40 + "\n"
    )
    assert len(read_universe(path).tracked) == 4


@given(st.binary(max_size=200) | st.text(max_size=200).map(lambda text: text.encode("utf-8", "surrogatepass")))
def test_any_bytes_are_a_universe_or_its_error(tmp_path_factory: pytest.TempPathFactory, content: bytes) -> None:
    path = tmp_path_factory.getbasetemp() / f"any-{os.getpid()}.yaml"
    path.write_bytes(content)
    with suppress(UniverseError):
        assert not read_universe(path).tracked


yaml_values = st.recursive(
    st.sampled_from(
        ["1m", "spot", "A", "1", "~", "*a", "&a x", "!!int x", "''", '"\\e"', "2024-01-01", "1e999", "?", "<<"]
    ),
    lambda members: st.lists(members, max_size=4).map(lambda texts: f"[{', '.join(texts)}]"),
    max_leaves=8,
)


@given(
    st.lists(
        st.dictionaries(
            st.sampled_from(["market", "symbols", "intervals", "source", "derive", "<<", "x"]), yaml_values
        ),
        max_size=3,
    )
)
def test_any_entries_are_a_universe_or_its_error(
    tmp_path_factory: pytest.TempPathFactory, entries: list[dict[str, str]]
) -> None:
    path = tmp_path_factory.getbasetemp() / f"entries-{os.getpid()}.yaml"
    lines = ["{" + ", ".join(f"{name}: {value}" for name, value in entry.items()) + "}" for entry in entries]
    path.write_text("series:\n" + "".join(f"  - {line}\n" for line in lines))
    with suppress(UniverseError):
        read_universe(path)


# Edits


def test_an_edit_follows_a_link_and_both_stay_what_they_were(tmp_path: Path) -> None:
    target, link = tmp_path / "repository" / "mine.yaml", tmp_path / "universe.yaml"
    target.parent.mkdir()
    target.write_text(TEXT)
    (tmp_path / "middle.yaml").symlink_to(target)
    link.symlink_to("middle.yaml")
    assert track(link, [ETH]) == [ETH]
    assert link.readlink() == Path("middle.yaml")
    assert not target.is_symlink()
    assert target.read_text().startswith("# mine\n")
    assert untrack(link, [BTC]) == [BTC]
    assert read_universe(target).series == [ETH]
    assert {entry.name for entry in target.parent.iterdir()} <= {"mine.yaml", ".mine.yaml.lock"}


def test_an_edit_through_a_link_to_nothing_creates_its_target(tmp_path: Path) -> None:
    link = tmp_path / "universe.yaml"
    link.symlink_to("elsewhere.yaml")
    track(link, [BTC])
    assert link.is_symlink()
    assert read_universe(tmp_path / "elsewhere.yaml").series == [BTC]


def test_a_link_to_itself_is_an_error(path: Path) -> None:
    path.symlink_to(path.name)
    with pytest.raises(UniverseError, match=r"universe\.yaml cannot be"):
        track(path, [BTC])
    assert path.is_symlink()


@pytest.mark.skipif(os.name == "nt", reason="Windows has no modes")
@pytest.mark.parametrize("mode", [0o600, 0o640, 0o664, 0o444, 0o755])
def test_an_edit_keeps_the_mode(path: Path, mode: int) -> None:
    path.write_text(TEXT)
    path.chmod(mode)
    track(path, [ETH])
    assert stat.S_IMODE(path.stat().st_mode) == mode
    assert read_universe(path).series == [BTC, ETH]


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() != 0, reason="only root may give files away")
def test_an_edit_keeps_the_owner_and_the_group(path: Path) -> None:
    path.write_text(TEXT)
    os.chown(path, 1234, 5678)
    path.chmod(0o640)
    track(path, [ETH])
    status = path.stat()
    assert (status.st_uid, status.st_gid, stat.S_IMODE(status.st_mode)) == (1234, 5678, 0o640)


def test_an_edit_is_on_the_disk_before_its_name_and_then_its_name_is(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path.write_text(TEXT)
    steps: list[str] = []
    sync, rename = os.fsync, os.replace

    def note_sync(descriptor: int) -> None:
        steps.append("folder" if stat.S_ISDIR(os.fstat(descriptor).st_mode) else "file")
        sync(descriptor)

    def note_rename(source: Path, target: Path) -> None:
        steps.append("rename")
        rename(source, target)

    monkeypatch.setattr(os, "fsync", note_sync)
    monkeypatch.setattr(os, "replace", note_rename)
    track(path, [ETH])
    assert steps == ["file", "rename", "folder"]
