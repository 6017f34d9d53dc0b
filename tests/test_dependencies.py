"""The product runs with what its own lock installs; what the tests need besides is not there for users."""

from __future__ import annotations

import subprocess
import sys

import pytest

from runtime import virtualenv
from tests.paths import ROOT

# Loads every module of a package, where nothing can be imported that only others' locks install.
LOAD = """
import importlib, os, pkgutil, re, sys
from importlib.abc import MetaPathFinder
from importlib.machinery import PathFinder
from importlib.metadata import distributions

package, *locked = sys.argv[1:]
others = [each for each in distributions() if re.sub(r"[-_.]+", "-", each.name).lower() not in locked]
absent = {os.path.abspath(each.locate_file(file)) for each in others for file in each.files or ()}

class OnlyLocked(MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        spec = PathFinder.find_spec(name, path)
        if spec and spec.origin and os.path.abspath(spec.origin) in absent:
            raise ModuleNotFoundError(f"No module named {name!r}: it is not in requirements.lock", name=name)

sys.meta_path.insert(0, OnlyLocked())
for module in pkgutil.walk_packages(importlib.import_module(package).__path__, package + "."):
    if not module.name.endswith(("__main__", "migrations.env")):  # which run as soon as they are loaded
        importlib.import_module(module.name)
print(len(absent))
"""


@pytest.mark.parametrize("package", ["app", "runtime"])
def test_every_module_loads_with_what_its_lock_installs(package: str) -> None:
    locked = virtualenv.locked_names((ROOT / "requirements.lock").read_text())
    command = [sys.executable, "-c", LOAD, package, *locked]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) > 100, "the tests' own packages were kept out"
