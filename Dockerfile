# One image for agent, sandbox and jobs. Name the base by digest, so that the same build gives the same image:
#   docker build --build-arg BASE=python:3.11-slim-bookworm@sha256:... --build-arg REVISION=$(git rev-parse HEAD) \
#     -t refund-agent:0.1.0 .
ARG BASE=python:3.11-slim-bookworm

FROM ${BASE} AS packages
COPY requirements.lock /tmp/requirements.lock
RUN python -m venv /venv \
    && /venv/bin/pip install --no-cache-dir --no-deps --require-hashes -r /tmp/requirements.lock

FROM ${BASE}
ARG REVISION=unknown
LABEL org.opencontainers.image.title="refund-agent" \
      org.opencontainers.image.description="A support refund agent on Dapr whose durable record carries tokens and money" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.version="0.1.0" \
      org.opencontainers.image.revision="${REVISION}"
COPY --from=packages /venv /venv
COPY LICENSE /app/LICENSE
COPY requirements.lock /app/requirements.lock
COPY app /app/app
COPY sandbox /app/sandbox
ENV PATH=/venv/bin:/usr/local/bin:/usr/bin:/bin PYTHONPATH=/app PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1 HOME=/tmp
WORKDIR /app
USER 65532:65532
CMD ["python", "-m", "app", "serve"]
