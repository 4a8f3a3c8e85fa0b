"""A pusher of a web node in front of scripted comet nodes."""

from __future__ import annotations

from cluster.contracts.comet import PushReply
from cluster.errors import (
    UnavailableError,
)
from cluster.members import Members
from cluster.model import Key
from cluster.registry.memory import MemoryRegistry
from cluster.stats import Stats
from tests.support.services import ScriptedComet
from tests.support.web import comet_info
from web.metrics import WebMetrics
from web.pushing.owners import Owners
from web.pushing.push import Pusher


class AskedRegistry(MemoryRegistry):
    """Counts how often it was asked for news."""

    asked = 0
    is_away = False

    async def refresh(self) -> None:
        self.asked += 1
        if self.is_away:
            raise UnavailableError("away")
        await super().refresh()


class Pushing:
    """A pusher in front of scripted comet nodes."""

    def __init__(
        self,
        timeout_s: float = 5.0,
        attempt_s: float = 3.0,
        cut_off_s: float = 2.0,
        id_prefix: str = "web-",
        max_held: int | None = None,
    ) -> None:
        self.registry = AskedRegistry()
        self.members = Members(self.registry)
        self.comets: dict[str, ScriptedComet] = {}
        self.metrics = WebMetrics(Stats())
        self.owners = Owners(
            self.members,
            lambda info: self.comets[info.name],
            timeout_s=timeout_s,
            attempt_s=attempt_s,
            cut_off_s=cut_off_s,
        )
        self.pusher = Pusher(self.owners, self.metrics, id_prefix, idempotency_ttl_s=3600, max_held=max_held)

    async def add(self, name: str) -> ScriptedComet:
        comet = self.comets[name] = ScriptedComet()
        await self.registry.register(comet_info(name))
        return comet

    async def push(self, *keys: str, expire_s: int = 60, caller_id: str = "") -> PushReply:
        return await self.pusher.push([Key(key) for key in keys], b"1", expire_s, caller_id)

    def owner(self, key: str) -> str:
        return self.members.current.owner(Key(key)).name
