"""The state stores: throw-away servers, and the components with which daprd uses them."""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import dataclass, field

from lab.bench.plan import Store
from tests.servers import PostgresServer, RedisServer

_COMPONENT = """\
apiVersion: dapr.io/v1alpha1
kind: Component
metadata:
  name: statestore
scopes: [agent]
spec:
  type: {type}
  version: {version}
  metadata:
    - name: actorStateStore
      value: "true"
{metadata}"""
DATABASE = "workflow"


@dataclass(frozen=True)
class Prepared:
    """A store that is ready: the component's overlay, its server's process, and its version."""

    overlay: dict[str, str] = field(default_factory=dict)
    leaders: dict[str, int] = field(default_factory=dict)
    version: str = ""


def prepare(store: Store, open_until: ExitStack) -> Prepared:
    """Starts what the store needs; it ends with `open_until`. SQLite needs nothing and is the product's default."""
    if store is Store.POSTGRES:
        postgres = open_until.enter_context(PostgresServer())
        url = postgres.create_database(DATABASE)
        overlay = component("state.postgresql", "v2", connectionString=url)
        return Prepared(overlay, {"postgres": postgres.pid}, postgres.version())
    if store is Store.REDIS:
        redis = open_until.enter_context(RedisServer())
        overlay = component("state.redis", "v1", redisHost=redis.address, redisPassword=redis.password)
        return Prepared(overlay, {"redis": redis.pid}, f"{redis.version()}, appendfsync {redis.fsync}")
    return Prepared()


def component(type_name: str, version: str, **metadata: str) -> dict[str, str]:
    """The overlay that puts another store in the place of the default one."""
    lines = "".join(f'    - name: {name}\n      value: "{value}"\n' for name, value in metadata.items())
    return {"statestore.yaml": _COMPONENT.format(type=type_name, version=version, metadata=lines)}
