"""Which components the sidecar should have loaded and has not, and why: daprd goes on without them."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import yaml

from app.config.settings import Settings

APP_ID = "agent"
_SECONDS = 3.0
# Where the sidecar's own words may stand: as `make up` links its log, as a `dapr run` by hand leaves it.
_LOGS = (".state/logs/agent-daprd.log", ".state/logs/daprd.log", ".dapr/logs/agent_daprd_*.log")
_LOG_BYTES = 200_000


@dataclass(frozen=True)
class Missing:
    """A component that is not there; `why` and `remedy` as far as they can be told from here."""

    name: str
    why: str
    remedy: str


def missing(settings: Settings, folder: Path) -> Iterator[Missing]:
    """What is missing. Raises httpx.HTTPError or ValueError when the sidecar does not say what it has."""
    with settings.daprd.client(_SECONDS) as client:
        told = client.get("/v1.0/metadata").raise_for_status().json()
        loaded = {str(each["name"]) for each in told.get("components", [])}
        wanted = dict.fromkeys((settings.secret_store, settings.llm_component)) | _written(folder)
        for name in sorted(set(wanted) - loaded):
            yield _explained(name, wanted[name], client, folder)


def _written(folder: Path) -> dict[str, Any]:
    """The components that the files of the folder give the agent, by name."""
    found: dict[str, Any] = {}
    for path in sorted([*(folder / "components").glob("*.yaml"), *(folder / "components").glob("*.yml")]):
        with suppress(OSError, ValueError, yaml.YAMLError):  # what cannot be read is a finding of its own
            for document in yaml.safe_load_all(path.read_text(encoding="utf-8")):
                if isinstance(document, dict) and document.get("kind") == "Component" and _is_ours(document):
                    found[str((document.get("metadata") or {}).get("name"))] = document | {"file": path}
    return found


def _is_ours(document: Mapping[str, Any]) -> bool:
    return not document.get("scopes") or APP_ID in document["scopes"]


def _explained(name: str, document: Any, client: httpx.Client, folder: Path) -> Missing:
    if document is None:
        return Missing(name, "no file of components/ that can be read says it", "restore it: git checkout components/")
    file = document["file"]
    store = (document.get("auth") or {}).get("secretStore", "kubernetes")
    for secret in _secrets(document):
        if client.get(f"/v1.0/secrets/{store}/{secret}").status_code != httpx.codes.OK:
            return Missing(
                name,
                f"secret {secret} is not in the secret store {store}",
                f'put {{"{secret}": "..."}} into .state/secrets.json, then `make reload`: it is read at start only',
            )
    told = _last_word(name, folder)
    kind = (document.get("spec") or {}).get("type")
    why = told or f"{file} is there, its type is {kind}"
    return Missing(name, why, f"correct {file}; it is loaded as soon as it is saved")


def _secrets(document: Mapping[str, Any]) -> Iterator[str]:
    for entry in (document.get("spec") or {}).get("metadata") or []:
        if isinstance(entry, dict) and isinstance(entry.get("secretKeyRef"), dict):
            yield str(entry["secretKeyRef"].get("name"))


def _last_word(name: str, folder: Path) -> str:
    """What daprd wrote last of a component that it could not load; empty without a log."""
    pattern = re.compile(rf'msg="Failed to init component {re.escape(name)} \(.*?: ((?:[^"\\]|\\.)*)"')
    logs = (path for form in _LOGS for path in folder.glob(form))
    for path in sorted(logs, key=lambda path: path.stat().st_mtime, reverse=True):
        with suppress(OSError), path.open("rb") as file:
            file.seek(max(0, path.stat().st_size - _LOG_BYTES))
            found = pattern.findall(file.read().decode(errors="replace"))
            if found:
                # daprd wraps it in itself: "[INIT_COMPONENT_FAILURE]: initialization error occurred for ...: why".
                return str(re.sub(r"^.*initialization error occurred for [^:]*: ", "", found[-1]))
    return ""
