"""The service's HTTP interface: thin, and every refusal with a reason."""

from __future__ import annotations

import hashlib
import hmac
import time
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from fastapi import FastAPI, Request, Response
from pydantic import BaseModel
from pydantic_core import to_json
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect

from components.errors import RecstillError
from components.serving.http_schemas import Answers, Problem, RequestReader, VersionedAnswer
from components.serving.limits import BodyReader, Limits, RefusedRequestError, busy
from components.serving.live_model import LiveModel
from components.serving.predictor import Recommendations

API_KEY_VARIABLE = "RECSTILL_API_KEY"
_JSON = "application/json"
_ABOUT = """\
Recommendations from the version that is live. Every answer says which version gave it; `/model` says what that
version is and where it comes from."""

Handler = Callable[[Request], Awaitable[Response]]


class Gate:
    """Lets a request in when it has the key and there is room, and measures it.

    Args:
        live: Whose metrics are written.
        limits: The bounds.
        api_key: None: anybody may ask.
    """

    def __init__(self, live: LiveModel, limits: Limits, api_key: str | None) -> None:
        self._metrics, self._limits = live.metrics, limits
        self._key = None if api_key is None else _digest(api_key)
        self._running = 0

    def check_key(self, request: Request) -> None:
        """Compare the key of a request, if one is needed, in a time that tells nothing of it.

        Raises:
            RefusedRequestError: It is missing or wrong.
        """
        if self._key is None:
            return
        scheme, _, token = request.headers.get("authorization", "").partition(" ")
        given = token.strip() if scheme.lower() == "bearer" else request.headers.get("x-api-key", "")
        if not hmac.compare_digest(_digest(given), self._key):
            reason = "this needs the API key: send `Authorization: Bearer KEY` or `X-API-Key: KEY`"
            raise RefusedRequestError(401, "unauthorized", reason, {"www-authenticate": "Bearer"})

    @contextmanager
    def answering(self, endpoint: str) -> Iterator[None]:
        """Around the work for one request.

        Raises:
            RefusedRequestError: Too many are being answered already.
        """
        if self._running >= self._limits.concurrency:
            raise busy(f"{self._running} requests are being answered")
        started = time.perf_counter()
        self._running += 1
        self._metrics.running.set(self._running)
        try:
            yield
        finally:
            self._running -= 1
            self._metrics.running.set(self._running)
            self._metrics.seconds.labels(endpoint).observe(time.perf_counter() - started)


def service_app(
    live: LiveModel, limits: Limits, *, api_key: str | None = None, healthy: Callable[[], bool] = lambda: True
) -> FastAPI:
    """The application.

    Args:
        live: What answers.
        limits: The bounds.
        api_key: Needed for everything but probes, metrics and the documentation; None: by nobody.
        healthy: Whether what works beside the requests (following the pointer) is alive.
    """
    app = FastAPI(title="Recstill", description=_ABOUT, version="1", docs_url=None, redoc_url=None)
    gate, bodies, reader = Gate(live, limits, api_key), BodyReader(limits), RequestReader(limits)

    async def recommend(request: Request) -> Response:
        """Items for one history, best first."""
        gate.check_key(request)
        question = reader.question(await bodies.read(request))
        with gate.answering("recommend"):
            version, answers = await live.answer([question], "recommend")
            _count(live, answers)
            return _response({**_record(answers[0]), "version": version})

    async def recommend_batch(request: Request) -> Response:
        """Items for several histories, all by one version."""
        gate.check_key(request)
        questions = reader.questions(await bodies.read(request))
        with gate.answering("batch"):
            version, answers = await live.answer(questions, "batch")
            _count(live, answers)
            return _response({"answers": [_record(answer) for answer in answers], "version": version})

    async def healthz(request: Request) -> Response:
        """Is the process alive? For a liveness probe."""
        return _response({"healthy": True}) if healthy() else _response({"healthy": False}, 503)

    async def readyz(request: Request) -> Response:
        """Is a version live? For a readiness probe. A version that is recalled answers on, and is told."""
        record = live.readiness()
        return _response(record, 200 if record["ready"] else 503)

    async def model(request: Request) -> Response:
        """What is live, where it comes from, how a candidate does, and what was refused."""
        gate.check_key(request)
        return _response(live.describe())

    async def metrics(request: Request) -> Response:
        """Metrics in Prometheus' text format."""
        content, kind = live.metrics.text()
        return Response(content, headers={"content-type": kind})

    needs_key = [401] if api_key is not None else []
    of_questions = _described([400, 408, 413, 415, 422, 503, *needs_key])
    asked: tuple[tuple[str, Handler, type[BaseModel], str], ...] = (
        ("/recommend", recommend, VersionedAnswer, "RecommendRequest"),
        ("/recommend/batch", recommend_batch, Answers, "BatchRequest"),
    )
    for path, handler, answer, body in asked:
        app.add_api_route(
            path,
            handler,
            methods=["POST"],
            response_class=Response,
            responses={200: {"model": answer}, **of_questions},
            openapi_extra=_body(body),
        )
    told: tuple[tuple[str, Handler, dict[int | str, dict[str, Any]]], ...] = (
        ("/healthz", healthz, {503: {"description": "What works beside the requests has ended"}}),
        ("/readyz", readyz, {503: {"description": "No version is live"}}),
        ("/model", model, _described(needs_key)),
        ("/metrics", metrics, {200: {"content": {"text/plain": {}}}}),
    )
    for path, handler, responses in told:
        app.add_api_route(path, handler, methods=["GET"], response_class=Response, responses=responses)
    _tell_problems(app, live)
    _document(app, reader, needs_key=api_key is not None)
    return app


def _tell_problems(app: FastAPI, live: LiveModel) -> None:
    """Every error as JSON with a reason, and counted."""

    def problem(status: int, error: str, reason: str, headers: dict[str, str] | None = None) -> Response:
        live.metrics.refused.labels(error).inc()
        return _response({"error": error, "reason": reason}, status, headers)

    async def refused(request: Request, error: Exception) -> Response:
        assert isinstance(error, RefusedRequestError)
        return problem(error.status, error.error, error.reason, error.headers)

    async def http(request: Request, error: Exception) -> Response:
        assert isinstance(error, HTTPException)
        word = {404: "not_found", 405: "method_not_allowed"}.get(error.status_code, "refused")
        return problem(error.status_code, word, str(error.detail), dict(error.headers or {}))

    async def failed(request: Request, error: Exception) -> Response:
        assert isinstance(error, RecstillError)
        return problem(503, "model_failed", error.message)

    async def gone(request: Request, error: Exception) -> Response:
        return problem(400, "client_gone", "the client closed the connection before its request was complete")

    app.add_exception_handler(RefusedRequestError, refused)
    app.add_exception_handler(HTTPException, http)
    app.add_exception_handler(RecstillError, failed)
    app.add_exception_handler(ClientDisconnect, gone)


def _document(app: FastAPI, reader: RequestReader, *, needs_key: bool) -> None:
    """Put the requests' schemas, which FastAPI does not read, and the key into the OpenAPI document."""
    document = app.openapi()
    document["components"]["schemas"].update(reader.schemas)
    if needs_key:
        document["components"]["securitySchemes"] = {"key": {"type": "http", "scheme": "bearer"}}
        for path in ("/recommend", "/recommend/batch", "/model"):
            for operation in document["paths"][path].values():
                operation["security"] = [{"key": []}]


def _described(statuses: Sequence[int]) -> dict[int | str, dict[str, Any]]:
    return {status: {"model": Problem, "description": _PROBLEMS[status]} for status in statuses}


def _body(name: str) -> dict[str, Any]:
    schema = {"$ref": f"#/components/schemas/{name}"}
    return {"requestBody": {"required": True, "content": {_JSON: {"schema": schema}}}}


def _count(live: LiveModel, answers: Sequence[Recommendations]) -> None:
    unknown = sum(len(answer.unknown) for answer in answers)
    popular = sum(answer.from_popularity for answer in answers)
    if unknown:
        live.metrics.unknown_items.inc(unknown)
    if popular:
        live.metrics.popular.inc(popular)


def _record(answer: Recommendations) -> dict[str, Any]:
    items = [{"item": item.id, "title": item.title, "score": item.score} for item in answer.items]
    return {"recommendations": items, "unknown": answer.unknown, "popular": answer.from_popularity}


def _response(record: dict[str, Any], status: int = 200, headers: dict[str, str] | None = None) -> Response:
    return Response(to_json(record), status, headers, media_type=_JSON)


def _digest(text: str) -> bytes:
    """Of one length, whatever the text is."""
    return hashlib.sha256(text.encode("utf-8", "surrogateescape")).digest()


_PROBLEMS = {
    400: "The body is not JSON",
    401: "The API key is missing or wrong",
    408: "The request did not come in time",
    413: "The body is too large",
    415: "The body is not announced as JSON",
    422: "The body is not of the schema",
    503: "Not now: come again",
}
