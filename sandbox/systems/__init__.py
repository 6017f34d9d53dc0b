"""The internal systems of the sandbox: accounts, orders, policies, refunds, notifications, cases and bookkeeping.

One HTTP server with one SQLite file of books. A refusal of the business is an answer (HTTP 200 and
`"ok": false`), so that a circuit breaker counts only a system that is down, never a customer's mistake.
"""

from sandbox.systems.app import BOOKKEEPING_PATH, create_app

__all__ = ["BOOKKEEPING_PATH", "create_app"]
