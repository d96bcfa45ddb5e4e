"""The options of a download, resolved once by the caller and passed down unchanged."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Protocol

from binance_assets.model.series import Series
from binance_assets.settings import Source


class ListingCache(Protocol):
    """A store of when series begin, so that each is requested only once."""

    def first_open(self, series: Series) -> int | None:
        """Return when the first candle of ``series`` opens, ms UTC; None if it is not stored."""

    def remember_first_open(self, series: Series, first: int) -> None:
        """Store that the first candle of ``series`` opens at ``first``, ms UTC."""


@dataclass(frozen=True, slots=True)
class DownloadOptions:
    """How partitions are fetched and validated.

    Attributes:
        source: ``rest``, ``archive``, or ``auto`` for the archive where it takes fewer requests. With each of them the
            other source is tried too before a partition counts as lost.
        strict: Whether to refuse partitions whose totals differ from the exchange's own.
        listing_cache: Where the first candles of series are stored; None to request them each time.
    """

    source: Source = "rest"
    strict: bool = True
    listing_cache: ListingCache | None = None

    @property
    def uses_archive(self) -> bool:
        """Whether the archive may replace an API that does not serve this location."""
        return self.source != "rest"


DEFAULT_OPTIONS: Final = DownloadOptions()
"""REST, strict, without a cache."""
