"""The launcher's part of the automatic change to a better model: whether, when, and what is said.

`decide` says which model the stack moves to by itself. `keep_adopting` runs the process that does
it (`models adopt`), starts it again after a failure, and reports each step.
"""

from __future__ import annotations

import asyncio
import signal
import sys
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final

from models.adoption_rule import objection
from models.adoption_status import (
    DECLINE,
    AdoptionFile,
    AdoptionStatus,
    AdoptionStep,
    still_loaded,
)
from models.catalogue import read_catalogue
from models.registry import ModelRegistry
from stack.settings import FALLBACK_MODEL, PREFERRED_MODEL, ROOT, StackSettings
from stack.supervisor import (
    ProcessSpec,
    ProcessState,
    SupervisedProcess,
    Supervisor,
    exit_description,
)
from stack.triton_models import model_registry

PROCESS: Final = "adoption"
POLL_SECONDS: Final = 0.5
UNLOADED: Final = frozenset({AdoptionStep.DOWNLOADING, AdoptionStep.INSTALLING})
"""Steps before which and in which nothing is loaded."""
SAID_PARTS: Final = 10
"""Number of equal parts of a step; progress is reported after each of them."""


@dataclass(frozen=True, slots=True)
class Decision:
    """The model to which the stack moves by itself, None for no change, and what is said.

    `dropped` is the model of an unfinished change that is not continued.
    """

    model: str | None
    sentence: str
    dropped: str | None = None


def decide(settings: StackSettings) -> Decision:
    """Whether this stack moves to a better model by itself.

    It does so while the bundled model was the first and is the only one, unless a user has
    declined, has changed the models by a command, or has gone back to the bundled one.
    """
    registry, file = model_registry(settings), AdoptionFile(settings.adoption)
    state, status = registry.read(), file.read()
    if state.active == FALLBACK_MODEL:
        model, sentence = _choose(settings, registry, file, status)
    else:
        model, sentence = None, f"model: {state.active}"
    dropped = None
    if status is not None and status.resumable and status.model not in (model, state.active):
        dropped = status.model
        sentence += f"; the unfinished change to {dropped} is ended"
    if state.active == FALLBACK_MODEL:
        for name in set(state.current) - {FALLBACK_MODEL, model, dropped}:
            sentence += still_loaded(name)
    return Decision(model, sentence, dropped)


def _choose(
    settings: StackSettings,
    registry: ModelRegistry,
    file: AdoptionFile,
    status: AdoptionStatus | None,
) -> tuple[str | None, str]:
    """The model to move to from the bundled one, or None, and what is said."""
    wanted, catalogue, installed = settings.model_name, read_catalogue(), registry.store().names()
    lite = f"model: {FALLBACK_MODEL}, which needs no download and finds less than CLIP does"
    better = wanted if wanted in set(catalogue) - {FALLBACK_MODEL} else PREFERRED_MODEL
    by_hand = f"./image-search models switch {better}"
    if better not in installed:
        by_hand = f"./image-search models pull {better}, then {by_hand}"
    by_hand = f"for a better one: {by_hand}"
    if wanted == FALLBACK_MODEL:
        return None, f"{lite}; it stays, because MODEL_NAME is {FALLBACK_MODEL}; {by_hand}"
    if settings.triton_url is not None:
        return None, f"{lite}; it stays, because Triton is not part of this stack"
    if settings.weaviate_url is not None:
        why = "because Weaviate is not part of this stack, and others may search it"
        return None, f"{lite}; it stays, {why}; {by_hand}"
    if wanted not in catalogue:
        use = "for those that are: ./image-search models list"
        if wanted in installed:
            use = f"to use it: ./image-search models switch {wanted}"
        return None, f"{lite}; MODEL_NAME names {wanted}, which is not in the catalogue; {use}"
    found = objection(
        registry.read(), wanted, FALLBACK_MODEL, declined=file.declined, status=status
    )
    if found is not None:
        return None, f"{lite}; it stays, because {found.reason}; {by_hand}"
    if status is not None and not status.resumable:
        return None, f"{lite}; it stays, as after the change before; {by_hand}"
    keep = (
        f"which happens in the background; to keep {FALLBACK_MODEL}: {DECLINE}, "
        f"or MODEL_NAME={FALLBACK_MODEL} at the next start"
    )
    if wanted in installed:
        how = f"{wanted}, which is installed, replaces it once its collection is filled"
    else:
        terms = catalogue[wanted].terms
        how = f"{wanted} ({terms}) replaces it once it is downloaded and its collection is filled"
    return wanted, f"{lite}; {how}, {keep}"


def process(settings: StackSettings, name: str, *options: str) -> ProcessSpec:
    """The process that makes one attempt. It is given the settings of the launcher as they are."""

    async def ready() -> bool:
        return True

    return ProcessSpec(
        name=PROCESS,
        command=[sys.executable, "-m", "cli", "models", "adopt", name, *options],
        log=settings.logs / f"{PROCESS}.log",
        ready=ready,
        environment={
            "PYTHONPATH": str(ROOT),
            "PYTHONUNBUFFERED": "1",
            "STATE_DIR": str(settings.state),
            "HF_HUB_DISABLE_PROGRESS_BARS": "1",
            "HF_HUB_DISABLE_TELEMETRY": "1",
        },
        finite=True,
    )


async def keep_adopting(
    settings: StackSettings,
    supervisor: Supervisor,
    decision: Decision,
    say: Callable[[str], None],
) -> None:
    """Make the change that was decided, with as many attempts as it takes."""
    file, name = AdoptionFile(settings.adoption), decision.model
    try:
        _finish(file, model_registry(settings).read().active)
        _prepare(file, name)
        if decision.dropped is not None:
            await _clear_away(settings, supervisor, decision.dropped, say)
        if name is not None:
            await _attempts(settings, supervisor, name, Reporter(say))
    except OSError as error:
        # It must not end the stack, which works without a better model.
        say(f"{name or FALLBACK_MODEL}: {error}; the model is not changed until the next start")


async def _clear_away(
    settings: StackSettings, supervisor: Supervisor, name: str, say: Callable[[str], None]
) -> None:
    """Unload the model of a change that is not continued, and delete what was downloaded."""
    supervisor.add(process(settings, name, "--give-up"))
    while True:
        done = supervisor.processes[PROCESS]
        if done.state is ProcessState.DONE:
            break
        await asyncio.sleep(POLL_SECONDS)
    await supervisor.remove(PROCESS)
    registry = model_registry(settings)
    if name in registry.read().current:
        say(f"the change to {name} is ended{still_loaded(name)}")
    elif done.exit_status != 0:
        say(f"the change to {name} is ended; what is left of it: {done.spec.log}")
    elif name in registry.store().names():
        say(f"{name} is unloaded; to delete its files: ./image-search models remove {name}")
    else:
        say(f"what was left of the change to {name} is deleted")


async def _attempts(
    settings: StackSettings, supervisor: Supervisor, name: str, reporter: Reporter
) -> None:
    file, registry, started = AdoptionFile(settings.adoption), model_registry(settings), _now()
    while True:
        status, running = file.read(), supervisor.processes.get(PROCESS)
        state = registry.read()
        found = objection(state, name, FALLBACK_MODEL, declined=file.declined, status=status)
        ended = status is not None and status.ended
        if found is not None and not ended and _can_end(running, status, file):
            if running is not None:
                await supervisor.remove(PROCESS)
            known, declined = file.read() or _new_status(name), file.declined
            loaded = name in state.current and not declined
            status = known.ended_by(found.step, found.reason, loaded=loaded)
            file.write(status)
            reporter.report(status)
            if found.step is not AdoptionStep.DONE and not declined:
                await _clear_away(settings, supervisor, name, reporter.say)
            return
        elif running is not None and running.state is ProcessState.DONE:
            await supervisor.remove(PROCESS)
            status = file.read() or _new_status(name)
            if not _said_how_it_ended(status, started):
                status = status.failed(_early_end(running))
                file.write(status)
        elif running is None and _due(status):
            started = _now()
            supervisor.add(process(settings, name))
        if status is not None:
            reporter.report(status)
            if status.ended and PROCESS not in supervisor.processes:
                return
        await asyncio.sleep(POLL_SECONDS)


def _can_end(
    running: SupervisedProcess | None, status: AdoptionStatus | None, file: AdoptionFile
) -> bool:
    """Whether the launcher may end the change that is not wanted any more.

    While its process does more than download, it is ended for a user who declines, whose command
    clears away what is left. Else it ends by itself, at a point where nothing is half done.
    """
    if running is None or file.declined:
        return True
    return status is not None and status.step in UNLOADED and running.state is ProcessState.READY


def _said_how_it_ended(status: AdoptionStatus, started: datetime) -> bool:
    """Whether an attempt that began at this time reported its end."""
    return status.updated_at >= started and (status.ended or status.retry_at is not None)


def _early_end(process: SupervisedProcess) -> str:
    """Why an attempt ended that did not say so itself."""
    number, log = process.exit_status, process.spec.log
    how = "" if number is None else f": it {exit_description(number)}"
    if number == -signal.SIGKILL:
        how += ", perhaps because the machine was short of memory"
    return f"its process ended early; the log is {log}{how}"


def _finish(file: AdoptionFile, active: str) -> None:
    """Record that a change was made whose process was killed before it could."""
    status = file.read()
    if status is not None and status.resumable and status.model == active:
        file.write(status.ended_by(AdoptionStep.DONE, loaded=False))


def _prepare(file: AdoptionFile, name: str | None) -> None:
    """Forget a change that is not made any more, and the waits of an earlier run: the user may have
    started again to end one."""
    status = file.read()
    if status is None:
        return
    if status.model == name:
        step = AdoptionStep.DOWNLOADING if status.step is AdoptionStep.FAILED else status.step
        fresh = {"step": step, "problem": "", "failures": 0, "retry_at": None}
        file.write(status.model_copy(update=fresh))
    elif status.resumable or name is not None:
        file.clear()


def _now() -> datetime:
    return datetime.now(UTC)


def _due(status: AdoptionStatus | None) -> bool:
    if status is None:
        return True
    return not status.ended and (status.retry_at is None or status.retry_at <= _now())


def _new_status(name: str) -> AdoptionStatus:
    return AdoptionStatus(model=name, instead_of=FALLBACK_MODEL, step=AdoptionStep.DOWNLOADING)


class Reporter:
    """Says what has changed since it last said something."""

    def __init__(self, say: Callable[[str], None]) -> None:
        self.say = say
        self._said: tuple[AdoptionStep, str, bool] | None = None
        self._parts = 0

    def report(self, status: AdoptionStatus) -> None:
        """Say the status, if it is another step, another problem or clearly further."""
        progress = status.progress
        parts = SAID_PARTS * progress[0] // progress[1] if progress else 0
        key = (status.step, status.problem, progress is not None)
        if key != self._said or parts > self._parts:
            self.say(status.sentence())
            self._said, self._parts = key, parts
