"""A stack on in-memory servers that changes from `lite` to a better model by itself."""

import contextlib
import shutil
from collections import namedtuple
from collections.abc import AsyncIterator, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from adapters.bootstrap import Connections
from adapters.embedder.fake import FakeEmbedder
from adapters.embedder.spec import ModelSpec
from adapters.index.fake import FakeImageIndex
from adapters.index.port import Collection
from adapters.log.fake import FakeEventLog, FakeGroupAdmin
from adapters.log.port import GroupProgress
from models.adoption_status import AdoptionFile, AdoptionStatus
from models.catalogue import read_catalogue
from models.errors import ServingFailed
from models.switching import ModelSwitcher
from schemas.topics import Topic
from stack.adoption import Adoption, AdoptionFolders
from stack.errors import StackError
from stack.settings import PREFERRED_MODEL as NAME
from stack.settings import StackSettings
from stack.triton_models import model_registry
from tests.support.hub_server import Hub

Usage = namedtuple("Usage", "total used free")


class Killed(BaseException):
    """As if the process had been killed."""


class CaughtUp(FakeGroupAdmin):
    """Every group has read everything."""

    async def progress(self, topic: Topic, group: str) -> GroupProgress:
        ends = {n: end for n, (_, end) in (await self.log.bounds(topic)).items()}
        return GroupProgress(committed=ends, ends=ends)


class Recorded(AdoptionFile):
    """Keeps each status, and kills the process at one of the writes."""

    def __init__(self, path: Path, written: list[AdoptionStatus], kill_at: int | None) -> None:
        super().__init__(path)
        self.written, self.kill_at = written, kill_at

    def write(self, status: AdoptionStatus) -> None:
        super().write(status)
        self.written.append(status)
        if self.kill_at is not None and len(self.written) > self.kill_at:
            raise Killed


@dataclass
class World:
    """A stack on in-memory servers on which `lite` answers searches."""

    settings: StackSettings
    server: Hub
    log: FakeEventLog = field(default_factory=FakeEventLog)
    index: FakeImageIndex = field(default_factory=FakeImageIndex)
    served: dict[str, ModelSpec] = field(default_factory=dict)
    written: list[AdoptionStatus] = field(default_factory=list)
    cannot_load: str = ""
    missing: str = ""

    def check_running(self) -> None:
        """It runs."""

    async def load(self, name: str) -> None:
        if self.cannot_load:
            raise ServingFailed(self.cannot_load)
        self.served[name] = model_registry(self.settings).store().spec(name)

    async def unload(self, name: str) -> None:
        self.served.pop(name, None)

    async def wait_for_indexers_to_stop(self, name: str) -> None:
        """There are none."""

    async def check(self, _: Connections, __: Collection, ___: Mapping[int, int]) -> None:
        if self.missing:
            raise StackError(self.missing)

    @contextlib.asynccontextmanager
    async def connect(self) -> AsyncIterator[Connections]:
        groups = CaughtUp(log=self.log)
        yield Connections(FakeEmbedder(served=self.served), self.index, self.log, groups)

    @property
    def file(self) -> AdoptionFile:
        return AdoptionFile(self.settings.adoption)

    async def attempt(self, kill_at: int | None = None) -> AdoptionStatus:
        registry = model_registry(self.settings)
        cache = self.settings.cache
        adoption = Adoption(
            NAME,
            read_catalogue()[NAME],
            "lite",
            file=Recorded(self.settings.adoption, self.written, kill_at),
            registry=registry,
            folders=AdoptionFolders(cache / "hub", self.settings.models, self.settings.state),
            connect=self.connect,
            switcher=lambda servers: ModelSwitcher(
                registry, servers, self, permit=adoption.check_wanted
            ),
            check_complete=self.check,
        )
        return await adoption.attempt()

    @contextlib.asynccontextmanager
    async def by_command(self) -> AsyncIterator[ModelSwitcher]:
        """What the `models` commands use."""
        async with self.connect() as servers:
            yield ModelSwitcher(model_registry(self.settings), servers, self)

    async def answering(self) -> str | None:
        active = await self.index.active()
        return active.model_name if active else None


@contextlib.contextmanager
def no_room(monkeypatch: pytest.MonkeyPatch, free: int) -> Iterator[None]:
    with monkeypatch.context() as patched:
        patched.setattr(shutil, "disk_usage", lambda _: Usage(10**12, 10**12 - free, free))
        yield
