"""The only way to a model."""
