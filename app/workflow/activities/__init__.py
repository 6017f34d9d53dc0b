"""The Dapr activities: the five stages in order, and the tools of the third. One file a stage."""

from app.workflow.activities.classify import classify
from app.workflow.activities.close_case import close_case
from app.workflow.activities.draft_refund import draft_refund, hold_refund
from app.workflow.activities.notify_customer import notify_customer
from app.workflow.activities.retrieve_account import retrieve_account
from app.workflow.activities.tools import lookup_order, lookup_refund_policy

STAGES = (classify, retrieve_account, draft_refund, notify_customer, close_case)
TOOLS = (lookup_order, lookup_refund_policy, hold_refund)
# The stage that each activity belongs to; the cost of a tool counts as the third stage's.
STAGE_OF = {stage.__name__: stage.__name__ for stage in STAGES} | {
    tool.__name__: draft_refund.__name__ for tool in TOOLS
}
