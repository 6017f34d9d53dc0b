"""What the record costs: the same load worked with and without journal, sidecar watch, projector and telemetry.

worker.py    the product's worker, whole or bare, with a stop-watch around each model call
pairs.py     with, without, without, with: the rounds and what is seen in them
__main__.py  the command and its tables
"""
