"""A faiss index over the vectors of a catalogue: which items have the greatest inner product with a user's vector.

A value of a vector takes 8 or 16 bits. ``exact`` reads the codes of all items. ``ivf`` looks into the lists whose
centroids have the greatest product with it (Sivic and Zisserman, "Video Google", ICCV 2003): it reads four bits a value
there, as many vectors at a time as a register holds (André, Kermarrec and Le Scouarnec, "Cache locality is not enough",
VLDB 2015), and then the whole codes of what looks best. ``hnsw`` follows a graph of neighbours (Malkov and Yashunin,
"Efficient and robust approximate nearest neighbor search using Hierarchical Navigable Small World graphs", TPAMI 2020).
How far the last two look is their effort, which the file of an index holds.

No torch is needed for it: what serves a package searches with this module.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Sequence
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
_LOOKED_AT_AGAIN = 16.0  # Times the items that are wanted: their whole codes are read.
_NEIGHBOURS, _NEIGHBOURS_SOUGHT = 32, 200
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
        if isinstance(index, self._faiss.IndexRefine):
            self.kind: Kind = "ivf"
            self._lists = self._faiss.downcast_index(index.base_index)
        elif isinstance(index, self._faiss.IndexIVF):  # as packages of earlier versions have it
            self.kind, self._lists = "ivf", index
        elif isinstance(index, self._faiss.IndexHNSW):
            self.kind = "hnsw"
        else:
            self.kind = "exact"

    @classmethod
    def built(cls, vectors: np.ndarray, kind: Kind, bits: Bits = 8) -> ItemIndex:
        """Index a catalogue, in one thread and with a fixed seed: the same vectors give the same bytes on processors
        of one kind.

        Args:
            vectors: ``(K, dim)`` float32.
            kind: Of the index; vectors too few for two lists get an exact one in the place of ``ivf``.
            bits: Of a value: 8, evenly between the least and the greatest of its dimension, or 16, as half precision.

        Raises:
            SettingsError: The library faiss is not installed.
        """
        faiss = faiss_library()
        faiss.omp_set_num_threads(1)
        items, dim = vectors.shape
        vectors = np.ascontiguousarray(vectors, dtype=np.float32)
        codes = faiss.ScalarQuantizer.QT_8bit if bits == 8 else faiss.ScalarQuantizer.QT_fp16
        metric = faiss.METRIC_INNER_PRODUCT
        if kind == "ivf" and lists_of(items) > 1:
            return cls(_in_lists(faiss, vectors, codes))
        if kind == "hnsw":
            index = faiss.IndexHNSWSQ(dim, codes, _NEIGHBOURS, metric)
            index.hnsw.efConstruction = _NEIGHBOURS_SOUGHT
        else:
            index = faiss.IndexScalarQuantizer(dim, codes, metric)
        index.train(vectors)
        index.add(vectors)
        return cls(index)

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
        least, most = (1, self._lists.nlist) if self.kind == "ivf" else (_NEIGHBOURS, _LARGEST_HNSW_EFFORT)
        octaves = math.log2(most / least)
        steps = np.arange(math.ceil(octaves * _STEPS_OF_AN_OCTAVE) + 1) / _STEPS_OF_AN_OCTAVE
        return sorted({min(round(least * 2**step), most) for step in steps.tolist()})

    @property
    def effort(self) -> int:
        """Lists that are read (``nprobe``), or candidates that are kept (``efSearch``); 0 of an exact index."""
        if self.kind == "exact":
            return 0
        return int(self._lists.nprobe if self.kind == "ivf" else self._index.hnsw.efSearch)

    def set_effort(self, effort: int) -> None:
        """Choose one of :attr:`efforts`."""
        if self.kind == "ivf":
            self._lists.nprobe = effort
        elif self.kind == "hnsw":
            self._index.hnsw.efSearch = effort

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
        if isinstance(index, faiss.IndexIVF):
            everything = faiss.SearchParametersIVF(nprobe=index.nlist)
            found: tuple[np.ndarray, np.ndarray] = index.search(vector, wanted, params=everything)
        else:
            whole = index.refine_index if self.kind == "ivf" else index.storage
            found = faiss.downcast_index(whole).search(vector, wanted)
        return found


def _in_lists(faiss: ModuleType, vectors: np.ndarray, codes: int) -> Any:
    """Lists of four bits a value, and the whole codes beside them."""
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
    whole = faiss.IndexScalarQuantizer(dim, codes, metric)
    whole.train(vectors)
    whole.add(vectors)
    index = faiss.IndexRefine(lists, whole)
    index.k_factor = _LOOKED_AT_AGAIN
    index.own_fields = index.own_refine_index = True
    for owned in (greatest, lists, whole):
        owned.this.disown()  # it is the index's from here on, and freed with it
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
