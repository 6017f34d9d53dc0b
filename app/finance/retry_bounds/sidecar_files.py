"""Reads the sidecar's files: Resiliency resources, models and internal systems. The only I/O of this room."""

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
    """What the sidecar of `app_id` reads of these folders. Raises ConfigurationError for what is no YAML."""
    first, further = [], []
    for where, number, document in _documents(folders):
        if document.get("kind") == "Resiliency" and number == 0:
            first.append((where, document))
        elif document.get("kind") == "Resiliency":
            further.append(PolicyFinding(where, "a second document of a file: daprd reads the first alone", wrong=True))
    read = resiliency.read(first, app_id)
    read.findings += further
    return read


def targets(folders: Sequence[Path], app_id: str) -> tuple[Target, ...]:
    """The models and internal systems that the sidecar of `app_id` knows, models first."""
    mine = [document for where, _, document in _documents(folders) if _loaded(where, document, app_id)]
    models = [model(document) for document in mine if document.get("kind") == "Component" and _is_model(document)]
    return (*models, *(system(document) for document in mine if document.get("kind") == "HTTPEndpoint"))


def components(folders: Sequence[Path]) -> frozenset[str]:
    """The names of all components."""
    named = [(where, document) for where, _, document in _documents(folders) if document.get("kind") == "Component"]
    return frozenset(_name(where, document) for where, document in named)


def _loaded(where: str, resource: Mapping[str, Any], app_id: str) -> bool:
    """Whether the sidecar of `app_id` loads it as a component or an endpoint. Raises ConfigurationError for one that
    daprd could not read."""
    if resource.get("kind") not in ("Component", "HTTPEndpoint"):
        return False
    _name(where, resource)
    spec, scopes = resource.get("spec"), resource.get("scopes") or []
    if not isinstance(spec, Mapping) or not isinstance(scopes, list):
        raise ConfigurationError(
            f"{where}: spec is not a mapping, or scopes is not a list; daprd passes over it; correct it"
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
            f"{where}: {resource.get('kind')} without metadata.name; daprd passes over it; name it"
        )
    return name


def _is_model(component: Mapping[str, Any]) -> bool:
    return str((component.get("spec") or {}).get("type", "")).startswith("conversation.")


def _documents(folders: Sequence[Path]) -> Iterator[tuple[str, int, Mapping[str, Any]]]:
    for folder in folders:
        if not folder.is_dir():
            raise ConfigurationError(
                f"{folder} is not a folder; run this in the project's folder, or name it with --folder"
            )
        for path in sorted(file for file in folder.iterdir() if file.suffix in (".yaml", ".yml")):
            yield from (
                (str(path), number, document)
                for number, document in enumerate(_parsed(path))
                if isinstance(document, dict)
            )


def _parsed(path: Path) -> list[Any]:
    return [document for document in yaml_file.documents(path) if document is not None]
