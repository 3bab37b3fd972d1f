"""What requests for recommendations and their answers look like, for checking them and for the OpenAPI document."""

from typing import Annotated, Any

from pydantic import BaseModel, BeforeValidator, ConfigDict, FailFast, Field

from components.tasks.answering import RequestForm, RequestLimits

_QUESTION: dict[str, Any] = {"history": ["50", "181", "174"], "k": 5, "exclude": ["1"], "exclude_seen": True}
_ANSWER: dict[str, Any] = {
    "recommendations": [{"item": "172", "title": "Empire Strikes Back, The (1980)", "score": 7.25}],
    "unknown": [],
    "popular": False,
}
_VERSION = "movielens@v3"


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


def recommend_form(limits: RequestLimits) -> RequestForm:
    """The models, with the bounds in their schemas."""
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

    return RequestForm(RecommendRequest, BatchRequest, VersionedAnswer, Answers)
