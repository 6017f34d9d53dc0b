"""Reads the provider templates of components/providers/, and finds the one that components/llm.yaml was made from."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, Field

from app.config import yaml_file
from app.dapr.component_support import DAPR_VERSION, SUPPORT, ComponentSupport
from app.domain.errors import ConfigurationError

# Below the project's folder. daprd reads the files of components/ and none of the folders in it.
TEMPLATES = Path("components") / "providers"
LIVE = Path("components") / "llm.yaml"
_TITLE = re.compile(r"# ([a-z0-9-]+): ")


class _SecretKeyRef(BaseModel):
    name: str


class _Auth(BaseModel):
    secretStore: str


class _Entry(BaseModel):
    name: str
    value: Any = None
    secretKeyRef: _SecretKeyRef | None = None


class _Named(BaseModel):
    name: str


class _Spec(BaseModel):
    type: str = Field(pattern=r"^conversation\.")
    metadata: list[_Entry] = []


class _ComponentFile(BaseModel):
    """The parts of a conversation component's file that are used here."""

    kind: Literal["Component"]
    metadata: _Named
    auth: _Auth | None = None
    spec: _Spec


@dataclass(frozen=True)
class ProviderTemplate:
    """A file with one conversation component. `name` is the provider's, from the file's first comment line; empty if
    that names none. `endpoint` and `model` are empty if the file sets none; `secrets` are the names of its secrets in
    the store `secret_store`."""

    name: str
    file: Path
    text: str
    component: str
    component_type: str
    model: str
    endpoint: str
    secret_store: str
    secrets: tuple[str, ...]

    @property
    def support(self) -> ComponentSupport | None:
        """What Dapr supports of it; None for a component type that is not in the table."""
        return SUPPORT.get(self.component_type)

    @property
    def description(self) -> str:
        """The comment at the file's head, without the provider's name and the line of Dapr's support."""
        head = self.text.partition("\napiVersion:")[0].splitlines()
        lines = [line.removeprefix("#").strip() for line in head if not line.startswith(f"# {DAPR_VERSION}:")]
        return " ".join(lines).removeprefix(f"{self.name}: ")


def read_component(file: Path) -> ProviderTemplate:
    """Reads one file. Raises ConfigurationError with file, line and key if it is no conversation component."""
    document = yaml_file.read(file, _ComponentFile, remedy=f"restore it: git checkout {file.parent}")
    component, text = document.value, file.read_text(encoding="utf-8")
    values = {entry.name.lower(): entry.value for entry in component.spec.metadata}
    title = _TITLE.match(text)
    return ProviderTemplate(
        name=title[1] if title else "",
        file=file,
        text=text,
        component=component.metadata.name,
        component_type=component.spec.type,
        model=str(values.get("model") or ""),
        endpoint=str(values.get("endpoint") or ""),
        secret_store=component.auth.secretStore if component.auth else "",
        secrets=tuple(entry.secretKeyRef.name for entry in component.spec.metadata if entry.secretKeyRef),
    )


def read_templates(folder: Path) -> tuple[ProviderTemplate, ...]:
    """All templates of a project's folder, by name. Raises ConfigurationError if there is none or one is wrong."""
    files = sorted((folder / TEMPLATES).glob("*.yaml"), key=lambda file: file.stem)
    if not files:
        raise ConfigurationError(
            f"there are no provider templates in {folder / TEMPLATES}; run this in the project's folder, or name it "
            "with --folder"
        )
    templates = tuple(read_component(file) for file in files)
    for template in templates:
        if template.name != template.file.stem:
            raise ConfigurationError(f"{template.file}:1: begin the file with `# {template.file.stem}: ...`")
    return templates


def find_in_use(live: ProviderTemplate, templates: Sequence[ProviderTemplate]) -> ProviderTemplate | None:
    """The template that components/llm.yaml was made from: the one that its first comment names if the component type
    is the same, else one with the same type, endpoint and secrets. None: a component of the user's own."""
    named = (template for template in templates if template.name == live.name)
    alike = (template for template in templates if _identity(template) == _identity(live))
    candidates = (template for template in (*named, *alike) if template.component_type == live.component_type)
    return next(candidates, None)


def _identity(template: ProviderTemplate) -> tuple[str, str, tuple[str, ...]]:
    return template.component_type, template.endpoint, template.secrets
