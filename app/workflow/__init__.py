"""The process: `refund` is the workflow, `activities/` its steps. Deterministic but for the activities."""
