"""A path may hold whatever a file system allows: it is never pasted into another syntax unescaped."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest
from sqlalchemy import text

from app.config.settings import Settings
from app.ledger.store import database, migrations
from app.ledger.store.writer import Writer
from runtime import paths, state
from runtime.set_up import write_command

ODD = (
    "a%2Fb",
    "two words",
    "hash#",
    "what?x=1",
    "quo'te\"",
    "Zürich 票",
    "50% off %(here)s",
    "co:lon",
    "do$HOME`x`",
    "l" * 200,
)


@pytest.fixture(params=ODD)
def folder(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """An odd one, that exists."""
    odd = tmp_path / str(request.param)
    odd.mkdir()
    return odd


def test_a_ledger_in_such_a_folder(folder: Path) -> None:
    engine = database.connect(Settings(state_dir=folder).database_url)
    writer = Writer(engine)
    writer.run(lambda connection: connection.execute(text("CREATE TABLE t (x)")).rowcount)
    writer.close()
    engine.dispose()
    assert (folder / "ledger.sqlite").is_file()
    assert [path.name for path in folder.parent.iterdir()] == [folder.name]


def test_the_migrations_of_such_a_checkout(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    copy = folder / "migrations"
    shutil.copytree(Path(migrations.__file__).parent, copy, ignore=shutil.ignore_patterns("__pycache__"))
    monkeypatch.setattr(migrations, "__file__", str(copy / "__init__.py"))
    engine = database.connect("sqlite://")
    with engine.connect() as connection:
        assert connection.execute(text("SELECT version_num FROM alembic_version")).scalar_one() == migrations.HEAD
    engine.dispose()


def test_the_command_of_such_a_checkout(folder: Path, tmp_path: Path) -> None:
    venv = folder / ".venv"
    (venv / "bin").mkdir(parents=True)
    (folder / "app").symlink_to(paths.ROOT / "app")
    (venv / "bin" / "python").symlink_to(paths.VENV_PYTHON)
    write_command(venv)
    (tmp_path / "app").mkdir()
    (tmp_path / "app" / "__init__.py").write_text("raise SystemExit('the folder of whoever calls')")
    command = [str(venv / "bin" / "refund-agent"), "--help"]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(path for path in _packages() if path)}
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "submit" in done.stdout


def test_what_a_shell_is_told_in_such_a_checkout(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from runtime.__main__ import _environment

    monkeypatch.setattr(paths, "STATE", folder)
    monkeypatch.setattr(paths, "LAUNCH_BIN", folder / "bin")
    (folder / "keys").mkdir()
    (folder / "keys" / "ca.crt").write_text("anchors")
    state.prepare(folder)
    _environment()
    script = f'{capsys.readouterr().out}\nprintf "%s\\n%s\\n%s" "$DAPR_API_TOKEN" "$DAPR_TRUST_ANCHORS" "$PATH"; umask'
    done = subprocess.run(["sh", "-c", script], capture_output=True, text=True, check=True)
    token, anchors, path, *_ = done.stdout.splitlines()
    assert (token, anchors) == (state.api_token(folder), "anchors")
    assert path.startswith(f"{folder}/bin:")


def _packages() -> list[str]:
    import site

    return site.getsitepackages()
