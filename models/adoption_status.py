"""How far the automatic change to a better model is: a file that the launcher's process writes.

`status`, the launcher and the gateway read it. Whoever declines the change creates another file
beside it, which no process overwrites.
"""

from __future__ import annotations

import os
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from pathlib import Path
from typing import Any, Final

from pydantic import BaseModel, ConfigDict, Field, ValidationError

DECLINE: Final = "./image-search models decline"
"""The command with which a user declines the change."""


class AdoptionStep(StrEnum):
    """The steps of the change, in their order, and its ends."""

    DOWNLOADING = "downloading"
    INSTALLING = "installing"
    LOADING = "loading"
    FILLING = "filling"
    CHECKING = "checking"
    DONE = "done"
    DECLINED = "declined"
    SUPERSEDED = "superseded"
    """The models were changed by a command, or the change was rolled back."""
    FAILED = "failed"
    """The model cannot be used; the next start tries again."""


ENDS: Final = frozenset(
    {AdoptionStep.DONE, AdoptionStep.DECLINED, AdoptionStep.SUPERSEDED, AdoptionStep.FAILED}
)

NEWS: Final = timedelta(minutes=10)
"""For this long, a change that was made is shown."""
FIRST_WAIT_SECONDS: Final = 10.0
LONGEST_WAIT_SECONDS: Final = 3600.0


def _now() -> datetime:
    return datetime.now(UTC)


class AdoptionStatus(BaseModel):
    """The state of the change at one moment."""

    model_config = ConfigDict(frozen=True)

    model: str
    instead_of: str
    """The model that answers searches until the change is made."""
    step: AdoptionStep
    bytes_done: int = 0
    bytes_total: int = 0
    """Bytes of the download; 0 if not known."""
    bytes_best: int = 0
    """The most bytes that any attempt had; a damaged file is deleted, and counts no second time."""
    bytes_verified: int = 0
    """The most bytes, in complete files, that agreed with their checksums in any attempt."""
    images_done: int = 0
    images_total: int = 0
    """Pictures in the model's collection, and in the one that answers searches."""
    problem: str = ""
    """Why the last attempt failed; empty if none did, or a later one got further."""
    failures: int = 0
    """Attempts in a row that failed, since one got further than all before it."""
    retry_at: datetime | None = None
    reason: str = ""
    """Why the change has ended, if a user ended it."""
    loaded: bool = False
    """Whether the model stayed loaded when the change ended without it."""
    updated_at: datetime = Field(default_factory=_now)

    @property
    def ended(self) -> bool:
        """Whether nothing more is done, in this run of the stack at least."""
        return self.step in ENDS

    @property
    def resumable(self) -> bool:
        """Whether the next start goes on with it."""
        return not self.ended or self.step is AdoptionStep.FAILED

    def failed(self, problem: str) -> AdoptionStatus:
        """This status after one more attempt that failed, with the time of the next one."""
        failures, now = self.failures + 1, _now()
        wait = min(LONGEST_WAIT_SECONDS, FIRST_WAIT_SECONDS * 2 ** min(failures - 1, 20))
        changes = {
            "problem": problem,
            "failures": failures,
            "retry_at": now + timedelta(seconds=wait),
            "updated_at": now,
        }
        return self.model_copy(update=changes)

    def ended_by(self, step: AdoptionStep, reason: str = "", *, loaded: bool) -> AdoptionStatus:
        """This status after the change has ended; `loaded` says whether the model is current."""
        changes = {
            "step": step,
            "problem": "",
            "retry_at": None,
            "reason": reason,
            "loaded": loaded and step is not AdoptionStep.DONE,
            "updated_at": _now(),
        }
        return self.model_copy(update=changes)

    def is_news_for(self, active: str) -> bool:
        """Whether a user should be told while this model answers searches: one who has chosen
        another model is not told that this one has failed."""
        return self.is_news and (self.step is not AdoptionStep.FAILED or active == self.instead_of)

    @property
    def is_news(self) -> bool:
        """Whether a user should be told: it is in progress, has failed or has just been made."""
        if self.step is AdoptionStep.DONE:
            return _now() - self.updated_at < NEWS
        return self.resumable

    @property
    def progress(self) -> tuple[int, int] | None:
        """What is done of how much, in bytes or pictures; None if the step has no such measure."""
        if self.step is AdoptionStep.DOWNLOADING and self.bytes_total:
            return min(self.bytes_done, self.bytes_total), self.bytes_total
        if self.step is AdoptionStep.FILLING and self.images_total:
            return min(self.images_done, self.images_total), self.images_total
        return None

    @property
    def decline(self) -> str | None:
        """How to decline the change; None if it has ended."""
        if self.ended:
            return None
        return f"{DECLINE}, or MODEL_NAME={self.instead_of} at the next start"

    def as_json(self) -> dict[str, Any]:
        """All fields, the sentence, and how to decline, as JSON."""
        more = {"text": self.sentence(), "decline": self.decline}
        return {**self.model_dump(mode="json"), **more}

    def sentence(self) -> str:
        """The state as one sentence."""
        name, old = self.model, self.instead_of
        match self.step:
            case AdoptionStep.DOWNLOADING if not self.bytes_total:
                said = f"{name} is going to be downloaded"
            case AdoptionStep.DOWNLOADING:
                done, total = self.bytes_done / 1e6, self.bytes_total / 1e6
                said = f"{name} is being downloaded: {done:.0f} of {total:.0f} MB"
            case AdoptionStep.INSTALLING:
                said = f"{name} is downloaded, and is being converted for Triton"
            case AdoptionStep.LOADING:
                said = f"{name} is being loaded"
            case AdoptionStep.FILLING:
                said = (
                    f"{name} is loaded, and its collection is being filled: "
                    f"{self.images_done} of {self.images_total} pictures"
                )
            case AdoptionStep.CHECKING:
                said = f"{name} is filled, and its collection is being compared with the log"
            case AdoptionStep.DONE:
                return f"{name} answers searches now; to go back: ./image-search models rollback"
            case AdoptionStep.DECLINED:
                return (
                    f"{name} was declined, {old} stays; to use it later: ./image-search models "
                    f"pull {name}, then ./image-search models switch {name}{self._still_loaded()}"
                )
            case AdoptionStep.SUPERSEDED:
                reason = self.reason or "another model was chosen"
                return f"there is no automatic change to {name}: {reason}{self._still_loaded()}"
            case AdoptionStep.FAILED:
                return f"{name} cannot be used, {old} stays: {self.problem}"
        if not self.problem:
            return f"{said}; {old} answers searches meanwhile"
        again = f"; next attempt at {self.retry_at.astimezone():%H:%M:%S}" if self.retry_at else ""
        return f"{said}; {old} stays for now, because this failed: {self.problem}{again}"

    def _still_loaded(self) -> str:
        return still_loaded(self.model) if self.loaded else ""


def still_loaded(name: str) -> str:
    """A clause on a model that is loaded but answers no searches."""
    return f"; {name} is still loaded; to free its memory: ./image-search models retire {name}"


class AdoptionFile:
    """The status file, and the file of a user who declined beside it."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._declined = path.with_suffix(".declined")

    def read(self) -> AdoptionStatus | None:
        """The last status; None if there is none, or it is unreadable."""
        try:
            return AdoptionStatus.model_validate_json(self._path.read_bytes())
        except (OSError, ValidationError):
            return None

    def write(self, status: AdoptionStatus) -> None:
        """Replace the status atomically.

        Raises:
            OSError: it cannot be written.
        """
        self._path.parent.mkdir(parents=True, exist_ok=True)
        part = self._path.with_name(f"{self._path.name}.{os.getpid()}.part")
        try:
            part.write_text(status.model_dump_json(indent=1), encoding="utf-8")
            part.replace(self._path)
        finally:
            part.unlink(missing_ok=True)

    def clear(self) -> None:
        """Delete the status, of a change that is not made any more.

        Raises:
            OSError: it cannot be deleted.
        """
        self._path.unlink(missing_ok=True)

    @property
    def declined(self) -> bool:
        """Whether a user has declined, in this state folder."""
        return self._declined.exists()

    def decline(self) -> None:
        """Decline, for this state folder and for ever.

        Raises:
            OSError: it cannot be recorded.
        """
        self._declined.parent.mkdir(parents=True, exist_ok=True)
        self._declined.touch()

    def undo_decline(self) -> None:
        """Forget that a user declined, as the change had been made already.

        Raises:
            OSError: it cannot be recorded.
        """
        self._declined.unlink(missing_ok=True)
