"""A teacher from a folder of Hugging Face's: what is wrong with the folder is told; a tiny one teaches a student."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import polars as pl
import pytest
import torch

from components.data.tokenizing import trained_tokenizer
from components.errors import DataError, IntegrityError, SettingsError
from components.networks.building import new_network, read_network
from components.networks.pretrained_encoder import framed
from components.serving.predictor import Predictor
from components.settings.text_network import HuggingFaceSettings
from components.settings.text_prepare import TextPrepareSettings
from components.storage.atomic import read_json
from components.storage.digests import file_digest
from tests.unit.tasks.test_text import SCENARIO, texts
from tests.unit.tasks.whole_runs import run

SIZES = {"vocabulary": 200, "idf": [1.0] * 200}


def settings(folder: Path, **changes: Any) -> HuggingFaceSettings:
    weights = folder / "model.safetensors"
    digest = file_digest(weights) if weights.is_file() else "0" * 64
    return HuggingFaceSettings(kind="hugging_face", path=str(folder), **{"sha256": digest, "max_length": 16, **changes})


def test_a_folder_that_will_not_do_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(DataError, match=r"config.json is missing"):
        new_network(settings(tmp_path), 3, SIZES)
    (tmp_path / "config.json").write_text("{}")
    (tmp_path / "pytorch_model.bin").write_bytes(b"a pickle")
    with pytest.raises(DataError, match=r"(?s)model.safetensors is missing.*save_pretrained"):
        new_network(settings(tmp_path), 3, SIZES)
    (tmp_path / "model.safetensors").write_bytes(b"none")
    with pytest.raises(IntegrityError, match="has the SHA-256"):
        new_network(settings(tmp_path, sha256="1" * 64), 3, SIZES)
    monkeypatch.setitem(__import__("sys").modules, "transformers", None)
    with pytest.raises(SettingsError, match=r"(?s)not installed.*recstill\[transformers\]"):
        new_network(settings(tmp_path), 3, SIZES)
    with pytest.raises(SettingsError, match="for tasks over texts"):
        new_network(settings(tmp_path), 3, {})


def test_texts_are_framed_up_to_their_own_end() -> None:
    tokens, length = framed(torch.tensor([[5, 6, 7], [8, 0, 0]]), torch.tensor([3, 1]), (1,), (2, 3))
    assert tokens.tolist() == [[1, 5, 6, 7, 2, 3], [1, 8, 2, 3, 0, 0]] and length.tolist() == [6, 4]


def test_a_pretrained_teacher_teaches_a_student_that_is_packaged(tmp_path: Path) -> None:
    transformers = pytest.importorskip("transformers", reason="the extra `transformers` is not installed")
    pl.DataFrame(texts(), schema=["label", "text"], orient="row").write_csv(tmp_path / "texts.csv")
    tokenizer = trained_tokenizer([text for _, text in texts()], TextPrepareSettings(kind="texts", vocabulary=150))
    shape = {"num_hidden_layers": 1, "num_attention_heads": 2, "hidden_size": 16, "intermediate_size": 32}
    torch.manual_seed(0)
    config = transformers.BertConfig(vocab_size=160, max_position_embeddings=20, **shape)
    transformers.BertModel(config).save_pretrained(tmp_path / "model")
    (tmp_path / "model" / "tokenizer.json").write_text(tokenizer.to_str())
    scenario = copy.deepcopy(SCENARIO)
    scenario["prepare"]["tokenizer"] = "model/tokenizer.json"
    network = settings(tmp_path / "model", before=(158,), after=(159,)).model_dump(mode="json")
    scenario["teacher"]["network"] = {**network, "path": "model"}
    artifacts = run(tmp_path, "tiny", scenario)
    teacher = read_network(artifacts / "teacher" / "member-0")
    assert teacher.record()["pretrained"] == file_digest(tmp_path / "model" / "model.safetensors")
    hidden = torch.randn(3, teacher.hidden_dim)
    assert torch.equal(teacher.copied_scorer()(hidden), teacher.score(hidden))
    begun = transformers.AutoModel.from_pretrained(tmp_path / "model").state_dict()
    trained = {name.removeprefix("encoder."): weight for name, weight in teacher.state_dict().items()}
    assert {*begun} <= {*trained} and any(not torch.equal(trained[name], begun[name]) for name in begun)
    metrics = read_json(artifacts / "report" / "metrics.json")["contenders"]
    assert metrics["teacher"]["accuracy"] > metrics["commonest"]["accuracy"]
    assert "teacher_member.fp32" not in metrics and not teacher.is_served
    answer = Predictor(artifacts / "package").ask({"text": "the bank said profit 股市"})
    assert sum(answer.probabilities) == pytest.approx(1)
    with pytest.raises(SettingsError, match="reads 20 tokens at most, and max_length asks for 22"):
        new_network(settings(tmp_path / "model", max_length=20, before=(1,), after=(2,)), 3, SIZES)
    with pytest.raises(SettingsError, match=r"knows 160 tokens, and the data set's tokenizer has 200"):
        new_network(settings(tmp_path / "model"), 3, SIZES)
    (tmp_path / "model" / "config.json").write_text('{"model_type": "none of that name"}')
    with pytest.raises(DataError, match="cannot be read"):
        new_network(settings(tmp_path / "model"), 3, SIZES)
