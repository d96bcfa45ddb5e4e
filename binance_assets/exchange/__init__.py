"""Binance: requests, rate limits, retries, the server's clock, workers, and the public archive.

What belongs here: whatever is needed to get bytes from Binance, such as planning pages and archive files, acquiring
request weight, sending and retrying requests, and naming errors. :class:`binance_assets.exchange.session.Exchange` is
the entry point for the packages above.
What does not: whether candles are complete or a partition is accepted (``completeness``, ``ingest``), files of the lake
(``storage``), and Dagster (``orchestration``). The sandbox gets no special treatment: it is another host, which
identifies itself in a header.
"""
