import hashlib
import sys
from concurrent.futures import ThreadPoolExecutor
from functools import cache

import numpy as np
import pytest

from components.compression.item_index import ItemIndex, Kind, exact_search, lists_of
from components.errors import IntegrityError, SettingsError

ITEMS, DIM = 3000, 16
KINDS: tuple[Kind, ...] = ("exact", "ivf", "hnsw")


@cache
def vectors(count: int = ITEMS, seed: int = 0) -> np.ndarray:
    """In clusters, and of different lengths."""
    random = np.random.default_rng(seed)
    centres = np.random.default_rng(9).standard_normal((60, DIM))
    found = centres[random.integers(0, 60, count)] + 0.5 * random.standard_normal((count, DIM))
    return (found * random.lognormal(0, 0.4, (count, 1))).astype(np.float32)


@cache
def built(kind: Kind) -> ItemIndex:
    return ItemIndex.built(vectors(), kind)


@pytest.fixture(params=KINDS)
def index(request: pytest.FixtureRequest) -> ItemIndex:
    """With the greatest effort."""
    index = built(request.param)
    index.set_effort(index.efforts[-1])
    return index


def test_the_best_items_are_found_with_their_inner_products(index: ItemIndex) -> None:
    queries = vectors(40, seed=1)
    scores = queries @ vectors().T
    for query, found in zip(scores, index.search(queries, [10] * 40), strict=True):
        best = np.sort(query)[::-1]
        assert np.allclose(found.scores, query[found.items], atol=0.02 * best[0])
        assert (np.diff(found.scores) <= 0).all() and len(set(found.items.tolist())) == 10
        assert (query[found.items] > best[10] - 0.02 * best[0]).all()


def test_exact_search_is_by_the_full_vectors() -> None:
    queries = vectors(7, seed=1)
    assert (exact_search(vectors(), queries, 5) == np.argsort(-(queries @ vectors().T), axis=1)[:, :5]).all()


@pytest.mark.parametrize("kind", KINDS)
def test_as_many_as_are_wanted_come_however_small_the_effort(kind: Kind) -> None:
    index = built(kind)
    index.set_effort(index.efforts[0])
    few, all_items = index.search(vectors(2, seed=1), [3, ITEMS + 5])
    assert len(few.items) == 3
    assert sorted(all_items.items.tolist()) == list(range(ITEMS))


def test_a_greater_effort_finds_more() -> None:
    queries, index = vectors(50, seed=1), built("ivf")
    best = exact_search(vectors(), queries, 10)
    recalls = []
    for effort in (1, 8, lists_of(ITEMS)):
        index.set_effort(effort)
        answers = index.search(queries, [10] * 50)
        recalls.append(np.mean([np.isin(row, found.items) for row, found in zip(best, answers, strict=True)]))
    assert recalls[0] < recalls[1] < recalls[2] and recalls[0] < 0.9 and recalls[2] > 0.95, recalls


@pytest.mark.parametrize("kind", KINDS)
def test_the_same_vectors_give_the_same_bytes_which_hold_the_effort(kind: Kind) -> None:
    first, second = ItemIndex.built(vectors(), kind), ItemIndex.built(vectors(), kind)
    assert first.content() == second.content()
    first.set_effort(first.efforts[len(first.efforts) // 2])
    content = first.content()
    again = ItemIndex.loaded(content, hashlib.sha256(content).hexdigest())
    assert (again.kind, again.effort, again.items, again.dim) == (kind, first.effort, ITEMS, DIM)
    queries = vectors(5, seed=1)
    for one, other in zip(first.search(queries, [20] * 5), again.search(queries, [20] * 5), strict=True):
        assert (one.items == other.items).all() and (one.scores == other.scores).all()


@pytest.mark.parametrize(("count", "kind"), [(1, "exact"), (77, "exact"), (78, "ivf")])
def test_a_small_catalogue_gets_lists_when_there_are_two(
    count: int, kind: Kind, capfd: pytest.CaptureFixture[str]
) -> None:
    index = ItemIndex.built(vectors(count), "ivf")
    assert index.kind == kind
    for found in index.search(vectors(3, seed=1), [5] * 3):
        assert len(set(found.items.tolist())) == min(5, count) and found.items.min() >= 0
    assert capfd.readouterr() == ("", "")


def test_lists_are_of_any_width() -> None:
    narrow = np.ascontiguousarray(vectors()[:, :7])
    index = ItemIndex.built(narrow, "ivf")
    index.set_effort(index.efforts[-1])
    best = exact_search(narrow, narrow[:50], 10)
    answers = index.search(narrow[:50], [10] * 50)
    assert np.mean([np.isin(row, found.items) for row, found in zip(best, answers, strict=True)]) > 0.95


def test_an_index_of_an_earlier_package_is_searched_as_it_was() -> None:
    import faiss

    earlier = faiss.index_factory(DIM, "IVF32,SQ8", faiss.METRIC_INNER_PRODUCT)
    earlier.train(vectors())
    earlier.add(vectors())
    earlier.nprobe = 2
    content = bytes(faiss.serialize_index(earlier))
    index = ItemIndex.loaded(content, hashlib.sha256(content).hexdigest())
    assert (index.kind, index.effort) == ("ivf", 2)
    (everything,) = index.search(vectors(1, seed=1), [ITEMS])
    assert sorted(everything.items.tolist()) == list(range(ITEMS))


def test_threads_search_one_index_at_a_time(index: ItemIndex) -> None:
    queries = vectors(60, seed=1)
    alone = index.search(queries, [10] * 60)
    with ThreadPoolExecutor(4) as threads:
        among = list(threads.map(lambda row: index.search(queries[row : row + 1], [10])[0], range(60)))
    assert all((one.items == other.items).all() for one, other in zip(alone, among, strict=True))


def test_bytes_that_are_not_what_was_made_never_come_to_faiss(monkeypatch: pytest.MonkeyPatch) -> None:
    content = built("exact").content()
    digest = hashlib.sha256(content).hexdigest()
    harmed = content[:200] + bytes([content[200] ^ 1]) + content[201:]
    import faiss

    monkeypatch.setattr(faiss, "deserialize_index", lambda _: pytest.fail("faiss was given the bytes"))
    for wrong in (harmed, content[:-1], b""):
        with pytest.raises(IntegrityError, match="SHA-256"):
            ItemIndex.loaded(wrong, digest)


def test_bytes_that_are_no_index_are_refused() -> None:
    content = b"no index at all, of some length"
    with pytest.raises(IntegrityError, match="faiss cannot read"):
        ItemIndex.loaded(content, hashlib.sha256(content).hexdigest())


def test_without_faiss_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "faiss", None)
    with pytest.raises(SettingsError, match=r"(?s)faiss, which is not installed.*recstill\[faiss\]"):
        ItemIndex.built(vectors(), "exact")


def test_lists_grow_with_the_root_of_the_catalogue() -> None:
    assert [lists_of(items) for items in (1, 100, 3000, 1_000_000)] == [1, 2, 76, 4000]
