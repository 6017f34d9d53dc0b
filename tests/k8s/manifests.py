"""What `kubectl apply -k` would send, made by the pinned kustomize, and a look into it."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path
from typing import Any

import yaml

from runtime import go_build, paths

OVERLAYS = tuple(sorted(folder.name for folder in (paths.ROOT / "k8s" / "overlays").iterdir()))
NAMESPACE = "refund-agent"

Document = dict[str, Any]


@lru_cache
def build(overlay: str) -> tuple[Document, ...]:
    """All documents of an overlay. Raises AssertionError with kustomize's words when it fails, or warns."""
    return built(paths.ROOT / "k8s" / "overlays" / overlay)


def built(folder: Path) -> tuple[Document, ...]:
    """All documents of a folder."""
    command = [str(go_build.kustomize(paths.VENV)), "build", str(folder)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, ""), done.stderr
    return tuple(document for document in yaml.safe_load_all(done.stdout) if document)


def named(documents: tuple[Document, ...], kind: str, name: str) -> Document:
    """One of them."""
    (found,) = (each for each in documents if (each["kind"], each["metadata"]["name"]) == (kind, name))
    return found


def pods(documents: tuple[Document, ...]) -> Iterator[tuple[str, Document]]:
    """Every pod template, by `kind/name` of what makes it."""
    for document in documents:
        template = document.get("spec", {}).get("template", {})
        if "containers" in template.get("spec", {}):
            yield f"{document['kind']}/{document['metadata']['name']}", template


def containers(template: Document) -> Iterator[Document]:
    """All containers of a pod."""
    yield from template["spec"].get("initContainers", ())
    yield from template["spec"]["containers"]
