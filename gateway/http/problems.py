"""Every error as a problem document (RFC 9457, `application/problem+json`)."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from http import HTTPStatus
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse, Response
from starlette.exceptions import HTTPException

from adapters.errors import Rejected, Unavailable
from gateway.search.query import BadTerm

logger = logging.getLogger(__name__)
MEDIA_TYPE = "application/problem+json"
DOCUMENT: dict[str, Any] = {
    "description": "A problem document (RFC 9457)",
    "content": {MEDIA_TYPE: {"schema": {"type": "object", "required": ["title", "status"]}}},
}
"""An error in the OpenAPI document."""


class Problem(Exception):
    """An error with its HTTP status and, where one is to blame, the fields."""

    def __init__(
        self,
        status: HTTPStatus,
        detail: str,
        *,
        errors: Sequence[dict[str, Any]] = (),
        headers: dict[str, str] | None = None,
        **members: Any,
    ) -> None:
        super().__init__(detail)
        self.status = status
        self.detail = detail
        self.errors = list(errors)
        self.headers = headers or {}
        self.members = members


def response(problem: Problem) -> JSONResponse:
    """The problem document."""
    body: dict[str, Any] = {
        "type": "about:blank",
        "title": problem.status.phrase,
        "status": int(problem.status),
        "detail": problem.detail,
        **problem.members,
    }
    if problem.errors:
        body["errors"] = problem.errors
    return JSONResponse(
        body, status_code=problem.status, media_type=MEDIA_TYPE, headers=problem.headers
    )


def install(app: FastAPI) -> None:
    """Answer every error with a problem document."""

    @app.exception_handler(Problem)
    async def _problem(_: Request, error: Problem) -> Response:
        return response(error)

    @app.exception_handler(RequestValidationError)
    async def _invalid(_: Request, error: RequestValidationError) -> Response:
        return response(_validation_problem(error))

    @app.exception_handler(HTTPException)
    async def _http(_: Request, error: HTTPException) -> Response:
        status = HTTPStatus(error.status_code)
        return response(Problem(status, str(error.detail), headers=dict(error.headers or {})))

    @app.exception_handler(Unavailable)
    async def _unavailable(_: Request, error: Unavailable) -> Response:
        logger.warning("unavailable: %s", error)
        return response(
            Problem(HTTPStatus.SERVICE_UNAVAILABLE, f"{error}", headers={"Retry-After": "2"})
        )

    @app.exception_handler(BadTerm)
    async def _bad_term(_: Request, error: BadTerm) -> Response:
        errors = [{"field": error.field, "message": str(error)}]
        detail = f"{error.field}: {error}"
        return response(Problem(HTTPStatus.UNPROCESSABLE_ENTITY, detail, errors=errors))

    @app.exception_handler(Rejected)
    async def _rejected(_: Request, error: Rejected) -> Response:
        return response(Problem(HTTPStatus.UNPROCESSABLE_ENTITY, str(error)))

    @app.exception_handler(Exception)
    async def _bug(request: Request, error: Exception) -> Response:
        logger.error("%s %s failed", request.method, request.url.path, exc_info=error)
        return response(
            Problem(HTTPStatus.INTERNAL_SERVER_ERROR, "The request failed; the log says why.")
        )


def _validation_problem(error: RequestValidationError) -> Problem:
    problems = [
        {
            "field": _field(each),
            "message": _plain(each),
        }
        for each in error.errors()
    ]
    malformed = any(each["type"] == "json_invalid" for each in error.errors())
    detail = "; ".join(f"{each['field']}: {each['message']}" for each in problems)
    if malformed:
        return Problem(HTTPStatus.BAD_REQUEST, f"The body is not valid JSON: {detail}")
    return Problem(HTTPStatus.UNPROCESSABLE_ENTITY, detail, errors=problems)


def _field(error: dict[str, Any]) -> str:
    if error["type"] == "one_query":
        # The oldest field stands for the query, for clients that know only it.
        return "text"
    return ".".join(str(part) for part in error["loc"][1:]) or str(error["loc"][0])


def _plain(error: dict[str, Any]) -> str:
    message = str(error["msg"]).removeprefix("Value error, ")
    # A message may quote the input, lone surrogates included, which UTF-8 cannot hold.
    return message.encode("utf-8", "replace").decode()
