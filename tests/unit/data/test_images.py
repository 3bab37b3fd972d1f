"""Sources of images: what is read of them, and what is refused with row and reason."""

from __future__ import annotations

import gzip
import hashlib
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from PIL import Image

from components.data.idx_images import read_idx_images
from components.data.image_folder import read_image_folder
from components.data.ingesting_samples import ingest_samples
from components.data.preparing_samples import prepare_samples
from components.data.sample_sources import open_samples
from components.data.samples import RawSamples
from components.data.shifting import moved, moves
from components.errors import DataError, IntegrityError, SettingsError
from components.settings.sample_prepare import SamplePrepareSettings
from components.settings.sample_source import DigitsSource, IdxImagesSource, ImageFolderSource, SyntheticSamplesSource
from components.storage.atomic import write_json
from components.tasks.building import open_task


def idx(values: np.ndarray) -> bytes:
    """A file as MNIST's publishers describe it."""
    return bytes((0, 0, 8, values.ndim)) + np.array(values.shape, ">u4").tobytes() + values.astype(np.uint8).tobytes()


def write_idx(folder: Path, *, test_side: int = 5, compressed: bool = False) -> None:
    random = np.random.default_rng(0)
    for part, count, side in (("train", 30, 5), ("t10k", 10, test_side)):
        contents = {
            f"{part}-images-idx3-ubyte": idx(random.integers(0, 256, (count, side, 4))),
            f"{part}-labels-idx1-ubyte": idx(np.arange(count) % 3),
        }
        for name, content in contents.items():
            path = folder / (f"{name}.gz" if compressed else name)
            path.write_bytes(gzip.compress(content) if compressed else content)


def test_the_digits_are_those_of_scikit_learn() -> None:
    from sklearn.datasets import load_digits

    raw = open_samples(DigitsSource(kind="digits", path="x"), Path())
    told = load_digits()
    assert np.array_equal(raw.values, told.data) and raw.labels.to_list() == [str(label) for label in told.target]
    assert raw.shape == (8, 8) and raw.files[0].bytes > 0


@pytest.mark.parametrize("compressed", [False, True])
def test_idx_files_keep_their_own_test(tmp_path: Path, compressed: bool) -> None:
    write_idx(tmp_path, compressed=compressed)
    settings = IdxImagesSource(kind="idx-images", path=str(tmp_path))
    raw = open_samples(settings, Path())
    assert raw.values.shape == (40, 20) and raw.shape == (5, 4) and raw.values.max() > 200
    assert raw.is_test is not None and raw.is_test.tolist() == [False] * 30 + [True] * 10
    found = ingest_samples(raw, settings)
    assert found.record["shape"] == [5, 4] and found.items["id"].to_list() == ["0", "1", "2"]
    sizes = [path.stat().st_size for path in sorted(tmp_path.iterdir())]
    assert sorted(file["bytes"] for file in found.record["files"]) == sorted(sizes)


def test_idx_files_that_do_not_belong_together_are_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"neither .*train-images-idx3-ubyte nor train-images-idx3-ubyte\.gz"):
        read_idx_images(tmp_path)
    write_idx(tmp_path, test_side=6)
    with pytest.raises(DataError, match=r"row 1 of t10k-images-idx3-ubyte is an image of 6 x 4 .* have 5 x 4"):
        read_idx_images(tmp_path)
    write_idx(tmp_path)
    labels = tmp_path / "train-labels-idx1-ubyte"
    labels.write_bytes(idx(np.zeros(29)))
    with pytest.raises(DataError, match="30 images and 29 labels of 'train'"):
        read_idx_images(tmp_path)
    labels.write_bytes(idx(np.zeros(30))[:-1])
    with pytest.raises(DataError, match="says that it holds 30 values, and holds 29"):
        read_idx_images(tmp_path)
    labels.write_bytes(b"\x00\x00\x0d\x01" + bytes(34))
    with pytest.raises(DataError, match="no IDX file of unsigned bytes with 1 axes"):
        read_idx_images(tmp_path)
    labels.unlink()
    labels.with_suffix(".gz").write_bytes(gzip.compress(idx(np.zeros(30)))[:-9])
    with pytest.raises(DataError, match="cannot be read"):
        read_idx_images(tmp_path)


def test_what_says_it_is_mnist_has_to_be(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_idx(tmp_path, compressed=True)
    with pytest.raises(IntegrityError, match="not the train-images-idx3-ubyte of mnist"):
        read_idx_images(tmp_path, "mnist")
    digests = {
        path.name.removesuffix(".gz"): hashlib.sha256(gzip.decompress(path.read_bytes())).hexdigest()
        for path in tmp_path.iterdir()
    }
    monkeypatch.setattr("components.data.idx_images.PUBLISHED", {"mnist": digests})
    assert read_idx_images(tmp_path, "mnist").about["title"] == "MNIST"


def test_a_folder_of_images_is_read_and_the_others_are_put_aside_with_row_and_reason(tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    for label in ("cat ç", "a&b"):
        (tmp_path / label).mkdir()
        for number in range(6):
            grey = random.integers(0, 256, (4, 6), dtype=np.uint8)
            Image.fromarray(grey).save(tmp_path / label / f"{number}.png")
    Image.fromarray(random.integers(0, 256, (6, 4), dtype=np.uint8)).save(tmp_path / "a&b" / "2.png")
    (tmp_path / "cat ç" / "3.png").write_bytes(b"no image")
    (tmp_path / "cat ç" / "notes.txt").write_text("not an image, and not named like one")
    settings = ImageFolderSource(kind="image-folder", path=str(tmp_path), max_rejected_share=0.5)
    found = ingest_samples(open_samples(settings, Path()), settings)
    assert list(found.rejected.select("file", "row", "reason").iter_rows()) == [
        ("a&b/2.png", 3, "the image is 6 x 4, most are 4 x 6"),
        ("cat ç/3.png", 10, "cannot be read as an image (UnidentifiedImageError)"),
    ]
    assert found.record["shape"] == [4, 6] and found.events["label"].value_counts().sort("label").rows() == [
        ("a&b", 5),
        ("cat ç", 5),
    ]
    first = np.asarray(Image.open(tmp_path / "a&b" / "0.png"), dtype=np.float32).reshape(-1)
    assert np.array_equal(found.events["values"].to_numpy()[0], first)
    assert found.events.schema["values"] == pl.Array(pl.Float32, 24)
    with pytest.raises(DataError, match="the image is 6 x 4"):
        ingest_samples(open_samples(settings, Path()), settings.model_copy(update={"max_rejected_share": 0.01}))


def test_a_folder_without_images_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="there is no folder"):
        read_image_folder(tmp_path / "none")
    with pytest.raises(DataError, match="no image in the folders"):
        read_image_folder(tmp_path)


def test_copies_are_moved_over_the_background_and_are_points_of_their_own(tmp_path: Path) -> None:
    assert [len(moves(steps)) for steps in range(3)] == [1, 5, 13] and moves(2)[0] == (0, 0)
    image = np.arange(12, dtype=np.float32).reshape(1, 3, 4)
    assert moved(image, 1, -2, 9).tolist() == [[[9, 9, 9, 9], [2, 3, 9, 9], [6, 7, 9, 9]]]
    # A light background comes in from outside as a light one.
    images = np.full((30, 6, 6), 255, dtype=np.float32)
    images[np.arange(30), 2 + np.arange(30) % 2, np.arange(30) // 10 + 1] = np.arange(30)
    raw = RawSamples(images.reshape(30, 36), pl.Series(["a", "b", "c"] * 10), (6, 6), (), None, "mine")
    source = SyntheticSamplesSource(kind="synthetic-samples", path="x")
    found = ingest_samples(raw, source)
    for name in ("events", "items"):
        getattr(found, name).write_parquet(tmp_path / f"{name}.parquet")
    write_json(tmp_path / "source.json", found.record)
    digests = set()
    for copies in (0, 1):
        settings = SamplePrepareSettings(kind="samples", moved_copies=copies)
        prepare_samples(tmp_path, tmp_path / "dataset", settings)
        task = open_task("image", tmp_path / "dataset")
        dataset = task.dataset
        digests.add(dataset.digest)
        counts = dataset.record["events_per_split"]
        assert task.points == counts["train"] * (5 if copies else 1) == len(dataset.rows("train"))
        assert (task.held_out("validation"), task.held_out("test")) == (counts["validation"], counts["test"])
    trained = counts["train"]
    own, copy = (dataset.values[start : start + trained].reshape(-1, 6, 6) for start in (0, trained))
    assert np.array_equal(copy, moved(own, -1, 0, 255)) and copy.max() == 255 and copy.min() >= 0
    assert np.array_equal(dataset.label[: 5 * trained], np.tile(dataset.label[:trained], 5))
    assert dataset.catalogue["train_events"].sum() == trained and len(digests) == 2
    with pytest.raises(SettingsError, match="these samples have 36 values"):
        write_json(tmp_path / "source.json", {**found.record, "shape": [36]})
        prepare_samples(tmp_path, tmp_path / "dataset", settings)
