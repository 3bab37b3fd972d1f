"""What requests for a label and their answers look like, for checking them and for the OpenAPI document."""

from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, FailFast, Field

from components.tasks.answering import RequestForm, RequestLimits

_QUESTION: dict[str, Any] = {"values": [0.1, -1.2, 3.0]}
_VERSION = "binary@v3"


class Predicted(BaseModel):
    """One label."""

    label: str = Field(description="As the source wrote it.")
    probability: float = Field(description="From 0 to 1; those of all labels add up to 1.")


class Prediction(BaseModel):
    """The answer to one question."""

    labels: list[Predicted] = Field(description="Likeliest first.")


class VersionedPrediction(Prediction):
    """The answer to ``POST /predict``."""

    version: str = Field(description="The version that answered.")


class Predictions(BaseModel):
    """The answer to ``POST /predict/batch``."""

    answers: list[Prediction] = Field(description="One for each question, in their order.")
    version: str = Field(description="The version that answered all of them.")


def predict_form(limits: RequestLimits) -> RequestForm:
    """The models, with the bounds in their schemas."""
    Value = Annotated[float, Field(allow_inf_nan=False, ge=-3e38, le=3e38)]  # noqa: N806
    strict = ConfigDict(strict=True, extra="forbid")

    class PredictRequest(BaseModel):
        """The values of a sample."""

        model_config = ConfigDict(**strict, json_schema_extra={"examples": [_QUESTION]})
        values: Annotated[list[Value], Field(min_length=1, max_length=limits.values), FailFast()] = Field(
            description="As many as the model reads, in its order: `signature.json` names them."
        )

    class PredictBatchRequest(BaseModel):
        """Several samples that one version answers."""

        model_config = ConfigDict(**strict, json_schema_extra={"examples": [{"requests": [_QUESTION]}]})
        requests: Annotated[list[PredictRequest], FailFast()] = Field(min_length=1, max_length=limits.batch)

    return RequestForm(PredictRequest, PredictBatchRequest, VersionedPrediction, Predictions)
