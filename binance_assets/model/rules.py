"""Rules that select symbols of a market, and how they select: pure values and functions.

A rule is what a user writes in place of a list of symbols::

    {quote: USDT, status: [TRADING], contract: PERPETUAL, match: "BTC.*", exclude: [BTCDOMUSDT], top: 100}

All conditions must hold. Without ``status``, every symbol matches that may still trade. ``delisted: true`` adds the
symbols that no longer trade, whatever their status; they are the ones that a list of today's symbols leaves out.
"""

from __future__ import annotations

import shlex
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Final

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, ValidationError
from pydantic_core import SchemaError, SchemaValidator, core_schema

from binance_assets.model.markets import COINM, SPOT, Market
from binance_assets.model.outside import printable
from binance_assets.model.symbol_names import DELIVERY, PERPETUAL, is_symbol

MOST_NAMES: Final = 10_000
"""The most names in a list of a rule."""

_LONGEST_PATTERN: Final = 500
_LISTS: Final = frozenset({"quote", "status", "contract", "exclude"})


@dataclass(frozen=True, slots=True)
class MarketSymbol:
    """A symbol that a market has or had.

    Attributes:
        symbol: The symbol.
        status: Its status in exchangeInfo; empty if exchangeInfo does not list it.
        quote: Its quote asset; empty if unknown.
        contract: Its contract type; empty on spot.
        listed: Whether it may trade; false once its trading has ended.
    """

    symbol: str
    status: str
    quote: str
    contract: str
    listed: bool


def _names(value: Any) -> tuple[str, ...]:
    names = [value] if isinstance(value, str) else value
    if not isinstance(names, (list, tuple)) or not all(isinstance(name, str) for name in names):
        raise ValueError("must be a name, or a list of names")
    if len(names) > MOST_NAMES:
        raise ValueError(f"has more than {MOST_NAMES:,} names")
    for name in names:
        if not is_symbol(name.strip().upper()):
            raise ValueError(f"{printable(name)!r} is not a name; Binance writes them like USDT or TRADING")
    return tuple(dict.fromkeys(name.strip().upper() for name in names))


def _pattern(text: str) -> str:
    if not text.isprintable():
        raise ValueError("must not contain control characters")
    _matcher(text)
    return text


def _matcher(pattern: str) -> SchemaValidator:
    """Return a validator of texts that match ``pattern`` as a whole.

    It is Pydantic's own engine, the regex crate of Rust, whose time grows linearly with the text whatever the pattern.

    Raises:
        ValueError: The pattern is not a regular expression, or one that this engine refuses.
    """
    try:
        for text in (pattern, rf"^(?:{pattern})$"):  # by itself too, so that it cannot close the group
            validator = SchemaValidator(core_schema.str_schema(pattern=text, regex_engine="rust-regex"))
    except SchemaError as error:
        lines = [line.strip() for line in str(error).splitlines() if line.strip()]
        reason = next((line.removeprefix("error: ") for line in lines if line.startswith("error: ")), "not supported")
        raise ValueError(f"{printable(pattern)!r} is not a regular expression: {printable(reason)}") from None
    return validator


Names = Annotated[tuple[str, ...], BeforeValidator(_names)]


class SymbolRule(BaseModel):
    """A rule that selects symbols.

    Attributes:
        quote: The quote assets; empty for any.
        status: The statuses in exchangeInfo; empty for every one with which a symbol may trade.
        contract: The contract types; empty for any.
        match: A regular expression (the syntax of Rust's regex crate) that matches whole symbols; None for any.
        exclude: Symbols that never match.
        top: How many symbols to take, by their quote volume of the last 24 hours; None for all.
        delisted: Whether to add the symbols that no longer trade. ``top`` does not count them.
    """

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)

    quote: Names = ()
    status: Names = ()
    contract: Names = ()
    match: Annotated[str, Field(min_length=1, max_length=_LONGEST_PATTERN), AfterValidator(_pattern)] | None = None
    exclude: Names = ()
    top: Annotated[int, Field(ge=1, le=MOST_NAMES)] | None = None
    delisted: bool = False

    def check_for(self, market: Market) -> None:
        """Refuse what makes no sense on a market.

        Raises:
            ValueError: The message says what.
        """
        if self.contract and market is SPOT:
            raise ValueError("contract: spot has no contracts; remove it")
        if self.top is not None and not self.quote and market is not COINM:
            raise ValueError("top: needs quote, because volumes in different quote assets cannot be compared")

    def values(self) -> dict[str, Any]:
        """Return what differs from an empty rule, with lists in place of tuples."""
        return {
            name: list(value) if isinstance(value, tuple) else value
            for name, value in self.model_dump(exclude_defaults=True).items()
        }

    def __str__(self) -> str:
        return " ".join(
            f"{name}={','.join(value) if isinstance(value, list) else str(value).lower() if value is True else value}"
            for name, value in self.values().items()
        )


def parse_rule(text: str) -> SymbolRule:
    """Return the rule that a query such as ``quote=USDT,USDC status=TRADING top=20`` describes.

    Quotes keep spaces together, as in a shell. A backslash has no meaning here: it is part of the regular expression.

    Raises:
        ValueError: It is no query; the message is one line that names the condition.
    """
    values: dict[str, Any] = {}
    for part in _words(text):
        name, separator, value = part.partition("=")
        if not separator or not value:
            raise ValueError(f"{printable(part)!r} is not a condition; write it like quote=USDT")
        if name in values:
            raise ValueError(f"{name} is given twice; write {name}=A,B")
        values[name] = value.split(",") if name in _LISTS else value
    return make_rule(values | {name: _plain(values[name]) for name in ("top", "delisted") if name in values})


def _words(text: str) -> Iterator[str]:
    words = shlex.shlex(text, posix=True, punctuation_chars=False)
    words.whitespace_split, words.commenters, words.escape = True, "", ""
    yield from words


def _plain(text: str) -> int | bool | str:
    if text.lower() in ("true", "false"):
        return text.lower() == "true"
    return int(text) if text.isascii() and text.isdigit() and len(text) < 10 else text


def make_rule(values: Mapping[str, Any]) -> SymbolRule:
    """Return the rule with the given conditions.

    Raises:
        ValueError: A condition does not exist or is not valid; the message is one line that names the first one.
    """
    try:
        return SymbolRule.model_validate(dict(values))
    except ValidationError as error:
        raise ValueError(_first_mistake(error)) from None


def _first_mistake(error: ValidationError) -> str:
    """Return the first mistake in a rule as one line."""
    first = error.errors()[0]
    field = printable(".".join(str(part) for part in first["loc"]))
    if first["type"] == "extra_forbidden":
        return f"{field}: a rule has no such condition; it may have {', '.join(SymbolRule.model_fields)}"
    return f"{field}: {printable(first['msg'].removeprefix('Value error, '))}"


def matches_name(rule: SymbolRule, symbols: Iterable[MarketSymbol]) -> list[MarketSymbol]:
    """Return the symbols that fulfill the lasting conditions: quote, contract, match, exclude; in their order."""
    matcher = _matcher(rule.match) if rule.match is not None else None
    excluded = set(rule.exclude)
    return [
        member
        for member in symbols
        if member.symbol not in excluded
        and (not rule.quote or member.quote in rule.quote)
        and (not rule.contract or _has_contract(rule, member))
        and (matcher is None or matcher.isinstance_python(member.symbol))
    ]


def _has_contract(rule: SymbolRule, member: MarketSymbol) -> bool:
    kind = member.contract.partition(" ")[0]  # also of `PERPETUAL DELIVERING`, a contract that is being removed
    if kind == DELIVERY:
        return any(not wanted.endswith(PERPETUAL) for wanted in rule.contract)
    return kind in rule.contract


def select(
    rule: SymbolRule, symbols: Iterable[MarketSymbol], volumes: Mapping[str, float] | None = None
) -> list[MarketSymbol]:
    """Return the symbols that a rule selects, ascending by name.

    Args:
        rule: The rule.
        symbols: What the market has and had.
        volumes: The quote volume of the last 24 hours by symbol, for ``top``; a symbol without one counts as 0. Of
            equal volumes, the first name in alphabetical order wins.
    """
    named = matches_name(rule, symbols)
    current = [member for member in named if _is_current(rule, member)]
    if rule.top is not None:
        ranks = volumes or {}
        current = sorted(current, key=lambda member: (-ranks.get(member.symbol, 0.0), member.symbol))[: rule.top]
    chosen = {member.symbol: member for member in current}
    if rule.delisted:
        chosen |= {member.symbol: member for member in named if not member.listed}
    return sorted(chosen.values(), key=lambda member: member.symbol)


def _is_current(rule: SymbolRule, member: MarketSymbol) -> bool:
    return member.status in rule.status if rule.status else member.listed
