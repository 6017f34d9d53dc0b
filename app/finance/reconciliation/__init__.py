"""Compares our record with a provider's bill, to the token.

files ──> parsing (JSON; CSV: bill_csv) ──> bill: its rows, and what each of our calls may claim on it
bill and calls ──> comparison ──> by_request (a bill that lists each request) or by_sum (a bill of sums)
                             └──> reconciliation_types: findings, cells, verdict ──> texts, schemas
"""
