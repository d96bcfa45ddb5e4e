"""The universe file: its format, and edits that keep the rest of the file."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import dagster as dg
import pytest

from binance_assets.model.series import parse_series
from binance_assets.storage.universe import UniverseError, read_universe
from binance_assets.storage.universe_editor import track, untrack

COMMENTED = """\
# series that we trade
series:
  - market: spot   # the main market
    symbols: [BTCUSDT, ETHUSDT] # two of them
    intervals: [1m]
  - market: usdm
    symbols: [BTCUSDT]
    intervals: [1m, 1h]
    source: rest
# the end
"""


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "universe.yaml"


def names(path: Path) -> list[str]:
    return [str(series) for series in read_universe(path).series]


def sources(path: Path) -> dict[str, str]:
    return {str(derived.series): str(derived.base) for derived in read_universe(path).derived}


@pytest.mark.parametrize("text", [None, "", "# nothing\n", "series:\n", "series: []\n"])
def test_a_file_without_entries_is_an_empty_universe(path: Path, text: str | None) -> None:
    if text is not None:
        path.write_text(text)
    assert read_universe(path).tracked == ()


def test_an_entry_lists_every_symbol_in_every_interval(path: Path) -> None:
    path.write_text(COMMENTED)
    assert names(path) == ["spot/BTCUSDT/1m", "spot/ETHUSDT/1m", "usdm/BTCUSDT/1m", "usdm/BTCUSDT/1h"]
    assert [tracked.source for tracked in read_universe(path).tracked] == [None, None, "rest", "rest"]


def test_an_entry_may_name_a_source_and_derived_intervals(path: Path) -> None:
    path.write_text(
        "series: [{market: spot, symbols: [BTCUSDT], intervals: [1m], source: auto, derive: [5m, 1h, 45m]}]"
    )
    universe = read_universe(path)
    assert [str(series) for series in universe.series] == ["spot/BTCUSDT/1m"]
    assert sources(path) == {
        "spot/BTCUSDT/5m": "spot/BTCUSDT/1m",
        "spot/BTCUSDT/1h": "spot/BTCUSDT/1m",
        "spot/BTCUSDT/45m": "spot/BTCUSDT/1m",
    }
    assert universe.derived_names == set(sources(path))


def test_the_owners_of_an_entry_own_its_fetched_and_its_derived_series(path: Path) -> None:
    entry = "{market: spot, symbols: [A, B], intervals: [1m, 1w], derive: [5m], owners: [team:data, jo@example.com]}"
    path.write_text(f"series: [{entry}, {{market: usdm, symbols: [A], intervals: [1m]}}]")
    universe = read_universe(path)
    owners = ("team:data", "jo@example.com")
    assert [tracked.owners for tracked in universe.tracked] == [*[owners] * 4, ()]
    assert [derived.owners for derived in universe.derived] == [owners] * 2
    untrack(path, [parse_series("spot/A/1w")])
    assert [tracked.owners for tracked in read_universe(path).tracked] == [*[owners] * 3, ()]
    assert path.read_text().count("owners: [team:data, jo@example.com]}") == 2


@pytest.mark.parametrize(
    "owner",
    [
        "jo@example.com",
        "j.o+x@a.b-c.io",
        "team:data",
        "team:a b",
        *["team:", "team", "Team:a", " team:a", "jo", "jo@example", "@a.io", "", "jo@example.technology"],
        *["a@b.io, c@d.io", "jo@exämple.com"],
    ],
)
def test_an_owner_is_what_dagster_accepts(path: Path, owner: str) -> None:
    def is_accepted(action: Callable[[], object], refusal: type[Exception]) -> bool:
        try:
            action()
        except refusal:
            return False
        return True

    path.write_text(f"series: [{{market: spot, symbols: [A], intervals: [1m], owners: ['{owner}']}}]")
    by_dagster = is_accepted(lambda: dg.AssetSpec("a", owners=[owner]), dg.DagsterInvalidDefinitionError)
    assert is_accepted(lambda: read_universe(path), UniverseError) == by_dagster


def test_each_symbol_is_derived_from_its_own_candles(path: Path) -> None:
    path.write_text("series: [{market: usdm, symbols: [A, B], intervals: [1m], derive: [10m, 1d]}]")
    intervals = ("10m", "1d")
    assert sources(path) == {
        f"usdm/{symbol}/{interval}": f"usdm/{symbol}/1m" for symbol in "AB" for interval in intervals
    }
    assert all(derived.series.derived and not derived.base.derived for derived in read_universe(path).derived)


@pytest.mark.parametrize(
    ("fetched", "derived", "source"),
    [
        ("1m, 5m, 15m", "1h", "15m"),
        ("15m, 1m, 5m", "1h", "15m"),
        ("1m, 1h", "90m", "1m"),
        ("1m, 30m, 1h", "90m", "30m"),
        ("1h, 8h, 12h, 3d, 1w, 1M", "1d", "12h"),
        ("1s, 1m", "30s", "1s"),
        ("1m, 1d", "45m", "1m"),
    ],
)
def test_the_source_is_the_coarsest_interval_that_divides_the_derived_one(
    path: Path, fetched: str, derived: str, source: str
) -> None:
    path.write_text(f"series: [{{market: spot, symbols: [A], intervals: [{fetched}], derive: [{derived}]}}]")
    assert sources(path) == {f"spot/A/{derived}": f"spot/A/{source}"}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("series: [{market: spot, symbols: [BTCUSDT], intervals: [1m, 1h], derive: [1h]}]", "both fetched and derived"),
        ("series: [{market: spot, symbols: [BTCUSDT], intervals: [1h], derive: [1h]}]", "both fetched and derived"),
        ("series: [{market: spot, symbols: [BTCUSDT, BTCUSDT], intervals: [1m]}]", "listed twice"),
        ("series: [{market: spot, symbols: [BTCUSDT], intervals: [1m], derive: [1h, 1h]}]", "listed twice"),
        (
            "series: [{market: spot, symbols: [A], intervals: [1m], derive: [1h]}, "
            "{market: spot, symbols: [A], intervals: [5m], derive: [1h]}]",
            "spot/A/1h is listed twice",
        ),
        (
            "series: [{market: spot, symbols: [A], intervals: [1m]}, "
            "{market: spot, symbols: [A], intervals: [1h, 1d], derive: [45m]}]",
            "entry 2 of series, derive: 45m cannot be derived because this entry fetches no finer interval that "
            "divides it evenly; add 15m to intervals or remove 45m from derive",
        ),
        ("series: [{market: spot, symbols: [A], intervals: [3d, 1M], derive: [1d]}]", "add 12h to intervals"),
        ("series: [{market: spot, symbols: [A], intervals: [], derive: [1h]}]", "add 30m to intervals"),
        ("series: [{market: spot, symbols: [A], intervals: [1m], derive: [1s]}]", "evenly; remove 1s from derive"),
        (
            "series: [{market: usdm, symbols: [A], intervals: [1m], derive: [90s]}]",
            "evenly; remove 90s from derive",
        ),
        ("series: [{market: spot, symbols: [A], intervals: [1m], derive: [7m]}]", "across midnight"),
        ("series: [{market: spot, symbols: [A], intervals: [1m], derive: [60m]}]", "write 1h"),
        ("series: [{market: spot, symbols: [A], intervals: [1m], derive: [1w]}]", "at most 1d"),
        ("series: [{market: spot, symbols: [BTCUSDT], intervals: [1M, 1mo]}]", "listed twice"),
        ("series: [{market: moon, symbols: [BTCUSDT], intervals: [1m]}]", "no market 'moon'"),
        ("series: [{market: spot, symbols: [BTCUSDT], intervals: [7m]}]", "no interval '7m'"),
        ("series: [{market: usdm, symbols: [BTCUSDT], intervals: [1s]}]", "no candles of 1s"),
        ("series: [{market: spot, symbols: [btc/usdt], intervals: [1m]}]", "not a symbol"),
        ("series: [{market: spot, symbols: BTCUSDT, intervals: [1m]}]", "symbols"),
        ("series: [{market: spot, symbols: [1000], intervals: [1m]}]", "symbols"),
        ("series: [{market: spot, symbols: [BTCUSDT]}]", "intervals"),
        ("series: [{market: spot, symbols: [BTCUSDT], intervals: [1m], sauce: rest}]", "sauce"),
        ("series: [{market: spot, symbols: [BTCUSDT], intervals: [1m], source: ftp}]", "source"),
        (
            "series: [{market: spot, symbols: [BTCUSDT], intervals: [1m], owners: [team:]}]",
            "owners.0: 'team:' is not an owner; write an email address, or a team as team:NAME",
        ),
        ('series: [{market: spot, symbols: [A], intervals: [1m], owners: ["team:\\n"]}]', "not an owner"),
        ("series: [spot]", "entry 1"),
        ("series: {market: spot}", "list of entries"),
        ("serie: []", "one key, series"),
        ("- 1", "one key, series"),
        ("series: [", "not YAML"),
    ],
)
def test_the_error_names_the_file_and_the_mistake_in_one_line(path: Path, text: str, message: str) -> None:
    path.write_text(text)
    with pytest.raises(UniverseError) as raised:
        read_universe(path)
    assert message in str(raised.value)
    assert str(path) in str(raised.value)
    assert "\n" not in str(raised.value)


def test_track_adds_to_a_fitting_entry_and_keeps_comments(path: Path) -> None:
    path.write_text(COMMENTED)
    added = track(path, [parse_series("spot/SOLUSDT/1m"), parse_series("spot/BTCUSDT/1m"), parse_series("coinm/X/1mo")])
    assert [str(series) for series in added] == ["spot/SOLUSDT/1m", "coinm/X/1mo"]
    text = path.read_text()
    assert "# series that we trade" in text
    assert "# the main market" in text
    assert "symbols: [BTCUSDT, ETHUSDT, SOLUSDT] # two of them" in text
    assert names(path)[2] == "spot/SOLUSDT/1m"
    assert names(path)[-1] == "coinm/X/1mo"


def test_untrack_keeps_everything_else(path: Path) -> None:
    path.write_text(COMMENTED)
    untrack(path, [parse_series("spot/BTCUSDT/1m"), parse_series("usdm/BTCUSDT/1h")])
    assert names(path) == ["spot/ETHUSDT/1m", "usdm/BTCUSDT/1m"]
    assert "# the main market" in path.read_text()


def test_untrack_of_one_interval_of_one_symbol_splits_the_entry(path: Path) -> None:
    path.write_text("series: [{market: spot, symbols: [A, B], intervals: [1m, 1h], source: rest}]")
    untrack(path, [parse_series("spot/A/1h")])
    assert sorted(names(path)) == ["spot/A/1m", "spot/B/1h", "spot/B/1m"]
    assert {tracked.source for tracked in read_universe(path).tracked} == {"rest"}


def test_untrack_undoes_track(path: Path) -> None:
    series = [parse_series(f"{market}/BTCUSDT/{interval}") for market in ("spot", "usdm") for interval in ("1m", "1mo")]
    assert track(path, series) == series
    assert track(path, series) == []
    assert untrack(path, series) == series
    assert names(path) == []


def test_many_edits_at_once_write_the_same_as_one_after_the_other(path: Path) -> None:
    """Entries that are split twice, that lose all symbols but one, that get symbols and intervals, and that vanish."""
    text = (
        "series:\n  - {market: spot, symbols: [A, B, C], intervals: [1m, 1h, 1d], source: rest} # three\n"
        "  - {market: spot, symbols: [D], intervals: [1m]}\n  # the last one\n"
        "  - {market: usdm, symbols: [D], intervals: [1m, 1h]}\n"
    )
    added = ["spot/E/1m", "spot/D/1h", "spot/F/1m", "spot/D/5m", "spot/F/5m", "spot/G/5m", "usdm/D/1d", "usdm/E/1d"]
    removed = [
        "spot/A/1m",
        "spot/B/1h",
        "spot/A/1d",
        "spot/C/1m",
        "spot/A/1h",
        "usdm/D/1h",
        "spot/C/1h",
        "spot/C/1d",
        "spot/D/1m",
    ]
    for edit, edited in ((track, added), (untrack, removed)):
        path.write_text(text)
        edit(path, [parse_series(name) for name in edited])
        at_once = path.read_text()
        path.write_text(text)
        for name in edited:
            edit(path, [parse_series(name)])
        assert at_once == path.read_text()


def test_an_edit_that_contradicts_the_file_changes_nothing(path: Path) -> None:
    path.write_text("series: [{market: spot, symbols: [BTCUSDT], intervals: [1m], derive: [1h]}]")
    before = path.read_text()
    with pytest.raises(UniverseError, match="both fetched and derived"):
        track(path, [parse_series("spot/BTCUSDT/1h")])
    assert path.read_text() == before
    assert {file.name for file in path.parent.iterdir()} == {path.name, ".universe.yaml.lock"}


DERIVING = """\
series:
  - market: spot
    symbols: [A, B] # two of them
    intervals: [1m, 5m, 1w]
    derive: [15m, 45m]
"""


def test_track_does_not_change_an_entry_with_derived_intervals(path: Path) -> None:
    path.write_text(DERIVING)
    track(path, [parse_series("spot/C/1m"), parse_series("spot/A/1h")])
    assert path.read_text().startswith(DERIVING)
    assert len(sources(path)) == 4


def test_untrack_keeps_derived_series_whose_source_stays(path: Path) -> None:
    path.write_text(DERIVING)
    before = sources(path)
    untrack(path, [parse_series("spot/A/1w"), parse_series("spot/A/1m")])
    assert names(path) == ["spot/B/1m", "spot/B/5m", "spot/B/1w", "spot/A/5m"]
    assert sources(path) == before
    assert path.read_text().count("derive: [15m, 45m]\n") == 2  # each entry lists them in full, without a YAML alias


def test_untrack_of_one_of_two_sources_leaves_the_other(path: Path) -> None:
    path.write_text(DERIVING)
    untrack(path, [parse_series("spot/B/5m")])
    assert sources(path)["spot/A/15m"] == "spot/A/5m"
    assert sources(path)["spot/B/15m"] == "spot/B/1m"


@pytest.mark.parametrize("symbols", ["A", "A, B"])
@pytest.mark.parametrize(
    ("intervals", "removed", "orphans"),
    [("1m", "1m", "10m, 1h"), ("1m, 30m", "1m", "10m"), ("1m, 1d, 1w", "1m", "10m, 1h")],
)
def test_untrack_of_the_only_source_of_a_derived_series_is_refused(
    path: Path, symbols: str, intervals: str, removed: str, orphans: str
) -> None:
    path.write_text(f"series: [{{market: spot, symbols: [{symbols}], intervals: [{intervals}], derive: [10m, 1h]}}]")
    before = path.read_text()
    with pytest.raises(UniverseError) as raised:
        untrack(path, [parse_series(f"spot/A/{removed}")])
    assert str(path) in str(raised.value)
    assert f"{orphans} of A would have no base series without spot/A/{removed}" in str(raised.value)
    assert "\n" not in str(raised.value)
    assert path.read_text() == before


EDIT = """
import sys
from pathlib import Path
from binance_assets.model.series import parse_series
from binance_assets.storage.universe_editor import track

for name in sys.argv[2:]:
    track(Path(sys.argv[1]), [parse_series(name)])
"""


def test_simultaneous_edits_of_many_processes_are_all_kept(path: Path) -> None:
    series = [[f"spot/S{process}{number}USDT/1m" for number in range(4)] for process in range(4)]
    running = [subprocess.Popen([sys.executable, "-c", EDIT, str(path), *edits]) for edits in series]
    assert [process.wait(60) for process in running] == [0] * len(series)
    assert sorted(names(path)) == [name for edits in series for name in edits]
