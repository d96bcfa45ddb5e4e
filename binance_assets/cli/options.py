"""Parameter types, and the arguments and options that several commands share."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

import click

from binance_assets.model.intervals import Interval, parse_interval
from binance_assets.model.markets import MARKETS, Market, parse_market
from binance_assets.model.series import Series, parse_any_series
from binance_assets.model.symbol_names import spelled
from binance_assets.settings import ConfigurationError, Settings, Source
from binance_assets.storage.universe import Universe

if TYPE_CHECKING:
    import datetime as dt


class MarketType(click.ParamType[Market]):
    """A market by its name."""

    name = "market"

    def convert(self, value: str | Market, param: click.Parameter | None, ctx: click.Context | None) -> Market:
        """Return the market."""
        try:
            return value if isinstance(value, Market) else parse_market(value.lower())
        except ValueError as error:
            self.fail(str(error), param, ctx)


class IntervalType(click.ParamType[Interval]):
    """An interval in Binance's spelling."""

    name = "interval"

    def convert(self, value: str | Interval, param: click.Parameter | None, ctx: click.Context | None) -> Interval:
        """Return the interval."""
        try:
            return value if isinstance(value, Interval) else parse_interval(value)
        except ValueError as error:
            self.fail(str(error), param, ctx)


class DateType(click.ParamType["dt.date"]):
    """A date in ISO format, UTC."""

    name = "YYYY-MM-DD"

    def convert(self, value: str | dt.date, param: click.Parameter | None, ctx: click.Context | None) -> dt.date:
        """Return the date."""
        import datetime as dt

        try:
            return value if isinstance(value, dt.date) else dt.date.fromisoformat(value)
        except ValueError:
            self.fail(f"{value!r} is not a date; write it like 2024-01-31", param, ctx)


class DateRangeType(click.ParamType[tuple["dt.date", "dt.date"]]):
    """A date, or a range of dates with both ends included: ``2024-01-01..2024-01-31``, UTC."""

    name = "YYYY-MM-DD[..YYYY-MM-DD]"

    def convert(
        self, value: str | tuple[dt.date, dt.date], param: click.Parameter | None, ctx: click.Context | None
    ) -> tuple[dt.date, dt.date]:
        """Return the first and the last date."""
        if not isinstance(value, str):
            return value
        first, separator, last = value.partition("..")
        start = DateType().convert(first, param, ctx)
        end = DateType().convert(last, param, ctx) if separator else start
        if end < start:
            self.fail(f"{value!r} ends before it begins", param, ctx)
        return start, end


symbols_argument = click.argument("symbols", metavar="SYMBOL...", nargs=-1, required=True)
optional_symbols_argument = click.argument("symbols", metavar="[SYMBOL...]", nargs=-1)
symbols_from_option = click.option(
    "--symbols-from",
    metavar="QUERY|FILE",
    help="Take the symbols that a query selects, such as 'quote=USDT top=20', or that a file lists; - is the input.",
)
market_option = click.option("--market", type=MarketType(), required=True, help=f"One of {', '.join(MARKETS)}.")
intervals_option = click.option(
    "--interval",
    "intervals",
    type=IntervalType(),
    multiple=True,
    required=True,
    help="Length of a candle, 1s to 1M; may be repeated.",
)
json_option = click.option("--json", "as_json", is_flag=True, help="Print the outcome as JSON.")


def combine(symbols: Iterable[str], market: Market, intervals: Iterable[Interval]) -> tuple[Series, ...]:
    """Return the series of every symbol in every interval, each once, in order.

    Symbols may be written in some other ways, see :func:`binance_assets.model.symbol_names.spelled`.

    Raises:
        ConfigurationError: A symbol is not valid, or is one of another market, or the market lacks an interval.
    """
    try:
        names = spelled(symbols, market)
        series = [Series(market, symbol, interval) for symbol in names for interval in intervals]
    except ValueError as error:
        raise ConfigurationError(str(error)) from None
    return tuple(dict.fromkeys(series))


def series_named(name: str) -> Series:
    """Return the series that ``name`` names, such as ``spot/BTCUSDT/1m``.

    Raises:
        ConfigurationError: The text is not the name of a series.
    """
    try:
        return parse_any_series(name)
    except ValueError as error:
        raise ConfigurationError(str(error)) from None


def sources_of(
    series: Iterable[Series], universe: Universe, settings: Settings, source: Source | None
) -> dict[Series, Source]:
    """Return the source of each series: ``source`` if given, else the universe's for it, else the settings'."""
    named = {tracked.series: tracked.source for tracked in universe.tracked}
    return {member: source or named.get(member) or settings.source for member in series}
