"""The sandbox: what stands in for the outside world on a laptop, as a process of its own.

A model server that speaks the providers' wire protocols, and the internal systems, each with its own
books. Nothing in the product imports from here; it is reached over sockets only.
"""
