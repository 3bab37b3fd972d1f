"""Requests checked against the form of the task that is served, and what the OpenAPI document says of them."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, Field, TypeAdapter, ValidationError

from components.serving.limits import Limits, RefusedRequestError
from components.tasks.answering import Answering

_LONGEST_PLACE = 60


class Problem(BaseModel):
    """Why a request was not answered."""

    error: str = Field(description="A word for programs.")
    reason: str = Field(description="A sentence for people.")


class RequestReader:
    """Checks bodies against the schema of the requests.

    Args:
        limits: Bounds on lengths and numbers; they are part of the schema.
        answering: Whose requests.

    Attributes:
        form: What requests and answers look like.
        schemas: JSON schema of each kind of body, by its name: one question, then a batch.
    """

    def __init__(self, limits: Limits, answering: type[Answering]) -> None:
        self._answering = answering
        self.form = answering.form(limits)
        self._one: TypeAdapter[Any] = TypeAdapter(self.form.request)
        self._batch: TypeAdapter[Any] = TypeAdapter(self.form.batch)
        place = "#/components/schemas/{model}"
        batch = self.form.batch.model_json_schema(ref_template=place)
        inner = batch.pop("$defs")
        self.schemas: dict[str, dict[str, Any]] = {
            self.form.request.__name__: self.form.request.model_json_schema(ref_template=place),
            self.form.batch.__name__: batch,
        }
        self.schemas = {**inner, **self.schemas}

    def question(self, body: bytes) -> Any:
        """The question that a body asks.

        Raises:
            RefusedRequestError: It is no JSON, or not of the schema.
        """
        return self._answering.question(_checked(self._one, body))

    def questions(self, body: bytes) -> list[Any]:
        """The questions of a batch.

        Raises:
            RefusedRequestError: It is no JSON, or not of the schema.
        """
        return [self._answering.question(request) for request in _checked(self._batch, body).requests]


def _checked(adapter: TypeAdapter[Any], body: bytes) -> Any:
    try:
        # NaN and Infinity find no number that may be one of them; nesting ends where the parser's limit of 200 is.
        return adapter.validate_json(body)
    except ValidationError as error:
        problems = error.errors(include_url=False, include_context=False, include_input=False)
    first = problems[0]
    if first["type"] == "json_invalid":
        raise RefusedRequestError(400, "invalid_json", f"the body is not JSON: {first['msg']}")
    raise RefusedRequestError(422, "invalid_request", "; ".join(_told(problem) for problem in problems[:3]))


def _told(problem: Any) -> str:
    place = ".".join(str(part) for part in problem["loc"]) or "the body"
    shown = place if len(place) <= _LONGEST_PLACE else place[:_LONGEST_PLACE] + "..."
    return f"{shown}: {problem['msg']}"
