"""Where the agent is and which token opens it: the options win, then the environment, then this machine."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from app.domain.errors import ConfigurationError

if TYPE_CHECKING:
    from app.cli.client import AgentClient

Url = Annotated[
    str | None,
    typer.Option("--url", help="The agent's address.  [env: REFUND_AGENT_URL]", show_default=False),
]
Token = Annotated[
    str | None,
    typer.Option(
        "--token",
        help="Bearer token; better in REFUND_AGENT_TOKEN, which other users of the machine cannot see."
        "  [default: the local token file]",
        show_default=False,
    ),
]
AsJson = Annotated[bool, typer.Option("--json", help="JSON for programs; the keys are stable.")]


def connect(url: str | None, token: str | None) -> AgentClient:
    """A client for the agent. Raises ConfigurationError when there is no usable address or token."""
    from app.cli.client import AgentClient
    from app.config.settings import load

    settings = load()
    address = url or settings.agent_url
    if not address.startswith(("http://", "https://")):
        raise ConfigurationError(f"--url {address!r} is no address; it begins with http:// or https://")
    return AgentClient(address, _usable(token or settings.token or _local_token()))


def _usable(token: str) -> str:
    """The token, if it can be sent at all. Its value is not shown."""
    if not token.isascii() or not token.isprintable() or " " in token:
        raise ConfigurationError(
            "the token holds a character that no token has (a space, a line break, an umlaut); give it alone, "
            "in --token or REFUND_AGENT_TOKEN"
        )
    return token


def _local_token() -> str:
    from app.config.settings import load
    from app.tasks.access import read_local_token

    path = load().state_dir / "token"
    try:
        return read_local_token(path)
    except FileNotFoundError:
        raise ConfigurationError(
            f"no token: {path} is not there; start the agent here once, or give --token or REFUND_AGENT_TOKEN"
        ) from None
