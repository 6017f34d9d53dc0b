"""The checks of `doctor`. Each check yields findings and raises nothing."""

from __future__ import annotations

import importlib
import re
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx
import yaml

from app.cli import client as http
from app.cli.client import connect
from app.cli.token import secrets_in
from app.config import policy
from app.config.settings import Settings
from app.dapr import sidecar, workarounds
from app.dapr.component_support import SUPPORT
from app.dapr.daprd import has_lost_metrics
from app.dapr.workarounds import LOST_METRICS, PATCHED, SUPPORTED, Component, Version, Workaround
from app.domain.errors import ConfigurationError, RefundAgentError

# Components that the sidecar should have loaded but has not. daprd runs on without them.

APP_ID = "agent"
_SECONDS = 3.0
# The sidecar's log: linked by `make up`, or written by a `dapr run` by hand.
_LOGS = (".state/logs/agent-daprd.log", ".state/logs/daprd.log", ".dapr/logs/agent_daprd_*.log")
_LOG_BYTES = 200_000


@dataclass(frozen=True)
class MissingComponent:
    """A component that the sidecar has not loaded, with the likely reason and remedy."""

    name: str
    why: str
    remedy: str


def missing_components(settings: Settings, folder: Path) -> Iterator[MissingComponent]:
    """The components of the settings and of `folder` that the sidecar has not loaded, by name.

    Raises httpx.HTTPError or ValueError if the sidecar does not list its components."""
    with settings.daprd.client(_SECONDS) as client:
        metadata = client.get("/v1.0/metadata").raise_for_status().json()
        loaded = {str(component["name"]) for component in metadata.get("components", [])}
        wanted = dict.fromkeys((settings.secret_store, settings.llm_component)) | _component_files(folder)
        for name in sorted(set(wanted) - loaded):
            yield _explain_missing(name, wanted[name], client, folder)


def _component_files(folder: Path) -> dict[str, Any]:
    """The components of the folder's files that are in the agent's scope: name -> document, with its path as `file`."""
    by_name: dict[str, Any] = {}
    for path in sorted([*(folder / "components").glob("*.yaml"), *(folder / "components").glob("*.yml")]):
        with suppress(OSError, ValueError, yaml.YAMLError):  # `resource_files` reports unreadable files
            for document in yaml.safe_load_all(path.read_text(encoding="utf-8")):
                if not isinstance(document, dict) or document.get("kind") != "Component":
                    continue
                if not document.get("scopes") or APP_ID in document["scopes"]:
                    by_name[str((document.get("metadata") or {}).get("name"))] = document | {"file": path}
    return by_name


def _explain_missing(name: str, document: Any, client: httpx.Client, folder: Path) -> MissingComponent:
    if document is None:
        why = "no readable file of components/ defines it"
        return MissingComponent(name, why, "restore it: git checkout components/")
    file = document["file"]
    store = (document.get("auth") or {}).get("secretStore", "kubernetes")
    for secret in _referenced_secrets(document):
        if client.get(f"/v1.0/secrets/{store}/{secret}").status_code != httpx.codes.OK:
            return MissingComponent(
                name,
                f"secret {secret} is not in the secret store {store}",
                f'put {{"{secret}": "..."}} into .state/secrets.json, then `make reload`: it is read at start only',
            )
    last_error = _last_init_error(name, folder)
    kind = (document.get("spec") or {}).get("type")
    why = last_error or f"{file} is there, its type is {kind}"
    return MissingComponent(name, why, f"correct {file}; it is loaded as soon as it is saved")


def _referenced_secrets(document: Mapping[str, Any]) -> Iterator[str]:
    for entry in (document.get("spec") or {}).get("metadata") or []:
        if isinstance(entry, dict) and isinstance(entry.get("secretKeyRef"), dict):
            yield str(entry["secretKeyRef"].get("name"))


def _last_init_error(name: str, folder: Path) -> str:
    """daprd's last error about a component that it could not load; empty without a log."""
    pattern = re.compile(rf'msg="Failed to init component {re.escape(name)} \(.*?: ((?:[^"\\]|\\.)*)"')
    logs = (path for form in _LOGS for path in folder.glob(form))
    for path in sorted(logs, key=lambda path: path.stat().st_mtime, reverse=True):
        with suppress(OSError), path.open("rb") as file:
            file.seek(max(0, path.stat().st_size - _LOG_BYTES))
            errors = pattern.findall(file.read().decode(errors="replace"))
            if errors:
                # daprd prefixes the error: "[INIT_COMPONENT_FAILURE]: initialization error occurred for ...: why".
                return str(re.sub(r"^.*initialization error occurred for [^:]*: ", "", errors[-1]))
    return ""


PROBE_SECONDS = 3.0
GROUP = "dapr.io/"
# The kinds that daprd reads. It skips a file of any other kind with a warning only.
KINDS = frozenset(
    {"Component", "Configuration", "HTTPEndpoint", "MCPServer", "Resiliency", "Subscription", "WorkflowAccessPolicy"}
)
FOLDERS = ("components", "components/providers", "resiliency", "config")


@dataclass(frozen=True)
class DoctorFinding:
    """The result of one check: `found` describes the state; `remedy` is empty if it is fine."""

    name: str
    ok: bool
    found: str
    remedy: str = ""


def prerequisites() -> Iterator[DoctorFinding]:
    """Whether the machine has what the set-up requires (`runtime.prerequisites`)."""
    try:
        checks: Any = importlib.import_module("runtime.prerequisites").checks()
    except ModuleNotFoundError as error:
        yield DoctorFinding("machine", False, f"{error.name} is not there", "run this in the project's folder")
        return
    except Exception as error:  # a failing check must not hide the findings of the others
        yield DoctorFinding("machine", False, f"{type(error).__name__}: {error}", "run `python -m runtime` to see more")
        return
    for check in checks:
        yield DoctorFinding(check.name, check.ok, check.found, check.remedy)


def probe(name: str, address: str) -> DoctorFinding:
    """Whether an address answers with a 2xx status."""
    try:
        answer = http.get(address, PROBE_SECONDS)
    except ConfigurationError as error:
        return DoctorFinding(name, False, *str(error).split("; ", 1))
    except httpx.RequestError as error:
        problem = f"{address} does not answer ({type(error).__name__})"
        return DoctorFinding(name, False, problem, "start everything with `make up`, or correct the address")
    if answer.is_success:
        return DoctorFinding(name, True, address)
    return DoctorFinding(name, False, f"{address} answers {answer.status_code}", f"look into the log of {name}")


def components(settings: Settings, folder: Path) -> Iterator[DoctorFinding]:
    """Whether the sidecar has loaded every component: one finding for each that is missing."""
    try:
        absent = list(missing_components(settings, folder))
    except (httpx.HTTPError, ValueError, KeyError, ConfigurationError) as error:
        why = str(error) if isinstance(error, ConfigurationError) else f"cannot be read ({type(error).__name__})"
        yield DoctorFinding("sidecar's components", False, why, "start everything with `make up`; see its log")
        return
    for component in absent:
        yield DoctorFinding(f"component {component.name}", False, f"not loaded: {component.why}", component.remedy)
    if not absent:
        yield DoctorFinding("sidecar's components", True, "all are loaded")


def metrics(settings: Settings) -> DoctorFinding:
    """Whether the sidecar's metrics can be read: they are the only source for its retries and breakers."""
    name = "sidecar's metrics"
    try:
        answer = http.get(settings.dapr_metrics, PROBE_SECONDS)
    except (httpx.RequestError, ConfigurationError) as error:
        return DoctorFinding(
            name, False, f"cannot be read ({type(error).__name__})", "start everything with `make up`; see its log"
        )
    if answer.is_success:
        return _repeated_calls(name, answer.text) or DoctorFinding(name, True, settings.dapr_metrics)
    if has_lost_metrics(answer.text) and sidecar.needs(settings.daprd, LOST_METRICS):
        problem = f"lost when the sidecar reloaded its configuration (Dapr below {LOST_METRICS.fixed_in})"
        return DoctorFinding(name, False, problem, "restart the sidecar")
    return DoctorFinding(name, False, f"{settings.dapr_metrics} answers {answer.status_code}", "look into its log")


def _repeated_calls(name: str, page: str) -> DoctorFinding | None:
    """The model calls that the sidecar has repeated, by its metrics page; None if there are none."""
    from app.worker import sidecar_metrics

    try:
        retried = sidecar_metrics.parse(page, datetime.now(UTC)).retried
    except ValueError as error:
        return DoctorFinding(name, False, *str(error).split("; ", 1))
    calls = ", ".join(f"{count:,} calls of {model}" for model, count in sorted(retried.items()) if count)
    if not calls:
        return None
    remedy = "remove `retry` from their target in resiliency/ and restart the sidecar; `doctor retries` shows more"
    return DoctorFinding(name, False, f"the sidecar has repeated {calls} since its start", remedy)


def sidecar_retries(folder: Path) -> DoctorFinding:
    """Whether the sidecar's policies let it repeat requests to models, whose cost no report would include."""
    from app.finance.retry_bounds import sidecar_files
    from app.finance.retry_bounds.worst import TargetKind

    folders, name = [folder / "components", folder / "resiliency"], "sidecar's retries"
    try:
        policies, targets = sidecar_files.policies(folders, APP_ID), sidecar_files.targets(folders, APP_ID)
    except ConfigurationError as error:
        return DoctorFinding(name, False, f"unknown: {error}", "correct the file")
    models = [target.name for target in targets if target.kind is TargetKind.MODEL]
    repeated = ", ".join(model for model in models if policies.of_model(model).retry.requests != 1)
    if not repeated:
        return DoctorFinding(name, True, "the sidecar repeats no request to a model")
    problem = f"the sidecar may repeat requests to {repeated}; no report includes their cost"
    return DoctorFinding(name, False, problem, "remove `retry` from their target in resiliency/")


def secrets_file(settings: Settings) -> DoctorFinding:
    """Whether the local secret store's file can be read: the sidecar does not start if it cannot."""
    path = settings.state_dir / "secrets.json"
    try:
        count = len(secrets_in(path))
    except ConfigurationError as error:
        problem, _, remedy = str(error).rpartition("; ")
        return DoctorFinding("secrets", False, problem, remedy)
    return DoctorFinding("secrets", True, f"{path} holds {count}")


def runtime(settings: Settings) -> Iterator[DoctorFinding]:
    """Which version of Dapr runs, which of its defects are worked around, and which security fixes it lacks."""
    version = sidecar.version(settings.daprd)
    if version:
        yield from version_findings(version)
    else:
        yield DoctorFinding("Dapr", False, "the sidecar reports no version", "start everything: `make up`")


def version_findings(text: str) -> Iterator[DoctorFinding]:
    """The findings about a version of Dapr. Missing security fixes are not wrong, since they matter only where others
    share the cluster."""
    version = workarounds.parse(text)
    if version not in SUPPORTED:
        remedy = f"this agent works with Dapr 1.18, from {SUPPORTED.least} on"
        yield DoctorFinding("Dapr", False, text, remedy)
    else:
        yield DoctorFinding("Dapr", True, text)
    yield DoctorFinding("Dapr's defects", True, _worked_around(workarounds.active(Component.DAPRD, version)))
    if missing := workarounds.missing_fixes(version):
        lacks = "; ".join(f"{fix.trouble} ({fix.name})" for fix in missing)
        gap = f"{text} lacks security fixes of" if version else "it is not known whether it has the security fixes of"
        remedy = "on a cluster, give the agent its own namespace, or upgrade sidecars and control plane"
        yield DoctorFinding("Dapr's security", True, f"{gap} {missing[0].fixed_in}: {lacks}; {remedy}")


def sdk(version: Version | None) -> Iterator[DoctorFinding]:
    """Which version of Dapr's Python SDK is installed, and which of its defects are worked around."""
    if version is None:
        problem = "not installed, or its version is unknown"
        yield DoctorFinding("Python SDK", False, problem, "install everything: `make setup`")
        return
    yield DoctorFinding("Python SDK", version in PATCHED, str(version), "" if version in PATCHED else _PINNED)
    off = [workaround.name for workaround in workarounds.ALL if workarounds.is_untested(workaround, version)]
    if off:
        problem = f"not worked around, since the patches are untested with {version}: {', '.join(off)}"
        yield DoctorFinding("Python SDK's defects", False, problem, _PINNED)
    else:
        yield DoctorFinding("Python SDK's defects", True, _worked_around(workarounds.active(Component.SDK, version)))


_PINNED = "install the packages of requirements.lock: `make setup`"


def _worked_around(active: tuple[Workaround, ...]) -> str:
    named = ", ".join(
        f"{workaround.name} ({workaround.until})" if workaround.fixed_in else workaround.name for workaround in active
    )
    return f"worked around: {named}" if named else "none is known"


def token_works(url: str | None, token: str | None) -> DoctorFinding:
    """Whether the agent accepts the token that the command line would send."""
    try:
        with connect(url, token) as client:
            client.list(None, None, 1, None)
    except RefundAgentError as error:
        message, _, remedy = str(error).partition("; ")
        return DoctorFinding("token", False, message, remedy or "give another with --token or REFUND_AGENT_TOKEN")
    return DoctorFinding("token", True, "it may read tasks")


def policy_file(path: Path) -> DoctorFinding:
    """Whether the policy file is valid."""
    try:
        policy.load(path)
    except (ConfigurationError, ValueError, yaml.YAMLError) as error:
        return DoctorFinding("policy", False, " ".join(str(error).split()), "correct the file")
    return DoctorFinding("policy", True, str(path))


def resource_files(folder: Path) -> Iterator[DoctorFinding]:
    """Whether daprd can read the Dapr resource files: one finding for each folder, or for each fault."""
    yield from _duplicate_names(folder)
    for name in FOLDERS:
        paths = sorted([*(folder / name).glob("*.yaml"), *(folder / name).glob("*.yml")])
        faults = [(path, fault) for path in paths for fault in _faults(path, must_be_dapr=name != "config")]
        for path, fault in faults:
            yield DoctorFinding(name, False, f"{path}: {fault}", "correct the file; daprd silently ignores it")
        if name == "resiliency" and paths and not faults:
            problems = list(_resiliency_problems(folder / name))
            yield from (
                DoctorFinding(name, False, problem, "correct it; daprd runs on without it") for problem in problems
            )
            if problems:
                continue
        if not paths:
            yield DoctorFinding(name, False, f"no file in {folder / name}", "run this in the project's folder")
        elif not faults:
            yield DoctorFinding(name, True, f"{len(paths)} files can be read")


def _resiliency_problems(folder: Path) -> Iterator[str]:
    """The parts of the folder's resiliency policies that daprd would ignore."""
    from app.finance.retry_bounds import sidecar_files

    try:
        findings = sidecar_files.policies([folder], APP_ID).findings
    except ConfigurationError as error:
        yield str(error)
        return
    yield from (f"{finding.where}: {finding.problem}" for finding in findings if finding.wrong)


def _duplicate_names(folder: Path) -> Iterator[DoctorFinding]:
    """Two components of one name: daprd exits, at its start or when the second file appears."""
    first_paths: dict[str, Path] = {}
    for path in sorted([*(folder / "components").glob("*.yaml"), *(folder / "components").glob("*.yml")]):
        for name in _resource_names(path):
            if name in first_paths:
                problem = f"{path} and {first_paths[name]} both define {name}"
                remedy = "move one of them elsewhere: the sidecar exits at duplicate names"
                yield DoctorFinding("components", False, problem, remedy)
            first_paths.setdefault(name, path)


def _resource_names(path: Path) -> list[str]:
    try:
        documents = [
            document for document in yaml.safe_load_all(path.read_text(encoding="utf-8")) if isinstance(document, dict)
        ]
    except (OSError, ValueError, yaml.YAMLError):
        return []
    kinds = ("Component", "HTTPEndpoint")
    resources = [document for document in documents if document.get("kind") in kinds]
    return [f"{document['kind']} {(document.get('metadata') or {}).get('name')}" for document in resources]


def _faults(path: Path, *, must_be_dapr: bool) -> list[str]:
    try:
        documents = [
            document for document in yaml.safe_load_all(path.read_text(encoding="utf-8")) if document is not None
        ]
    except yaml.MarkedYAMLError as error:
        line = error.problem_mark.line + 1 if error.problem_mark else 1
        return [f"line {line}: {error.problem}"]
    except (OSError, ValueError, yaml.YAMLError) as error:
        return [f"cannot be read: {' '.join(str(error).split())}"]
    if not documents:
        return ["is empty"]
    return [fault for document in documents if (fault := _fault(document, must_be_dapr=must_be_dapr))]


def _unknown_metadata(spec: dict[str, Any]) -> str:
    """The first metadata name of a conversation component that daprd would ignore; empty if there is none."""
    support, entries = SUPPORT.get(str(spec.get("type"))), spec.get("metadata")
    if support is None or not isinstance(entries, list):
        return ""
    names = (str(entry.get("name")) for entry in entries if isinstance(entry, dict))
    return next((name for name in names if name.lower() not in support.reads), "")


def _fault(document: Any, *, must_be_dapr: bool) -> str:
    if not isinstance(document, dict):
        return "is not a mapping"
    version, kind = document.get("apiVersion"), document.get("kind")
    if kind == "Kustomization" or not (must_be_dapr or kind or version):
        return ""
    if not str(version).startswith(GROUP):
        return f"apiVersion {version!r} is not one of {GROUP}..."
    if kind not in KINDS:
        return f"kind {kind!r} is unknown to daprd"
    metadata = document.get("metadata")
    if not isinstance(metadata, dict) or not isinstance(metadata.get("name"), str):
        return f"{kind} without metadata.name"
    spec = document.get("spec")
    if isinstance(spec, dict) and str(spec.get("type")).startswith("conversation.") and not spec.get("ignoreErrors"):
        return f"{metadata['name']} without `ignoreErrors: true` below spec: a mistake in it would end the sidecar"
    if isinstance(spec, dict) and (unknown := _unknown_metadata(spec)):
        names = ", ".join(SUPPORT[str(spec["type"])].reads)
        return f"{metadata['name']}: metadata {unknown!r} is not among those that {spec['type']} reads ({names})"
    needs_spec = kind != "Configuration"
    return f"{kind} {metadata['name']} without spec" if needs_spec and not document.get("spec") else ""
