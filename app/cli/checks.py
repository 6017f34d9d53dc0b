"""What `doctor` looks at; each look ends in a finding, never in an error."""

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
from app.dapr.daprd import has_lost_metrics
from app.dapr.workarounds import LOST_METRICS, PATCHED, SUPPORTED, Component, Version, Workaround
from app.domain.errors import ConfigurationError, RefundAgentError

# Which components the sidecar should have loaded and has not, and why: daprd goes on without them.

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
        metadata = client.get("/v1.0/metadata").raise_for_status().json()
        loaded = {str(component["name"]) for component in metadata.get("components", [])}
        wanted = dict.fromkeys((settings.secret_store, settings.llm_component)) | _written(folder)
        for name in sorted(set(wanted) - loaded):
            yield _explained(name, wanted[name], client, folder)


def _written(folder: Path) -> dict[str, Any]:
    """The components that the files of the folder give the agent, by name."""
    by_name: dict[str, Any] = {}
    for path in sorted([*(folder / "components").glob("*.yaml"), *(folder / "components").glob("*.yml")]):
        with suppress(OSError, ValueError, yaml.YAMLError):  # what cannot be read is a finding of its own
            for document in yaml.safe_load_all(path.read_text(encoding="utf-8")):
                if isinstance(document, dict) and document.get("kind") == "Component" and _is_ours(document):
                    by_name[str((document.get("metadata") or {}).get("name"))] = document | {"file": path}
    return by_name


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
    last_error = _last_word(name, folder)
    kind = (document.get("spec") or {}).get("type")
    why = last_error or f"{file} is there, its type is {kind}"
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
            errors = pattern.findall(file.read().decode(errors="replace"))
            if errors:
                # daprd wraps it in itself: "[INIT_COMPONENT_FAILURE]: initialization error occurred for ...: why".
                return str(re.sub(r"^.*initialization error occurred for [^:]*: ", "", errors[-1]))
    return ""


PROBE_SECONDS = 3.0
GROUP = "dapr.io/"
# daprd passes over a file that it cannot read or does not know, with a warning only: a typo shows up here.
KINDS = frozenset(
    {"Component", "Configuration", "HTTPEndpoint", "MCPServer", "Resiliency", "Subscription", "WorkflowAccessPolicy"}
)
FOLDERS = ("components", "components/providers", "resiliency", "config")
# What daprd's conversation components read of their metadata; it passes over every other name in silence.
_ONLY_KEY = ("key", "model", "cachettl", "responsecachettl")
_METADATA = {
    "conversation.openai": (*_ONLY_KEY, "endpoint", "apiversion", "apitype"),
    "conversation.anthropic": (*_ONLY_KEY, "endpoint", "apitype"),
    "conversation.ollama": ("model", "endpoint", "cachettl", "responsecachettl"),
    "conversation.mistral": _ONLY_KEY,
    "conversation.googleai": _ONLY_KEY,
    "conversation.huggingface": (*_ONLY_KEY, "endpoint"),
    "conversation.deepseek": (*_ONLY_KEY, "endpoint", "maxtokens"),
}


@dataclass(frozen=True)
class DoctorFinding:
    """One thing that was looked at. `remedy` is empty when it is fine."""

    name: str
    ok: bool
    found: str
    remedy: str = ""


def prerequisites() -> Iterator[DoctorFinding]:
    """What the machine must have, by the set-up's own list."""
    try:
        checks: Any = importlib.import_module("runtime.prerequisites").checks()
    except ModuleNotFoundError as error:
        yield DoctorFinding("machine", False, f"{error.name} is not there", "run this in the project's folder")
        return
    except Exception as error:  # a visit that fails finds nothing: the other findings are still wanted
        yield DoctorFinding("machine", False, f"{type(error).__name__}: {error}", "run `python -m runtime` to see more")
        return
    for check in checks:
        yield DoctorFinding(check.name, check.ok, check.found, check.remedy)


def answers(name: str, address: str) -> DoctorFinding:
    """Whether an address answers with a good status."""
    try:
        answer = http.get(address, PROBE_SECONDS)
    except ConfigurationError as error:
        return DoctorFinding(name, False, *str(error).split("; ", 1))
    except httpx.RequestError as error:
        found = f"{address} does not answer ({type(error).__name__})"
        return DoctorFinding(name, False, found, "start everything with `make up`, or correct the address")
    if answer.is_success:
        return DoctorFinding(name, True, address)
    return DoctorFinding(name, False, f"{address} answers {answer.status_code}", f"look into the log of {name}")


def components(settings: Settings, folder: Path) -> Iterator[DoctorFinding]:
    """Whether the sidecar has loaded every component; what it has not, it goes on without."""
    try:
        absent = list(missing(settings, folder))
    except (httpx.HTTPError, ValueError, KeyError, ConfigurationError) as error:
        why = str(error) if isinstance(error, ConfigurationError) else f"not told ({type(error).__name__})"
        yield DoctorFinding("sidecar's components", False, why, "start everything with `make up`; see its log")
        return
    for component in absent:
        yield DoctorFinding(f"component {component.name}", False, f"not loaded: {component.why}", component.remedy)
    if not absent:
        yield DoctorFinding("sidecar's components", True, "all are loaded")


def metrics(settings: Settings) -> DoctorFinding:
    """Whether the sidecar's metrics can be read: retries and breakers are known from there alone."""
    name = "sidecar's metrics"
    try:
        answer = http.get(settings.dapr_metrics, PROBE_SECONDS)
    except (httpx.RequestError, ConfigurationError) as error:
        return DoctorFinding(
            name, False, f"not told ({type(error).__name__})", "start everything with `make up`; see its log"
        )
    if answer.is_success:
        return _repeated(name, answer.text) or DoctorFinding(name, True, settings.dapr_metrics)
    if has_lost_metrics(answer.text) and sidecar.needs(settings.daprd, LOST_METRICS):
        found = f"lost when it read its configuration again (Dapr below {LOST_METRICS.fixed_in})"
        return DoctorFinding(name, False, found, "start it again")
    return DoctorFinding(name, False, f"{settings.dapr_metrics} answers {answer.status_code}", "look into its log")


def _repeated(name: str, page: str) -> DoctorFinding | None:
    """What the sidecar has repeated, if it has: then the policies that it has loaded let it do so."""
    from app.worker import sidecar_metrics

    try:
        retried = sidecar_metrics.parse(page, datetime.now(UTC)).retried
    except ValueError as error:
        return DoctorFinding(name, False, *str(error).split("; ", 1))
    found = ", ".join(f"{count:,} calls of {model}" for model, count in sorted(retried.items()) if count)
    remedy = "take `retry` out of their target in resiliency/ and start the sidecar again: `doctor retries` shows more"
    return DoctorFinding(name, False, f"it has repeated {found} by itself since its start", remedy) if found else None


def sidecar_retries(folder: Path) -> DoctorFinding:
    """Whether the policies that the sidecar loads let it repeat requests to models: what those cost is in no sum."""
    from app.finance.retry_bounds import sidecar_files
    from app.finance.retry_bounds.worst import TargetKind

    folders, name = [folder / "components", folder / "resiliency"], "sidecar's retries"
    try:
        policies, targets = sidecar_files.policies(folders, APP_ID), sidecar_files.targets(folders, APP_ID)
    except ConfigurationError as error:
        return DoctorFinding(name, False, f"not known: {error}", "correct the file")
    models = [target.name for target in targets if target.kind is TargetKind.MODEL]
    repeated = ", ".join(model for model in models if policies.of_model(model).retry.requests != 1)
    if not repeated:
        return DoctorFinding(name, True, "it repeats no request to a model")
    found = f"it may repeat requests to {repeated} by itself; what those cost is in no sum"
    return DoctorFinding(name, False, found, "take `retry` out of their target in resiliency/")


def secrets_file(settings: Settings) -> DoctorFinding:
    """Whether the local secret store's file can be read: with one that cannot, the sidecar does not start."""
    path = settings.state_dir / "secrets.json"
    try:
        count = len(secrets_in(path))
    except ConfigurationError as error:
        found, _, remedy = str(error).rpartition("; ")
        return DoctorFinding("secrets", False, found, remedy)
    return DoctorFinding("secrets", True, f"{path} holds {count}")


def runtime(settings: Settings) -> Iterator[DoctorFinding]:
    """Which Dapr runs, what is worked around, and what it lacks."""
    version = sidecar.version(settings.daprd)
    if version:
        yield from of_version(version)
    else:
        yield DoctorFinding("Dapr", False, "the sidecar does not tell its version", "start everything: `make up`")


def of_version(text: str) -> Iterator[DoctorFinding]:
    """What there is to say of a version of Dapr. The one that `make setup` builds is good enough for one user alone;
    where others share the cluster, the agent's own access rules are not."""
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
        remedy = "on a cluster, give the agent a namespace of its own, or upgrade sidecars and control plane"
        yield DoctorFinding("Dapr's security", True, f"{gap} {missing[0].fixed_in}: {lacks}; {remedy}")


def sdk(version: Version | None) -> Iterator[DoctorFinding]:
    """Which Python SDK is installed here, and what is worked around in it."""
    if version is None:
        yield DoctorFinding(
            "Python SDK", False, "not installed, or of no known version", "install everything: `make setup`"
        )
        return
    yield DoctorFinding("Python SDK", version in PATCHED, str(version), "" if version in PATCHED else _PINNED)
    off = [workaround.name for workaround in workarounds.ALL if workarounds.untested(workaround, version)]
    if off:
        found = f"not worked around, since no patch was tried with {version}: {', '.join(off)}"
        yield DoctorFinding("Python SDK's defects", False, found, _PINNED)
    else:
        yield DoctorFinding("Python SDK's defects", True, _worked_around(workarounds.active(Component.SDK, version)))


_PINNED = "install the packages of requirements.lock: `make setup`"


def _worked_around(active: tuple[Workaround, ...]) -> str:
    named = ", ".join(
        f"{workaround.name} ({workaround.until})" if workaround.fixed_in else workaround.name for workaround in active
    )
    return f"worked around: {named}" if named else "none is known"


def token_works(url: str | None, token: str | None) -> DoctorFinding:
    """Whether the agent knows the token that this command line would send."""
    try:
        with connect(url, token) as client:
            client.list(None, None, 1, None)
    except RefundAgentError as error:
        message, _, remedy = str(error).partition("; ")
        return DoctorFinding("token", False, message, remedy or "give another with --token or REFUND_AGENT_TOKEN")
    return DoctorFinding("token", True, "the agent lets it read tasks")


def policy_file(path: Path) -> DoctorFinding:
    """Whether the agent's own policy can be used."""
    try:
        policy.load(path)
    except (ConfigurationError, ValueError, yaml.YAMLError) as error:
        return DoctorFinding("policy", False, " ".join(str(error).split()), "correct the file")
    return DoctorFinding("policy", True, str(path))


def files(folder: Path) -> Iterator[DoctorFinding]:
    """Whether every Dapr resource file says what daprd can read; one finding for each folder, or wrong file."""
    yield from _twins(folder)
    for name in FOLDERS:
        paths = sorted([*(folder / name).glob("*.yaml"), *(folder / name).glob("*.yml")])
        faults = [(path, fault) for path in paths for fault in _faults(path, must_be_dapr=name != "config")]
        for path, fault in faults:
            yield DoctorFinding(name, False, f"{path}: {fault}", "correct the file; daprd passes over it in silence")
        if name == "resiliency" and paths and not faults:
            wrong = list(_of_resiliency(folder / name))
            yield from (
                DoctorFinding(name, False, problem, "correct it; daprd goes on without it") for problem in wrong
            )
            if wrong:
                continue
        if not paths:
            yield DoctorFinding(name, False, f"no file in {folder / name}", "run this in the project's folder")
        elif not faults:
            yield DoctorFinding(name, True, f"{len(paths)} files can be read")


def _of_resiliency(folder: Path) -> Iterator[str]:
    """What daprd would leave out of the policies of these files."""
    from app.finance.retry_bounds import sidecar_files

    try:
        findings = sidecar_files.policies([folder], APP_ID).findings
    except ConfigurationError as error:
        yield str(error)
        return
    yield from (f"{finding.where}: {finding.problem}" for finding in findings if finding.wrong)


def _twins(folder: Path) -> Iterator[DoctorFinding]:
    """daprd ends when two files give a component the same name, one that runs too."""
    seen: dict[str, Path] = {}
    for path in sorted([*(folder / "components").glob("*.yaml"), *(folder / "components").glob("*.yml")]):
        for name in _names(path):
            if name in seen:
                found = f"{path} and {seen[name]} both say {name}"
                yield DoctorFinding(
                    "components", False, found, "move one of them elsewhere: the sidecar does not start so"
                )
            seen.setdefault(name, path)


def _names(path: Path) -> list[str]:
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


def _unread(spec: dict[str, Any]) -> str:
    """The first name of a model's metadata that daprd would pass over; empty when there is none."""
    names_read, entries = _METADATA.get(str(spec.get("type"))), spec.get("metadata")
    if names_read is None or not isinstance(entries, list):
        return ""
    names = (str(entry.get("name")) for entry in entries if isinstance(entry, dict))
    return next((name for name in names if name.lower() not in names_read), "")


def _fault(document: Any, *, must_be_dapr: bool) -> str:
    if not isinstance(document, dict):
        return "is no mapping"
    version, kind = document.get("apiVersion"), document.get("kind")
    if kind == "Kustomization" or not (must_be_dapr or kind or version):
        return ""
    if not str(version).startswith(GROUP):
        return f"apiVersion {version!r} is not one of {GROUP}..."
    if kind not in KINDS:
        return f"kind {kind!r} is none that daprd knows"
    metadata = document.get("metadata")
    if not isinstance(metadata, dict) or not isinstance(metadata.get("name"), str):
        return f"{kind} without metadata.name"
    spec = document.get("spec")
    if isinstance(spec, dict) and str(spec.get("type")).startswith("conversation.") and not spec.get("ignoreErrors"):
        return f"{metadata['name']} without `ignoreErrors: true` below spec: a mistake in it would end the sidecar"
    if isinstance(spec, dict) and (unread := _unread(spec)):
        names = ", ".join(_METADATA[str(spec["type"])])
        return f"{metadata['name']}: metadata {unread!r} is none that {spec['type']} reads ({names})"
    needs_spec = kind != "Configuration"
    return f"{kind} {metadata['name']} without spec" if needs_spec and not document.get("spec") else ""
