"""Reads the sidecar's files: Resiliency resources, models and internal systems."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from app.config import yaml_file
from app.domain.errors import ConfigurationError
from app.finance.retry_bounds import policies as resiliency
from app.finance.retry_bounds.policies import Policies, PolicyFinding
from app.finance.retry_bounds.worst import Target, model, system

Resource = tuple[str, Mapping[str, Any]]


def policies(folders: Sequence[Path], app_id: str) -> Policies:
    """The policies that the sidecar of `app_id` reads from the folders. Raises ConfigurationError for invalid YAML."""
    resources, ignored = [], []
    for where, number, document in _documents(folders):
        if document.get("kind") == "Resiliency" and number == 0:
            resources.append((where, document))
        elif document.get("kind") == "Resiliency":
            ignored.append(PolicyFinding(where, "not the first document: daprd reads only the first", wrong=True))
    found_policies = resiliency.read(resources, app_id)
    found_policies.findings += ignored
    return found_policies


def targets(folders: Sequence[Path], app_id: str) -> tuple[Target, ...]:
    """The models and internal systems that the sidecar of `app_id` loads, models first."""
    resources = [document for where, _, document in _documents(folders) if _is_loaded(where, document, app_id)]
    models = [model(document) for document in resources if document.get("kind") == "Component" and _is_model(document)]
    return (*models, *(system(document) for document in resources if document.get("kind") == "HTTPEndpoint"))


def components(folders: Sequence[Path]) -> frozenset[str]:
    """The names of all components."""
    return frozenset(
        _name(where, document) for where, _, document in _documents(folders) if document.get("kind") == "Component"
    )


def _is_loaded(where: str, resource: Mapping[str, Any], app_id: str) -> bool:
    """Whether the sidecar of `app_id` loads the resource as a component or an endpoint. Raises ConfigurationError for
    one that daprd cannot read."""
    if resource.get("kind") not in ("Component", "HTTPEndpoint"):
        return False
    _name(where, resource)
    spec, scopes = resource.get("spec"), resource.get("scopes") or []
    if not isinstance(spec, Mapping) or not isinstance(scopes, list):
        raise ConfigurationError(
            f"{where}: spec is not a mapping, or scopes is not a list; daprd ignores it; correct it"
        )
    entries = spec.get("metadata") or []
    if not isinstance(entries, list) or not all(isinstance(entry, Mapping) for entry in entries):
        raise ConfigurationError(f"{where}: spec.metadata is not a list of names and values; correct it")
    return not scopes or app_id in scopes


def _name(where: str, resource: Mapping[str, Any]) -> str:
    metadata = resource.get("metadata")
    name = metadata.get("name") if isinstance(metadata, Mapping) else None
    if not isinstance(name, str) or not name:
        raise ConfigurationError(
            f"{where}: {resource.get('kind')} without metadata.name; daprd ignores it; add metadata.name"
        )
    return name


def _is_model(component: Mapping[str, Any]) -> bool:
    return str((component.get("spec") or {}).get("type", "")).startswith("conversation.")


def _documents(folders: Sequence[Path]) -> Iterator[tuple[str, int, Mapping[str, Any]]]:
    for folder in folders:
        if not folder.is_dir():
            raise ConfigurationError(
                f"{folder} is not a folder; run this in the project's folder, or give that with --folder"
            )
        for path in sorted(file for file in folder.iterdir() if file.suffix in (".yaml", ".yml")):
            documents = [document for document in yaml_file.documents(path) if document is not None]
            for number, document in enumerate(documents):
                if isinstance(document, dict):
                    yield str(path), number, document
