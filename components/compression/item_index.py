"""A faiss index over the vectors of a catalogue: which items have the greatest inner product with a user's vector.

A value of a vector takes 8 or 16 bits. ``exact`` reads the codes of all items. ``ivf`` looks into the lists whose
centroids have the greatest product with it (Sivic and Zisserman, "Video Google", ICCV 2003): it reads four bits a value
there, as many vectors at a time as a register holds (André, Kermarrec and Le Scouarnec, "Cache locality is not enough",
VLDB 2015), and then the whole codes of what looks best. ``hnsw`` follows a graph of neighbours (Malkov and Yashunin,
"Efficient and robust approximate nearest neighbor search using Hierarchical Navigable Small World graphs", TPAMI 2020):
it reads eight bits a value there, and then the whole codes where they are of 16. How far the last two look is their
effort, which the file of an index holds.

No torch is needed for it: what serves a package searches with this module.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any, Literal

import numpy as np

from components.errors import IntegrityError, SettingsError
from components.tasks.answering import Found

INDEX_KEY = "recstill.index"
"""In the metadata of a model that searches by an index: the SHA-256 of it. So the model's digest is that of both."""
Kind = Literal["exact", "ivf", "hnsw"]
Bits = Literal[8, 16]
_LISTS = 4  # Times the root of the number of items, as faiss's guidelines say.
_LEAST_IN_A_LIST = 39  # With fewer vectors a list faiss warns that centroids mean little.
_TRAINED_ON_A_LIST = 64
# Times the items that are wanted: their whole codes are read.
_LOOKED_AT_AGAIN: dict[Kind, float] = {"ivf": 16.0, "hnsw": 2.0}
_NEIGHBOURS, _NEIGHBOURS_SOUGHT = 32, 100
_ADDED_AT_ONCE = 10_000  # Of a graph: some seconds' work. Its links, and so the bytes, depend on this number.
_STEPS_OF_AN_OCTAVE = 4
_LARGEST_HNSW_EFFORT = 4096


class ItemIndex:
    """An index in memory. Several threads may search it at one time, each search takes one.

    Args:
        index: Of faiss, of one of the kinds.
    """

    def __init__(self, index: Any) -> None:
        self._faiss = faiss_library()
        self._index = index
        # Packages of earlier versions have lists and graphs without whole codes beside them.
        self._refined = isinstance(index, self._faiss.IndexRefine)
        self._looked_into = self._faiss.downcast_index(index.base_index) if self._refined else index
        if isinstance(self._looked_into, self._faiss.IndexIVF):
            self.kind: Kind = "ivf"
        elif isinstance(self._looked_into, self._faiss.IndexHNSW):
            self.kind = "hnsw"
        else:
            self.kind = "exact"

    @classmethod
    def built(
        cls, vectors: np.ndarray, kind: Kind, bits: Bits = 8, added: Callable[[int], object] | None = None
    ) -> ItemIndex:
        """Index a catalogue, in one thread and with a fixed seed: the same vectors give the same bytes on processors
        of one kind.

        Args:
            vectors: ``(K, dim)`` float32.
            kind: Of the index; vectors too few for two lists get an exact one in the place of ``ivf``.
            bits: Of a value: 8, evenly between the least and the greatest of its dimension, or 16, as half precision.
            added: Called with numbers of items as they come into a graph, which takes minutes where a catalogue is
                large; of other kinds never.

        Raises:
            SettingsError: The library faiss is not installed.
        """
        faiss = faiss_library()
        faiss.omp_set_num_threads(1)
        vectors = np.ascontiguousarray(vectors, dtype=np.float32)
        if kind == "ivf" and lists_of(len(vectors)) > 1:
            return cls(_refined(faiss, _in_lists(faiss, vectors), vectors, bits, kind))
        if kind == "hnsw":
            graph = _in_graph(faiss, vectors, added)
            return cls(graph if bits == 8 else _refined(faiss, graph, vectors, bits, kind))
        return cls(_whole(faiss, vectors, bits))

    @classmethod
    def loaded(cls, content: bytes, sha256: str) -> ItemIndex:
        """An index from the bytes of its file, which are looked at by faiss only after their digest was.

        Args:
            content: As :meth:`content` gave it.
            sha256: What it has to be.

        Raises:
            IntegrityError: The bytes are others, or no index.
            SettingsError: The library faiss is not installed.
        """
        found = hashlib.sha256(content).hexdigest()
        if found != sha256:
            raise IntegrityError(
                f"the index is not the one that the model was made with: its SHA-256 is {found}, not {sha256}",
                "Run the stage that made it again, or take a fresh copy.",
            )
        faiss = faiss_library()
        try:
            return cls(faiss.deserialize_index(np.frombuffer(content, np.uint8)))
        except RuntimeError as error:
            raise IntegrityError(
                f"faiss cannot read the index: {str(error).splitlines()[-1]}", "Install requirements.lock."
            ) from None

    def content(self) -> bytes:
        """Its file, as faiss's ``write_index`` writes it."""
        return bytes(self._faiss.serialize_index(self._index))

    @property
    def items(self) -> int:
        """K."""
        return int(self._index.ntotal)

    @property
    def dim(self) -> int:
        """Width of a vector."""
        return int(self._index.d)

    @property
    def efforts(self) -> list[int]:
        """Efforts to choose from, ascending; of an exact index, which has none, only 0."""
        if self.kind == "exact":
            return [0]
        least, most = (1, self._looked_into.nlist) if self.kind == "ivf" else (_NEIGHBOURS, _LARGEST_HNSW_EFFORT)
        octaves = math.log2(most / least)
        steps = np.arange(math.ceil(octaves * _STEPS_OF_AN_OCTAVE) + 1) / _STEPS_OF_AN_OCTAVE
        return sorted({min(round(least * 2**step), most) for step in steps.tolist()})

    @property
    def effort(self) -> int:
        """Lists that are read (``nprobe``), or candidates that are kept (``efSearch``); 0 of an exact index."""
        if self.kind == "exact":
            return 0
        return int(self._looked_into.nprobe if self.kind == "ivf" else self._looked_into.hnsw.efSearch)

    def set_effort(self, effort: int) -> None:
        """Choose one of :attr:`efforts`."""
        if self.kind == "ivf":
            self._looked_into.nprobe = effort
        elif self.kind == "hnsw":
            self._looked_into.hnsw.efSearch = effort

    def search(self, vectors: np.ndarray, wanted: Sequence[int]) -> list[Found]:
        """The best items of each vector, as many as are wanted of it, or all that there are.

        Where the effort comes upon fewer than are wanted, all items are looked at.

        Args:
            vectors: ``(B, dim)`` float32.
            wanted: ``(B,)``.
        """
        # A thread of its own has a number of threads of its own.
        self._faiss.omp_set_num_threads(1)
        return [self._best(vectors[row : row + 1], min(count, self.items)) for row, count in enumerate(wanted)]

    def _best(self, vector: np.ndarray, wanted: int) -> Found:
        scores, items = self._index.search(vector, wanted)
        if items[0, -1] < 0:
            scores, items = self._search_all(vector, wanted)
        return Found(items[0], scores[0])

    def _search_all(self, vector: np.ndarray, wanted: int) -> tuple[np.ndarray, np.ndarray]:
        faiss, index = self._faiss, self._index
        if self.kind == "ivf" and not self._refined:
            everything = faiss.SearchParametersIVF(nprobe=index.nlist)
            found: tuple[np.ndarray, np.ndarray] = index.search(vector, wanted, params=everything)
        else:
            whole = index.refine_index if self._refined else index.storage
            found = faiss.downcast_index(whole).search(vector, wanted)
        return found


def _in_lists(faiss: ModuleType, vectors: np.ndarray) -> Any:
    """Lists of four bits a value."""
    (items, dim), metric = vectors.shape, faiss.METRIC_INNER_PRODUCT
    # Items go to the nearest centroid, so that a list holds items that are alike in length too; by direction alone, as
    # faiss does it for inner products, half as many lists again have to be read. What is coded is how an item differs
    # from its centroid.
    nearest = faiss.IndexFlatL2(dim)
    lists = faiss.IndexIVFPQFastScan(nearest, dim, lists_of(items), dim, 4, metric)
    lists.by_residual = True
    lists.cp.seed, lists.cp.spherical = 0, False
    lists.cp.max_points_per_centroid = _TRAINED_ON_A_LIST
    lists.pq.cp.min_points_per_centroid = 1
    lists.train(vectors)
    lists.add(vectors)
    # A search looks for the lists as it looks for items: by the inner product.
    greatest = faiss.IndexFlatIP(dim)
    greatest.add(nearest.reconstruct_n(0, nearest.ntotal))
    lists.quantizer, lists.own_fields = greatest, True
    greatest.this.disown()  # it is the lists' from here on, and freed with them
    return lists


def _in_graph(faiss: ModuleType, vectors: np.ndarray, added: Callable[[int], object] | None) -> Any:
    """A graph of eight bits a value."""
    graph = faiss.IndexHNSWSQ(vectors.shape[1], faiss.ScalarQuantizer.QT_8bit, _NEIGHBOURS, faiss.METRIC_INNER_PRODUCT)
    graph.hnsw.efConstruction = _NEIGHBOURS_SOUGHT
    graph.train(vectors)
    for start in range(0, len(vectors), _ADDED_AT_ONCE):
        part = vectors[start : start + _ADDED_AT_ONCE]
        graph.add(part)
        if added is not None:
            added(len(part))
    return graph


def _refined(faiss: ModuleType, candidates: Any, vectors: np.ndarray, bits: Bits, kind: Kind) -> Any:
    """An index whose candidates are ranked by the whole codes beside it."""
    whole = _whole(faiss, vectors, bits)
    index = faiss.IndexRefine(candidates, whole)
    index.k_factor = _LOOKED_AT_AGAIN[kind]
    index.own_fields = index.own_refine_index = True
    for owned in (candidates, whole):
        owned.this.disown()  # it is the index's from here on, and freed with it
    return index


def _whole(faiss: ModuleType, vectors: np.ndarray, bits: Bits) -> Any:
    """The codes of all items."""
    codes = faiss.ScalarQuantizer.QT_8bit if bits == 8 else faiss.ScalarQuantizer.QT_fp16
    index = faiss.IndexScalarQuantizer(vectors.shape[1], codes, faiss.METRIC_INNER_PRODUCT)
    index.train(vectors)
    index.add(vectors)
    return index


def index_beside(model: Path) -> Path:
    """Where the index of a model file lies."""
    return model.with_suffix(".faiss")


def exact_search(vectors: np.ndarray, queries: np.ndarray, wanted: int) -> np.ndarray:
    """The best items by the full vectors, to compare an index with.

    Args:
        vectors: ``(K, dim)`` float32.
        queries: ``(B, dim)`` float32.
        wanted: At most K.

    Returns:
        ``(B, wanted)`` int64, best first.

    Raises:
        SettingsError: The library faiss is not installed.
    """
    faiss = faiss_library()
    faiss.omp_set_num_threads(1)
    index = faiss.IndexFlatIP(vectors.shape[1])
    index.add(np.ascontiguousarray(vectors, dtype=np.float32))
    items: np.ndarray = index.search(np.ascontiguousarray(queries, dtype=np.float32), wanted)[1]
    return items


def lists_of(items: int) -> int:
    """Into how many lists ``ivf`` puts a catalogue."""
    return max(1, min(round(_LISTS * math.sqrt(items)), items // _LEAST_IN_A_LIST))


def faiss_library() -> ModuleType:
    """The library faiss.

    Raises:
        SettingsError: It is not installed.
    """
    try:
        import faiss
    except ImportError:
        raise SettingsError(
            "a model that searches its items by an index needs the library faiss, which is not installed",
            "Install it: pip install 'recstill[faiss]'.",
        ) from None
    library: ModuleType = faiss
    return library
