"""Where things lie; the only place where the project's own folders are named."""

from __future__ import annotations

from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
STATE = ROOT / ".state"
VENV = ROOT / ".venv"
VENV_PYTHON = VENV / "bin" / "python"
RUNTIME = ROOT / ".runtime"
BUILT_PROGRAMS = RUNTIME / ".dapr" / "bin"
# A folder that the dapr CLI takes for a Dapr installation: links to the programs found, and daprd kept on loopback.
LAUNCH = RUNTIME / "launch"
LAUNCH_BIN = LAUNCH / ".dapr" / "bin"
DAPR_YAML = ROOT / "dapr.yaml"
CONFIGURATION = ROOT / "config" / "dapr.yaml"
COMPONENTS = ROOT / "components"
RESILIENCY = ROOT / "resiliency"
