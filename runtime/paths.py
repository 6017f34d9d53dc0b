"""The files and folders of the project, named only here."""

from __future__ import annotations

from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
STATE = ROOT / ".state"
VENV = ROOT / ".venv"
VENV_PYTHON = VENV / "bin" / "python"
RUNTIME = ROOT / ".runtime"
BUILT_PROGRAMS = RUNTIME / ".dapr" / "bin"
# A folder in the form of a Dapr installation, for the dapr CLI: links to the programs, and a wrapper that keeps daprd
# on loopback.
LAUNCH = RUNTIME / "launch"
LAUNCH_BIN = LAUNCH / ".dapr" / "bin"
DAPR_YAML = ROOT / "dapr.yaml"
CONFIGURATION = ROOT / "config" / "dapr.yaml"
COMPONENTS = ROOT / "components"
RESILIENCY = ROOT / "resiliency"
