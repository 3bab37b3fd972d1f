"""What requests for the chance of a yes and their answers look like, for checking them and for the OpenAPI document."""

from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, FailFast, Field

from components.tasks.answering import RequestForm, RequestLimits

_ROW: dict[str, Any] = {"item": "50", "history": ["181", {"item": "174", "label": 0}]}
_VERSION = "behaviour@v3"


class Told(BaseModel):
    """The answer to one row."""

    probability: float = Field(description="That something comes of it, from 0 to 1.")
    unknown: list[str] = Field(description="What the model has not met: `feature=value`, each once.")
    history_used: int = Field(description="Events of the history that the model read: the newest ones.")


class VersionedTold(Told):
    """The answer to ``POST /predict``."""

    version: str = Field(description="The version that answered.")


class ToldBatch(BaseModel):
    """The answer to ``POST /predict/batch``."""

    answers: list[Told] = Field(description="One for each row, in their order.")
    version: str = Field(description="The version that answered all of them.")


def tell_form(limits: RequestLimits) -> RequestForm:
    """The models, with the bounds in their schemas."""
    Id = Annotated[str, Field(min_length=1, max_length=limits.id_length)]  # noqa: N806
    Text = Annotated[str, Field(max_length=limits.id_length)]  # noqa: N806
    Number = Annotated[float, Field(allow_inf_nan=False, ge=-3e38, le=3e38)]  # noqa: N806
    Whole = Annotated[int, Field(ge=-(2**53), le=2**53)]  # noqa: N806
    Values = Annotated[list[Text], Field(max_length=limits.history)]  # noqa: N806
    strict = ConfigDict(strict=True, extra="forbid")

    class Event(BaseModel):
        """One event of a history."""

        model_config = strict
        item: Id = Field(description="What it was.")
        label: Annotated[int, Field(ge=0, le=1)] = Field(default=1, description="1: something came of it; 0: nothing.")

    class PredictRowRequest(BaseModel):
        """A row: an item, who is asked about, and every feature by its name; what is left out counts as missing."""

        model_config = ConfigDict(strict=True, extra="allow", json_schema_extra={"examples": [_ROW]})
        __pydantic_extra__: dict[str, bool | Whole | Number | Text | Values | None]
        item: Id = Field(description="What is shown.")
        user: Id | None = Field(default=None, description="Who it is shown to.")
        history: Annotated[list[Id | Event], Field(max_length=limits.history), FailFast()] = Field(
            default=[], description="What came before, oldest first; an id alone is an event that something came of."
        )

    class PredictRowBatchRequest(BaseModel):
        """Several rows that one version answers."""

        model_config = ConfigDict(**strict, json_schema_extra={"examples": [{"requests": [_ROW]}]})
        requests: Annotated[list[PredictRowRequest], FailFast()] = Field(min_length=1, max_length=limits.batch)

    return RequestForm(PredictRowRequest, PredictRowBatchRequest, VersionedTold, ToldBatch)
