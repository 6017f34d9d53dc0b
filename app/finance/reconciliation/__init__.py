"""The record against a provider's bill, to the token. Pure.

files ──> parsing (JSON here, CSV in bill_csv) ──> bill: its rows, and what each call of ours may claim on it
bill and calls ──> comparison ──> by_request (a bill that names each request) or by_sum (a bill of sums)
                             └──> reconciliation_types: findings, cells, the verdict and its JSON
"""
