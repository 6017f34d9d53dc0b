"""Replaces components/llm.yaml by a template, with another model or endpoint if wanted. daprd loads the new file within
seconds; running tasks continue."""

from __future__ import annotations

import difflib
import json
import os
import re
import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import yaml

from app.config import yaml_file
from app.config.secret_files import UnreadableSecrets, read_secrets
from app.domain.errors import ConfigurationError
from app.providers.catalogue import LIVE, TEMPLATES, ProviderTemplate, read_component

# daprd loads every *.yaml and *.yml of components/, warns of every other file there at each load, and reads no folder
# inside it. So backup and draft are beside the templates.
BACKUP = TEMPLATES / "llm.yaml.bak"
# The name of a component that is checked beside the one in use.
CANDIDATE = "llm-candidate"
_PLACEHOLDER = "YOUR-"
_ADDRESS = re.compile(r"https?://[!-~]+")
_LOCAL_FILE = "secretstores.local.file"


class Unsuitable(ValueError):
    """A provider, model or endpoint that cannot be used so; the message names it and the remedy."""


@dataclass(frozen=True)
class Switch:
    """A new text for components/llm.yaml, not yet written. `diff` is empty if the file has that text already."""

    template: ProviderTemplate
    model: str
    endpoint: str
    text: str
    diff: str


def plan_switch(folder: Path, template: ProviderTemplate, model: str = "", endpoint: str = "") -> Switch:
    """The file that the template makes with this model and endpoint (empty: its own). The component keeps the name that
    it has now. Raises Unsuitable."""
    _check_endpoint(template, endpoint)
    if model and not template.model:
        raise Unsuitable(f"{template.name} has no model to choose; leave out --model")
    if not (model.isascii() and model.isprintable()):
        raise Unsuitable(f"{model!r} is no model's name: it holds characters other than printable ASCII")
    text, current = template.text, _read_text(folder / LIVE)
    for name, value in (("model", model), ("endpoint", endpoint)):
        if value:
            text = _with_metadata(text, name, value)
    if (name := _component_name(folder)) and name != template.component:
        text = re.sub(r"(?m)^(metadata:\n  name: ).*$", rf"\g<1>{name}", text, count=1)
    lines = difflib.unified_diff(
        current.splitlines(keepends=True), text.splitlines(keepends=True), f"{LIVE} (now)", f"{LIVE} ({template.name})"
    )
    return Switch(template, model or template.model, endpoint or template.endpoint, text, "".join(lines))


def write_switch(folder: Path, switch: Switch) -> Path | None:
    """Writes components/llm.yaml in one step, and what it held into the backup. Returns the backup's path; None if
    nothing was there or it has the text already. Raises OSError."""
    live, backup = folder / LIVE, folder / BACKUP
    if not switch.diff:
        return None
    existed = live.exists()
    if existed:
        shutil.copy2(live, backup)
    _write(live, switch.text, backup.parent)
    return backup if existed else None


def _write(path: Path, text: str, scratch: Path) -> None:
    """Replaces a file in one step, so that daprd never reads half of it; the draft is in the folder `scratch`."""
    draft = scratch / f".{path.name}.{secrets.token_hex(8)}"
    try:
        with draft.open("w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        if path.exists():
            shutil.copymode(path, draft)
        draft.replace(path)
    finally:
        draft.unlink(missing_ok=True)


@contextmanager
def candidate_file(folder: Path, switch: Switch) -> Iterator[None]:
    """Lets daprd load the template beside the component in use, under the name `CANDIDATE`, and removes it again."""
    file = folder / LIVE.with_name(f"{CANDIDATE}.yaml")
    text = re.sub(r"(?m)^(metadata:\n  name: ).*$", rf"\g<1>{CANDIDATE}", switch.text, count=1)
    try:
        _write(file, text, (folder / BACKUP).parent)
        yield
    finally:
        file.unlink(missing_ok=True)


def missing_secrets(folder: Path, template: ProviderTemplate) -> tuple[tuple[str, ...], Path | None]:
    """The template's secrets that the local secret store does not hold, and the store's file. The file is None if the
    store is of another kind: then nothing is known, and nothing is missing. Raises ConfigurationError if no component
    is the store, or its file cannot be read."""
    if not template.secrets:
        return (), None
    file = _secrets_file(folder, template.secret_store)
    if file is None:
        return (), None
    try:
        held = read_secrets(file)
    except UnreadableSecrets as error:
        raise ConfigurationError(str(error)) from None
    return tuple(name for name in template.secrets if not held.get(name)), file


def _secrets_file(folder: Path, store: str) -> Path | None:
    for path in sorted((folder / LIVE.parent).glob("*.y*ml")):
        documents: list[Any] = []
        with suppress(ConfigurationError):  # a file that cannot be read is `doctor`'s to name
            documents = yaml_file.documents(path)
        for document in documents:
            spec = document.get("spec") if isinstance(document, dict) else None
            if not isinstance(spec, dict) or (document.get("metadata") or {}).get("name") != store:
                continue
            if spec.get("type") != _LOCAL_FILE:
                return None
            names = {entry.get("name"): entry.get("value") for entry in spec.get("metadata") or []}
            return folder / str(names.get("secretsFile"))
    raise ConfigurationError(
        f"no file of {folder / LIVE.parent} that can be read has the secret store {store}; restore it: git checkout "
        "components/secrets.yaml"
    )


def _check_endpoint(template: ProviderTemplate, endpoint: str) -> None:
    reads = template.support.reads if template.support else ("endpoint",)
    if endpoint and "endpoint" not in reads:
        raise Unsuitable(
            f"{template.name}: {template.component_type} takes no endpoint; leave out --endpoint, or use a provider "
            "whose component is conversation.openai"
        )
    if not endpoint and _PLACEHOLDER in template.endpoint:
        raise Unsuitable(f"{template.name} needs your own address: add --endpoint, as in {template.endpoint}")
    if not endpoint:
        return
    try:
        whole = bool(_ADDRESS.fullmatch(endpoint) and urlsplit(endpoint).hostname)
    except ValueError:
        whole = False
    if not whole:
        raise Unsuitable(f"{endpoint!r} is no address; write it as in http://127.0.0.1:8000/v1")
    if "@" in urlsplit(endpoint).netloc:
        raise Unsuitable("the endpoint holds a name or a password; keep those in the secret store")


def _with_metadata(text: str, name: str, value: str) -> str:
    """The text with one entry of `spec.metadata` changed, or added at its end, where the list ends each template."""
    line = f"    - name: {name}\n      value: "
    pattern = re.compile(rf"(?m)^{re.escape(line)}.*$")
    written = line + _scalar(value)
    if pattern.search(text):
        return pattern.sub(lambda _: written, text, count=1)
    return f"{text.rstrip()}\n{written}\n"


def _scalar(value: str) -> str:
    """The value as YAML reads it back as this text: plain if it can be, else in quotes."""
    with suppress(yaml.YAMLError, ValueError):
        if yaml.safe_load(f"value: {value}") == {"value": value}:
            return value
    return json.dumps(value)


def _read_text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except FileNotFoundError:
        return ""
    except UnicodeDecodeError:
        raise ConfigurationError(f"{path}: is not text in UTF-8; restore it: git checkout {path}") from None


def _component_name(folder: Path) -> str:
    """The name of the component in use; empty if there is no file, or none that can be read."""
    with suppress(ConfigurationError):
        return read_component(folder / LIVE).component
    return ""
