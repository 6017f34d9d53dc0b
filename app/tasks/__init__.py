"""Tasks for people and programs: intake, reading, steering and decisions; who may do what."""
