"""Measures what the record costs: the same load with and without journal, sidecar watch, projector and telemetry.

worker.py    the product's worker, whole or bare, which times each model call
pairs.py     the rounds, in the order with, without, without, with
__main__.py  the command and its tables
"""
