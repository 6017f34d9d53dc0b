"""The stamp is valid for exactly these locks, and is written only after a complete install."""

from __future__ import annotations

from pathlib import Path

import pytest

from runtime import paths, virtualenv
from runtime.errors import UserError

LOCK = "flask==3.1.3 \\\n    --hash=sha256:aa\nPyYAML==6.0.3 ; sys_platform == 'linux' \\\n    --hash=sha256:bb\n"


@pytest.fixture
def lock(tmp_path: Path) -> Path:
    path = tmp_path / "requirements.lock"
    path.write_text(LOCK)
    return path


@pytest.fixture
def venv(tmp_path: Path) -> Path:
    folder = tmp_path / "venv"
    (folder / "bin").mkdir(parents=True)
    (folder / "bin" / "python").touch()
    return folder


def test_locked_names_are_normalised() -> None:
    assert virtualenv.locked_names(LOCK) == {"flask", "pyyaml"}
    assert virtualenv.normalize("Typing_Extensions") == "typing-extensions"


def test_without_a_stamp_nothing_is_installed(venv: Path, lock: Path) -> None:
    assert not virtualenv.is_installed(venv, (lock,))


def test_a_stamp_is_valid_until_the_lock_changes(venv: Path, lock: Path) -> None:
    virtualenv.stamp_path(venv, (lock,)).write_text(virtualenv.digest((lock,)))
    assert virtualenv.is_installed(venv, (lock,))
    lock.write_text(LOCK.replace("3.1.3", "3.1.4"))
    assert not virtualenv.is_installed(venv, (lock,))


def test_a_stamp_without_a_python_does_not_count(venv: Path, lock: Path) -> None:
    virtualenv.stamp_path(venv, (lock,)).write_text(virtualenv.digest((lock,)))
    (venv / "bin" / "python").unlink()
    assert not virtualenv.is_installed(venv, (lock,))


def test_an_up_to_date_environment_is_left_alone(venv: Path, lock: Path) -> None:
    virtualenv.stamp_path(venv, (lock,)).write_text(virtualenv.digest((lock,)))
    before = sorted(venv.rglob("*"))
    virtualenv.install(venv, (lock,))
    assert sorted(venv.rglob("*")) == before


@pytest.mark.parametrize("lock_file", virtualenv.DEV_LOCKS, ids=lambda path: path.name)
def test_every_package_of_our_locks_is_pinned_and_hashed(lock_file: Path) -> None:
    text = lock_file.read_text()
    blocks = [block for block in text.split("\n\n") if block]
    assert len(virtualenv.locked_names(text)) > 20
    assert text.count("==") >= len(virtualenv.locked_names(text))
    for name in virtualenv.locked_names(text):
        assert name in virtualenv.normalize(text)
    entries = [line for block in blocks for line in block.splitlines() if line and line[0].isalnum()]
    assert all("==" in entry and entry.endswith("\\") for entry in entries)
    assert "--hash=sha256:" in text
    assert "://" not in text, "a lock must not name the host it was made from"


@pytest.fixture
def no_network(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Makes pip find no packages, and puts its logs into a folder of the test."""
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path))
    monkeypatch.setattr(paths, "RUNTIME", tmp_path / "runtime")
    return tmp_path


def distribution(venv: Path, name: str, *, whole: bool) -> None:
    """Installs a package as pip would. Unless `whole`, one of its files is missing."""
    (site,) = venv.glob("lib/python*/site-packages")
    info = site / f"{name}-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
    (info / "RECORD").write_text(f"{name}.py,,\n{name}-1.0.dist-info/METADATA,,\n{name}-1.0.dist-info/RECORD,,\n")
    if whole:
        (site / f"{name}.py").touch()


def test_after_a_failed_install_the_next_one_continues_and_installs_exactly_the_lock(
    no_network: Path, lock: Path
) -> None:
    venv = no_network / "real"
    lock.write_text("alpha==1.0 --hash=sha256:" + "0" * 64 + "\n")
    with pytest.raises(UserError, match="No matching distribution found for alpha"):
        virtualenv.install(venv, (lock,))
    assert not virtualenv.is_installed(venv, (lock,))
    marker = venv / "was-not-cleared"
    marker.touch()
    distribution(venv, "alpha", whole=True)
    distribution(venv, "stranger", whole=True)
    virtualenv.install(venv, (lock,))
    assert virtualenv.is_installed(venv, (lock,))
    assert marker.exists()
    assert not list(venv.glob("lib/python*/site-packages/stranger*"))


def test_an_incomplete_package_is_reinstalled(no_network: Path, lock: Path) -> None:
    venv = no_network / "real"
    lock.write_text("alpha==1.0 --hash=sha256:" + "0" * 64 + "\n")
    with pytest.raises(UserError):
        virtualenv.install(venv, (lock,))
    distribution(venv, "alpha", whole=False)
    with pytest.raises(UserError) as caught:
        virtualenv.install(venv, (lock,))
    assert "pip-again.log" in str(caught.value), "it tries to reinstall alpha, which pip cannot find here"
    assert not virtualenv.is_installed(venv, (lock,))
