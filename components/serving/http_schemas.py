"""What requests and answers look like, for checking them and for the OpenAPI document."""

from typing import Annotated, Any

from pydantic import BaseModel, BeforeValidator, ConfigDict, FailFast, Field, TypeAdapter, ValidationError

from components.serving.limits import Limits, RefusedRequestError
from components.serving.predictor import Question

_QUESTION: dict[str, Any] = {"history": ["50", "181", "174"], "k": 5, "exclude": ["1"], "exclude_seen": True}
_ANSWER: dict[str, Any] = {
    "recommendations": [{"item": "172", "title": "Empire Strikes Back, The (1980)", "score": 7.25}],
    "unknown": [],
    "popular": False,
}
_VERSION = "movielens@v3"
_LONGEST_PLACE = 60


def _whole(value: Any) -> Any:
    """5.0 is an integer to JSON Schema, and so it is here."""
    return int(value) if isinstance(value, float) and value.is_integer() else value


_Whole = Annotated[int, BeforeValidator(_whole)]


class Recommended(BaseModel):
    """One recommended item."""

    item: str = Field(description="The source's id.")
    title: str | None = Field(description="Its title, where the source has one.")
    score: float = Field(description="The model's score; of a popular item, its training events.")


class Answer(BaseModel):
    """The answer to one question."""

    recommendations: list[Recommended] = Field(description="Best first; fewer than k when there are no more.")
    unknown: list[str] = Field(description="Ids of the history that the model does not know, and that were ignored.")
    popular: bool = Field(description="No item of the history was known: these are the most popular ones.")


class VersionedAnswer(Answer):
    """The answer to ``POST /recommend``."""

    model_config = ConfigDict(json_schema_extra={"examples": [{**_ANSWER, "version": _VERSION}]})
    version: str = Field(description="The version that answered.")


class Answers(BaseModel):
    """The answer to ``POST /recommend/batch``."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"answers": [_ANSWER], "version": _VERSION}]})
    answers: list[Answer] = Field(description="One for each question, in their order.")
    version: str = Field(description="The version that answered all of them.")


class Problem(BaseModel):
    """Why a request was not answered."""

    error: str = Field(description="A word for programs.")
    reason: str = Field(description="A sentence for people.")


class RequestReader:
    """Checks bodies against the schema of the requests.

    Args:
        limits: Bounds on lengths and numbers; they are part of the schema.

    Attributes:
        schemas: JSON schema of each kind of body, by its name.
    """

    def __init__(self, limits: Limits) -> None:
        Id = Annotated[str, Field(max_length=limits.id_length)]  # noqa: N806
        Ids = Annotated[list[Id], Field(max_length=limits.history), FailFast()]  # noqa: N806
        strict = ConfigDict(strict=True, extra="forbid")

        class RecommendRequest(BaseModel):
            """A history, and what is wanted for it."""

            model_config = ConfigDict(**strict, json_schema_extra={"examples": [_QUESTION]})
            history: Ids = Field(
                default=[],
                description="Item ids as the source wrote them, oldest first. Unknown ones are ignored; with no known "
                "one the most popular items are the answer.",
            )
            k: _Whole = Field(default=10, ge=1, le=limits.k, description="How many items.")
            exclude: Ids = Field(default=[], description="Ids that must not be recommended.")
            exclude_seen: bool = Field(default=True, description="Leave out the items of the history.")

        class BatchRequest(BaseModel):
            """Several questions that one version answers."""

            model_config = ConfigDict(**strict, json_schema_extra={"examples": [{"requests": [_QUESTION]}]})
            requests: Annotated[list[RecommendRequest], FailFast()] = Field(min_length=1, max_length=limits.batch)

        self._one: TypeAdapter[Any] = TypeAdapter(RecommendRequest)
        self._batch: TypeAdapter[Any] = TypeAdapter(BatchRequest)
        place = "#/components/schemas/{model}"
        batch = BatchRequest.model_json_schema(ref_template=place)
        batch.pop("$defs")
        self.schemas: dict[str, dict[str, Any]] = {
            "RecommendRequest": RecommendRequest.model_json_schema(ref_template=place),
            "BatchRequest": batch,
        }

    def question(self, body: bytes) -> Question:
        """The question that a body asks.

        Raises:
            RefusedRequestError: It is no JSON, or not of the schema.
        """
        return _question(_checked(self._one, body))

    def questions(self, body: bytes) -> list[Question]:
        """The questions of a batch.

        Raises:
            RefusedRequestError: It is no JSON, or not of the schema.
        """
        return [_question(request) for request in _checked(self._batch, body).requests]


def _question(request: Any) -> Question:
    return Question(request.history, request.k, request.exclude, request.exclude_seen)


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
