"""Makes schemas.json from what a cluster with Dapr says of itself: strict, without descriptions, our kinds alone.

kubectl get --raw /openapi/v2 | python -m tests.k8s.make_schemas VERSION_OF_KUBERNETES VERSION_OF_DAPR
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

FILE = Path(__file__).with_name("schemas.json")
KINDS = {
    "": ("v1", "Namespace ServiceAccount ConfigMap Secret Service PersistentVolumeClaim"),
    "apps": ("v1", "Deployment StatefulSet"),
    "autoscaling": ("v2", "HorizontalPodAutoscaler"),
    "batch": ("v1", "Job"),
    "dapr.io": ("v1alpha1", "Component Configuration HTTPEndpoint Resiliency WorkflowAccessPolicy"),
    "networking.k8s.io": ("v1", "NetworkPolicy"),
    "policy": ("v1", "PodDisruptionBudget"),
    "rbac.authorization.k8s.io": ("v1", "Role RoleBinding"),
}
_MARKS = "x-kubernetes-group-version-kind"
_EITHER = {"type": ["integer", "string"]}
# What the document calls a text, and the server takes as a number as well.
_NUMBERS = {"util.intstr.IntOrString": _EITHER, "api.resource.Quantity": {"type": ["number", "string"]}}
_REF = "#/definitions/"


def make(document: dict[str, Any], **versions: str) -> dict[str, Any]:
    """The bundle: `kinds` by `apiVersion/kind`, and the definitions that they need."""
    theirs = document["definitions"]
    named = {
        (mark["group"], mark["version"], mark["kind"]): name
        for name, each in theirs.items()
        for mark in each.get(_MARKS, ())
    }
    kinds = {
        "/".join(filter(None, (group, version, kind))): named[group, version, kind]
        for group, (version, each) in KINDS.items()
        for kind in each.split()
    }
    found: dict[str, Any] = {}
    needed = list(kinds.values())
    while needed:
        name = needed.pop()
        if name not in found:
            special = next((schema for end, schema in _NUMBERS.items() if name.endswith(end)), None)
            found[name] = special or _strict(theirs[name], needed)
    return {**versions, "kinds": kinds, "definitions": found}


def _strict(schema: Any, needed: list[str]) -> Any:
    if not isinstance(schema, dict):
        return schema
    if schema.get("x-kubernetes-int-or-string") or schema.get("format") == "int-or-string":
        return _EITHER
    made: dict[str, Any] = {}
    for key in ("type", "required", "enum", "minItems", "minLength", "pattern", "minimum", "maximum"):
        if key in schema:
            made[key] = schema[key]
    if "$ref" in schema:
        needed.append(schema["$ref"].removeprefix(_REF))
        made["$ref"] = schema["$ref"]
    if "items" in schema:
        made["items"] = _strict(schema["items"], needed)
    if isinstance(schema.get("additionalProperties"), dict):
        made["additionalProperties"] = _strict(schema["additionalProperties"], needed)
    if "properties" in schema:
        made["properties"] = {name: _strict(each, needed) for name, each in schema["properties"].items()}
        made.setdefault("additionalProperties", bool(schema.get("x-kubernetes-preserve-unknown-fields")))
    return made


def main() -> None:
    """Reads the document, writes the bundle: one definition a line, so that a change can be read."""
    kubernetes, dapr = sys.argv[1:]
    bundle = make(json.load(sys.stdin), kubernetes=kubernetes, dapr=dapr)
    lines = [f"{json.dumps(name)}: {json.dumps(each)}" for name, each in sorted(bundle.pop("definitions").items())]
    head = json.dumps(bundle, indent=1, sort_keys=True).removesuffix("\n}")
    FILE.write_text(head + ',\n "definitions": {\n' + ",\n".join(lines) + "\n }\n}\n")


if __name__ == "__main__":
    main()
