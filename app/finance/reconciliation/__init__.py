"""The record against a provider's bill, to the token. Pure.

    calls ──> claims (what each call may have on a bill) ──────┐
    bill ──> parsing (formats, formats_csv) ──> rows           ├──> values: findings, cells by model and hour
                requests: matching, repeats ──> by_request ────┤
                sums of hours or days: sums, subsets, leftover ─> by_sum

`reconcile` puts them together, `views` is what it comes to for a reader.
"""
