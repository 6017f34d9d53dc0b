"""What leaves the record for other people's tools: OpenTelemetry spans and Prometheus metrics.

    TaskRecord ─┬─> spans.plan ─> export.Traces ─> an OTLP collector
                └─> metrics.Metrics ─> GET /metrics

Both are made when a task has ended, from its durable record: they carry its cost, they survive a crash of the worker,
and no stage waits for them. No text of a ticket or an answer is in either, unless it is switched on.
"""
