"""A catalogue of a million items: how long encoder and index take for the ten best, and how many of them they find.

``python -m tests.benchmarks.large_catalogue`` (``ITEMS=100000`` takes a tenth, ``SEARCH=ivf`` another index). A causal
transformer of 64 channels and two blocks that reads 50 events goes through what ``quantize`` does for the form
``int8_index``. The effort is chosen on validation histories, the figures are of 1,000 test histories, asked one at a
time in one thread, their own items left out. Nothing is trained, which would take days: the items' vectors are drawn so
that an index has as hard a time with them as with trained ones, see :func:`trained_like`. Builds in some minutes, in
5 GB.
"""

from __future__ import annotations

import os
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch

from components.compression.export import export_onnx, model_bytes
from components.compression.item_index import ItemIndex, index_beside
from components.compression.running import outputs_of
from components.compression.searched import exact_answers, recall_of, searched
from components.data.dataset import PreparedDataset
from components.evaluation.onnx_session import new_session
from components.evaluation.searching import ItemSearch, item_search_of
from components.networks.building import new_network
from components.settings.network import CausalTransformerSettings
from components.settings.quantization import QuantizationSettings
from components.tasks.batch import Feed
from components.tasks.next_item import NextItem
from tests.benchmarks.figures import Figure

DIM, LENGTH, BEST_OF = 64, 50, 10
USERS, EVENTS = 4000, 30
ASKED = 1000
VALUES = np.float32(DIM**0.5)  # The rows have values of about 1: they weigh as much as what fresh blocks add.


class Asked(NamedTuple):
    """Test histories.

    Attributes:
        feeds: A request each.
        seen: The items that its answer leaves out.
    """

    feeds: list[Feed]
    seen: list[np.ndarray]

    @property
    def wanted(self) -> list[int]:
        return [BEST_OF + len(known) for known in self.seen]


def trained_like(items: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Vectors ``(items, 64)`` float32, and the topic of each item.

    A direction is the sum of a topic's, a subtopic's (some twenty items each, by Zipf's law) and one of its own, with
    variances .45, .4 and .15, over a spectrum that decays so that 18 of the 64 dimensions take part. Lengths are
    log-normal (sigma .23). All have a part in common, of a fifth of the length.

    Fitted to what a teacher of the scenario ``shop`` learned of 12,101 products (64 channels, real validation
    histories). Drawn at that size: 17.4 dimensions take part (there 19.5, as participation ratio of the variances); the
    lengths at the 10th and 90th percentile are .75 and 1.33 of the median (there .85 and 1.33), the greatest 2.3 (2.3).
    Of the ten best, 1, 8, 32, 64 and 128 of 440 lists hold .360, .800, .949, .976 and .989 (there .288, .801, .957,
    .981 and .989) with histories as :func:`histories` draws them and a network as :func:`encoding` makes it.
    """
    random = np.random.default_rng(seed)
    spectrum = np.exp(-_decay(18) / 2 * np.arange(DIM))
    spectrum *= np.sqrt(DIM / (spectrum**2).sum())
    topics, subtopics = max(2, round(0.36 * items**0.5)), max(4, items // 20)
    chance = 1 / np.sqrt(np.arange(1, subtopics + 1))
    subtopic = random.choice(subtopics, items, p=chance / chance.sum())
    topic = random.integers(0, topics, subtopics)[subtopic]
    found = np.sqrt(0.45) * random.standard_normal((topics, DIM), dtype=np.float32)[topic]
    found += np.sqrt(0.4) * random.standard_normal((subtopics, DIM), dtype=np.float32)[subtopic]
    found += np.sqrt(0.15) * random.standard_normal((items, DIM), dtype=np.float32)
    found *= spectrum
    length = np.exp(0.23 * random.standard_normal(items))
    found *= (length / np.linalg.norm(found, axis=1))[:, None]
    common = random.standard_normal(DIM) * spectrum
    found += 0.22 * common / np.linalg.norm(common)
    return found.astype(np.float32), topic


def _decay(taking_part: float) -> float:
    """The rate r of variances exp(-r j) of which so many of the 64 dimensions take part."""
    low, high = 1e-4, 10.0
    for _ in range(60):
        rate = (low + high) / 2
        variances = np.exp(-rate * np.arange(DIM))
        low, high = (rate, high) if variances.sum() ** 2 / (variances**2).sum() > taking_part else (low, rate)
    return low


def histories(topic: np.ndarray, seed: int = 1) -> PreparedDataset:
    """Users who take half of their items from one topic, and half from anywhere; the last two are held out."""
    random = np.random.default_rng(seed)
    by_topic = np.argsort(topic, kind="stable")
    start, size = np.searchsorted(topic[by_topic], np.arange(topic.max() + 1)), np.bincount(topic)
    liked = topic[random.integers(0, len(topic), USERS)][:, None]
    among = by_topic[start[liked] + (random.random((USERS, EVENTS)) * size[liked]).astype(np.int64)]
    anywhere = random.integers(0, len(topic), (USERS, EVENTS))
    item = np.where(random.random((USERS, EVENTS)) < 0.5, among, anywhere)
    split = np.zeros((USERS, EVENTS), dtype=np.int8)
    split[:, -2:] = 1, 2
    point = np.full(USERS * EVENTS, -1, dtype=np.int64)
    offsets = np.arange(USERS + 1, dtype=np.int64) * EVENTS
    record = {"digest": "", "items": len(topic), "points": 0}
    timestamp = np.arange(item.size, dtype=np.int64)
    return PreparedDataset(
        record, item.reshape(-1).astype(np.int32), timestamp, split.reshape(-1), offsets, point, Path()
    )


def encoding(vectors: np.ndarray) -> torch.nn.Module:
    """A network whose items have these vectors. Its fresh blocks turn a history into its last item and much noise."""
    torch.manual_seed(0)
    shape = CausalTransformerSettings(dim=DIM, blocks=2, heads=2, ffn_dim=4 * DIM, max_length=LENGTH)
    network = new_network(shape, len(vectors))
    with torch.no_grad():
        network.item.weight.copy_(torch.from_numpy(vectors))  # type: ignore[union-attr, operator]
    return network.eval()


def test_histories(task: NextItem) -> Asked:
    asked = Asked([], [])
    for batch in task.evaluation_batches("test", 1):
        assert batch.seen is not None
        asked.feeds.extend(batch.requests())
        asked.seen.append(np.unique(batch.seen[1].numpy()))
        if len(asked.feeds) == ASKED:
            break
    return asked


def milliseconds(run: Callable[[int], object], count: int) -> float:
    """The median of runs, after some to warm up."""
    for number in range(20):
        run(number)
    times = []
    for number in range(count):
        started = time.perf_counter()
        run(number)
        times.append(1e3 * (time.perf_counter() - started))
    return float(np.median(times))


def asking(search: ItemSearch, asked: Asked) -> Callable[[int], object]:
    return lambda number: search.found(asked.feeds[number], [asked.wanted[number]])


def measured(items: int) -> Sequence[Figure]:
    vectors, topic = trained_like(items)
    vectors *= VALUES
    task = NextItem(histories(topic), LENGTH)
    model = export_onnx(encoding(vectors))  # type: ignore[arg-type]
    started = time.monotonic()
    settings = QuantizationSettings.model_validate({"search": {"index": os.environ.get("SEARCH", "by_size")}})
    found = searched(model, settings, [], task)
    seconds = time.monotonic() - started
    print(
        f"{items:,} items: {found.index.kind} of {found.bits} bits, effort {found.index.effort}, recall "
        f"{found.recall:.4f} on {found.histories} validation histories, made in {seconds:.0f} s",
        flush=True,
    )
    asked = test_histories(task)
    queries = outputs_of(found.encoder, asked.feeds)
    best = exact_answers(vectors, queries, asked.seen, BEST_OF)
    exact = ItemIndex.built(vectors, "exact")
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.onnx"
        path.write_bytes(model_bytes(found.encoder))
        index_beside(path).write_bytes(found.index.content())
        size = path.stat().st_size + index_beside(path).stat().st_size
        session = new_session(path)
        search = item_search_of(path, session)
        assert search is not None
        whole = ItemSearch(session, exact)
        return [
            Figure("million_items_build_seconds", seconds),
            Figure("million_items_encoder_ms", milliseconds(lambda n: session.run(None, asked.feeds[n]), ASKED)),
            Figure("million_items_exact_ms", milliseconds(asking(whole, asked), 200)),
            Figure("million_items_exact_recall", recall_of(exact, queries, asked.seen, best)),
            Figure("million_items_bytes", size),
            Figure("million_items_recall", recall_of(found.index, queries, asked.seen, best)),
            Figure("million_items_ms", milliseconds(asking(search, asked), ASKED)),
        ]


def main() -> None:
    figures = measured(int(os.environ.get("ITEMS", "1000000")))
    for figure in figures:
        print(figure.told())
    print("\n".join(map(str, figures)))


if __name__ == "__main__":
    torch.set_num_threads(1)
    main()
