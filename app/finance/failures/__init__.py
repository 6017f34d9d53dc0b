"""What failures cost, and what they would have cost a runner that restarts tasks from zero.

    intervals         confidence intervals and quartiles
    failure_figures   the facts read from the ledger, and the figures computed from them
    failure_schemas   the JSON of these figures

    measured    = charges of wasted work (`wasted`): calls that brought no result, compute and writes of lost attempts
    prevented   = for every restart: the charges of the task before it that were not wasted
    from zero   = measured + prevented
    at most     = failure rate x clean model spend; by progress: x mean progress as well

A *restart* is a failure at which a runner without a record would have started again at the first step.
`docs/cost-model.md` has the definitions.
"""
