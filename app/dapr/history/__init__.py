"""Workflow histories: read from daprd (`reader.py`), parsed into a `WorkflowRun`, and evaluated."""
