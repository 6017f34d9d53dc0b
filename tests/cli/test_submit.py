"""`submit` with a real server: files, pipes, bad lines, totals, waiting, and the progress bar."""

from __future__ import annotations

import contextlib
import json
import os
import pty
import subprocess
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from app.cli import screen
from app.cli.root import cli
from app.domain.models import TaskStatus, Ticket
from tests.cli.conftest import CommandLine
from tests.web.fakes import FakeTaskService, make_ticket, secret


def write(path: Path, lines: Iterable[Ticket | str]) -> str:
    texts = [line if isinstance(line, str) else line.model_dump_json() for line in lines]
    path.write_text("\n".join(texts) + "\n", encoding="utf-8")
    return str(path)


def totals(created: int = 0, same: int = 0, later: int = 0, conflict: int = 0, refused: int = 0) -> str:
    return f"created {created}  same {same}  later {later}  conflict {conflict}  refused {refused}\n"


def test_a_file_can_be_sent_again(run: CommandLine, service: FakeTaskService, tmp_path: Path) -> None:
    file = write(tmp_path / "t.jsonl", [make_ticket(f"T-{n}") for n in range(25)])
    first, again = run("submit", file), run("submit", file)
    assert (first.exit_code, first.stdout) == (0, totals(created=25))
    assert (again.exit_code, again.stdout) == (0, totals(same=25))
    assert len(service.list(None, None, 100, None).tasks) == 25


def test_tickets_may_be_typed_or_piped(run: CommandLine) -> None:
    piped = "\n".join(make_ticket(f"T-{n}").model_dump_json() for n in range(3)).encode()
    assert run("submit", "-", stdin=piped).stdout == totals(created=3)


def test_bad_lines_are_named_and_do_not_stop_the_rest(run: CommandLine, tmp_path: Path) -> None:
    file = write(
        tmp_path / "t.jsonl",
        [
            make_ticket("T-1"),
            "this is my card 4111 1111 1111 1111",
            '{"tenant": "acme", "ticket_id": "T-2", "text": 5}',
            "",
            make_ticket("T-1", text="another text"),
            make_ticket("T-1"),
            make_ticket("T-9"),
        ],
    )
    result = run("submit", file)
    assert result.exit_code == 1
    assert result.stdout == totals(created=2, same=1, conflict=1, refused=2)
    assert sorted(result.stderr.splitlines()[:3]) == [
        "line 2: is not one JSON object in UTF-8 with unique keys",
        "line 3: customer_id: is missing; text: must be text",
        "line 5: acme:T-1: task 'acme:T-1' has another body; use a new ticket id",
    ]
    assert "4111" not in result.output


def test_another_tenants_ticket_is_refused_by_line(run: CommandLine, tmp_path: Path) -> None:
    file = write(tmp_path / "t.jsonl", [make_ticket("T-1"), make_ticket("T-2", "globex")])
    result = run("submit", file, who="acme-submit")
    assert (result.exit_code, result.stdout) == (1, totals(created=1, refused=1))
    assert "line 2: globex:T-2: token 'acme-submit' is not bound to tenant 'globex'" in result.stderr


def test_the_tenant_option_fills_in(run: CommandLine, service: FakeTaskService, tmp_path: Path) -> None:
    file = write(tmp_path / "t.jsonl", ['{"ticket_id": "T-1", "customer_id": "C-1"}'])
    assert run("submit", file, "--tenant", "globex").exit_code == 0
    assert service.get("globex:T-1").tenant == "globex"


def test_totals_for_programs(run: CommandLine, tmp_path: Path) -> None:
    file = write(tmp_path / "t.jsonl", [make_ticket()])
    assert json.loads(run("submit", file, "--json").stdout) == {
        "created": 1,
        "same": 0,
        "later": 0,
        "conflict": 0,
        "refused": 0,
        "states": {},
    }


def settle(ticket: Ticket) -> dict[str, Any]:
    return {"status": {"w": TaskStatus.WAITING, "f": TaskStatus.FAILED}.get(ticket.text, TaskStatus.COMPLETED)}


def test_wait_follows_until_all_rest(run: CommandLine, service: FakeTaskService, tmp_path: Path) -> None:
    service.settle = settle
    file = write(tmp_path / "t.jsonl", [make_ticket("T-1"), make_ticket("T-2", text="w"), make_ticket("T-3")])
    result = run("submit", file, "--wait")
    assert (result.exit_code, result.stdout) == (0, totals(created=3) + "waiting 1  completed 2\n")


def test_wait_says_what_went_wrong(run: CommandLine, service: FakeTaskService, tmp_path: Path) -> None:
    service.settle = settle
    file = write(tmp_path / "t.jsonl", [make_ticket("T-1"), make_ticket("T-2", text="f")])
    result = run("submit", file, "--wait", "--json")
    assert (result.exit_code, json.loads(result.stdout)["states"]) == (1, {"completed": 1, "failed": 1})


def test_wait_ends_when_its_time_is_over(run: CommandLine, tmp_path: Path) -> None:
    file = write(tmp_path / "t.jsonl", [make_ticket()])
    result = run("submit", file, "--wait", "--timeout", "0.1")
    assert (result.exit_code, result.stdout) == (1, totals(created=1) + "running 1\n")


def test_an_agent_that_is_away_is_reported_with_the_remedy(tmp_path: Path) -> None:
    file = write(tmp_path / "t.jsonl", [make_ticket()])
    away = CliRunner().invoke(cli, ["submit", file, "--url", "http://127.0.0.1:1", "--token", "t"])
    assert away.exit_code == 1
    assert away.stderr.splitlines()[-1].endswith("; 0 tickets were accepted, so send the same file again")


def test_an_unknown_token_ends_the_command(run: CommandLine, service: FakeTaskService, tmp_path: Path) -> None:
    file = write(tmp_path / "t.jsonl", [make_ticket(f"T-{n}") for n in range(50)])
    result = run("submit", file, who="nobody")
    assert result.exit_code == 1
    assert result.stderr.splitlines()[-1].startswith("error: the bearer token is not known here")
    assert service.submissions == 0


@pytest.mark.parametrize(
    "words",
    [
        (),
        ("missing.jsonl",),
        ("/dev/null", "--rate", "0"),
        ("/dev/null", "--concurrency", "0"),
        ("/dev/null", "--concurrency", "65"),
    ],
)
def test_wrong_usage_is_exit_code_2(run: CommandLine, words: tuple[str, ...]) -> None:
    assert run("submit", *words).exit_code == 2


def test_an_empty_file_is_fine(run: CommandLine) -> None:
    result = run("submit", "/dev/null")
    assert (result.exit_code, result.stdout, result.stderr) == (0, totals(), "/dev/null contains no ticket\n")


def spawn(run: CommandLine, file: str, stderr: int) -> subprocess.CompletedProcess[bytes]:
    command = [sys.executable, "-m", "app.cli", "submit", file, "--url", run.url, "--token", secret("root")]
    environ = {"PATH": os.environ["PATH"], "TERM": "xterm", "COLUMNS": "100"}
    return subprocess.run(command, stdout=subprocess.PIPE, stderr=stderr, env=environ, check=True)


def pieces(terminal: int) -> Iterator[bytes]:
    """All output to a terminal whose other end is closed."""
    with contextlib.suppress(OSError):  # how Linux says that this was all
        while piece := os.read(terminal, 1 << 16):
            yield piece


def test_a_terminal_sees_a_bar_and_a_pipe_sees_counts(
    run: CommandLine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(screen, "PLAIN_EVERY_SECONDS", 3600.0)  # only the last line, however long it takes
    file = write(tmp_path / "t.jsonl", [make_ticket(f"T-{n}") for n in range(30)])
    ours, theirs = pty.openpty()
    done = spawn(run, file, theirs)
    os.close(theirs)
    seen = b"".join(pieces(ours)).decode()
    os.close(ours)
    assert done.stdout.decode() == totals(created=30)
    assert "30/30" in seen
    assert "━" in seen
    plain = run("submit", file)
    assert plain.stderr == "submitted: 30 of 30  same 30\n"


def test_open_tasks_are_named(run: CommandLine, service: FakeTaskService, tmp_path: Path) -> None:
    def settle_by_text(ticket: Ticket) -> dict[str, Any] | None:
        states = {"p": TaskStatus.PARKED, "w": TaskStatus.WAITING, "c": TaskStatus.COMPLETED}
        status = states.get(ticket.text)
        return {"status": status, "waiting_for": "classify: status 401"} if status else None

    service.settle = settle_by_text
    texts = ["p"] * 12 + ["w", "w", "c", "runs"]
    file = write(tmp_path / "t.jsonl", [make_ticket(f"T-{n}", text=text) for n, text in enumerate(texts)])
    result = run("submit", file, "--wait", "--timeout", "0.1")
    assert (result.exit_code, result.stdout) == (
        1,
        totals(created=16) + "running 1  waiting 2  parked 12  completed 1\n",
    )
    lines = result.stderr[result.stderr.index("1 still run after 0.1 s:") :].splitlines()
    assert lines[:3] == ["1 still run after 0.1 s:", "  acme:T-15", "12 are parked:"]
    assert lines[3].endswith(": classify: status 401")
    assert lines[13:] == [
        "  and 2 more",
        "2 wait for a person: `refund-agent task list --status waiting`, then `task show TASK`",
    ]
