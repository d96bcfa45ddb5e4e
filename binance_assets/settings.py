"""The settings of the project: environment variable, default and bounds of each, in one table.

The reference of the settings in the documentation is generated from this table.

The variables are read with plain Pydantic. ``pydantic-settings`` (2.16) was tried: its errors take at least four lines,
it accepts variables in any case, and it refuses a variable that holds only spaces, which here counts as not set.
"""

from __future__ import annotations

import difflib
import io
import re
import socket
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Annotated, Any, Final, Literal
from urllib.parse import urlsplit

import platformdirs
from dotenv import dotenv_values
from dotenv.parser import parse_stream
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, PlainValidator, SecretStr, ValidationError

from binance_assets.model.bucket_paths import SCHEME, BucketPath, LakePath
from binance_assets.model.markets import ARCHIVE_URL, COINM, SPOT, USDM, Market
from binance_assets.model.outside import printable, printable_url

Source = Literal["auto", "rest", "archive"]
"""Where candles come from."""


POSTGRES_SCHEME: Final = "postgresql+psycopg2://"
"""How the URL of a Postgres server must begin, of the ledger and of Dagster's storage.

From version 2.1 on, SQLAlchemy takes the bare ``postgresql://`` for psycopg 3: it is not installed, or it does not
understand the statements of dagster-postgres (dagster issue 33958).
"""

_PREFIX: Final = "BINANCE_ASSETS_"
_URL: Final = re.compile(r"BINANCE_([A-Z0-9_]+)_URL")
# How alike the middle of two such names is for one to be a typo of the other, from 0 to 1. With one letter too many or
# too few, four letters reach 0.85. BINANCE_USDT_URL (0.75) and BINANCE_COINM_WS_URL (0.77) are of another program.
_TYPO: Final = 0.8
# Variables with the prefix that are no settings: the tests read the folder of recorded candles.
_NO_SETTINGS: Final = frozenset({"BINANCE_ASSETS_RECORDED"})
# Kubernetes sets these in every pod of a namespace that has a service `binance-assets`, or one whose name begins so:
# https://kubernetes.io/docs/concepts/services-networking/service/#environment-variables
_OF_KUBERNETES: Final = re.compile(
    r"BINANCE_ASSETS_([A-Z0-9_]+_)?"
    r"(SERVICE_HOST|SERVICE_PORT(_[A-Z0-9_]+)?|PORT|PORT_[0-9]+_(TCP|UDP|SCTP)(_(ADDR|PORT|PROTO))?)"
)

_HOST: Final = re.compile(r"(?:[\w.-]+|\[[0-9A-Fa-f:.]+\])(?::\d+)?")
_WITH_SCHEME: Final = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+:/")  # a drive of Windows has one letter
_LONGEST_HOOK_URL: Final = 2_000  # characters
_LIKE_A_URL: Final = re.compile(r"://|^\s*postgres(ql)?(\+\w+)?:", re.IGNORECASE)
_POSTGRES_URL: Final = re.compile(re.escape(POSTGRES_SCHEME) + r"(?:[^\s/@]+@)?[^\s/@]+/[^\s/@]+")
_EGRESS_NAME: Final = re.compile(r"[A-Za-z0-9._:-]{0,100}")
_LONGEST_WAIT: Final = 86_400.0  # seconds
_LONGEST_BAN: Final = 366 * _LONGEST_WAIT


class ConfigurationError(Exception):
    """A setting, the universe or the lake cannot be used; the message is one line that says how to fix it."""


def _host_only(url: str) -> str:
    if "@" in url:
        raise ValueError("must not contain a user name or a password")
    message = "must be http:// or https:// and a host without a path, such as https://api.binance.com"
    if not url.isprintable() or " " in url:  # urlsplit leaves out some control characters without an error
        raise ValueError(message)
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or parts.path.strip("/") or parts.query or parts.fragment:
        raise ValueError(message)
    if not _HOST.fullmatch(parts.netloc) or parts.port == 0:  # reading the port raises ValueError if it is too large
        raise ValueError(message)
    return f"{parts.scheme}://{parts.netloc}"


def _hook_url(secret: SecretStr) -> SecretStr:
    """Return the URL of a hook.

    Raises:
        ValueError: It is none; the message does not repeat it.
    """
    url = secret.get_secret_value()
    try:
        parts = urlsplit(url)
        usable = parts.scheme in ("http", "https") and bool(_HOST.fullmatch(parts.netloc)) and parts.port != 0
    except ValueError:  # its text has a part of the URL
        usable = False
    if not (usable and re.fullmatch(r"[!-~]+", url) and "#" not in url and len(url) <= _LONGEST_HOOK_URL):
        raise ValueError(
            "must be http:// or https://, a host without a user name, and a path, in at most "
            f"{_LONGEST_HOOK_URL:,} ASCII characters; this value is not shown"
        )
    return secret


def _usable(path: Path) -> Path:
    """Return a path with ``~`` replaced.

    Raises:
        ValueError: It could not be shown in a message, or nothing could be at this path.
    """
    if not str(path).isprintable():  # no control characters, and no bytes that are not UTF-8
        raise ValueError("must be text without control characters")
    try:
        expanded = path.expanduser()
    except RuntimeError:
        raise ValueError(f"{path.parts[0]} stands for a home folder that is not known") from None
    try:
        expanded.stat()
    except FileNotFoundError:
        pass
    except OSError as error:  # such as a name that is too long, or a parent that is a file
        raise ValueError(f"cannot be used: {error.strerror}") from None
    return expanded


def lake_location(value: object) -> LakePath:
    """Return where a lake is: a folder, with ``~`` replaced, or a place in a bucket.

    Raises:
        ValueError: It is neither.
    """
    if isinstance(value, BucketPath):
        return value
    message = f"must be a folder, or {SCHEME}BUCKET/PREFIX"
    if not isinstance(value, str | Path):
        raise ValueError(message)
    if isinstance(value, str) and value.strip().startswith(SCHEME):
        return BucketPath.parse(value.strip())
    if _WITH_SCHEME.match(str(value).strip()):  # also a Path of a URL, which has lost a slash
        raise ValueError(message)
    return _usable(Path(value))


def _ledger_location(value: object) -> Path | SecretStr:
    """Return the file of the ledger, or the URL of its Postgres server as a secret.

    Raises:
        ValueError: It is neither; the message does not repeat a URL.
    """
    text = value.get_secret_value() if isinstance(value, SecretStr) else value
    if isinstance(text, Path) or (isinstance(text, str) and not _LIKE_A_URL.search(text)):
        return _usable(Path(text))
    if not isinstance(text, str) or not _POSTGRES_URL.fullmatch(text) or not text.isprintable():
        raise ValueError(
            f"must be the path of a file, or {POSTGRES_SCHEME}USER:PASSWORD@HOST:PORT/DATABASE, "
            "with this scheme to the letter; in a password, @ is %40, / is %2F, and % is %25"
        )
    return SecretStr(text)


def _egress_name(name: str) -> str:
    """Return the name of a public IP.

    Raises:
        ValueError: It is not a name.
    """
    if not _EGRESS_NAME.fullmatch(name):
        raise ValueError(
            "must be a name of at most 100 letters, digits, and . : _ - without spaces, such as 203.0.113.7"
        )
    return name


Url = Annotated[str, AfterValidator(_host_only)]
HookUrl = Annotated[SecretStr, AfterValidator(_hook_url)]
Location = Annotated[Path, AfterValidator(_usable)]
LakeLocation = Annotated[LakePath, PlainValidator(lake_location)]
LedgerLocation = Annotated[Path | SecretStr, PlainValidator(_ledger_location)]
Egress = Annotated[str, AfterValidator(_egress_name)]


def _default_ledger() -> Path:
    # Named after the host, because several hosts may share the state folder of a user.
    name = f"ledger-{socket.gethostname()}.sqlite"
    try:
        return Path(platformdirs.user_state_dir("binance-assets")) / name
    except RuntimeError:  # no home folder is known; earlier versions of platformdirs return a path that begins with ~
        return Path("~") / name


class Settings(BaseModel):
    """The project's settings; each field's alias is its environment variable."""

    model_config = ConfigDict(frozen=True, populate_by_name=True, extra="forbid", allow_inf_nan=False)

    spot_url: Url = Field(
        SPOT.default_url,
        alias="BINANCE_SPOT_URL",
        description="Host of the spot API, without a path, user name, or password",
    )
    usdm_url: Url = Field(USDM.default_url, alias="BINANCE_USDM_URL", description="Host of the USD-M futures API")
    coinm_url: Url = Field(COINM.default_url, alias="BINANCE_COINM_URL", description="Host of the COIN-M futures API")
    archive_url: Url = Field(ARCHIVE_URL, alias="BINANCE_ARCHIVE_URL", description="Host of the public archive")
    lake: LakeLocation = Field(
        Path("lake"),
        alias="BINANCE_ASSETS_LAKE",
        description="Folder of the Parquet files, or s3://BUCKET/PREFIX; <folder>.state beside it holds the rest",
    )
    universe: Location = Field(
        Path("universe.yaml"),
        alias="BINANCE_ASSETS_UNIVERSE",
        description="File that lists the tracked series; if it is set, it must exist, or track or download creates it",
    )
    source: Source = Field(
        "auto",
        alias="BINANCE_ASSETS_SOURCE",
        description="Where candles come from: rest, archive, or auto for the one that needs fewer requests",
    )
    max_workers: int = Field(
        50, ge=1, le=500, alias="BINANCE_ASSETS_MAX_WORKERS", description="Most requests in flight at once"
    )
    warmup: int = Field(
        3,
        ge=1,
        le=100,
        alias="BINANCE_ASSETS_WARMUP",
        description="Pages fetched at once to measure the network",
    )
    weight_share: float = Field(
        1.0, ge=0.01, le=1, alias="BINANCE_ASSETS_WEIGHT_SHARE", description="Share of the request weight to use"
    )
    ledger: LedgerLocation = Field(
        default_factory=_default_ledger,  # not checked, see `usable_ledger`
        alias="BINANCE_ASSETS_LEDGER",
        description="File in which all processes of this host count request weight, or the URL of a Postgres server "
        "in which several hosts do",
    )
    egress: Egress = Field(
        "",
        alias="BINANCE_ASSETS_EGRESS",
        description="Name of the public IP that this host uses; users of one ledger with the same name share a budget",
    )
    ban_patience: float = Field(
        900,
        ge=0,
        le=_LONGEST_BAN,
        alias="BINANCE_ASSETS_BAN_PATIENCE",
        description="Longest ban or 429 to wait out, seconds",
    )
    connect_timeout: float = Field(
        5,
        gt=0,
        le=_LONGEST_WAIT,
        alias="BINANCE_ASSETS_CONNECT_TIMEOUT",
        description="Longest wait for a connection, seconds",
    )
    read_timeout: float = Field(
        15,
        gt=0,
        le=_LONGEST_WAIT,
        alias="BINANCE_ASSETS_READ_TIMEOUT",
        description="Longest silence of an open connection, seconds",
    )
    series_per_run: int = Field(
        0,
        ge=0,
        le=10_000,
        alias="BINANCE_ASSETS_SERIES_PER_RUN",
        description="Most series of one run of a backfill in the user interface, so that several workers share the "
        "backfill; 0 for all in one run",
    )
    catch_up_days: int = Field(
        14,
        ge=1,
        le=366,
        alias="BINANCE_ASSETS_CATCH_UP_DAYS",
        description="How many days back the catch-up schedules look",
    )
    strict: bool = Field(
        True,
        alias="BINANCE_ASSETS_STRICT",
        description="Refuse days whose totals or prices differ from the exchange's 1d candle; 0 writes them",
    )
    alert_url: HookUrl | None = Field(
        None,
        alias="BINANCE_ASSETS_ALERT_URL",
        description="URL that receives the alerts, such as a Slack webhook; a secret, never shown",
    )

    def url(self, market: Market) -> str:
        """Return the URL of the host that serves ``market``."""
        return {SPOT.name: self.spot_url, USDM.name: self.usdm_url, COINM.name: self.coinm_url}[market.name]

    def usable_ledger(self) -> Path | SecretStr:
        """Return the file of the ledger, or the URL of its Postgres server, to open it.

        Its default depends on the user and the host. It is checked only here, because much of the program does not
        need it.

        Raises:
            ConfigurationError: It was not named, and its default cannot be used.
        """
        if "ledger" in self.model_fields_set or isinstance(self.ledger, SecretStr):
            return self.ledger
        try:
            return _usable(self.ledger)
        except ValueError as error:
            raise ConfigurationError(
                f"BINANCE_ASSETS_LEDGER is not set, and its default is {printable(self.ledger)!r}: {error}; "
                "set BINANCE_ASSETS_LEDGER to a file"
            ) from None

    def existing_universe(self) -> Path:
        """Return the universe file, to read it; the default one may be absent.

        Raises:
            ConfigurationError: The file was named, and there is none.
        """
        if "universe" in self.model_fields_set and not self.universe.exists():
            raise ConfigurationError(
                f"BINANCE_ASSETS_UNIVERSE={str(self.universe)!r}: there is no such file; the command track creates it"
            )
        return self.universe


def read_settings(environment: Mapping[str, str]) -> Settings:
    """Return the settings from ``environment`` (such as ``os.environ``); an empty variable counts as not set.

    Raises:
        ConfigurationError: A value has the wrong type or is out of bounds, or a variable is none of the settings.
    """
    known = {str(field.alias) for field in Settings.model_fields.values()}
    given = {name: value for name, value in environment.items() if value.strip()}
    _check_names(given, known)
    return make_settings({name: value for name, value in given.items() if name in known})


def env_file_values(path: Path) -> dict[str, str]:
    """Return the variables that an ``.env`` file sets; none if there is no such file.

    Raises:
        ConfigurationError: The file cannot be read, or has a line that sets nothing.
    """
    try:
        # Windows begins the file with a byte order mark, which older versions of python-dotenv take for a letter.
        text = path.read_text(encoding="utf-8-sig") if path.is_file() or path.is_fifo() else ""
    except UnicodeDecodeError:
        raise ConfigurationError(f"{path} is not UTF-8 text; save it as UTF-8") from None
    except OSError as error:
        raise ConfigurationError(f"{path} cannot be read: {error.strerror}") from None
    _check_lines(path, text)
    return {name: value for name, value in dotenv_values(stream=io.StringIO(text)).items() if value is not None}


def _check_lines(path: Path, text: str) -> None:
    """Refuse a line that sets nothing: python-dotenv leaves it out, and a name alone also unsets an earlier value.

    Raises:
        ConfigurationError: There is one; the message does not show it, because it may hold a password.
    """
    for binding in parse_stream(io.StringIO(text)):
        if binding.error or (binding.key is not None and binding.value is None):
            original = binding.original.string
            line = binding.original.line + original[: len(original) - len(original.lstrip())].count("\n")
            raise ConfigurationError(f"{path}: line {line} does not read NAME=value, or a quote is not closed")


def named_lake(location: object) -> LakePath:
    """Return where a lake is, named by an argument instead of a setting.

    Raises:
        ConfigurationError: It is neither a folder nor a place in a bucket.
    """
    try:
        return lake_location(location)
    except ValueError as error:
        raise ConfigurationError(f"the lake {printable_url(location).partition('?')[0]!r}: {error}") from None


def _check_names(names: Iterable[str], known: Iterable[str]) -> None:
    """Refuse variables with the prefix of the settings, and those whose name is nearly that of a host's setting."""
    for name in sorted(set(names) - set(known) - _NO_SETTINGS):
        if _OF_KUBERNETES.fullmatch(name):
            continue
        if name.upper().startswith(_PREFIX):
            nearest = difflib.get_close_matches(name.upper(), known, n=1)
            hint = f"did you mean {nearest[0]}?" if nearest else "binance-assets init lists them in .env.example"
            raise ConfigurationError(f"{printable(name)} is not a setting; {hint}")
        if intended := _host_setting_like(name, known):
            raise ConfigurationError(f"{printable(name)} is not a setting; did you mean {intended}?")


def _host_setting_like(name: str, known: Iterable[str]) -> str | None:
    """Return the setting of a host that a variable is likely meant to be; None if it is something else."""
    if not (matched := _URL.fullmatch(name.upper())):
        return None
    hosts = {host[1]: host[0] for host in map(_URL.fullmatch, known) if host}
    for middle, host_setting in hosts.items():
        if sorted(middle) == sorted(matched[1]):  # two letters changed places, as in BINANCE_SOPT_URL
            return host_setting
    nearest = difflib.get_close_matches(matched[1], hosts, n=1, cutoff=_TYPO)
    return hosts[nearest[0]] if nearest else None


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
        raise ConfigurationError(f"{name}={_shown(name, values[name])!r}: {message}") from None


def _shown(name: str, value: object) -> str:
    """Return the value of a setting for a message, without the user name and the password of a URL, or a secret."""
    if name in ("alert_url", "BINANCE_ASSETS_ALERT_URL"):
        return "..."
    if isinstance(value, SecretStr):
        value = value.get_secret_value()
    if name.lower().endswith("_url"):
        return printable_url(value)
    # The parameters of a URL may hold a password as well.
    return printable_url(value).partition("?")[0] if _LIKE_A_URL.search(str(value)) else printable(value)
