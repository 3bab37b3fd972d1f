"""What requests for the label of a text look like, for checking them and for the OpenAPI document."""

import unicodedata
from typing import Annotated, Any

from pydantic import AfterValidator, BaseModel, ConfigDict, FailFast, Field

from components.tasks.answering import RequestForm, RequestLimits
from components.tasks.predict_form import Predictions, VersionedPrediction

_QUESTION: dict[str, Any] = {"text": "the company said its net profit rose in the first quarter"}


def text_form(limits: RequestLimits) -> RequestForm:
    """The models, with the bounds in their schemas."""
    strict = ConfigDict(strict=True, extra="forbid")

    class TextRequest(BaseModel):
        """A text."""

        model_config = ConfigDict(**strict, json_schema_extra={"examples": [_QUESTION]})
        text: Annotated[str, AfterValidator(_readable)] = Field(
            min_length=1,
            max_length=limits.characters,
            description="In a language that the model was trained on. Of a long one, the first tokens are read.",
        )

    class TextBatchRequest(BaseModel):
        """Several texts that one version answers."""

        model_config = ConfigDict(**strict, json_schema_extra={"examples": [{"requests": [_QUESTION]}]})
        requests: Annotated[list[TextRequest], FailFast()] = Field(min_length=1, max_length=limits.batch)

    return RequestForm(TextRequest, TextBatchRequest, VersionedPrediction, Predictions)


def _readable(text: str) -> str:
    if all(unicodedata.category(character)[0] in "CZ" for character in text):
        raise ValueError("the text holds nothing but white space and control characters")
    return text
