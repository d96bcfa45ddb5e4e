"""Request weight: how much all processes that share an IP may use together, and when.

What belongs here: the decisions (:mod:`~binance_assets.exchange.rate_limit.policy`, pure), where the processes record
what they use (:mod:`~binance_assets.exchange.rate_limit.ledger`, in one of two databases, see
:mod:`~binance_assets.exchange.rate_limit.engines`), and what one process holds and waits for
(:mod:`~binance_assets.exchange.rate_limit.budget`).
What does not: what a request costs (``model.markets``), sending and retrying requests (``exchange.session``,
``exchange.retry``), and how many requests run at once (``exchange.workers``).
"""
