"""The configuration of a deployment: environment, policy file, strict YAML, and private files."""
