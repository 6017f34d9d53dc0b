"""How often one failure is asked again by all layers together, at worst. Pure but for `sidecar_files`.

components/*.yaml  ──> sidecar_files ──> models and internal systems    ─┐
resiliency/*.yaml  ──> sidecar_files ──> policies: what the sidecar does ├─> worst ──> bound_schemas
config/policy.yaml ──> rules:            what the workflow does         ─┘

requests of a step = provider's client x SDK x sidecar x workflow. None is "no bound is known", and over any limit.
"""
