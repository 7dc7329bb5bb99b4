"""The launcher's part of the automatic change to a better model: whether, when, and what is said.

`decide` says which model the stack moves to by itself. `keep_adopting` runs the process that does
it (`models adopt`), starts it again after a failure, and reports each step.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final

from models.adoption_status import DECLINE, AdoptionFile, AdoptionStatus, AdoptionStep
from models.catalogue import read_catalogue
from stack.settings import FALLBACK_MODEL, PREFERRED_MODEL, ROOT, StackSettings
from stack.supervisor import ProcessSpec, ProcessState, Supervisor
from stack.triton_models import model_registry

PROCESS: Final = "adoption"
POLL_SECONDS: Final = 0.5
CRASH_SECONDS: Final = 60.0
"""Wait after an attempt that ended without saying when to try again."""
SAID_PARTS: Final = 10
"""Number of equal parts of a step; progress is reported after each of them."""


@dataclass(frozen=True, slots=True)
class Decision:
    """The model to which the stack moves by itself, None for no change, and what is said."""

    model: str | None
    sentence: str


def decide(settings: StackSettings) -> Decision:
    """Whether this stack moves to a better model by itself.

    It does so while the bundled model was the first and is the only one, unless a user has
    declined, has chosen a model, or has gone back to the bundled one.
    """
    registry, file = model_registry(settings), AdoptionFile(settings.adoption)
    state, wanted, status = registry.read(), settings.model_name, file.read()
    if state.active != FALLBACK_MODEL:
        return Decision(None, f"model: {state.active}")
    lite = f"model: {FALLBACK_MODEL}, which needs no download and finds less than CLIP does"
    by_hand = f"./image-search models switch {PREFERRED_MODEL}"
    if PREFERRED_MODEL not in registry.store().names():
        by_hand = f"./image-search models pull {PREFERRED_MODEL}, then {by_hand}"
    by_hand = f"for a better one: {by_hand}"
    if wanted == FALLBACK_MODEL:
        return Decision(
            None, f"{lite}; it stays, because MODEL_NAME is {FALLBACK_MODEL}; {by_hand}"
        )
    if file.declined:
        return Decision(None, f"{lite}; it stays, because a change was declined; {by_hand}")
    if settings.triton_url is not None:
        return Decision(None, f"{lite}; it stays, because Triton is not part of this stack")
    ended = status is not None and status.ended and status.step is not AdoptionStep.FAILED
    others = set(state.current) - {FALLBACK_MODEL, wanted}
    if ended or others or state.previous is not None or wanted not in read_catalogue():
        return Decision(None, f"{lite}; {by_hand}")
    return Decision(
        wanted,
        f"{lite}; {wanted} replaces it once it is downloaded and its collection is filled, "
        f"which happens in the background; to keep {FALLBACK_MODEL}: {DECLINE}, "
        f"or MODEL_NAME={FALLBACK_MODEL} at the next start",
    )


def process(settings: StackSettings, name: str) -> ProcessSpec:
    """The process that makes one attempt. It is given the settings of the launcher as they are."""

    async def ready() -> bool:
        return True

    return ProcessSpec(
        name=PROCESS,
        command=[sys.executable, "-m", "cli", "models", "adopt", name],
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
        _prepare(file, name)
        if name is not None:
            await _attempts(settings, supervisor, name, Reporter(say))
    except OSError as error:
        # It must not end the stack, which works without a better model.
        say(f"{name or FALLBACK_MODEL}: {error}; the model is not changed until the next start")


async def _attempts(
    settings: StackSettings, supervisor: Supervisor, name: str, reporter: Reporter
) -> None:
    file = AdoptionFile(settings.adoption)
    while True:
        status, running = file.read(), supervisor.processes.get(PROCESS)
        if file.declined and not (status is not None and status.ended):
            if running is not None:
                await supervisor.remove(PROCESS)
            status = _declined(file.read(), name)
            file.write(status)
        elif running is not None and running.state is ProcessState.DONE:
            await supervisor.remove(PROCESS)
            status = file.read()
            if _due(status):  # Its end was not planned: it did not say when to try again.
                reporter.say(f"{PROCESS} ended early; the log is {running.spec.log}")
                await asyncio.sleep(CRASH_SECONDS)
        elif running is None and _due(status):
            supervisor.add(process(settings, name))
        if status is not None:
            reporter.report(status)
            if status.ended and PROCESS not in supervisor.processes:
                return
        await asyncio.sleep(POLL_SECONDS)


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
    elif not status.ended or name is not None:
        file.clear()


def _due(status: AdoptionStatus | None) -> bool:
    if status is None:
        return True
    return not status.ended and (status.retry_at is None or status.retry_at <= datetime.now(UTC))


def _declined(status: AdoptionStatus | None, name: str) -> AdoptionStatus:
    known = status or AdoptionStatus(
        model=name, instead_of=FALLBACK_MODEL, step=AdoptionStep.DECLINED
    )
    changes = {
        "step": AdoptionStep.DECLINED,
        "problem": "",
        "retry_at": None,
        "updated_at": datetime.now(UTC),
    }
    return known.model_copy(update=changes)


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
