"""How often one failure is asked again by all layers together, at worst. Pure but for `reading`.

components/*.yaml  ──> reading ──> targets: models and internal systems  ─┐
resiliency/*.yaml  ──> reading ──> resiliency: what the sidecar does      ├─> worst ──> views: beside their limits
config/policy.yaml ──> rules:      what the workflow does                 │
                       steps:      which step asks which target, how often┘

requests of a step = provider's client x SDK x sidecar x workflow. None is "no bound is known", and over any limit.
"""
