"""Compares the ledger with Dapr's histories and the refund system's books, and rebuilds it."""
