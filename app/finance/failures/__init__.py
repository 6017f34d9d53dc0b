"""What failures cost, and what they would have cost a runner that starts again from zero. Pure.

    intervals         how far a figure is known
    failure_figures   what the ledger tells, and the figures: for all, by tenant, by stage, by both
    failure_schemas   the same for programs

    measured    = charges of wasted work (`wasted`): calls that brought no result, compute and writes of lost attempts
    prevented   = over all restarts: what the task had paid before, that stood
    from zero   = measured + prevented
    at most     = failure rate x clean model spend; by progress, x mean progress as well

A *restart* is a failure at which a runner without a record would have begun again at the first step.
`docs/cost-model.md` has the definitions.
"""
