"""The record against a provider's bill, to the token. Pure.

    calls ──> claims (what each call may have on a bill) ──────┐
    bill ──> parsing (formats, formats_csv) ──> rows           ├──> reconciliation_types: findings, cells
                requests: matching, repeats ──> by_request ────┤
                sums of hours or days: sums, subsets, leftover ─> by_sum

`comparison` puts them together, `reconciliation_schemas` is what it comes to for a reader.
"""
