"""The worst case of all retry layers together: requests, time and money of a step.

components/*.yaml  ──> sidecar_files ──> models and internal systems ─┐
resiliency/*.yaml  ──> sidecar_files ──> policies of the sidecar      ├─> worst ──> bound_schemas
config/policy.yaml ──> rules ──────────> retries of the workflow     ─┘

requests of a step = provider's client x SDK x sidecar x workflow. None means that no bound is known: over any limit.
"""
