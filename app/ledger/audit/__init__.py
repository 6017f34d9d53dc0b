"""The ledger against histories and refund books, and its rebuilding."""
