"""The record against a provider's bill, to the token. Pure.

    calls ──> claims (what each call may have on a bill) ──────┐
    bill ──> parsing (bill_json, bill_csv) ──> rows            ├──> reconciliation_types: findings, cells
                requests ──> by_request ───────────────────────┤
                sums of hours or days ──> by_sum ──────────────┘

`comparison` puts them together, `reconciliation_schemas` is what it comes to for a reader.
"""
