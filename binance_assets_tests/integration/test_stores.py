"""What both stores of a lake keep: a folder, and a bucket on a real S3 server."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from binance_assets.model.bucket_paths import LakePath
from binance_assets.storage.parquet_files import file_metadata, intact_table, to_parquet
from binance_assets.storage.store import Store
from binance_assets.storage.stores import store_at

NewStore = Callable[[], Store[LakePath]]


@pytest.fixture(params=["folder", pytest.param("bucket", marks=pytest.mark.services)])
def new_store(request: pytest.FixtureRequest, tmp_path: Path) -> NewStore:
    """Return what opens the store of one lake as another process would."""
    if request.param == "folder":
        return lambda: store_at(tmp_path / "lake")
    server = request.getfixturevalue("s3_server")
    root = server.new_lake()
    return lambda: store_at(root, server.environment())


@pytest.fixture
def store(new_store: NewStore) -> Store[LakePath]:
    store = new_store()
    store.create_lake()
    store.create_state()
    store.check_writable()
    return store


def folder_of(store: Store[LakePath], symbol: str = "BTCUSDT") -> LakePath:
    return store.root / "market=spot" / f"symbol={symbol}" / "interval=1h"


def write(store: Store[LakePath], path: LakePath, content: bytes) -> None:
    def attempt() -> None:
        try:
            before = store.read(path).version
        except FileNotFoundError:
            before = None
        store.replace(path, content, before)

    store.exclusively(path.parent, attempt)


def test_a_file_is_created_and_replaced_as_a_whole(store: Store[LakePath], new_store: NewStore) -> None:
    path = folder_of(store) / "2024.parquet"
    with pytest.raises(FileNotFoundError):
        store.read(path)
    for content in (b"first", b"a second one", b""):
        write(store, path, content)
        assert new_store().read(path).data == content
    assert set(store.view(path.parent).names()) - {".binance-assets.lock"} == {"2024.parquet"}


def test_a_file_that_is_too_large_is_not_read(store: Store[LakePath]) -> None:
    path = folder_of(store) / "2024.parquet"
    write(store, path, b"12345")
    assert store.read(path, 5).data == b"12345"
    with pytest.raises(ValueError, match="larger than 4 bytes"):
        store.read(path, 4)


def test_a_removed_file_is_gone_and_a_new_one_may_take_its_place(store: Store[LakePath]) -> None:
    path = folder_of(store) / "2024.parquet"
    write(store, path, b"1")
    store.remove([path])
    assert store.view(path.parent).identity(path.name) is None
    with pytest.raises(FileNotFoundError):
        list(store.open_all([path]))
    write(store, path, b"2")
    assert store.read(path).data == b"2"


def test_another_content_has_another_identity_and_the_same_file_has_the_same(store: Store[LakePath]) -> None:
    path = folder_of(store) / "2024.parquet"
    write(store, path, b"one")
    first = [store.view(path.parent).identity(path.name) for _ in range(2)]
    write(store, path, b"two")
    second = store.view(path.parent).identity(path.name)
    assert first[0] == first[1] != second
    assert second is not None
    assert second.size == 3


def test_views_of_many_folders_are_those_of_each(store: Store[LakePath]) -> None:
    folders = [folder_of(store, f"S{number}USDT") for number in range(25)]
    for folder in folders[::5]:
        write(store, folder / "2024.parquet", folder.parent.name.encode())
    for some in (folders, folders[:3]):
        views = store.views(some, store.root / "market=spot")
        for folder in some:
            assert views[folder].identity("2024.parquet") == store.view(folder).identity("2024.parquet")
    assert {str(folder) for folder in store.series_folders()} == {str(folder) for folder in folders[::5]}


@pytest.mark.parametrize("rows", [0, 3, 40_000])
def test_the_end_of_a_file_says_what_all_of_it_says(store: Store[LakePath], rows: int) -> None:
    table, path = pl.DataFrame({"number": range(rows)}, schema={"number": pl.Int64}), folder_of(store) / "2024.parquet"
    notes = {"note": "n" * rows * 3}  # the longest one is longer than what is read first
    content = to_parquet(table, notes)
    write(store, path, content)
    for whole in (False, True):
        (opened,) = store.open_all([path], whole)
        assert opened.size == len(content)
        assert content.endswith(opened.footer)
        assert file_metadata(opened.footer)["note"] == notes["note"]
    read = intact_table(store.read(path).data)
    assert read is not None
    assert read.equals(table)
    assert store.scan(path).collect().equals(table)


@pytest.mark.parametrize("content", [b"", b"PAR1", b"no Parquet at all" * 10_000])
def test_what_is_not_parquet_has_no_footer(store: Store[LakePath], content: bytes) -> None:
    path = folder_of(store) / "2024.parquet"
    write(store, path, content)
    for whole in (False, True):
        (opened,) = store.open_all([path], whole)
        assert (opened.footer, opened.size) == (b"", len(content))


def test_of_many_files_each_is_opened_in_its_place(store: Store[LakePath]) -> None:
    paths = [folder_of(store) / f"{2000 + number}.parquet" for number in range(30)]
    for path in paths[:-1]:
        write(store, path, to_parquet(pl.DataFrame({"a": [1]}), {"name": path.name}))
    names = [file_metadata(opened.footer)["name"] for opened in store.open_all(paths[:-1])]
    assert names == [path.name for path in paths[:-1]]
    with pytest.raises(FileNotFoundError):
        list(store.open_all(paths))


def test_eight_writers_that_change_one_file_lose_nothing(store: Store[LakePath], new_store: NewStore) -> None:
    path, start = folder_of(store) / "2024.parquet", threading.Barrier(8)

    def count(_: int) -> None:
        own: Any = new_store()
        start.wait()
        for _ in range(5):

            def attempt() -> None:
                try:
                    content = own.read(path)
                except FileNotFoundError:
                    content = None
                number = int(content.data) if content else 0
                own.replace(path, str(number + 1).encode(), content and content.version)

            own.exclusively(path.parent, attempt)

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(count, range(8)))
    assert store.read(path).data == b"40"


def test_files_beside_the_lake_are_found_where_they_are(store: Store[LakePath], new_store: NewStore) -> None:
    assert store.read_state("lake.json", 100) is None
    assert store.stamp() is None
    store.overwrite(store.state_folder / "lake.json", b"{}")
    first = store.stamp()
    content = new_store().read_state("lake.json", 100)
    assert content is not None
    assert content.data == b"{}"
    assert str(store.find_state("lake.json")) == f"{store.root}.state/lake.json"
    assert first is not None
    assert store.stamp() == first
    store.overwrite(store.state_folder / "lake.json", b"{ }")
    assert store.stamp() != first
    with pytest.raises(ValueError, match="larger"):
        store.read_state("lake.json", 2)
