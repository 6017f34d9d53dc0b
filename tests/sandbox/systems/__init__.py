"""Tests of the internal systems."""
