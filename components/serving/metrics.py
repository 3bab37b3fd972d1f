"""What Prometheus reads of the service; in a registry of its own, so that two services fit into one process."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, PlatformCollector, ProcessCollector
from prometheus_client.exposition import CONTENT_TYPE_LATEST, generate_latest

_BUCKETS = (0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0)


class Metrics:
    """The service's metrics.

    Attributes:
        seconds: From a request that is read and checked to its answer, by endpoint.
        requests: Answered requests by endpoint, version and role (``live``, ``canary``, ``shadow``).
        refused: Requests that were not answered, by reason; the word in the answer's ``error``.
        unknown_items: Ids of histories that the model did not know.
        popular: Questions without any known item, answered with the most popular ones.
        reloads: Versions that went live, the first one included.
        refusals: Releases that were not loaded, by role (``live``, ``candidate``).
        store_errors: Polls that could not read the store.
        candidate_errors: Questions that a candidate failed to answer, by mode; the live version answered them.
        live: 1 for the version that is live.
        recalled: 1 for a version that is recalled, by whether it answers all the same (``yes``), or was to and is not
            loaded (``no``).
        running: Requests that are being answered.
    """

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        new = self.registry
        self.seconds = Histogram(
            "recstill_request_seconds", "Time to answer", ["endpoint"], registry=new, buckets=_BUCKETS
        )
        self.requests = Counter("recstill_requests", "Answered requests", ["endpoint", "version", "role"], registry=new)
        self.refused = Counter("recstill_refused_requests", "Requests that were refused", ["reason"], registry=new)
        self.unknown_items = Counter("recstill_unknown_items", "Ids that the model does not know", registry=new)
        self.popular = Counter("recstill_popular_answers", "Answers from popularity alone", registry=new)
        self.reloads = Counter("recstill_reloads", "Versions that went live", registry=new)
        self.refusals = Counter("recstill_refusals", "Releases that were refused", ["role"], registry=new)
        self.store_errors = Counter("recstill_store_errors", "Polls that failed", registry=new)
        self.candidate_errors = Counter("recstill_candidate_errors", "Failures of a candidate", ["mode"], registry=new)
        self.live = Gauge("recstill_live_version", "1 for the live version", ["version"], registry=new)
        self.recalled = Gauge(
            "recstill_recalled_version", "1 for a recalled version", ["version", "answers"], registry=new
        )
        self.running = Gauge("recstill_running_requests", "Requests being answered", registry=new)
        for role in ("live", "candidate"):
            self.refusals.labels(role)
        ProcessCollector(registry=new)
        PlatformCollector(registry=new)

    def text(self) -> tuple[bytes, str]:
        """The metrics in Prometheus' text format, and its content type."""
        return generate_latest(self.registry), CONTENT_TYPE_LATEST
