"""The `token` commands: a token is shown once and kept as a digest; other secrets of the file stay."""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from app.cli.root import cli
from app.cli.token import change_tokens, tokens_in
from app.domain.errors import AccessDenied
from app.tasks.access import Access, Role, TokenWatch, parse_tokens


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """The secrets file in the test's state folder."""
    (tmp_path / "state").mkdir()
    path = tmp_path / "state" / "secrets.json"
    path.write_text('{"openai-api-key": "sk-1", "zürich": "ü"}')
    return path


def token(*words: str) -> Result:
    """Runs one of the `token` commands."""
    return CliRunner().invoke(cli, ["token", *words])


def read_file(file: Path) -> dict[str, Any]:
    """The parsed secrets file."""
    return dict(json.loads(file.read_text()))


def test_a_token_is_shown_once_and_allows_only_its_roles_and_tenants(file: Path) -> None:
    made = token("create", "dana", "--role", "approve", "--role", "read", "--tenant", "acme", "--tenant", "lumen")
    assert made.exit_code == 0, made.stderr
    secret = made.stdout.strip()
    assert len(secret) >= 32
    assert "`make reload`" in made.stderr
    assert secret not in file.read_text()
    others = {name: value for name, value in read_file(file).items() if name != "api-tokens"}
    assert others == {"openai-api-key": "sk-1", "zürich": "ü"}
    principal = Access(parse_tokens(read_file(file)["api-tokens"], "file")).authenticate(f"Bearer {secret}")
    assert (principal.name, sorted(principal.tenants or ())) == ("dana", ["acme", "lumen"])
    assert principal.may(Role.APPROVE)
    assert not principal.may(Role.SUBMIT)
    assert file.stat().st_mode & 0o077 == 0


def test_tokens_are_listed_and_revoked_without_touching_the_others(file: Path) -> None:
    for name in ("dana", "ci"):
        assert token("create", name, "--role", "submit", "--all-tenants").exit_code == 0
    assert json.loads(token("list", "--json").stdout) == [
        {"name": name, "roles": ["submit"], "tenants": ["*"]} for name in ("dana", "ci")
    ]
    assert token("revoke", "dana").exit_code == 0
    assert [record.name for record in tokens_in(file)] == ["ci"]
    assert token("revoke", "ci").exit_code == 0
    assert set(read_file(file)) == {"openai-api-key", "zürich"}, "an empty list would be no token file"
    assert "there is no token ci" in token("revoke", "ci").stderr


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("create", "dana", "--role", "read"), "give --tenant"),
        (("create", "dana", "--role", "read", "--tenant", "acme", "--all-tenants"), "give --tenant"),
        (("create", "dana", "--tenant", "acme"), "--role"),
        (("create", "dana", "--role", "boss", "--tenant", "acme"), "boss"),
        (("create", "da\nna", "--role", "read", "--tenant", "acme"), "is invalid"),
        (("create", "dana", "--role", "read", "--tenant", "a:b"), "is invalid"),
        (("create", "local", "--role", "read", "--tenant", "acme"), "the token local exists already"),
    ],
)
def test_an_invalid_token_is_refused_and_nothing_is_written(file: Path, words: tuple[str, ...], said: str) -> None:
    before = file.read_text()
    refused = token(*words)
    assert refused.exit_code != 0
    assert said in refused.stderr
    assert file.read_text() == before


def test_a_name_is_given_once(file: Path) -> None:
    assert token("create", "dana", "--role", "read", "--tenant", "acme").exit_code == 0
    again = token("create", "dana", "--role", "admin", "--tenant", "acme")
    assert (again.exit_code, len(tokens_in(file))) == (1, 1)
    assert "refund-agent token revoke dana" in again.stderr


@pytest.mark.parametrize("text", ["{", "[]", '{"api-tokens": {}}', '{"api-tokens": "{}"}', "\ufeff{}"])
def test_an_invalid_file_is_named_and_not_changed(file: Path, text: str) -> None:
    file.write_text(text)
    for words in (("create", "dana", "--role", "read", "--tenant", "acme"), ("list",), ("revoke", "dana")):
        refused = token(*words)
        assert (refused.exit_code, str(file) in refused.stderr) == (1, True), words
    assert file.read_text() == text


def test_without_a_state_folder_no_token_is_created(tmp_path: Path) -> None:
    for words in (("create", "dana", "--role", "read", "--tenant", "acme"), ("list",), ("revoke", "dana")):
        refused = token(*words)
        assert (refused.exit_code, refused.stdout) == (1, ""), words
        assert f"state folder {tmp_path / 'state'} does not exist" in refused.stderr
    assert not (tmp_path / "state").exists()


def test_without_a_file_one_is_made(file: Path) -> None:
    file.unlink()
    assert token("create", "dana", "--role", "read", "--tenant", "acme").exit_code == 0
    assert [record.name for record in tokens_in(file)] == ["dana"]


def test_concurrent_changes_lose_nothing(file: Path) -> None:
    def add(number: int) -> None:
        record = {"name": f"t{number}", "sha256": f"{number:064x}", "roles": ["read"], "tenants": "*"}
        (made,) = parse_tokens(json.dumps({"tokens": [record]}), "test")
        change_tokens(file, lambda known: (*known, made))

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(add, range(24)))
    assert len(tokens_in(file)) == 24


def test_a_running_agent_follows_the_store_and_keeps_its_tokens_if_the_store_is_invalid(file: Path) -> None:
    secret = token("create", "dana", "--role", "read", "--tenant", "acme").stdout.strip()
    access = Access(())
    watch = TokenWatch(access, lambda: tokens_in(file))
    watch.look()
    assert access.authenticate(f"Bearer {secret}").name == "dana"
    good = file.read_text()
    file.write_text("{")
    watch.look()
    assert access.authenticate(f"Bearer {secret}").name == "dana"
    file.write_text(good)
    token("revoke", "dana")
    watch.look()
    with pytest.raises(AccessDenied, match="not known here"):
        access.authenticate(f"Bearer {secret}")
    watch.start()
    watch.stop()
