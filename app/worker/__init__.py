"""The workflow worker: event loop, turns and their watchdog, execution log, heartbeat, count of sidecar retries."""
