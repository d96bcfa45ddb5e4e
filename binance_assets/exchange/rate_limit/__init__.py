"""Request weight: how much of it may be used when, agreed between all processes of the host.

Here belongs: the decisions (:mod:`~binance_assets.exchange.rate_limit.policy`, pure), where the processes record what
they use (:mod:`~binance_assets.exchange.rate_limit.ledger`, the only place with SQL), and what one process holds and
waits for (:mod:`~binance_assets.exchange.rate_limit.budget`).

Here does not belong: what a request costs (``model.markets``), sending and repeating requests (``exchange.session``,
``exchange.retry``), and how many requests run at once (``exchange.workers``).
"""
