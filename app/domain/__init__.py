"""What every room may import: tickets, tasks and orders, errors, money, redaction, figures for people. Pure."""
