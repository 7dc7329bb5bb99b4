"""Whether the automatic change to a better model is still wanted: one rule for all who ask.

The launcher asks before it starts the change and while it is made, the change itself before each
step, and once more, under the registry's lock, before each change of the state.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from models.adoption_status import AdoptionStatus, AdoptionStep
from models.registry import ModelState

WAS_CURRENT: Final = frozenset({AdoptionStep.FILLING, AdoptionStep.CHECKING})
"""Steps that are reached only after the model has become current."""


@dataclass(frozen=True, slots=True)
class Objection:
    """Why the change is not made; `reason` is a clause."""

    step: AdoptionStep
    reason: str


def objection(
    state: ModelState,
    name: str,
    instead_of: str,
    *,
    declined: bool,
    status: AdoptionStatus | None,
) -> Objection | None:
    """Why a stack in this state does not change to the model `name` by itself; None if it may.

    Args:
        state: the state of the models.
        name: the model to change to.
        instead_of: the model that answers searches until then.
        declined: whether a user declined the change in this state folder.
        status: that of the change, if it was begun. A model that is current without one was made
            so by a command.
    """
    if state.active == name:
        return Objection(AdoptionStep.DONE, f"{name} answers searches")
    if declined:
        return Objection(AdoptionStep.DECLINED, "a change was declined")
    # An unfinished change may have loaded a model, which is dropped if it is not this one.
    automatic = status.model if status is not None and status.resumable else None
    was_current = status is not None and automatic == name and status.step in WAS_CURRENT
    if state.retiring == name or (was_current and name not in state.current):
        return Objection(AdoptionStep.DECLINED, f"{name} was retired")
    reason = ""
    if state.active != instead_of or state.previous is not None:
        reason = "another model was chosen"
    elif state.chosen:
        reason = "the models were changed by a command, or may have been by an earlier version"
    elif state.first is None:
        reason = "an earlier version did not record which model was the first"
    elif state.first != instead_of:
        reason = f"{state.first} was the first model"
    elif others := {*state.current, state.candidate} - {None, instead_of, automatic}:
        reason = f"{min(map(str, others))} is loaded without answering searches"
    return Objection(AdoptionStep.SUPERSEDED, reason) if reason else None
