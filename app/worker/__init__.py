"""The workflow worker: event loop, turns and their watchdog, execution log, heartbeat, what the sidecar repeats."""
