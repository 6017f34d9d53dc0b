"""The sidecar seen from here: its API, its health, service invocation, histories, SDK patches. Knows no ledger."""
