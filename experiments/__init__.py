"""Controlled experiments: the same work twice, with one thing changed, billed by the sandbox.

python -m experiments.rerun_tax     what crashes cost: resumed where it was, or begun again at step one
"""
