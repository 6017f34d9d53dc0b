"""How often one failure is asked again by all layers together, at worst. Pure but for `sidecar_files`.

components/*.yaml  ──> sidecar_files ──> targets: models and internal systems    ─┐
resiliency/*.yaml  ──> sidecar_files ──> resiliency: what the sidecar does        ├─> worst ──> bound_schemas
config/policy.yaml ──> rules:            what the workflow does                   │
                       step_calls:       which step asks which target, how often ─┘

requests of a step = provider's client x SDK x sidecar x workflow. None is "no bound is known", and over any limit.
"""
