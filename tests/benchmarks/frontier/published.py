"""What others have published on the same split and by the same protocol, to be marked in the plots."""

from __future__ import annotations

from typing import NamedTuple


class Published(NamedTuple):
    """One result.

    Attributes:
        name: Who.
        quality: In the measure of the frontier.
        bytes: Of what is served, reckoned from the published sizes at four bytes a value; None: not known.
        source: Where it stands.
    """

    name: str
    quality: float
    bytes: int | None
    source: str


PUBLISHED: dict[str, tuple[Published, ...]] = {
    "citeulike": (
        Published(
            "HTD, student of 20 dimensions",
            0.2803,
            4 * 20 * 25_181,
            "Kang et al., Topology Distillation for Recommender System, KDD 2021; the items' rows, not the users'",
        ),
        Published("LightGCN, teacher", 0.3326, None, "the same paper"),
    ),
    "ml-1m": (
        Published(
            "SASRec, 3,000 negatives",
            0.1857,
            None,
            "Klenitskiy and Vasilev, Turning Dross Into Gold Loss: is BERT4Rec really better than SASRec?, RecSys 2023",
        ),
        Published("SASRec, cross entropy", 0.1821, None, "the same paper"),
    ),
    "beauty": (
        Published("SASRec, sampled softmax", 0.0531, None, "as reproduced beside HSTU, which has .0543"),
        Published("BSARec", 0.0610, None, "RecBoard, mean of five seeds"),
    ),
}
