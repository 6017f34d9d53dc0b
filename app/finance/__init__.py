"""Computes the figures of the cost reports, without I/O: the ledger reads the data and passes it in.

rollup           sums of charges by any dimension
report_schemas   the JSON of sums and reports
cost_texts       tokens and money of a group of charges as text, for command line and pages
call_end         the end of a model call whose end was not recorded
repricing        the same usage under another price book
price_schemas    the JSON of repricing, prices and the check of the price book
failures/        what failures cost, and what restarting from zero would have cost
reconciliation/  the comparison of our record with a provider's bill
retry_bounds/    the worst case of all retry layers together
"""
