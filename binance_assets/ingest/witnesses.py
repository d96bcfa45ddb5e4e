"""Witnesses: other candles of the exchange that confirm a partition whose ``1d`` candle disagrees or is missing.

The exchange's own ``1d`` candle can be wrong: on 2023-08-16 that of most USD-M symbols is, while ``1m`` and ``1h``
agree. So a doubtful partition is compared with more candles. First with the ``1d`` candle of the archive, because a
single source may be wrong. Then with the ``1h`` candles, and with the ``4h`` candles if those do not agree: every hour
of the partition must have the same totals.

A ``1d`` candle is disproved only by hours of its own source. On 2025-01-14 the archive lacks trades in all its
intervals alike, so its hours confirm nothing against the ``1d`` candle of the API.

All doubtful partitions of a series are examined together, in few requests, and what was fetched is kept for the other
series of the symbol in the same run.
"""

from __future__ import annotations

import math
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Final
from weakref import WeakKeyDictionary

import polars as pl

from binance_assets.candles.columns import empty_candles
from binance_assets.candles.schema import every_rule
from binance_assets.completeness.control_totals import Totals, any_discrepancy, combine_each, totals_by_day
from binance_assets.completeness.disputed_days import disputed_days_within
from binance_assets.completeness.reference_data import EvidenceSource, ReferenceData
from binance_assets.completeness.validation import validate_partitions
from binance_assets.exchange.errors import ExchangeError
from binance_assets.exchange.pages import plan_pages
from binance_assets.exchange.session import Exchange
from binance_assets.ingest.blocks import read_days, read_file, read_page
from binance_assets.ingest.daily import DailyCandles, daily_from_archive, day_partitions, merge_days
from binance_assets.ingest.reference import updated_reference
from binance_assets.model.intervals import DAILY, Interval, parse_interval
from binance_assets.model.partitions import Partition
from binance_assets.model.results import PartitionResult
from binance_assets.model.series import Series
from binance_assets.model.timestamps import DAY, to_text

_WITNESSES: Final = (parse_interval("1h"), parse_interval("4h"))

_AGREED: Final = frozenset({"complete", "listing", "delisted", "outage"})
"""The verdicts that a partition gets if its control totals agree."""


def needs_witness(result: PartitionResult, reference: ReferenceData) -> bool:
    """Return whether other candles are asked about a partition.

    Without any control totals nothing is asked: then the exchange could not be reached, and all partitions are alike.
    """
    if result.verdict == "unproved":
        return reference.control_totals_error is None
    return result.verdict in ("unbalanced", "lost") and not result.candles.is_empty()


def with_witnesses(
    exchange: Exchange, series: Series, results: Sequence[PartitionResult], reference: ReferenceData
) -> Iterator[PartitionResult]:
    """Yield ``results``, with what witnesses say about the doubtful ones.

    A partition that agrees with the archive's ``1d`` candle gets the verdict of that comparison. One without a gap
    whose hours all agree stays ``unbalanced`` or ``unproved`` and names its witnesses, so that it is accepted also if
    strict. One without a ``1d`` candle whose hours differ becomes ``unbalanced``.

    Args:
        exchange: The market.
        series: The series.
        results: The best results of their partitions, ascending.
        reference: What they were validated against.

    Raises:
        Cancelled: The exchange was closed.
    """
    doubtful = [result for result in results if needs_witness(result, reference)]
    if not doubtful:
        yield from results
        return
    check = _WitnessCheck(exchange, series, reference, _cache_of(exchange))
    decided = check.outcomes(doubtful)
    yield from (decided.get(result.partition, result) for result in results)


@dataclass
class _WitnessCache:
    """The totals of witnesses that a run has fetched, so that each is requested once for all series of a symbol."""

    lock: threading.Lock = field(default_factory=threading.Lock)
    totals: dict[tuple[str, Interval, EvidenceSource], dict[int, Totals]] = field(default_factory=dict)
    days: dict[tuple[str, Interval, EvidenceSource], set[int]] = field(default_factory=dict)

    def get(
        self,
        key: tuple[str, Interval, EvidenceSource],
        days: set[int],
        fetch: Callable[[list[tuple[int, int]]], Mapping[int, Totals]],
    ) -> dict[int, Totals]:
        """Return the totals of the candles of ``days``, by open time; ``fetch`` requests those that are not known yet.

        All times are in ms UTC. Candles of other days may be among them.
        """
        with self.lock:
            new = days - self.days.get(key, set())
            if new:
                self.totals[key] = {**self.totals.get(key, {}), **fetch(merge_days(new))}
                self.days[key] = self.days.get(key, set()) | new
            return self.totals[key]


_CACHES: Final[WeakKeyDictionary[Exchange, _WitnessCache]] = WeakKeyDictionary()
_CACHES_LOCK: Final = threading.Lock()


def _cache_of(exchange: Exchange) -> _WitnessCache:
    with _CACHES_LOCK:
        return _CACHES.setdefault(exchange, _WitnessCache())


@dataclass(frozen=True, slots=True)
class _WitnessCheck:
    """The examination of the doubtful partitions of a series."""

    exchange: Exchange
    series: Series
    reference: ReferenceData
    cache: _WitnessCache

    def outcomes(self, doubtful: Sequence[PartitionResult]) -> dict[Partition, PartitionResult]:
        """Return the results that witnesses change, by partition."""
        agreeing = self._agreements_with_archive(doubtful)
        decided = {
            partition: _agreed_with_archive(result)
            for partition, result in agreeing.items()
            if not result.missing and result.provenance.source == "rest"
        }
        # A gap, or candles of the archive that only the archive's own 1d candle confirms, need the hours too.
        pending = [
            result
            for result in doubtful
            if result.partition not in decided and (result.partition in agreeing or result.verdict != "lost")
        ]
        decided |= self._by_hours(pending, agreeing)
        return {partition: self._named(result) for partition, result in decided.items()}

    def _agreements_with_archive(self, doubtful: Sequence[PartitionResult]) -> dict[Partition, PartitionResult]:
        """Return the results of the partitions that agree with the ``1d`` candles of the archive, not of the API."""
        days = {
            day
            for result in doubtful
            for day in _days_of(self.series, result.partition)
            if self.reference.control_totals.has_day(day) and day not in self.reference.archived_days
        }
        if not days or not self.exchange.archive_matches_api:
            return {}
        archived = self.cache.get((self.series.symbol, DAILY, "archive"), days, self._archived_daily)
        chosen = {day: archived[day] for day in days if day in archived}
        if not chosen:
            return {}
        reference = updated_reference(self.reference, DailyCandles(chosen), is_archive=True)
        again = [self._validate(result, reference) for result in doubtful]
        return {result.partition: result for result in again if result.verdict in _AGREED}

    def _archived_daily(self, days: list[tuple[int, int]]) -> Mapping[int, Totals]:
        return daily_from_archive(self.exchange, self.series, days, self.reference.now).totals

    def _validate(self, result: PartitionResult, reference: ReferenceData) -> PartitionResult:
        partitions = [result.partition]
        return validate_partitions(self.series, result.candles, partitions, reference, result.provenance)[0]

    def _by_hours(
        self, pending: Sequence[PartitionResult], agreeing: dict[Partition, PartitionResult]
    ) -> dict[Partition, PartitionResult]:
        """Return the results of the partitions that hours confirm or refute."""
        decided: dict[Partition, PartitionResult] = {}
        refuted: dict[Partition, str] = {}
        for interval in (interval for interval in _WITNESSES if interval != self.series.interval):
            for source in ("rest", "archive"):
                asked = [
                    result for result in pending if result.partition not in decided and source in self._sources(result)
                ]
                if not asked:
                    continue
                hours = self._hours(source, interval, asked)
                for result in asked:
                    witness = f"{interval} candles of {source}"
                    difference = self._difference(result, hours, interval)
                    if difference is None:
                        decided[result.partition] = _confirmed(result, agreeing.get(result.partition), witness)
                    elif difference:
                        refuted.setdefault(result.partition, f"the {witness} differ as well: {difference}")
        for result in pending:
            if result.partition not in decided:
                decided[result.partition] = _unconfirmed(result, refuted.get(result.partition))
        return decided

    def _sources(self, result: PartitionResult) -> set[EvidenceSource]:
        """Return the sources whose hours can disprove the ``1d`` candles of a partition, or replace missing ones."""
        sources = self.reference.sources(result.partition)
        if sources and result.verdict != "unproved":
            return sources
        return {"archive"} if self.reference.rest_error is not None else {"rest", "archive"}

    def _hours(self, source: EvidenceSource, interval: Interval, asked: Sequence[PartitionResult]) -> dict[int, Totals]:
        days = {day for result in asked for day in _days_of(self.series, result.partition)}
        hourly = Series(self.series.market, self.series.symbol, interval)
        read = self._hours_by_rest if source == "rest" else self._hours_in_archive
        return self.cache.get((self.series.symbol, interval, source), days, lambda ranges: read(hourly, ranges))

    def _hours_by_rest(self, hourly: Series, days: list[tuple[int, int]]) -> dict[int, Totals]:
        pages = plan_pages(hourly.market, hourly.interval, days)
        outcomes = self.exchange.stream(hourly, pages, lambda page, body: read_page(hourly, page, body))
        return _valid(hourly, [outcome for _, outcome in outcomes if not isinstance(outcome, ExchangeError)])

    def _hours_in_archive(self, hourly: Series, days: list[tuple[int, int]]) -> dict[int, Totals]:
        if not self.exchange.archive_matches_api:
            return {}
        outcomes = read_days(
            self.exchange,
            hourly,
            day_partitions(days),
            self.reference.now,
            lambda file, content: read_file(self.exchange, file, content),
        )
        return _valid(hourly, [outcome for _, outcome in outcomes if not isinstance(outcome, ExchangeError)])

    def _difference(self, result: PartitionResult, hours: Mapping[int, Totals], interval: Interval) -> str | None:
        """Return how the hours of a partition differ from its candles; an empty text if some hours are not known."""
        days = _days_of(self.series, result.partition)
        within = {time: totals for time, totals in hours.items() if days[0] <= time < days[-1] + DAY}
        if not within:
            return ""
        if not self.series.interval.is_multi_day:
            return _first_difference(self.series, result.candles, within, interval)
        daily = DailyCandles(combine_each(within, interval.step, DAY))
        again = self._validate(result, updated_reference(self.reference, daily, is_archive=False))
        if again.verdict in _AGREED:
            return None
        # A day with some of its hours looks like a day with fewer trades, so alone it refutes nothing.
        return "" if result.verdict == "unproved" else again.reason

    def _named(self, result: PartitionResult) -> PartitionResult:
        """Return the result, with the known days in its reason on which the exchange's own candles disagree."""
        known = disputed_days_within(self.series.market, result.partition)
        names = ", ".join(disputed.name for disputed in known)
        return replace(result, reason=f"{result.reason} ({names})") if names else result


def _days_of(series: Series, partition: Partition) -> range:
    """Return the days that the candles of a partition reach into, ms UTC."""
    overhang = series.interval.step - DAY if series.interval.is_multi_day and not series.interval.is_month else 0
    return range(partition.start, partition.end + overhang, DAY)


def _valid(series: Series, frames: Sequence[pl.DataFrame]) -> dict[int, Totals]:
    """Return the totals of the candles that follow the rules: a bad row leaves its hour without a witness."""
    candles = pl.concat([empty_candles(series.market), *frames]).unique("open_time").sort("open_time")
    valid = candles.filter(every_rule(series.market, series.interval).fill_null(False))
    return totals_by_day(series.market, valid, series.interval.step)


def _first_difference(
    series: Series, candles: pl.DataFrame, hours: Mapping[int, Totals], interval: Interval
) -> str | None:
    """Return the first difference between the totals of candles and of hours.

    A span in which nothing was traded may be without candles.

    Returns:
        The difference; None if all totals agree; an empty text if all that are known agree, but some hours are missing.
    """
    is_incomplete = False
    step = math.lcm(series.interval.step, interval.step)
    ours, theirs = totals_by_day(series.market, candles, step), combine_each(hours, interval.step, step)
    for start in sorted(ours.keys() | theirs.keys()):
        own, other = ours.get(start), theirs.get(start)
        if other is None:
            is_incomplete |= own is not None and own.trades > 0
            continue
        if own is None:
            difference = f"0 trades of {other.trades:,}" if other.trades else None
        elif series.interval.step <= interval.step:
            difference = any_discrepancy(series.market, own, other)
        else:
            difference = any_discrepancy(series.market, other, own)
        if difference is not None:
            return f"{difference} from {to_text(start)}"
    return "" if is_incomplete else None


def _agreed_with_archive(result: PartitionResult) -> PartitionResult:
    """Return the result of a partition whose candles come from the API and agree with the archive's ``1d`` candle."""
    witness = "1d candle of archive"
    reason = f"its totals agree with the {witness}, but not with that of rest"
    return replace(result, reason=f"{result.reason}; {reason}" if result.reason else reason, witnesses=(witness,))


def _confirmed(result: PartitionResult, agreeing: PartitionResult | None, witness: str) -> PartitionResult:
    """Return the result of a partition whose hours all agree with its candles.

    Args:
        result: The doubtful result.
        agreeing: Its result by the ``1d`` candle of the archive, if that one agrees; None if it does not.
        witness: The hours.
    """
    if agreeing is not None:
        agreed = _agreed_with_archive(agreeing)
        reason = f"{agreed.reason}, and every hour agrees with the {witness}"
        return replace(agreed, reason=reason, witnesses=(*agreed.witnesses, witness))
    return replace(result, reason=f"{result.reason}, but every hour agrees with the {witness}", witnesses=(witness,))


def _unconfirmed(result: PartitionResult, refuted: str | None) -> PartitionResult:
    """Return the result of a partition that no hours confirm; ``refuted`` says how they differ, None without hours."""
    if refuted is None:
        return replace(result, reason=f"{result.reason}; no other candles confirm it")
    if result.verdict == "unproved":
        return replace(result, verdict="unbalanced", reason=f"{result.reason}, and {refuted}")
    return replace(result, reason=f"{result.reason}; {refuted}")
