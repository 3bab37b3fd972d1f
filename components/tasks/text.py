"""Task ``text``: a text has one of a few labels."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch

from components.data.preparing_texts import prepare_texts
from components.data.texts import TOKENIZER_FILE, TextDataset, read_text_dataset
from components.data.tokenizing import read_tokenizer_file, words_of
from components.errors import SettingsError
from components.settings.base import Settings
from components.settings.evaluation import EvaluationSettings
from components.settings.text_prepare import TextPrepareSettings
from components.tasks.batch import EvaluationBatch, Feed
from components.tasks.classifying import padded_tokens
from components.tasks.contract import Baseline, Measure, Wording
from components.tasks.held_out_texts import HeldOutTexts
from components.tasks.labelled import LabelledTask
from components.tasks.probabilities import macro_f1

_GOLDEN_TOKENS = 40
_NEIGHBOURS = 8  # Steps whose texts are sorted by length together, so that little is padded.


class Text(LabelledTask):
    """One logit a label.

    The inputs are ``tokens`` ``(B, L)`` int64, padded on the right, and ``length`` ``(B,)`` int64.
    """

    name = "text"
    noun = "text"
    measures: ClassVar[tuple[Measure, ...]] = (*LabelledTask.measures, Measure("macro_f1", "macro F1"))

    dataset: TextDataset

    @classmethod
    def prepare(cls, ingested: Path, folder: Path, settings: Settings) -> list[str]:
        """Number the labels, split, make tokens; see :class:`Task`."""
        if not isinstance(settings, TextPrepareSettings):
            raise SettingsError("`prepare` is not for texts with a label", "Set `prepare.kind: texts`.")
        return prepare_texts(ingested, folder, settings)

    @classmethod
    def read(cls, folder: Path) -> TextDataset:
        """See :func:`components.data.texts.read_text_dataset`."""
        return read_text_dataset(folder)

    def __init__(self, dataset: TextDataset, max_length: int = 0) -> None:
        self.dataset, self.max_length = dataset, max_length
        self._cut = max_length or int(np.diff(dataset.offsets).max())

    @property
    def padded(self) -> tuple[str, ...]:
        """``tokens``."""
        return ("tokens",)

    @cached_property
    def sizes(self) -> dict[str, Any]:
        """Size of the vocabulary, and the rarity of each token in training as tf-idf has it."""
        count = int(self.dataset.record["vocabulary"])
        offsets, points = self.dataset.offsets, self.points
        text = np.repeat(np.arange(points), np.diff(offsets[: points + 1]))
        pairs = np.unique(text * count + self.dataset.tokens[: offsets[points]])
        holding = np.bincount(pairs % count, minlength=count)
        return {"vocabulary": count, "idf": (np.log((1 + points) / (1 + holding)) + 1).tolist()}

    def steps(self, batch_size: int, *, seed: int, epoch: int) -> list[np.ndarray]:
        """Texts of about one length make a step; which ones, and the order of the steps, is chance."""
        random = np.random.default_rng([seed, epoch])
        order = random.permutation(self.points)
        lengths = np.minimum(np.diff(self.dataset.offsets), self._cut)
        found = []
        for start in range(0, len(order), batch_size * _NEIGHBOURS):
            some = order[start : start + batch_size * _NEIGHBOURS]
            some = some[np.argsort(lengths[some], kind="stable")]
            found += [some[first : first + batch_size] for first in range(0, len(some), batch_size)]
        return [found[place] for place in random.permutation(len(found))]

    def feed_of(self, rows: np.ndarray) -> Feed:
        """``tokens`` and ``length``."""
        return padded_tokens([self.dataset.tokens_of(row)[: self._cut] for row in rows.tolist()])

    def inputs_of(self, feed: Feed) -> tuple[torch.Tensor, ...]:
        """``tokens`` and ``length``."""
        return torch.from_numpy(feed["tokens"]), torch.from_numpy(feed["length"])

    def further_figures(self, scores: np.ndarray, targets: np.ndarray) -> dict[str, float]:
        """Macro F1."""
        return {"macro_f1": macro_f1(scores.argmax(axis=1), targets, self.outcomes)}

    def baselines(self, settings: EvaluationSettings) -> dict[str, Baseline]:
        """The commonest label, and a linear support vector machine on tf-idf of the words."""
        from sklearn.feature_extraction.text import TfidfVectorizer
        from sklearn.svm import LinearSVC

        tokenizer = read_tokenizer_file(self.dataset.folder / TOKENIZER_FILE)
        vectorizer = TfidfVectorizer(analyzer=lambda text: words_of(tokenizer, text))
        features = vectorizer.fit_transform(self.dataset.texts("train"))
        machine = LinearSVC().fit(features, self.dataset.label[self.dataset.rows("train")])

        def of_machine(batch: EvaluationBatch) -> torch.Tensor:
            texts = self.dataset.all_texts.gather(batch.users.numpy())
            margins = machine.decision_function(vectorizer.transform(texts)).reshape(len(texts), -1)
            scores = np.full((len(texts), self.outcomes), margins.min() - 1.0)
            if margins.shape[1] == 1:
                margins = np.concatenate([-margins, margins], axis=1)
            scores[:, machine.classes_] = margins
            return torch.from_numpy(scores)

        return {"commonest": self.commonest(), "linear": Baseline("tf-idf and linear SVM", of_machine)}

    def wording(self) -> Wording:
        """For people."""
        labels = ", ".join(self.outcome_ids[:8]) + (", ..." if self.outcomes > 8 else "")
        return Wording(
            title="Text classification",
            tags=("text-classification",),
            summary=f"A classifier of texts into {self.outcomes} labels ({labels})",
            use='recstill predict PACKAGE --request \'{"text": "..."}\'',
            tested="labels of texts that no training has seen",
            users="texts",
            requests="test texts",
            limits=f"It reads the first {self._cut} tokens of a text, has learned from texts like those it was given, "
            "and finds one of its labels for any other too. tokenizer.json holds words of the training texts.",
        )

    @property
    def values(self) -> np.ndarray:
        """``(N, 1)``, the length of each text in tokens."""
        return np.diff(self.dataset.offsets)[:, None].astype(np.float64)

    def beyond(self, earlier: TextDataset | None) -> HeldOutTexts:
        """Test texts; see :class:`components.tasks.held_out_texts.HeldOutTexts`."""
        return HeldOutTexts.of(self.dataset, earlier)

    def write_package_files(self, folder: Path) -> dict[str, Any]:
        """The labels, and the tokenizer."""
        self.write_labels(folder)
        (folder / TOKENIZER_FILE).write_bytes((self.dataset.folder / TOKENIZER_FILE).read_bytes())
        return {
            "meaning": {
                "tokens": "tokens of each text by tokenizer.json, padded on the right",
                "length": "tokens of each text",
                "scores": "a logit a label, greater is likelier",
            },
            "loss": self.loss,
        }

    def golden_requests(self, count: int) -> list[Mapping[str, Any]]:
        """Tokens drawn as often as training has them: no text of anybody's goes into a package."""
        tokenizer = read_tokenizer_file(self.dataset.folder / TOKENIZER_FILE)
        seen = np.bincount(self.dataset.tokens[: self.dataset.offsets[self.points]])
        drawn = np.random.default_rng(0).choice(len(seen), size=(count, _GOLDEN_TOKENS), p=seen / seen.sum())
        return [{"text": " ".join(str(tokenizer.id_to_token(token)) for token in row)} for row in drawn.tolist()]
