"""What the Dockerfile puts into the image, read from its own lines: for builders that are no Docker.

python -m tests.k8s.image FOLDER      copies it there: `/app` of the image, its packages are those of requirements.lock
"""

from __future__ import annotations

import re
import shutil
import sys
from pathlib import Path

from runtime import paths

DOCKERFILE = paths.ROOT / "Dockerfile"
HOME = "/app/"


def copied() -> dict[str, Path]:
    """What the last stage copies from the checkout: by its place below /app."""
    last = DOCKERFILE.read_text().rpartition("\nFROM ")[2]
    lines = re.findall(r"^COPY (?!--from)(\S+) (\S+)$", last, re.MULTILINE)
    return {target.removeprefix(HOME): paths.ROOT / source for source, target in lines}


def files() -> dict[str, Path]:
    """Every file of it, by its place below /app, as .dockerignore leaves it."""
    found: dict[str, Path] = {}
    for target, source in copied().items():
        for path in [source] if source.is_file() else sorted(source.rglob("*")):
            if path.is_file() and "__pycache__" not in path.parts:
                found[str(Path(target) / path.relative_to(source)) if source.is_dir() else target] = path
    return found


def stage(folder: Path) -> None:
    """Copies it there; the folder must be new."""
    folder.mkdir()
    for target, source in files().items():
        place = folder / target
        place.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(source, place)


if __name__ == "__main__":
    stage(Path(sys.argv[1]))
