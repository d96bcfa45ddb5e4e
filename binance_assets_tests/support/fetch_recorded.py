"""Fetch the recorded candles that tests replay: ``python -m binance_assets_tests.support.fetch_recorded [FOLDER]``.

The files are zips of Binance's public archive (``BINANCE_ARCHIVE_URL``). A file is kept only if its SHA-256 is the
pinned one. Binance reissues files from time to time, with other bytes; such a file is refused, because the tests
compare it with recorded values. A file that is already there is not fetched again, so an interrupted run can be
repeated.
"""

from __future__ import annotations

import hashlib
import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from binance_assets.exchange.archive_files import ArchiveFile, most_csv_bytes
from binance_assets.exchange.errors import ExchangeError
from binance_assets.exchange.http import HttpClient
from binance_assets.model.series import parse_series
from binance_assets.settings import ConfigurationError, Settings, read_settings
from binance_assets_tests.support.recorded import FETCHED


@dataclass(frozen=True)
class RecordedZip:
    """A zip of the archive.

    Attributes:
        series: Its series, such as ``spot/BTCUSDT/1m``.
        date: Its day, such as ``2020-01-01``.
        sha256: SHA-256 of its bytes, in hex.
    """

    series: str
    date: str
    sha256: str

    @property
    def in_archive(self) -> ArchiveFile:
        """The file of the archive, with its name and path there."""
        series = parse_series(self.series)
        return ArchiveFile.named(series, f"{series.symbol}-{series.interval.name}-{self.date}.zip")

    def path_in(self, folder: Path) -> Path:
        """Return where the file belongs below a folder of recorded candles."""
        return folder / self.series.partition("/")[0] / self.in_archive.name


ZIPS = (
    RecordedZip("spot/BTCUSDT/1m", "2020-01-01", "dd579c62368ded93d3f01a1904575b932279e32936e181c062763e605793c1c2"),
    RecordedZip("spot/BTCUSDT/1m", "2020-01-02", "66c701b381d5c2482343ba1c7f600e55d3f5c18f0117ff0789d043a21b62bab6"),
    RecordedZip("spot/BTCUSDT/1m", "2020-01-03", "9623b3d0c487715f410caee51fbce2474375ece85c854a0682c90b3dad0bf8be"),
    RecordedZip("spot/BTCUSDT/1m", "2023-03-23", "f6c697b2c32115c5adf11c5461d6245e54c54dd2d51932d2f0a0468be72ca0f8"),
    RecordedZip("spot/BTCUSDT/1m", "2023-03-24", "305d0f6cdb8a6cfd8063a7d48c66f14b33727d934857746d549663e94b41312d"),
    RecordedZip("spot/BTCUSDT/1m", "2023-03-25", "1b87ec4e65ecec765af8417300e635fa6e6b979b3224871535523a301a970fa0"),
    RecordedZip("spot/BTCUSDT/15m", "2023-03-24", "b4700575bc0cbaf8d63273318932fa060cc51724c31b77aa63e22aade37556ef"),
    RecordedZip("spot/BTCUSDT/1h", "2023-03-24", "ea9d94f28a39ad8029c9c2863cbb7769137188edd957fea35d0313ae4183561f"),
    RecordedZip("spot/ARBUSDT/1m", "2023-07-25", "15f18e5cc99b09a50abeb104c42b34a9260e2a9770a7ab00f65827748373c84d"),
    RecordedZip("spot/ARBUSDT/15m", "2023-07-25", "004dee25a7790d3c9930196ef3ffa8b1cdb78f3d6a9a03b96fd2d183f4e181e7"),
    RecordedZip("usdm/BTCUSDT/1m", "2022-09-05", "7b03b9ac53d3d74bf838380bfbd0bf1e683759e1304af4e2e73d8d717fb7dec2"),
    RecordedZip("usdm/ETHUSDT/1h", "2022-08-24", "a157902b8146551cf2ac49e5872b8f105be8921719c6531429d5abe6c6feb19a"),
    RecordedZip(
        "coinm/BTCUSD_PERP/1m", "2022-10-24", "8c9d1f00db1eeab46d699398b51e61b50a56c60ed9b1b7941b8c3c9f5ec98d3a"
    ),
)
"""All zips of a complete folder of recorded candles."""


def fetch_zips(zips: Sequence[RecordedZip], folder: Path, settings: Settings) -> list[str]:
    """Fetch the zips that ``folder`` does not have, and print a line for each.

    Args:
        zips: The zips to have.
        folder: A folder of recorded candles; created if necessary.
        settings: The archive's host, timeouts.

    Returns:
        A message for each zip that could not be fetched; no part of it is kept.
    """
    client = HttpClient(settings.archive_url, 1, settings.connect_timeout, settings.read_timeout)
    try:
        problems = [_fetch_zip(wanted, wanted.path_in(folder), client) for wanted in zips]
    finally:
        client.close()
    return [problem for problem in problems if problem is not None]


def _fetch_zip(wanted: RecordedZip, path: Path, client: HttpClient) -> str | None:
    if path.is_file() and _sha256(path.read_bytes()) == wanted.sha256:
        print(f"{path.name}: already there")
        return None
    try:
        body = client.get(wanted.in_archive.path, {}, most_csv_bytes(wanted.in_archive)).body
    except ExchangeError as error:
        return f"{path.name}: {error}"
    if _sha256(body) != wanted.sha256:
        return f"{path.name}: refused, its SHA-256 is {_sha256(body)} instead of {wanted.sha256}"
    path.parent.mkdir(parents=True, exist_ok=True)
    _write_atomically(path, body)
    print(f"{path.name}: fetched, {len(body):,} bytes", flush=True)
    return None


def _sha256(body: bytes) -> str:
    return hashlib.sha256(body).hexdigest()


def _write_atomically(path: Path, body: bytes) -> None:
    part = path.with_name(f"{path.name}.part")  # the sandbox does not replay a file with this name
    try:
        part.write_bytes(body)
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)


def main() -> None:
    """Fetch all zips; exit with 1 if one of them could not be fetched."""
    folder = Path(sys.argv[1]) if len(sys.argv) > 1 else FETCHED
    try:
        problems = fetch_zips(ZIPS, folder, read_settings(os.environ))
    except ConfigurationError as error:
        sys.exit(f"error: {error}")
    except KeyboardInterrupt:
        sys.exit(130)
    if problems:
        sys.exit("\n".join(["error: not fetched:", *problems]))


if __name__ == "__main__":
    main()
