"""Every error as a problem document (RFC 9457, `application/problem+json`)."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from http import HTTPStatus
from typing import Any, Final

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse, Response
from starlette.exceptions import HTTPException

from adapters.errors import Rejected, Unavailable
from analytics.views import EmptyLake
from gateway.errors import (
    Denied,
    ImageNotFound,
    ImageTooLarge,
    InvalidField,
    InvalidReceipt,
    NameTaken,
    NotAllowed,
    NotIndexedYet,
    NotReady,
    StorageFull,
    TooManyWaiting,
)
from gateway.http.methods import allowed

logger = logging.getLogger(__name__)
MEDIA_TYPE = "application/problem+json"
DOCUMENT: dict[str, Any] = {
    "description": "A problem document (RFC 9457)",
    "content": {MEDIA_TYPE: {"schema": {"type": "object", "required": ["title", "status"]}}},
}
"""An error in the OpenAPI document."""
RETRY: Final = {"Retry-After": "2"}
"""Header of an error that may soon be over: seconds until the client should retry."""

BEARER: Final = 'Bearer realm="image search"'
BASIC: Final = 'Basic realm="image search", charset="UTF-8"'
"""Challenges of a 401 (RFC 9110, section 11.6.1): for every credential, and for API keys."""


class Problem(Exception):
    """An error with its HTTP status and, if fields of the request caused it, these fields."""

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


def _clause(reason: object) -> str:
    """The reason without a full stop, to be part of a sentence."""
    return str(reason).removesuffix(".")


def _unavailable(error: Unavailable) -> Problem:
    detail = f"A server is not available: {_clause(error)}."
    return Problem(HTTPStatus.SERVICE_UNAVAILABLE, detail, headers=RETRY)


def _rejected(error: Rejected) -> Problem:
    detail = f"The request cannot be accepted: {_clause(error)}."
    return Problem(HTTPStatus.UNPROCESSABLE_ENTITY, detail)


def _retry_later(error: TooManyWaiting) -> Problem:
    return Problem(HTTPStatus.SERVICE_UNAVAILABLE, str(error), headers=RETRY)


def _empty_lake(error: EmptyLake) -> Problem:
    return Problem(HTTPStatus.SERVICE_UNAVAILABLE, str(error), empty_lake=True, headers=RETRY)


def _not_ready(error: NotReady) -> Problem:
    return Problem(HTTPStatus.SERVICE_UNAVAILABLE, str(error), missing=error.missing, headers=RETRY)


def _with_status(status: HTTPStatus) -> Callable[[Exception], Problem]:
    return lambda error: Problem(status, str(error))


def _invalid_field(error: InvalidField) -> Problem:
    message = str(error)
    return Problem(
        HTTPStatus.UNPROCESSABLE_ENTITY,
        f"The request is not valid ({error.field}: {message}).",
        errors=[{"field": error.field, "message": message}],
    )


def _denied(error: Denied) -> Problem:
    headers = {"WWW-Authenticate": BEARER}
    return Problem(HTTPStatus.UNAUTHORIZED, str(error), headers=headers)


def _invalid_receipt(error: InvalidReceipt) -> Problem:
    return Problem(
        HTTPStatus.UNAUTHORIZED,
        str(error),
        errors=[{"field": "jwt", "message": str(error)}],
        headers={"WWW-Authenticate": 'Bearer error="invalid_token"'},
    )


def _not_indexed_yet(error: NotIndexedYet) -> Problem:
    return Problem(
        HTTPStatus.CONFLICT,
        str(error),
        errors=[{"field": "wait_for", "message": "not searchable yet"}],
        headers=RETRY,
        waiting_for={"image_name": error.image_id, "sha256": error.sha256},
    )


def _name_taken(error: NameTaken) -> Problem:
    return Problem(
        HTTPStatus.CONFLICT,
        f"{error} Send another name ({error.free_name} is free), or overwrite=true.",
        errors=[{"field": "name", "message": str(error)}],
        free_name=error.free_name,
    )


TABLE: Final[Mapping[type[Exception], Callable[[Any], Problem]]] = {
    Unavailable: _unavailable,
    EmptyLake: _empty_lake,
    Rejected: _rejected,
    InvalidField: _invalid_field,
    Denied: _denied,
    InvalidReceipt: _invalid_receipt,
    NotAllowed: _with_status(HTTPStatus.FORBIDDEN),
    ImageNotFound: _with_status(HTTPStatus.NOT_FOUND),
    ImageTooLarge: _with_status(HTTPStatus.REQUEST_ENTITY_TOO_LARGE),
    NameTaken: _name_taken,
    NotIndexedYet: _not_indexed_yet,
    TooManyWaiting: _retry_later,
    StorageFull: _with_status(HTTPStatus.INSUFFICIENT_STORAGE),
    NotReady: _not_ready,
}
"""Error of a service or an adapter -> its problem document. A subclass without an entry of its own
is answered as its nearest base class."""


def problem_of(error: Exception) -> Problem:
    """The problem to which `TABLE` maps an error.

    Raises:
        StopIteration: neither its class nor a base class is in the table.
    """
    return TABLE[next(each for each in type(error).__mro__ if each in TABLE)](error)


def install(app: FastAPI) -> None:
    """Answer every error with a problem document."""

    async def known(_: Request, error: Exception) -> Response:
        if isinstance(error, Unavailable):
            logger.warning("unavailable: %s", error)
        return response(problem_of(error))

    for kind in TABLE:
        app.add_exception_handler(kind, known)

    @app.exception_handler(Problem)
    async def _problem(_: Request, error: Problem) -> Response:
        return response(error)

    @app.exception_handler(RequestValidationError)
    async def _invalid(_: Request, error: RequestValidationError) -> Response:
        return response(_validation_problem(error))

    @app.exception_handler(HTTPException)
    async def _http(request: Request, error: HTTPException) -> Response:
        status, headers = HTTPStatus(error.status_code), dict(error.headers or {})
        if status is HTTPStatus.METHOD_NOT_ALLOWED:
            # The router names only the methods of the first route that has the path.
            headers["Allow"] = ", ".join(allowed(app.routes, request.scope))
        return response(Problem(status, f"{_clause(error.detail)}.", headers=headers))

    @app.exception_handler(Exception)
    async def _bug(request: Request, error: Exception) -> Response:
        logger.error("%s %s failed", request.method, request.url.path, exc_info=error)
        return response(
            Problem(
                HTTPStatus.INTERNAL_SERVER_ERROR,
                "The request failed; the gateway's log has the reason.",
            )
        )


def _validation_problem(error: RequestValidationError) -> Problem:
    problems = [
        {
            "field": _field(each),
            "message": _message(each),
        }
        for each in error.errors()
    ]
    malformed = any(each["type"] == "json_invalid" for each in error.errors())
    detail = "; ".join(f"{each['field']}: {each['message']}" for each in problems)
    if malformed:
        return Problem(HTTPStatus.BAD_REQUEST, f"The body is not valid JSON ({detail}).")
    return Problem(
        HTTPStatus.UNPROCESSABLE_ENTITY, f"The request is not valid ({detail}).", errors=problems
    )


def _field(error: dict[str, Any]) -> str:
    if error["type"] == "one_query":
        # Old clients know only this field, so it stands for the whole query.
        return "text"
    return ".".join(str(part) for part in error["loc"][1:]) or str(error["loc"][0])


def _message(error: dict[str, Any]) -> str:
    message = str(error["msg"]).removeprefix("Value error, ")
    # A message may quote the input, lone surrogates included, which UTF-8 cannot hold.
    return message.encode("utf-8", "replace").decode()
