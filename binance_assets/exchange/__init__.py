"""Binance: requests, rate limits, retries, the server's clock, workers, and the public archive.

Here belongs whatever is needed to get bytes from Binance: planning pages and archive files, acquiring request weight,
sending, repeating, naming what went wrong. :class:`binance_assets.exchange.session.Exchange` is the way in for the
layers above.

Here does not belong: whether candles are complete or a partition is accepted (``completeness``, ``ingest``), files of
the lake (``storage``), and Dagster (``orchestration``). Nothing here knows the sandbox; it is just another host that
names itself in a header.
"""
