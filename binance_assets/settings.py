"""The settings of the project: environment variable, default and bounds of each, in one table.

The README has the same table in prose; a test checks that it names every variable.

The variables are read with plain Pydantic. ``pydantic-settings`` (2.16) was tried: its errors take at least four lines,
it accepts variables in any case, and it refuses a variable that holds only spaces, which here counts as not set.
"""

from __future__ import annotations

import socket
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal
from urllib.parse import urlsplit

import platformdirs
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError

from binance_assets.model.markets import ARCHIVE_URL, COINM, SPOT, USDM, Market

Source = Literal["auto", "rest", "archive"]
"""Where candles come from."""


class ConfigurationError(Exception):
    """A setting, the universe or the lake cannot be used; the message is one line that says how to fix it."""


def _host_only(url: str) -> str:
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.netloc or parts.path.strip("/") or parts.query:
        raise ValueError("must be http:// or https:// and a host without a path, such as https://api.binance.com")
    return f"{parts.scheme}://{parts.netloc}"


Url = Annotated[str, AfterValidator(_host_only)]
Location = Annotated[Path, AfterValidator(Path.expanduser)]


def _default_ledger() -> Path:
    # Named after the host, because several hosts may share the state folder of a user.
    return Path(platformdirs.user_state_dir("binance-assets")) / f"ledger-{socket.gethostname()}.sqlite"


class Settings(BaseModel):
    """The project's settings; each field's alias is its environment variable."""

    model_config = ConfigDict(frozen=True, populate_by_name=True, extra="forbid")

    spot_url: Url = Field(SPOT.default_url, alias="BINANCE_SPOT_URL", description="Host of the spot API")
    usdm_url: Url = Field(USDM.default_url, alias="BINANCE_USDM_URL", description="Host of the USD-M futures API")
    coinm_url: Url = Field(COINM.default_url, alias="BINANCE_COINM_URL", description="Host of the COIN-M futures API")
    archive_url: Url = Field(ARCHIVE_URL, alias="BINANCE_ARCHIVE_URL", description="Host of the public archive")
    lake: Location = Field(Path("lake"), alias="BINANCE_ASSETS_LAKE", description="Folder of the Parquet files")
    universe: Location = Field(
        Path("universe.yaml"), alias="BINANCE_ASSETS_UNIVERSE", description="File that lists the tracked series"
    )
    source: Source = Field("auto", alias="BINANCE_ASSETS_SOURCE", description="Where candles come from")
    max_workers: int = Field(
        50, ge=1, le=500, alias="BINANCE_ASSETS_MAX_WORKERS", description="Highest number of requests in flight"
    )
    warmup: int = Field(
        3,
        ge=1,
        le=100,
        alias="BINANCE_ASSETS_WARMUP",
        description="Pages fetched one by one to measure round trips",
    )
    weight_share: float = Field(
        1.0, ge=0.01, le=1, alias="BINANCE_ASSETS_WEIGHT_SHARE", description="Share of the weight limit to use"
    )
    ledger: Location = Field(
        default_factory=_default_ledger,
        alias="BINANCE_ASSETS_LEDGER",
        description="File in which all processes of this host record request weight",
    )
    ban_patience: float = Field(
        900, ge=0, alias="BINANCE_ASSETS_BAN_PATIENCE", description="Longest ban or 429 to wait for, seconds"
    )
    connect_timeout: float = Field(
        5, gt=0, alias="BINANCE_ASSETS_CONNECT_TIMEOUT", description="Timeout for a connection, seconds"
    )
    read_timeout: float = Field(
        15,
        gt=0,
        alias="BINANCE_ASSETS_READ_TIMEOUT",
        description="Timeout for data on an open connection, seconds",
    )
    catch_up_days: int = Field(
        14,
        ge=1,
        le=366,
        alias="BINANCE_ASSETS_CATCH_UP_DAYS",
        description="Past days that the catch-up checks",
    )
    strict: bool = Field(
        True,
        alias="BINANCE_ASSETS_STRICT",
        description="Refuse partitions whose totals or prices differ from the exchange's",
    )

    def url(self, market: Market) -> str:
        """Return the URL of the host that serves ``market``."""
        return {SPOT.name: self.spot_url, USDM.name: self.usdm_url, COINM.name: self.coinm_url}[market.name]


def read_settings(environment: Mapping[str, str]) -> Settings:
    """Return the settings from ``environment`` (such as ``os.environ``); an empty variable counts as not set.

    Raises:
        ConfigurationError: A value has the wrong type or is out of bounds.
    """
    known = {field.alias for field in Settings.model_fields.values()}
    return make_settings({name: value for name, value in environment.items() if name in known and value.strip()})


def make_settings(values: Mapping[str, Any]) -> Settings:
    """Return the settings with ``values``, keyed by field or by environment variable; the rest have their defaults.

    Raises:
        ConfigurationError: A value has the wrong type or is out of bounds; the message names the first such value.
    """
    try:
        return Settings.model_validate(values)
    except ValidationError as error:
        first = error.errors()[0]
        name, message = str(first["loc"][0]), first["msg"].removeprefix("Value error, ")
        raise ConfigurationError(f"{name}={values.get(name, '')!r}: {message}") from None
