"""What a graph computes for some requests, as it is served."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import onnx
import onnxruntime
from onnx import helper

from components.compression.export import model_bytes
from components.compression.graph import linear_nodes
from components.tasks.batch import Feed

_LENGTH = "length"  # Input of a graph whose requests have a length each.


def first_feeds(feeds: Sequence[Feed], requests: int = 512) -> Sequence[Feed]:
    """As many whole feeds as hold so many requests, at least one."""
    held = np.cumsum([len(next(iter(feed.values()))) for feed in feeds])
    return feeds[: max(1, int(np.searchsorted(held, requests, side="right")))]


def outputs_of(model: onnx.ModelProto, feeds: Sequence[Feed]) -> np.ndarray:
    """The output ``(rows, width)`` of a model that has one, in ONNX Runtime, one thread, one feed after the other.

    Args:
        model: Any that was exported here: its output are scores, or an encoder's vectors.
        feeds: At least one.
    """
    session = _session(model)
    return np.concatenate([session.run(None, feed)[0] for feed in feeds])


def input_moments(model: onnx.ModelProto, feeds: Sequence[Feed]) -> dict[str, np.ndarray]:
    """Sum of ``x^T x`` ``(in, in)`` over the inputs of each linear layer, by the name of its weights.

    Args:
        model: From :func:`export_onnx`; it stays as it is.
        feeds: At least one. Where requests have a length, each is computed without its padding, which would count as
            inputs.
    """
    shown = onnx.ModelProto()
    shown.CopyFrom(model)
    inputs = {node.input[1]: node.input[0] for node in linear_nodes(shown.graph)}
    given = {value.name for value in shown.graph.input}
    computed = [name for name in dict.fromkeys(inputs.values()) if name not in given]
    outputs = {value.name for value in shown.graph.output}
    shown.graph.output.extend(helper.make_empty_tensor_value_info(name) for name in computed if name not in outputs)
    session = _session(shown)
    sums: dict[str, np.ndarray] = {}
    for request in (one for feed in feeds for one in _requests(feed)):
        # Asked for nothing, a session gives everything.
        values = request | (dict(zip(computed, session.run(computed, request), strict=True)) if computed else {})
        for name in set(inputs.values()):
            rows = values[name].astype(np.float64)
            rows = rows.reshape(-1, rows.shape[-1])
            sums[name] = sums.get(name, 0) + rows.T @ rows
    return {weights: sums[name] for weights, name in inputs.items()}


def _requests(feed: Feed) -> Iterator[Feed]:
    """Each row of a feed that has lengths, as long as it is; a feed without them as it is."""
    if _LENGTH not in feed:
        yield feed
        return
    longest = max(int(feed[_LENGTH].max()), 1)
    for row, length in enumerate(np.maximum(feed[_LENGTH], 1)):
        one = {name: values[row : row + 1] for name, values in feed.items()}
        yield {
            name: values[:, :length] if values.ndim > 1 and values.shape[1] >= longest else values
            for name, values in one.items()
        }


def _session(model: onnx.ModelProto) -> onnxruntime.InferenceSession:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.log_severity_level = 3
    return onnxruntime.InferenceSession(model_bytes(model), options, providers=["CPUExecutionProvider"])
