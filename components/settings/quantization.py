"""``scenarios.*.quantization``: which ONNX variants are made of the pruned network."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, field_validator, model_validator

from components.settings.base import Settings

GraphForm = Literal[
    "fp32",
    "int8_dynamic",
    "int8_dynamic_tensor",
    "int8_static",
    "int8_table8",
    "int8_table4",
    "int4_table4",
    "kmeans8_table8",
    "int4_table2",
    "int4_product",
]
"""Forms that are one ONNX graph."""
VariantName = Literal[GraphForm, "int8_index"]
"""All forms; ``int8_index`` is a graph and an index."""
RoundedForm = Literal["int8_table8", "int8_table4", "int4_table4", "int4_table2", "int4_product"]
"""Forms that a training can get used to."""


class QuantizationAwareSettings(Settings):
    """Fine-tuning for a form, and the sizes that the stage that makes it will use."""

    form: RoundedForm
    """One of ``quantization.variants``."""
    table_block: int = 32
    """As in ``quantization``."""
    product_width: Literal[2, 4, 8] = 4
    """As in ``quantization``."""


class SearchSettings(Settings):
    """The index of ``int8_index``, in which items are searched for."""

    index: Literal["by_size", "exact", "ivf", "hnsw"] = "by_size"
    """``exact``: the codes of all items are read. ``ivf``: those of the nearest of some lists. ``hnsw``: a graph of
    neighbours is followed; the fastest in a large catalogue, slow to build, and twice the size. ``by_size``: ``exact``
    up to ``exact_up_to`` items, ``ivf`` up to ``ivf_up_to``, ``hnsw`` beyond."""
    exact_up_to: int = Field(default=50_000, ge=1)
    """Items of a catalogue whose codes are all read, under ``by_size``."""
    ivf_up_to: int = Field(default=200_000, ge=1)
    """Items of a catalogue that is put into lists, under ``by_size``; as many as ``exact_up_to``: none is."""
    recall: float = Field(default=0.98, gt=0, le=1)
    """Share of an answer's items, by an exact search with full vectors, that the index has to find. ``ivf`` and
    ``hnsw`` look as far as it takes for the measured share to reach it at the lower end of its 95 % interval, where
    that is possible. What does not reach it at all is refused."""
    bits: Literal["by_recall", 8, 16] = "by_recall"
    """Of a value of an item's vector in the index. ``by_recall``: 8 where an exact search by such codes reaches the
    recall (of ``ivf`` and ``hnsw``: loses half of what it allows at most), else 16."""
    histories: int = Field(default=512, ge=8)
    """Validation histories on which that is measured, at most."""

    @model_validator(mode="after")
    def _sizes_ascend(self) -> SearchSettings:
        # What is left to its default gives way: then no catalogue gets lists.
        if "ivf_up_to" in self.model_fields_set and self.ivf_up_to < self.exact_up_to:
            raise ValueError(
                f"ivf_up_to ({self.ivf_up_to}) is below exact_up_to ({self.exact_up_to}): "
                "make them equal where no catalogue is to get ivf"
            )
        return self


class FineTuningSettings(Settings):
    """Training of all that is not in the item table, after the table was rounded to few bits."""

    steps: int = Field(default=400, ge=1)
    """Batches that are learned from."""
    batch_size: int = Field(default=32, ge=1)
    """As in ``student.optimization``."""
    learning_rate: float = Field(default=5e-4, gt=0, le=1)
    """Of Adam; it falls to 2 % of it."""


class QuantizationSettings(Settings):
    """Post-training quantization of weights, activations and the item table."""

    variants: tuple[VariantName, ...] = (
        "fp32",
        "int8_dynamic",
        "int8_dynamic_tensor",
        "int8_static",
        "int8_table8",
        "int8_table4",
        "int4_table4",
        "kmeans8_table8",
    )
    """``fp32``: the exported graph. ``int8_dynamic``: int8 weights a channel, activations quantized on the fly.
    ``int8_dynamic_tensor``: the same with one scale a tensor. ``int8_static``: activation ranges from calibration.
    ``int8_table8``, ``int8_table4``: int8 weights with one shared row-wise int8 or int4 item table.
    ``int4_table4``: weights and table int4, activations fp32. ``kmeans8_table8``: weights as indices into a k-means
    codebook, with the int8 table; smaller on disk only, since runtimes look the weights up once, when they load it.
    ``int4_table2``: as ``int4_table4`` with two bits in the table. ``int4_product``: with a product-quantized table, of
    which runtimes too restore the rows when they load it. These two are for ``pruning.quantization_aware``.
    ``int8_index``: as ``int8_table8`` without the head; the items are found in an index, see
    ``search``. For catalogues beyond some 20,000 items. Needs the library faiss."""
    calibration_histories: int = Field(default=512, ge=8)
    """Training histories from which ``int8_static`` takes its activation ranges, and ``rounding`` what the weights
    are multiplied with; every form is compared with its network on the first 512."""
    table_block: int = Field(default=32, ge=16)
    """Values of an item row that share one scale at most, in the item table and in int4 weights (a power of two, at
    least 16). Rows that are no multiple of it take a smaller block where that stores fewer bytes."""
    rounding: Literal["gptq", "nearest"] = "gptq"
    """Of linear layers and item tables of two or four bits. ``gptq``: codes are chosen so that what comes out errs
    least on the calibration histories. ``nearest``: each value gets the nearest code, as after a fine-tuning for the
    form in any case."""
    fine_tuning: FineTuningSettings | None = None
    """Fit all that is not in a table of two or four bits to the rounded table, so that the network says what it said
    before; what was observed is not looked at. Kept where whole calibration requests then differ less. A step takes two
    forward passes and a backward one. Not of ``int4_product``, of networks that were fine-tuned for a form, nor where
    the outcome is a yes or no. None: all else stays as it is."""
    product_width: Literal[2, 4, 8] = 4
    """Values of an item row that share a byte in ``int4_product``."""
    kmeans_levels: int = Field(default=256, ge=2, le=256)
    """Entries of the k-means codebook of each weight matrix."""
    search: SearchSettings = SearchSettings()
    """The index of ``int8_index``."""

    openvino: bool = False
    """Also write the pruned student in OpenVINO's int8 form, for scoring in batches. Needs the extra ``openvino``."""

    @field_validator("table_block")
    @classmethod
    def _power_of_two(cls, value: int) -> int:
        if value & (value - 1):
            raise ValueError("must be a power of two")
        return value

    @field_validator("variants")
    @classmethod
    def _named_once(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        if not value or len(set(value)) != len(value):
            raise ValueError("name at least one variant, and none twice")
        return value
