"""The error text for a file of the checkout that cannot be used."""

from __future__ import annotations

import errno
import os
import sys
from pathlib import Path

import pytest

import runtime.__main__ as runtime
from runtime import paths, prerequisites, reload
from runtime.errors import file_error


@pytest.mark.parametrize(
    ("number", "remedy"),
    [(errno.EACCES, "as the user who owns"), (errno.EROFS, "read-only"), (errno.ENOSPC, "make room"), (errno.EIO, "")],
)
def test_the_error_is_one_line_with_the_remedy(number: int, remedy: str, capsys: pytest.CaptureFixture[str]) -> None:
    def fail() -> None:
        raise OSError(number, os.strerror(number), ".runtime/lock")

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(prerequisites, "checks", fail)
        assert runtime.main(["doctor"]) == 1
        patched.setattr(reload, "check_secrets", lambda _state: fail())
        assert reload.main() == 1
    first, second = capsys.readouterr().err.splitlines()
    assert first == second
    assert first.startswith(f"refund-agent: .runtime/lock: {os.strerror(number).lower()}. ")
    assert remedy in first


def test_an_error_without_a_file_is_raised() -> None:
    with pytest.raises(OSError, match="no such luck"):
        file_error(OSError("no such luck"))


def test_an_invalid_secrets_file_is_refused_before_the_sidecar_reloads(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (file := tmp_path / "secrets.json").write_text('{"a": "b",\n}')
    monkeypatch.setattr(paths, "STATE", file.parent)
    monkeypatch.setattr(reload, "reload", lambda _port: sys.exit("the sidecar was reloaded"))
    assert reload.main() == 1
    assert f"{file}:2: " in capsys.readouterr().err
