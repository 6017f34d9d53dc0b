"""Set-up leaves a command that works from any folder."""

from __future__ import annotations

import subprocess
from pathlib import Path

from runtime import paths
from runtime.set_up import put_command


def test_the_command_runs_this_checkout_from_another_folder(tmp_path: Path) -> None:
    (tmp_path / "bin").mkdir()
    python = tmp_path / "bin" / "python"
    python.write_text(f'#!/bin/sh\nexec {paths.VENV_PYTHON} "$@"\n')
    python.chmod(0o755)
    put_command(tmp_path, paths.ROOT)
    command = tmp_path / "bin" / "refund-agent"
    done = subprocess.run([command, "--help"], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "submit" in done.stdout
