"""The service's HTTP interface: thin, and every refusal with a reason."""

from __future__ import annotations

import hashlib
import hmac
import time
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from fastapi import FastAPI, Request, Response
from pydantic_core import to_json
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect

from components.errors import RecstillError
from components.serving.http_schemas import Problem, RequestReader
from components.serving.limits import BodyReader, Limits, RefusedRequestError, busy
from components.serving.live_model import LiveModel
from components.serving.metrics import Metrics
from components.serving.served_model import ServedModel
from components.tasks.answering import Answering
from components.tasks.building import ways_of_answering

API_KEY_VARIABLE = "RECSTILL_API_KEY"
_JSON = "application/json"
_ABOUT = """\
Answers from the version that is live. Every answer says which version gave it; `/model` says what that version is and
where it comes from. Models that rank a catalogue answer `/recommend`, all others `/predict`."""

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
    gate, bodies = Gate(live, limits, api_key), BodyReader(limits)
    readers = {way: RequestReader(limits, way) for way in ways_of_answering()}

    def reader_at(endpoint: str) -> RequestReader:
        """The reader of what is live, which has to answer here; of whatever would answer here while nothing is."""
        if live.current is None:
            return next(reader for way, reader in readers.items() if way.endpoint == endpoint)
        way = type(live.current.predictor.answering)
        if way.endpoint != endpoint:
            raise RefusedRequestError(404, "not_found", f"the live model is asked at POST /{way.endpoint}")
        return readers[way]

    async def answer_one(request: Request, endpoint: str) -> Response:
        gate.check_key(request)
        body = await bodies.read(request)
        question = reader_at(endpoint).question(body)
        _require_answerable(live, [question])
        with gate.answering(endpoint):
            model, answers = await live.answer([question], endpoint)
            return _response({**_records(live.metrics, model, answers)[0], "version": model.label})

    async def answer_batch(request: Request, endpoint: str) -> Response:
        gate.check_key(request)
        body = await bodies.read(request)
        questions = reader_at(endpoint).questions(body)
        _require_answerable(live, questions)
        # A service answers one way: its batches need no endpoint in their name.
        with gate.answering("batch"):
            model, answers = await live.answer(questions, "batch")
            return _response({"answers": _records(live.metrics, model, answers), "version": model.label})

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
    of_questions = _described([400, 404, 408, 413, 415, 422, 503, *needs_key])
    for endpoint in dict.fromkeys(way.endpoint for way in readers):
        forms = [reader.form for way, reader in readers.items() if way.endpoint == endpoint]
        for path, asked, answer, bodies_there in (
            (f"/{endpoint}", answer_one, forms[0].answer, [form.request for form in forms]),
            (f"/{endpoint}/batch", answer_batch, forms[0].answers, [form.batch for form in forms]),
        ):
            app.add_api_route(
                path,
                _at(asked, endpoint),
                methods=["POST"],
                response_class=Response,
                responses={200: {"model": answer}, **of_questions},
                openapi_extra=_body([body.__name__ for body in bodies_there]),
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
    _document(app, readers, needs_key=api_key is not None)
    return app


def _require_answerable(live: LiveModel, questions: Sequence[Any]) -> None:
    """Refuse what the live model has no answer to: asked together with others, it would be they who get none."""
    if live.current is None:
        return
    for number, question in enumerate(questions):
        if reason := live.current.predictor.answering.refusal(question):
            where = f"requests.{number}: " if len(questions) > 1 else ""
            raise RefusedRequestError(422, "invalid_request", where + reason)


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


def _document(app: FastAPI, readers: Mapping[type[Answering], RequestReader], *, needs_key: bool) -> None:
    """Put the requests' schemas, which FastAPI does not read, and the key into the OpenAPI document."""
    document = app.openapi()
    for reader in readers.values():
        document["components"]["schemas"].update(reader.schemas)
    if needs_key:
        document["components"]["securitySchemes"] = {"key": {"type": "http", "scheme": "bearer"}}
        asked = [path for way in readers for path in (f"/{way.endpoint}", f"/{way.endpoint}/batch")]
        for path in (*asked, "/model"):
            for operation in document["paths"][path].values():
                operation["security"] = [{"key": []}]


def _described(statuses: Sequence[int]) -> dict[int | str, dict[str, Any]]:
    return {status: {"model": Problem, "description": _PROBLEMS[status]} for status in statuses}


def _at(handler: Callable[[Request, str], Awaitable[Response]], endpoint: str) -> Handler:
    async def handle(request: Request) -> Response:
        return await handler(request, endpoint)

    handle.__doc__ = (
        "Answers to several requests, all by one version."
        if handler.__name__.endswith("batch")
        else ("The answer to one request.")
    )
    handle.__name__ = f"{endpoint}_batch" if handler.__name__.endswith("batch") else endpoint
    return handle


def _body(names: Sequence[str]) -> dict[str, Any]:
    schemas = [{"$ref": f"#/components/schemas/{name}"} for name in names]
    return {
        "requestBody": {
            "required": True,
            "content": {_JSON: {"schema": schemas[0] if len(schemas) == 1 else {"anyOf": schemas}}},
        }
    }


def _records(metrics: Metrics, model: ServedModel, answers: Sequence[Any]) -> list[dict[str, Any]]:
    """Answers of a model as JSON, counted."""
    answering = model.predictor.answering
    if unknown := sum(map(answering.unknown, answers)):
        metrics.unknown_items.inc(unknown)
    if fallen := sum(map(answering.fell_back, answers)):
        metrics.popular.inc(fallen)
    return [answering.record(answer) for answer in answers]


def _response(record: dict[str, Any], status: int = 200, headers: dict[str, str] | None = None) -> Response:
    return Response(to_json(record), status, headers, media_type=_JSON)


def _digest(text: str) -> bytes:
    """Of one length, whatever the text is."""
    return hashlib.sha256(text.encode("utf-8", "surrogateescape")).digest()


_PROBLEMS = {
    400: "The body is not JSON",
    401: "The API key is missing or wrong",
    404: "The live model is asked at another address",
    408: "The request did not come in time",
    413: "The body is too large",
    415: "The body is not announced as JSON",
    422: "The body is not of the schema",
    503: "Not now: come again",
}
