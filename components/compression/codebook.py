"""Weights as indices into a small codebook: scalar k-means.

Han, Mao and Dally, "Deep Compression", 2016, section 3.
"""

from __future__ import annotations

import warnings

import numpy as np
import onnx
from onnx import TensorProto, helper
from scipy.cluster.vq import kmeans2, vq

from components.compression.graph import array, drop, linear_nodes, prepend, store

_ROUNDS = 15


def codebook(values: np.ndarray, levels: int) -> tuple[np.ndarray, np.ndarray]:
    """Scalar k-means from the quantiles, so that the same values give the same codebook.

    Args:
        values: Any shape, float32.
        levels: Entries, at most 256; fewer come out when there are fewer different values.

    Returns:
        Indices of the shape of ``values``, uint8, and the entries ``(entries,)`` float32, ascending.
    """
    flat = values.reshape(-1, 1).astype(np.float64)
    start = np.unique(np.quantile(flat, (np.arange(levels) + 0.5) / levels))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # An entry that no value is nearest to stays where it is.
        entries, _ = kmeans2(flat, start[:, None], iter=_ROUNDS, minit="matrix")
    entries = np.unique(entries.astype(np.float32))
    indices, _ = vq(flat, entries[:, None].astype(np.float64))
    return indices.reshape(values.shape).astype(np.uint8), entries


def with_codebook_linears(model: onnx.ModelProto, levels: int) -> onnx.ModelProto:
    """Store the weights of the linear layers as indices and a codebook a matrix, in place.

    Runtimes restore them when they load the model (a Gather of two constants is folded): the file is smaller, the
    computation is that of fp32.
    """
    graph = model.graph
    for node in linear_nodes(graph):
        name = node.input[1]
        indices, entries = codebook(array(graph, name), levels)
        drop(graph, name)
        stored, book = store(graph, f"{name}.indices", indices), store(graph, f"{name}.codebook", entries)
        wide = f"{name}.wide"
        cast = helper.make_node("Cast", [stored], [wide], to=TensorProto.INT32)
        prepend(graph, [cast, helper.make_node("Gather", [book, wide], [name])])
    return model
