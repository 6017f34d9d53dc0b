"""The sandbox: one process that stands in for the outside world on a laptop.

It is a model server that speaks the providers' wire protocols, and the internal systems with their books. Nothing in
the product imports from here; the product reaches it over HTTP only.
"""
