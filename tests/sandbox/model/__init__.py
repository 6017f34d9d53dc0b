"""Tests of the sandbox's model server."""
