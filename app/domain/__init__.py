"""The types and functions that every room may import: tickets, tasks, orders, errors, money, redaction, formatting."""
