"""Tokens and roles: what is let in, what is not, and that the secret stays in its one file."""

from __future__ import annotations

import json
import logging
import stat
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from app.domain.errors import AccessDenied, ConfigurationError
from app.tasks.access import Access, Principal, Role, Token, digest_of, make_local_token, parse_tokens, read_local_token

SECRET = "a" * 43


def record(**changes: Any) -> dict[str, Any]:
    given: dict[str, Any] = {
        "name": "reader",
        "sha256": digest_of(SECRET),
        "roles": ["read"],
        "tenants": ["acme"],
    }
    return given | changes


def parse(*records: dict[str, Any]) -> tuple[Token, ...]:
    return parse_tokens(json.dumps({"tokens": records}), "tokens.json")


def test_a_record_is_read_whole() -> None:
    assert parse(record()) == (
        Token(
            name="reader",
            sha256=digest_of(SECRET),
            roles=frozenset({Role.READ}),
            tenants=frozenset({"acme"}),
        ),
    )
    assert parse(record(tenants="*"))[0].tenants == "*"


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("{", "Expecting property name"),
        ("[]", "the file"),
        ('{"tokens": []}', "tokens"),
        (json.dumps({"tokens": [record()], "extra": 1}), "extra"),
        ('{"tokens": [{"name": "a", "name": "b"}]}', "the key 'name' twice"),
        (json.dumps({"tokens": [record(role="read")]}), "tokens.0.role"),
        (json.dumps({"tokens": [record(roles=["owner"])]}), "tokens.0.roles"),
        (json.dumps({"tokens": [record(roles=[])]}), "tokens.0.roles"),
        (json.dumps({"tokens": [record(tenants=[])]}), "tokens.0.tenants"),
        (json.dumps({"tokens": [record(tenants="acme")]}), "tokens.0.tenants"),
        (json.dumps({"tokens": [record(sha256="abc")]}), "tokens.0.sha256"),
        (json.dumps({"tokens": [record(name="")]}), "tokens.0.name"),
        (json.dumps({"tokens": [record(), record(sha256="0" * 64)]}), "same name"),
        (json.dumps({"tokens": [record(), record(name="other")]}), "same sha256"),
    ],
)
def test_a_wrong_token_file_is_named(text: str, named: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        parse_tokens(text, "tokens.json")
    assert str(caught.value).startswith("tokens.json: ")
    assert named in str(caught.value)


def test_a_secret_pasted_into_the_file_is_not_repeated_in_the_error() -> None:
    with pytest.raises(ConfigurationError) as caught:
        parse(record(sha256=SECRET))
    assert SECRET not in str(caught.value)


@pytest.mark.parametrize("header", [f"Bearer {SECRET}", f"bearer {SECRET}", f"BEARER  {SECRET} "])
def test_a_known_token_is_let_in(header: str) -> None:
    principal = Access(parse(record())).authenticate(header)
    assert principal == Principal("reader", frozenset({Role.READ}), frozenset({"acme"}))


@pytest.mark.parametrize(
    "header",
    [None, "", "Bearer", "Bearer ", "Basic YTpi", SECRET, f"Bearer {SECRET}x", "Bearer \udce4", "Bearer é"],
)
def test_anything_else_is_401_and_not_repeated(header: str | None) -> None:
    with pytest.raises(AccessDenied) as caught:
        Access(parse(record())).authenticate(header)
    assert caught.value.status == 401
    assert SECRET not in str(caught.value)


def test_the_right_one_of_many_tokens_is_found() -> None:
    others = [record(name=f"t{n}", sha256=digest_of(f"{n}" * 40)) for n in range(9)]
    access = Access(parse(*others, record(name="last")))
    assert access.authenticate(f"Bearer {SECRET}").name == "last"
    assert access.authenticate("Bearer " + "4" * 40).name == "t4"


@pytest.mark.parametrize("role", list(Role))
def test_a_role_is_only_that_role_and_admin_is_all(role: Role) -> None:
    Principal("a", frozenset({Role.ADMIN}), None).require(role, "acme")
    for other in Role:
        one = Principal("a", frozenset({role}), None)
        if other is role or role is Role.ADMIN:
            one.require(other)
            continue
        with pytest.raises(AccessDenied) as caught:
            one.require(other)
        assert caught.value.status == 403


def test_a_tenant_is_only_that_tenant() -> None:
    one = Principal("a", frozenset({Role.ADMIN}), frozenset({"acme"}))
    one.require(Role.SUBMIT, "acme")
    with pytest.raises(AccessDenied, match="'globex'"):
        one.require(Role.SUBMIT, "globex")
    assert one.sees("acme")
    assert not one.sees("globex")
    assert Principal("a", frozenset({Role.READ}), None).sees("globex")


def test_the_local_token_is_made_once_for_its_owner_only(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    path = tmp_path / "state" / "token"
    first = make_local_token(path)
    secret = read_local_token(path)
    assert make_local_token(path) == first
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
    assert [entry.name for entry in path.parent.iterdir()] == ["token"]
    assert Access([first.record]).authenticate(f"Bearer {secret}").roles == {Role.ADMIN}
    assert len(secret) >= 43
    assert secret not in caplog.text + repr(first) + str(first.record)


def test_two_first_starts_together_agree(tmp_path: Path) -> None:
    with ThreadPoolExecutor(8) as pool:
        made = list(pool.map(make_local_token, [tmp_path / "token"] * 8))
    assert len(set(made)) == 1
    assert [entry.name for entry in tmp_path.iterdir()] == ["token"]


@pytest.mark.parametrize("content", ["", "short\n", "é" * 50])
def test_a_broken_token_file_is_refused_with_the_remedy(tmp_path: Path, content: str) -> None:
    path = tmp_path / "token"
    path.write_text(content, encoding="utf-8")
    path.chmod(0o600)
    with pytest.raises(ConfigurationError, match="delete it and restart the agent"):
        make_local_token(path)


def test_a_token_file_that_others_can_read_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "token"
    path.write_text(SECRET, encoding="ascii")
    path.chmod(0o644)
    with pytest.raises(ConfigurationError, match="chmod 600"):
        make_local_token(path)
