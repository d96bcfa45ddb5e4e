"""The candles of a symbol whose trading was suspended for some days, as by a delisting and a later relisting.

Times are integer ms since the epoch, UTC.
"""

from __future__ import annotations

import json
from typing import Final

from binance_assets.model.intervals import INTERVALS, Interval
from binance_assets.model.timestamps import DAY
from binance_assets.sandbox.recorded import Row, day_row
from binance_assets.sandbox.synthetic import SyntheticCandles

_ONE_DAY: Final = next(interval for interval in INTERVALS if interval.step == DAY)
_NO_LIMIT: Final = 1 << 60


class SuspendedCandles:
    """Synthetic candles without those of the suspension.

    A candle longer than a day is the sum of its days with trading; if it has none, it does not exist.

    Args:
        candles: The candles of the symbol as if it had always been traded.
        suspended: The suspension, ``(start, end)``, both midnight UTC in ms.
    """

    def __init__(self, candles: SyntheticCandles, suspended: tuple[int, int]) -> None:
        """Compute nothing yet."""
        self._candles = candles
        self._suspended = suspended

    def select(self, interval: Interval, start: int, end: int, limit: int, newest: bool, now: int) -> bytes:
        """Return the rows that open in ``[start, end]``, ascending, as the JSON list of a response.

        The arguments are those of :meth:`binance_assets.sandbox.synthetic.SyntheticCandles.select`.
        """
        if interval.is_multi_day:
            every_row = json.loads(self._candles.select(interval, start, end, _NO_LIMIT, newest, now))
            rows = [total for row in every_row if (total := self._total(row, now)) is not None]
        else:
            before, after = (start, min(end, self._suspended[0] - 1)), (max(start, self._suspended[1]), end)
            parts = [self._candles.select(interval, *part, limit, newest, now) for part in (before, after)]
            rows = [row for part in parts for row in json.loads(part)]
        rows = rows[-limit:] if newest else rows[:limit]
        return json.dumps(rows, separators=(",", ":")).encode()

    def _total(self, row: Row, now: int) -> Row | None:
        start, end = self._suspended
        if row[0] >= end or row[6] < start:
            return row
        days = json.loads(self._candles.select(_ONE_DAY, row[0], row[6], _NO_LIMIT, False, now))
        traded = [day for day in days if not self._is_suspended(day)]
        return day_row(row[0], traded, row[6]) if traded else None

    def _is_suspended(self, row: Row) -> bool:
        return bool(self._suspended[0] <= row[0] < self._suspended[1])
