"""A refund agent whose durable record carries tokens and money.

    ticket ──HTTP/CLI──> desk ──> Dapr workflow refund_ticket            (app/tasks/desk.py, app/workflow/refund.py)
                                    1 classify          (model)          (app/workflow/activities/)
                                    2 retrieve_account  (tool)
                                    3 draft_refund      (model; 1..n turns, tools between turns)
                                      └ durable wait: a person decides, when a guard objects
                                    4 notify_customer   (tool)
                                    5 close_case        (tool: posts the refund once, closes the case)
    model stage ──> gateway ──> Dapr Conversation API                    (app/gateway/)
    tool stage  ──> Dapr service invocation to the internal systems      (app/dapr/systems.py)

`app/bootstrap.py` puts the parts together, `app/config/settings.py` alone reads the environment.
"""

__version__ = "0.1.0"
