"""Read-only queries for records, sums and figures."""
