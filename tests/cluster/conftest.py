"""The tests of this folder change the cluster that kubectl is set to: `make test-cluster` alone runs them."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest

from runtime import paths
from tests.cluster.harness import Installed, installed, kubectl


@pytest.fixture(scope="module")
def local() -> Iterator[Installed]:
    """One agent on SQLite beside the sandbox."""
    with installed(paths.ROOT / "k8s" / "overlays" / "local", tokens=False) as found:
        yield found


@pytest.fixture(scope="module")
def production() -> Iterator[Installed]:
    """Two agents on PostgreSQL beside the sandbox. Its namespace enforces the restricted Pod Security Standard."""
    injector = kubectl("get", "deploy", "dapr-sidecar-injector", "-o", "json", namespace="dapr-system")
    environment = json.loads(injector)["spec"]["template"]["spec"]["containers"][0]["env"]
    if {"name": "SIDECAR_DROP_ALL_CAPABILITIES", "value": "true"} not in environment:
        pytest.fail("Dapr must be installed with dapr_sidecar_injector.sidecarDropALLCapabilities=true")
    with installed(paths.ROOT / "tests" / "cluster" / "production", tokens=True) as found:
        found.scale(2)
        yield found
