"""Request weight: how much all processes of the host together may use, and when.

What belongs here: the decisions (:mod:`~binance_assets.exchange.rate_limit.policy`, pure), where the processes record
what they use (:mod:`~binance_assets.exchange.rate_limit.ledger`, the only place with SQL), and what one process holds
and waits for (:mod:`~binance_assets.exchange.rate_limit.budget`).
What does not: what a request costs (``model.markets``), sending and retrying requests (``exchange.session``,
``exchange.retry``), and how many requests run at once (``exchange.workers``).
"""
