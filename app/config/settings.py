"""The settings, and the only code that reads the environment: `REFUND_AGENT_*`, and Dapr's ports and token."""

from __future__ import annotations

import os
from pathlib import Path
from urllib.parse import quote

from pydantic import AliasChoices, Field, ValidationError
from pydantic_settings import BaseSettings, SettingsConfigDict

from app.config.proxies import bypass_proxies
from app.dapr.daprd import Daprd
from app.domain.errors import ConfigurationError

PREFIX = "REFUND_AGENT_"
# The file with the sidecar's token if the environment has none; `runtime/state.py` creates it.
API_TOKEN_FILE = "sidecar-token"  # noqa: S105 - the name of a file, not a secret


class Settings(BaseSettings):
    """The agent's settings. Every value has a default that works on a laptop."""

    model_config = SettingsConfigDict(env_prefix=PREFIX, frozen=True, extra="ignore")

    state_dir: Path = Path(".state")
    policy_file: Path = Path("config/policy.yaml")
    prices_file: Path = Path("config/prices.yaml")
    ledger_url: str = ""  # empty: SQLite in the state folder
    web_host: str = "127.0.0.1"
    web_port: int = Field(default=8088, ge=1, le=65535)
    # The agent's address for browsers, if it is behind a reverse proxy: https://tools.example.com/refunds
    public_url: str = ""
    llm_component: str = "llm"
    secret_store: str = "secrets"  # noqa: S105 - the name of a Dapr component, not a secret
    log_level: str = "INFO"
    # How long running steps may finish after SIGTERM. Where another worker takes over, set it to a model call's time.
    grace_seconds: float = Field(default=8.0, ge=0, le=600)
    # An OpenTelemetry collector's base URL, such as http://localhost:4318; empty: no traces.
    otlp_endpoint: str = Field(default="", pattern=r"^(https?://\S+)?$", repr=False)
    trace_texts: bool = False  # include the models' answers, redacted, in the spans
    url: str = ""  # the agent's address for the command line; empty: web_host and web_port
    token: str = Field(default="", repr=False)  # the command line's bearer token; empty: the local token file
    dapr_host: str = "127.0.0.1"
    dapr_http_port: int = Field(
        default=3510, validation_alias=AliasChoices("REFUND_AGENT_DAPR_HTTP_PORT", "DAPR_HTTP_PORT")
    )
    dapr_grpc_port: int = Field(
        default=3511, validation_alias=AliasChoices("REFUND_AGENT_DAPR_GRPC_PORT", "DAPR_GRPC_PORT")
    )
    dapr_metrics_port: int = Field(
        default=9190, validation_alias=AliasChoices("REFUND_AGENT_DAPR_METRICS_PORT", "DAPR_METRICS_PORT")
    )

    dapr_api_token: str = Field(
        default="",
        pattern=r"^[!-~]*$",  # the characters that an HTTP header allows
        repr=False,
        validation_alias=AliasChoices("REFUND_AGENT_DAPR_API_TOKEN", "DAPR_API_TOKEN"),
    )

    @property
    def database_url(self) -> str:
        """The ledger's SQLAlchemy URL."""
        return self.ledger_url or f"sqlite:///{quote(str(self.state_dir / 'ledger.sqlite'))}"

    @property
    def agent_url(self) -> str:
        """The agent's address for the command line."""
        return self.url or f"http://{self.web_host}:{self.web_port}"

    @property
    def dapr_http(self) -> str:
        """The sidecar's HTTP address."""
        return f"http://{self.dapr_host}:{self.dapr_http_port}"

    @property
    def dapr_grpc(self) -> str:
        """The sidecar's gRPC address."""
        return f"{self.dapr_host}:{self.dapr_grpc_port}"

    @property
    def daprd(self) -> Daprd:
        """The sidecar's API. Raises ConfigurationError if the file with its token cannot be read."""
        return Daprd(self.dapr_http, self.dapr_grpc, self.dapr_api_token or self._local_api_token())

    @property
    def dapr_metrics(self) -> str:
        """The address of the sidecar's metrics."""
        return f"http://{self.dapr_host}:{self.dapr_metrics_port}"

    def _local_api_token(self) -> str:
        path = self.state_dir / API_TOKEN_FILE
        try:
            return path.read_text(encoding="ascii").strip()
        except FileNotFoundError:
            return ""
        except (OSError, ValueError) as error:
            raise ConfigurationError(
                f"{path}: the sidecar's token cannot be read ({type(error).__name__}); run this as the user who "
                "started the agent, or give it in DAPR_API_TOKEN"
            ) from None


def bypass_proxies_for_sidecar(settings: Settings) -> None:
    """Changes the environment so that this process calls its sidecar without a proxy, also from libraries that have no
    option for it."""
    os.environ.update(bypass_proxies(os.environ, settings.dapr_host))


def load() -> Settings:
    """Reads the settings. Raises ConfigurationError that names the wrong variable and the problem."""
    try:
        return Settings()
    except ValidationError as error:
        first = error.errors(include_input=False)[0]
        name = "_".join(str(part) for part in first["loc"])
        raise ConfigurationError(
            f"environment: {PREFIX}{name.upper().removeprefix(PREFIX)}: {first['msg']}; correct or unset it"
        ) from None
