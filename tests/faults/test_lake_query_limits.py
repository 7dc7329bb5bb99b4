"""Queries of the lake end with their callers, and stay within their limits."""

import asyncio
import threading
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import httpx
import pytest
from fastapi import FastAPI

import gateway.routes.analytics
from adapters.errors import Unavailable
from adapters.settings import BadSettings
from analytics.engine import CancellationToken, QueryCancelled, QueryLimits, connect
from analytics.lake import Lake
from analytics.settings import QuerySettings
from analytics.views import EventFilters, query
from gateway.http import problems
from gateway.http.limits import Deadline
from gateway.settings import GatewaySettings
from gateway.state.lake_queries import CONCURRENT, LakeQueries
from tests.conftest import ROOT

DASHBOARD = "/api/v1/analytics/dashboard"
LIMITS = QueryLimits(128 << 20, 1)
ENDLESS = "SELECT count(*) AS n FROM range(10_000_000) a, range(10_000_000) b"
"""Takes hours."""
LARGE = "CREATE TEMP TABLE t AS SELECT md5(range::VARCHAR) s, random() r FROM range(40_000_000)"
SOON = 10.0
"""Seconds within which interrupted work must have ended, on a busy machine."""


@pytest.fixture
def lake(tmp_path: Path) -> Lake:
    made = Lake(str(tmp_path / "lake"))
    made.current()
    return made


class FakeDashboard:
    """Takes the dashboard's place, and counts the threads that are at work."""

    def __init__(
        self, work: Callable[[Lake, EventFilters, QueryLimits, CancellationToken], Any]
    ) -> None:
        self._work = work
        self._lock = threading.Lock()
        self.running = self.most = self.begun = 0
        self.ended: list[BaseException | None] = []

    def __call__(
        self,
        lake: Lake,
        filters: EventFilters,
        *,
        limits: QueryLimits,
        cancellation: CancellationToken,
    ) -> Any:
        with self._lock:
            self.begun += 1
            self.running += 1
            self.most = max(self.most, self.running)
        error: BaseException | None = None
        try:
            return self._work(lake, filters, limits, cancellation)
        except BaseException as raised:
            error = raised
            raise
        finally:
            with self._lock:
                self.running -= 1
                self.ended.append(error)

    async def until(self, condition: Callable[[], bool]) -> None:
        async with asyncio.timeout(SOON):
            while not condition():
                await asyncio.sleep(0.01)


def endless(
    lake: Lake, _: EventFilters, limits: QueryLimits, cancellation: CancellationToken
) -> Any:
    return query(lake, ENDLESS, limits=limits, cancellation=cancellation)


def endless_but_for_clip(
    lake: Lake, filters: EventFilters, limits: QueryLimits, cancellation: CancellationToken
) -> Any:
    sql = "SELECT 1 AS n" if filters.model == "clip" else ENDLESS
    return {"rows": query(lake, sql, limits=limits, cancellation=cancellation)}


@pytest.fixture
def fake_dashboard(monkeypatch: pytest.MonkeyPatch) -> Callable[..., FakeDashboard]:
    def replace(work: Callable[..., Any]) -> FakeDashboard:
        made = FakeDashboard(work)
        monkeypatch.setattr(gateway.routes.analytics, "dashboard", made)
        return made

    return replace


def application(lake: Lake, seconds: float) -> FastAPI:
    app = FastAPI()
    problems.install(app)
    app.add_middleware(Deadline, seconds=seconds)
    app.include_router(gateway.routes.analytics.router(LakeQueries(lake.url, LIMITS)))
    return app


@asynccontextmanager
async def serving(lake: Lake, seconds: float = 60.0) -> AsyncIterator[httpx.AsyncClient]:
    transport = httpx.ASGITransport(app=application(lake, seconds))
    async with httpx.AsyncClient(transport=transport, base_url="http://localhost") as client:
        yield client


@pytest.mark.slow
async def test_the_deadline_interrupts_the_scan_and_gives_its_slot_to_the_next(
    lake: Lake, fake_dashboard: Callable[..., FakeDashboard]
) -> None:
    work = fake_dashboard(endless_but_for_clip)
    async with serving(lake, seconds=0.5) as client:
        late = await asyncio.gather(
            *(client.get(DASHBOARD, params={"model": f"m{n}"}) for n in range(CONCURRENT))
        )
        assert [each.status_code for each in late] == [503] * CONCURRENT
        await work.until(lambda: work.running == 0)
        assert [type(error) for error in work.ended] == [QueryCancelled] * CONCURRENT
    async with serving(lake) as client:
        assert (await client.get(DASHBOARD, params={"model": "clip"})).json() == {
            "rows": [{"n": 1}]
        }


async def test_a_disconnected_client_interrupts_the_scan(
    lake: Lake, fake_dashboard: Callable[..., FakeDashboard]
) -> None:
    work = fake_dashboard(endless)
    gone = asyncio.Event()
    messages = [{"type": "http.request", "body": b"", "more_body": False}]

    async def receive() -> dict[str, Any]:
        if messages:
            return messages.pop()
        await gone.wait()
        return {"type": "http.disconnect"}

    async def send(_: Any) -> None:
        pass

    scope = {
        "type": "http",
        "asgi": {"version": "3.0"},
        "http_version": "1.1",
        "method": "GET",
        "path": DASHBOARD,
        "raw_path": DASHBOARD.encode(),
        "query_string": b"",
        "headers": [],
        "scheme": "http",
        "server": ("localhost", 80),
        "client": ("127.0.0.1", 1),
    }
    serve = asyncio.create_task(application(lake, 60.0)(scope, receive, send))
    await work.until(lambda: work.running == 1)
    gone.set()
    await work.until(lambda: work.running == 0)
    assert isinstance(work.ended[0], QueryCancelled)
    async with asyncio.timeout(SOON):
        await serve


@pytest.mark.slow
async def test_a_slot_is_freed_only_when_its_thread_has_ended(
    lake: Lake, fake_dashboard: Callable[..., FakeDashboard]
) -> None:
    def deaf(*_: Any) -> Any:
        time.sleep(0.4)
        return {}

    work = fake_dashboard(deaf)
    async with serving(lake) as client:

        async def impatient(name: str) -> None:
            with suppress(TimeoutError):
                async with asyncio.timeout(0.05):
                    await client.get(DASHBOARD, params={"model": name})

        for number in range(4):
            await asyncio.gather(*(impatient(f"{number}-{each}") for each in range(3)))
        # A caller who stays is answered, though threads of cancelled callers are still busy.
        assert (await client.get(DASHBOARD, params={"model": "stays"})).json() == {}
    assert work.most <= CONCURRENT


@pytest.mark.slow
async def test_equal_queries_share_one_run_that_survives_a_cancelled_caller(
    lake: Lake, fake_dashboard: Callable[..., FakeDashboard]
) -> None:
    go = threading.Event()

    def waits(
        lake: Lake, _: EventFilters, limits: QueryLimits, cancellation: CancellationToken
    ) -> Any:
        while not go.wait(0.01):
            cancellation.raise_if_cancelled()
        return {"rows": query(lake, "SELECT 7 AS n", limits=limits, cancellation=cancellation)}

    work = fake_dashboard(waits)
    async with serving(lake) as client:
        first = asyncio.create_task(client.get(DASHBOARD))
        await work.until(lambda: work.running == 1)
        others = [asyncio.create_task(client.get(DASHBOARD)) for _ in range(20)]
        await asyncio.sleep(0.1)
        first.cancel()
        await asyncio.sleep(0.2)
        assert work.running == 1, "others wait for it"
        go.set()
        assert [(await each).json() for each in others] == [{"rows": [{"n": 7}]}] * 20
    assert work.begun == 1
    assert work.ended == [None]


@pytest.mark.slow
async def test_a_run_without_callers_is_interrupted_and_the_next_one_starts_afresh(
    lake: Lake, fake_dashboard: Callable[..., FakeDashboard]
) -> None:
    work = fake_dashboard(endless)
    async with serving(lake) as client:
        for begun in (1, 2):
            callers = [asyncio.create_task(client.get(DASHBOARD)) for _ in range(3)]
            await work.until(lambda begun=begun: work.begun == begun)  # type: ignore[misc]
            for caller in callers:
                caller.cancel()
            await work.until(lambda: work.running == 0)
            assert isinstance(work.ended[-1], QueryCancelled)


@pytest.mark.slow
async def test_a_query_that_waits_for_a_slot_can_be_cancelled(
    lake: Lake, fake_dashboard: Callable[..., FakeDashboard]
) -> None:
    work = fake_dashboard(endless)
    async with serving(lake) as client:
        callers = [
            asyncio.create_task(client.get(DASHBOARD, params={"model": f"{n}"}))
            for n in range(CONCURRENT + 3)
        ]
        await work.until(lambda: work.running == CONCURRENT)
        for caller in callers:
            caller.cancel()
        await work.until(lambda: work.running == 0)
        assert work.begun == CONCURRENT


@pytest.mark.slow
@pytest.mark.parametrize("sql", [ENDLESS, f"FROM ({ENDLESS}) SELECT n + 1 AS m", LARGE])
def test_work_in_another_thread_can_be_stopped(lake: Lake, sql: str) -> None:
    cancellation, raised = CancellationToken(), []

    def work() -> None:
        try:
            query(lake, sql, limits=QueryLimits(512 << 20, 1), cancellation=cancellation)
        except QueryCancelled as error:
            raised.append(error)

    thread = threading.Thread(target=work)
    thread.start()
    time.sleep(0.5)
    until = time.monotonic() + SOON
    while thread.is_alive() and time.monotonic() < until:
        cancellation.cancel()
        thread.join(0.05)
    assert not thread.is_alive()
    assert len(raised) == 1


def test_a_query_cancelled_before_it_begins_does_not_run(lake: Lake) -> None:
    cancellation = CancellationToken()
    cancellation.cancel()
    with pytest.raises(QueryCancelled):
        query(lake, ENDLESS, limits=LIMITS, cancellation=cancellation)


def test_a_stop_between_two_statements_is_not_forgotten() -> None:
    cancellation = CancellationToken()
    with pytest.raises(QueryCancelled), connect(LIMITS, cancellation) as connection:  # noqa: PT012
        connection.execute("SELECT 1")
        cancellation.cancel()
        # DuckDB itself has forgotten it by now.
        assert connection.execute("SELECT 2").fetchall() == [(2,)]
        cancellation.raise_if_cancelled()


def test_memory_threads_and_temporary_files_have_bounds() -> None:
    with connect(QueryLimits(100 << 20, 3)) as connection:
        found = connection.execute(
            "SELECT current_setting('memory_limit'), current_setting('threads'), "
            "current_setting('max_temp_directory_size'), current_setting('temp_directory')"
        ).fetchone()
    assert found is not None
    assert found[:3] == ("100.0 MiB", 3, "400.0 MiB")
    assert not Path(found[3]).parent.exists()


@pytest.mark.slow
def test_a_query_above_the_memory_limit_fails_with_advice(
    lake: Lake, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    most, done = 0, threading.Event()

    def watch() -> None:
        nonlocal most
        while not done.wait(0.01):
            with suppress(FileNotFoundError):
                sizes = [path.stat().st_size for path in tmp_path.glob("image-search-*/duckdb/*")]
                most = max(most, sum(sizes))

    watching = threading.Thread(target=watch)
    watching.start()
    limits = QueryLimits(64 << 20, 1)
    try:
        with pytest.raises(Unavailable, match="ANALYTICS_MEMORY"):
            query(lake, LARGE, limits=limits)
    finally:
        done.set()
        watching.join()
    assert 0 < most <= limits.temporary_bytes * 1.1
    assert not list(tmp_path.glob("image-search-*"))


@pytest.mark.slow
async def test_the_gateway_answers_503_to_a_query_above_the_memory_limit(
    lake: Lake, fake_dashboard: Callable[..., FakeDashboard]
) -> None:
    def large(lake: Lake, _: EventFilters, __: QueryLimits, cancellation: CancellationToken) -> Any:
        return query(lake, LARGE, limits=QueryLimits(64 << 20, 1), cancellation=cancellation)

    fake_dashboard(large)
    async with serving(lake) as client:
        answer = await client.get(DASHBOARD)
    assert answer.status_code == 503
    assert "ANALYTICS_MEMORY" in answer.json()["detail"]


def test_the_bounds_come_from_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("analytics.engine.machine_memory", lambda: 8 << 30)
    monkeypatch.setattr("analytics.engine.usable_cores", lambda: 8)
    assert QueryLimits.of(QuerySettings()) == QueryLimits(1 << 30, 4)
    assert QueryLimits.of(QuerySettings(), connections=2) == QueryLimits(512 << 20, 4)
    monkeypatch.setenv("ANALYTICS_MEMORY", "300MiB")
    monkeypatch.setenv("ANALYTICS_THREADS", "3")
    assert QueryLimits.of(GatewaySettings(), connections=2) == QueryLimits(150 << 20, 3)
    with connect() as connection:
        found = connection.execute("SELECT current_setting('memory_limit')").fetchone()
    assert found == ("300.0 MiB",)
    monkeypatch.setenv("ANALYTICS_MEMORY", "1KiB")
    with pytest.raises(BadSettings, match="ANALYTICS_MEMORY"):
        QuerySettings()


def test_databases_are_opened_in_one_place() -> None:
    for package in (
        "adapters",
        "imaging",
        "models",
        "analytics",
        "consumers",
        "producers",
        "gateway",
        "cli",
        "stack",
    ):
        for path in (ROOT / package).rglob("*.py"):
            if path != ROOT / "analytics" / "engine.py":
                assert "duckdb.connect" not in path.read_text(), path
