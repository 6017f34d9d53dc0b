"""What is computed for finance: pure. The ledger reads the figures and hands them over.

rollup           sums of charges by any dimension
cost_texts       tokens and money of a group of charges in words, for command line and pages
call_end         when a model call was over that nobody saw end
repricing        the same usage under another price book
failures/        what failures cost, and what starting again from zero would have cost
reconciliation/  the record against a provider's bill
retry_bounds/    how often one failure is asked again by all layers together, at worst
"""
