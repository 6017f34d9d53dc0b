"""The image has what the program needs, and nothing else."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import app
from runtime import paths
from tests.k8s.image import DOCKERFILE, copied, files, stage
from tests.k8s.manifests import build, pods


def test_the_program_runs_from_what_is_copied_and_nothing_else(tmp_path: Path) -> None:
    stage(tmp_path / "app")
    environment = {"PATH": os.environ["PATH"], "PYTHONPATH": str(tmp_path / "app"), "HOME": str(tmp_path)}
    for command, said in (
        (["-m", "app", "--version"], f"refund-agent {app.__version__}"),
        (["-m", "app", "serve", "--help"], "Runs the agent"),
        (["-m", "sandbox", "--help"], "--model-port"),
    ):
        done = subprocess.run(
            [sys.executable, *command], cwd=tmp_path, env=environment, capture_output=True, text=True, check=True
        )
        assert said in done.stdout
    found = files()
    assert {"LICENSE", "requirements.lock", "app/__main__.py", "app/ledger/store/migrations/env.py"} <= found.keys()
    assert any(name.endswith(".html") for name in found)


def test_the_bill_of_materials_names_every_package_of_the_lock() -> None:
    command = [sys.executable, "-m", "runtime", "sbom"]
    subprocess.run(command, cwd=paths.ROOT, check=True, capture_output=True)
    bill = json.loads((paths.STATE / "sbom.cdx.json").read_text())
    named = {(each["name"], each["version"]) for each in bill["components"]}
    locked = re.findall(r"^([\w.-]+)==([\w.+!-]+)", (paths.ROOT / "requirements.lock").read_text(), re.MULTILINE)
    assert named == set(locked)
    assert all(each["externalReferences"][0]["hashes"] for each in bill["components"])
    assert bill["metadata"]["component"]["name"] == "refund-agent"


def test_what_is_ignored_is_not_copied() -> None:
    lines = (paths.ROOT / ".dockerignore").read_text().split()
    assert lines[0] == "*"
    kept = {line.removeprefix("!") for line in lines if line.startswith("!")}
    assert kept == {source.name for source in copied().values()}, "what the build sees is what it copies"


def test_the_packages_are_those_of_the_lock_and_the_user_is_nobody_in_particular() -> None:
    text = DOCKERFILE.read_text()
    assert "--require-hashes -r /tmp/requirements.lock" in text
    assert "\nUSER 65532:65532\n" in text
    assert f'org.opencontainers.image.version="{app.__version__}"' in text
    users = {template["spec"]["securityContext"]["runAsUser"] for _, template in pods(build("production"))}
    assert users == {65532}
    assert "COPY . " not in text
    assert "latest" not in text
