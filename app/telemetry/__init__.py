"""Exports the record to other tools, as OpenTelemetry spans and Prometheus metrics.

    TaskRecord ─┬─> spans.plan ─> export.Traces ─> an OTLP collector
                └─> metrics.Metrics ─> GET /metrics

Both are made from the durable record when a task has ended: they include its cost, they survive a crash of the worker,
and no stage waits for them. They contain no text of tickets, and answers of models only if that is switched on.
"""
