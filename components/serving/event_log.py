"""Log lines of the service: one event a line, as ``event=swapped version=movielens@v3 seconds=0.2``."""

from __future__ import annotations

import json
import logging
import sys
from collections.abc import Mapping

_LOGGER = logging.getLogger("recstill.service")
_PLAIN = frozenset("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_.:/@#+")


def log_event(event: str, fields: Mapping[str, object], level: int = logging.INFO) -> None:
    """Write one line. Fields that are None are left out; what holds a space or a quote is written as JSON text."""
    parts = [f"event={event}"]
    parts += [f"{name}={_shown(value)}" for name, value in fields.items() if value is not None]
    _LOGGER.log(level, " ".join(parts))


def start_logging(*, access: bool = False) -> None:
    """Send the service's lines and uvicorn's errors to standard error; a line for each request only if asked for."""
    handler = logging.StreamHandler(sys.stderr)
    formatter = logging.Formatter("time=%(asctime)s level=%(levelname)s %(message)s", "%Y-%m-%dT%H:%M:%S%z")
    handler.setFormatter(formatter)
    levels = {"recstill.service": logging.INFO, "uvicorn.error": logging.ERROR}
    for name, level in (levels | ({"uvicorn.access": logging.INFO} if access else {})).items():
        logger = logging.getLogger(name)
        logger.handlers, logger.propagate = [handler], False
        logger.setLevel(level)


def _shown(value: object) -> str:
    text = f"{value:.4g}" if isinstance(value, float) else str(value)
    return text if text and set(text) <= _PLAIN else json.dumps(text, ensure_ascii=False)
