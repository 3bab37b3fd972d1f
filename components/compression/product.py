"""Tables as product-quantized codes: a byte for every few values of a row.

The columns are cut into parts of equal width; k-means finds 256 entries a part, and a row is one index a part (Jégou,
Douze and Schmid, "Product Quantization for Nearest Neighbor Search", 2011). That item tables of recommenders bear it
is shown by Petrov and Macdonald, "RecJPQ", WSDM 2024. The entries have 8 bits a value and a scale a part.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import onnx
from onnx import TensorProto, helper

from components.compression.graph import array, drop, initializer, lookup_tables, prepend, store

ENTRIES = 256  # What a byte tells apart.
_ROUNDS = 25
_ROWS_AT_ONCE = 2_048  # their distances stay in the processor's cache
_HEAD = "output"


class ProductCodes(NamedTuple):
    """A product-quantized ``(rows, width)`` matrix.

    Attributes:
        codes: ``(rows, parts)`` uint8.
        levels: ``(parts, entries, part width)`` int8.
        units: ``(parts,)`` float32, the scale of level 1.
        width: Columns that count; the last part may be padded.
    """

    codes: np.ndarray
    levels: np.ndarray
    units: np.ndarray
    width: int

    @property
    def entries(self) -> np.ndarray:
        """``(parts, entries, part width)`` float32."""
        return self.levels.astype(np.float32) * self.units[:, None, None]

    def restored(self) -> np.ndarray:
        """What the codes stand for, ``(rows, width)`` float32."""
        found = self.entries[np.arange(len(self.units)), self.codes]
        return found.reshape(len(found), -1)[:, : self.width]


def product_quantized(matrix: np.ndarray, part_width: int, start: ProductCodes | None = None) -> ProductCodes:
    """Quantize a matrix; the same values give the same codes.

    Args:
        matrix: ``(rows, width)`` float32.
        part_width: Values that share a code.
        start: Codes of a matrix that was much the same: one round goes on from their entries.
    """
    parts = _parts(matrix, part_width)
    if start is None:
        # Rows at even distances in the order of their length: those of frequent and of rare items.
        order = np.argsort(np.square(parts).sum(axis=(0, 2)), kind="stable")
        chosen = order[np.linspace(0, len(order) - 1, min(ENTRIES, len(order))).round().astype(np.int64)]
        entries, rounds = parts[:, chosen].copy(), _ROUNDS
    else:
        entries, rounds = start.entries, 1
    for _ in range(rounds):
        entries = np.stack([_means(*each) for each in zip(parts, _nearest(parts, entries), entries, strict=True)])
    units = np.maximum(np.abs(entries).max(axis=(1, 2)) / 127, np.finfo(np.float32).tiny).astype(np.float32)
    levels = np.rint(entries / units[:, None, None]).astype(np.int8)
    codes = _nearest(parts, levels.astype(np.float32) * units[:, None, None])
    return ProductCodes(np.ascontiguousarray(codes.T.astype(np.uint8)), levels, units, matrix.shape[1])


def with_product_table(model: onnx.ModelProto, part_width: int) -> onnx.ModelProto:
    """Store every table that rows are looked up in, and an untied head, as codes and entries, in place.

    Runtimes restore them when they load the model (the Gather is one of constants): the file is smaller, memory and
    computation are those of fp32. Summing looked-up partial products instead, a lookup a code of every item, took
    twenty times as long in ONNX Runtime as the product with the restored table.
    """
    graph = model.graph
    for name in [*lookup_tables(graph), *([_HEAD] if initializer(graph, _HEAD) is not None else [])]:
        product = product_quantized(array(graph, name), part_width)
        parts, entries, _ = product.levels.shape
        drop(graph, name)

        def constant(part: str, values: np.ndarray, table: str = name) -> str:
            return store(graph, f"{table}.{part}", values)

        def step(kind: str, inputs: list[str], output: str, **attributes: Any) -> onnx.NodeProto:
            return helper.make_node(kind, inputs, [output], **attributes)

        chain = [
            step("Cast", [constant("levels", product.levels)], f"{name}.l", to=TensorProto.FLOAT),
            step("Mul", [f"{name}.l", constant("unit", product.units[:, None, None])], f"{name}.e"),
            step("Reshape", [f"{name}.e", constant("flat", np.array([parts * entries, -1]))], f"{name}.f"),
            step("Cast", [constant("codes", product.codes)], f"{name}.c", to=TensorProto.INT32),
            step("Add", [f"{name}.c", constant("begin", np.arange(parts, dtype=np.int32) * entries)], f"{name}.i"),
            step("Gather", [f"{name}.f", f"{name}.i"], f"{name}.g"),
            step("Reshape", [f"{name}.g", constant("rows", np.array([len(product.codes), -1]))], f"{name}.r"),
        ]
        ends = [constant(part, np.array([at])) for part, at in {"start": 0, "end": product.width, "axis": 1}.items()]
        prepend(graph, [*chain, step("Slice", [f"{name}.r", *ends], name)])
    return model


def _parts(matrix: np.ndarray, part_width: int) -> np.ndarray:
    """``(parts, rows, part_width)``, the last part padded with zeros."""
    rows, width = matrix.shape
    padded = np.zeros((rows, -(-width // part_width) * part_width), np.float32)
    padded[:, :width] = matrix
    return np.ascontiguousarray(padded.reshape(rows, -1, part_width).swapaxes(0, 1))


def _nearest(parts: np.ndarray, entries: np.ndarray) -> np.ndarray:
    """``(parts, rows)`` int64, the entry of least squared distance."""
    found = np.empty(parts.shape[:2], np.int64)
    for place, (part, columns) in enumerate(zip(parts, entries, strict=True)):
        offset, factor = np.square(columns).sum(axis=1), -2 * columns.T
        for start in range(0, len(part), _ROWS_AT_ONCE):
            rows = slice(start, start + _ROWS_AT_ONCE)
            found[place, rows] = (part[rows] @ factor + offset).argmin(axis=1)
    return found


def _means(rows: np.ndarray, nearest: np.ndarray, entries: np.ndarray) -> np.ndarray:
    """Of the rows nearest to each entry; an entry that no row is nearest to stays where it is."""
    counts = np.bincount(nearest, minlength=len(entries))[:, None]
    sums = np.stack([np.bincount(nearest, column, minlength=len(entries)) for column in rows.T], axis=1)
    return np.where(counts > 0, sums / np.maximum(counts, 1), entries).astype(np.float32)
