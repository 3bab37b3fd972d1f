"""The units of a causal transformer: feed-forward channels, heads and their width of each block, the model width."""

from __future__ import annotations

from typing import Any

from components.networks.units import Group, Slice, norm_slices


def causal_transformer_groups(record: dict[str, Any]) -> list[Group]:
    """The groups of a network with this architecture record; the width runs through everything."""
    width = [Slice("item.weight", 1), Slice("position.weight", 1), *norm_slices("norm.")]
    if not record["tied"]:
        width.append(Slice("output.weight", 1))
    if "features" in record:
        width.append(Slice("features.weight", 1))
    groups = []
    for number, block in enumerate(record["blocks"]):
        groups += block_groups(number, block)
        width += _block_width(f"blocks.{number}.")
    return [*groups, Group("width", "width", record["dim"], tuple(width), ("dim",))]


def block_groups(number: int, block: dict[str, Any]) -> list[Group]:
    """Feed-forward channels, heads, and the channels that all heads have, of block ``number``.

    All heads of a block are as wide as one another, so a unit of their width is a channel of each. Heads come before
    it: with one of them gone, the channels of the others still recur.
    """
    prefix = f"blocks.{number}."
    attention, size = f"{prefix}attention.", block["head_dim"]
    made = [(f"{attention}{part}.{kind}", 0) for part in "qkv" for kind in ("weight", "bias")]
    places = [*made, (f"{attention}o.weight", 1)]
    heads = (Slice(name, axis, size) for name, axis in places)
    head_width = (Slice(name, axis, recurs=True) for name, axis in places)
    ffn = (Slice(f"{prefix}ffn_in.weight", 0), Slice(f"{prefix}ffn_in.bias", 0), Slice(f"{prefix}ffn_out.weight", 1))
    place = ("blocks", number)
    return [
        Group(f"{prefix}ffn", "ffn", block["ffn_dim"], ffn, (*place, "ffn_dim")),
        Group(f"{prefix}heads", "heads", block["heads"], tuple(heads), (*place, "heads")),
        Group(f"{prefix}head_width", "head_width", size, tuple(head_width), (*place, "head_dim")),
    ]


def _block_width(prefix: str) -> list[Slice]:
    into = [f"{prefix}attention.{part}.weight" for part in "qkv"] + [f"{prefix}ffn_in.weight"]
    out = [f"{prefix}attention.o.", f"{prefix}ffn_out."]
    return [
        *norm_slices(f"{prefix}attention_norm."),
        *norm_slices(f"{prefix}ffn_norm."),
        *(Slice(name, 1) for name in into),
        *(Slice(f"{name}{kind}", 0) for name in out for kind in ("weight", "bias")),
    ]
