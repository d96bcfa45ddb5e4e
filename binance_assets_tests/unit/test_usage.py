"""Each request is counted once, whichever series of a run it was for."""

from __future__ import annotations

import threading

from binance_assets.exchange.usage import Metrics, Usage, UsageRecorder, series_owner
from binance_assets.model.series import parse_series

BTC, ETH = parse_series("spot/BTCUSDT/1m"), parse_series("spot/ETHUSDT/1d")


def test_a_series_is_charged_for_its_candles_its_daily_candles_and_requests_of_no_series() -> None:
    recorder = UsageRecorder()
    recorder.record_request(series_owner(BTC), 2)
    recorder.record_request(("BTCUSDT", "1d"), 2)
    recorder.record_request(None, 1)
    recorder.record_request(series_owner(ETH), 5)
    assert recorder.drain(BTC) == Usage(3, 5)
    assert recorder.drain(BTC) == Usage()
    assert recorder.drain(ETH) == Usage(1, 5)


def test_metrics_count_drained_and_undrained_requests() -> None:
    recorder = UsageRecorder()
    assert recorder.metrics(workers=1) == Metrics(0, 0, 1, 0, None)
    recorder.record_request(series_owner(BTC), 2)
    recorder.drain(BTC)
    recorder.record_request(series_owner(ETH), 5)
    recorder.record_round_trip(0.1)
    recorder.record_round_trip(0.2)
    assert recorder.metrics(workers=7) == Metrics(2, 7, 7, 2, 150.0)


def test_no_request_is_lost_between_threads() -> None:
    recorder, drained = UsageRecorder(), list[Usage]()

    def record() -> None:
        for _ in range(500):
            recorder.record_request(series_owner(BTC), 2)

    threads = [threading.Thread(target=record) for _ in range(8)]
    for thread in threads:
        thread.start()
    while any(thread.is_alive() for thread in threads):
        drained.append(recorder.drain(BTC))
    drained.append(recorder.drain(BTC))
    assert sum(drained, Usage()) == Usage(4_000, 8_000)
    assert recorder.metrics(workers=1).weight == 8_000
