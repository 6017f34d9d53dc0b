"""The SQL tables: what the durable history must not hold, and later all that finance reads."""
