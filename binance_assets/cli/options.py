"""Parameter types, and the arguments and options that several commands share."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING

import click
from click.shell_completion import CompletionItem

from binance_assets.model.dates import parse_date
from binance_assets.model.intervals import INTERVALS, Interval, parse_derived_interval, parse_interval
from binance_assets.model.markets import MARKETS, Market, parse_market
from binance_assets.model.partitions import FIRST_DAY, TOO_EARLY, partition_first_day
from binance_assets.model.series import Series, parse_any_series
from binance_assets.model.spelling import did_you_mean, did_you_mean_interval, did_you_mean_market, nearest
from binance_assets.model.symbol_names import spelled
from binance_assets.settings import ConfigurationError, read_settings
from binance_assets.storage.universe import read_universe

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
            self.fail(f"{error}{did_you_mean_market(str(value))}", param, ctx)

    def get_missing_message(self, param: click.Parameter, ctx: click.Context | None) -> str | None:
        """Return what to write instead of the name of a series, which other commands take."""
        for name in ctx.params.get("symbols") or () if ctx else ():
            with suppress(ValueError):
                series = parse_any_series(name)
                return f"For {name}, write {series.symbol} --market {series.market} --interval {series.interval}"
        return None

    def shell_complete(self, ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
        """Return the markets that begin with what was typed."""
        return _completions(MARKETS, incomplete)


class WordType(click.Choice[str]):
    """One of some words; a misspelled one is refused with the one that is probably meant."""

    def get_invalid_choice_message(self, value: str, ctx: click.Context | None) -> str:
        """Return the message for a word that is none of them."""
        hint = did_you_mean(nearest(str(value), map(str, self.choices)))
        return f"{super().get_invalid_choice_message(value, ctx).rstrip('.')}{hint}"


class IntervalType(click.ParamType[Interval]):
    """An interval in Binance's spelling."""

    name = "interval"

    def convert(self, value: str | Interval, param: click.Parameter | None, ctx: click.Context | None) -> Interval:
        """Return the interval."""
        try:
            return value if isinstance(value, Interval) else parse_interval(value)
        except ValueError as error:
            self.fail(f"{error}{did_you_mean_interval(str(value))}", param, ctx)

    def shell_complete(self, ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
        """Return the intervals that begin with what was typed."""
        return _completions(map(str, INTERVALS), incomplete)


class DerivedIntervalType(click.ParamType[Interval]):
    """An interval of at most a day that divides the day evenly, also one that Binance lacks."""

    name = "interval"

    def convert(self, value: str | Interval, param: click.Parameter | None, ctx: click.Context | None) -> Interval:
        """Return the interval."""
        try:
            return value if isinstance(value, Interval) else parse_derived_interval(value)
        except ValueError as error:
            self.fail(str(error), param, ctx)


class DateType(click.ParamType["dt.date"]):
    """A date, UTC; a month or a year stands for its first day."""

    name = "YYYY-MM-DD"

    def convert(self, value: str | dt.date, param: click.Parameter | None, ctx: click.Context | None) -> dt.date:
        """Return the date."""
        import datetime as dt

        if isinstance(value, dt.date):
            return value
        try:
            return parse_date(value, dt.datetime.now(dt.UTC).date())
        except ValueError as error:
            self.fail(str(error), param, ctx)


class SymbolType(click.ParamType[str]):
    """The name of a symbol; it is checked later."""

    name = "symbol"

    def shell_complete(self, ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
        """Return the tracked symbols of the market that was typed, or of all markets."""
        market = ctx.params.get("market")
        return _completions(
            (series.symbol for series in _tracked_series() if market in (None, series.market)), incomplete.upper()
        )


class SeriesType(click.ParamType[str]):
    """The name of a series; it is checked later."""

    name = "series"

    def shell_complete(self, ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
        """Return the tracked series that begin with what was typed."""
        return _completions(map(str, _tracked_series()), incomplete)


def _tracked_series() -> Sequence[Series]:
    """Return the series of the universe; none if it cannot be read, because a completion has nowhere to say why."""
    try:
        universe = read_universe(read_settings(os.environ).universe)
    except ConfigurationError:
        return ()
    return universe.all_series


def _completions(words: Iterable[str], incomplete: str) -> list[CompletionItem]:
    return [CompletionItem(word) for word in dict.fromkeys(words) if word.startswith(incomplete)]


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


symbols_argument = click.argument("symbols", metavar="SYMBOL...", type=SymbolType(), nargs=-1, required=True)
optional_symbols_argument = click.argument("symbols", metavar="[SYMBOL...]", type=SymbolType(), nargs=-1)
symbols_from_option = click.option(
    "--symbols-from",
    metavar="QUERY|FILE",
    help="Take the symbols that a query selects, such as 'quote=USDT top=20', or that a file lists; - is the input.",
)
series_argument = click.argument("names", metavar="[SERIES]...", type=SeriesType(), nargs=-1)
one_series_argument = click.argument("name", metavar="SERIES", type=SeriesType())
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


def check_key(series: Series, day: dt.date) -> None:
    """Check that a day is the first of a partition.

    Raises:
        ConfigurationError: It is not.
    """
    if day < FIRST_DAY or day != partition_first_day(day, series.interval):
        reason = TOO_EARLY if day < FIRST_DAY else "its partitions are months, so give the first day of a month"
        raise ConfigurationError(f"{day} is not a partition of {series}: {reason}")
