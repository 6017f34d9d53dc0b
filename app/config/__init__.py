"""What a deployment sets: the environment, the policy file, YAML with line numbers, files for their owner alone."""
