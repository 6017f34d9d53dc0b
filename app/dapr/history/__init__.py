"""Reading the history that Dapr keeps of any workflow: `reader.py` asks daprd, all else here is pure."""
