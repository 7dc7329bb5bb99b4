"""The state of the system, and its open dead letters."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Final

from fastapi import APIRouter, Query
from pydantic import BaseModel, Field

from gateway.state.system_state import SystemState
from models.adoption_status import AdoptionStatus

MOST_LETTERS: Final = 1000
"""Maximum number of letters in one answer."""


class ModelChangeBody(BaseModel):
    """The change of the local stack to a better model, which it makes by itself."""

    model: Annotated[str, Field(description="The model that answers searches after the change.")]
    step: Annotated[
        str,
        Field(
            description="`downloading`, `installing`, `loading`, `filling`, `checking`, `done` or "
            "`failed`."
        ),
    ]
    text: Annotated[str, Field(description="The state of the change, as a sentence.")]
    done: Annotated[
        int | None,
        Field(description="What is done of `total`, in bytes or pictures; null if not measured."),
    ]
    total: int | None
    problem: Annotated[str, Field(description="Why the last attempt failed; empty if none did.")]
    decline: Annotated[
        str | None, Field(description="How to decline the change; null if it is too late.")
    ]


class StateBody(BaseModel):
    """The state of the system."""

    model_name: str
    model_version: str
    collection: str
    images: Annotated[int, Field(description="Pictures in the collection that answers searches.")]
    waiting: Annotated[
        int | None,
        Field(description="Changes that are not indexed yet (an upper bound); null if not known."),
    ]
    failed: Annotated[int, Field(description="Pictures with an open dead letter.")]
    skipped: Annotated[
        int,
        Field(
            description="Files and folders that the watcher skipped; `./image-search index "
            "skipped` lists them. Absent if not known."
        ),
    ] = 0
    skipped_reasons: Annotated[
        dict[str, int], Field(description="`skipped` by reason. Absent if not known.")
    ] = {}
    model_change: Annotated[
        ModelChangeBody | None,
        Field(description="The change to a better model. Absent if there is none."),
    ] = None
    uploads: Annotated[bool, Field(description="Whether pictures may be added over HTTP.")]
    max_upload_bytes: int


class DeadLetterBody(BaseModel):
    """A picture that could not be indexed, and why."""

    letter: Annotated[str, Field(description="Name of the letter in `./image-search dlq`.")]
    image_name: str
    error_class: str
    reason: str
    attempts: int
    occurred_at: datetime


class DeadLettersResponse(BaseModel):
    """Open dead letters, newest first; for each picture only its newest one."""

    total: int
    letters: list[DeadLetterBody]


def router(state: SystemState, *, uploads: bool, max_upload_bytes: int) -> APIRouter:
    """The routes; `uploads` says whether images may be added over HTTP."""
    routes = APIRouter(tags=["health"])

    @routes.get(
        "/api/v1/state",
        summary="Pictures indexed, waiting and failed",
        response_model_exclude_unset=True,
    )
    async def system_state() -> StateBody:
        now = await state.snapshot()
        body = StateBody(
            model_name=now.collection.model_name,
            model_version=now.collection.model_version,
            collection=now.collection.name,
            images=now.images,
            waiting=now.waiting,
            failed=now.failed,
            uploads=uploads,
            max_upload_bytes=max_upload_bytes,
        )
        # Fields that are not set are absent from the answer.
        if now.skipped is not None:
            body.skipped, body.skipped_reasons = sum(now.skipped.values()), dict(now.skipped)
        if now.adoption is not None:
            body.model_change = _model_change(now.adoption)
        return body

    @routes.get("/api/v1/dead-letters", summary="Pictures that could not be indexed, and why")
    async def dead_letters(
        limit: Annotated[
            int, Query(ge=1, le=MOST_LETTERS, description="Maximum number of letters.")
        ] = 100,
        skip: Annotated[
            int, Query(ge=0, le=10**9, description="Number of the newest letters to skip.")
        ] = 0,
    ) -> DeadLettersResponse:
        page = await state.letters(limit, skip)
        return DeadLettersResponse(
            total=page.total,
            letters=[
                DeadLetterBody(
                    letter=letter.name,
                    image_name=letter.image_id,
                    error_class=reason.error_class,
                    reason=reason.text,
                    attempts=reason.attempts,
                    occurred_at=letter.occurred_at,
                )
                for letter, reason in page.letters
            ],
        )

    return routes


def _model_change(status: AdoptionStatus) -> ModelChangeBody:
    done, total = status.progress or (None, None)
    return ModelChangeBody(
        model=status.model,
        step=status.step,
        text=status.sentence(),
        done=done,
        total=total,
        problem=status.problem,
        decline=status.decline,
    )
