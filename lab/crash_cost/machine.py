"""Says on what the experiment ran: the machine and the versions of what took part."""

from __future__ import annotations

import subprocess
from importlib.metadata import version

from lab.bench import machine
from runtime import paths


def described() -> dict[str, str]:
    """Names and values."""
    daprd = subprocess.run([str(paths.LAUNCH_BIN / "daprd"), "--version"], capture_output=True, text=True, check=True)
    versions = {name: version(name) for name in ("dapr-ext-workflow", "genai-prices")}
    return machine.hardware() | {"daprd": daprd.stdout.strip()} | versions
