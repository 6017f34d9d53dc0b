"""The process: `refund` is the workflow, `activities/` its steps. All code outside `activities/` is deterministic."""
