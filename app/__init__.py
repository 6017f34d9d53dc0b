"""A refund agent whose durable record carries tokens and money.

    ticket ──HTTP/CLI──> tasks ──> Dapr workflow refund_ticket           (app/tasks/, app/workflow/refund.py)
                                     1 classify          (model)         (app/workflow/activities/)
                                     2 retrieve_account  (tool)
                                     3 draft_refund      (model; 1..n turns, tools between turns)
                                       └ durable wait: a person decides, when a guard objects
                                     4 notify_customer   (tool)
                                     5 close_case        (tool: posts the refund once, closes the case)
    model stage ──> llm ──> Dapr Conversation API                        (app/llm/)
    tool stage  ──> Dapr service invocation to the internal systems      (app/dapr/systems.py)

    history and journal ──> ledger ──> finance: what it cost, and why    (app/ledger/, app/pricing/, app/finance/)

A room imports those below it only, in the order that `tests/test_rooms.py` holds. `app/bootstrap.py` puts the parts
together, `app/config/settings.py` alone reads the environment.
"""

__version__ = "0.1.0"
