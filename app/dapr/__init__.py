"""The sidecar as the agent sees it: API, health, service invocation, workflow histories, patches of its Python SDK."""
