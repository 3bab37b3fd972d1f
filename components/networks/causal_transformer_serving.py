"""The served form of a causal transformer: one vector of scores a history, and no work that does not lead to it.

The same function as the network it is made from, at the last valid position only, in another order of operations:

* Blocks before the last fuse q, k and v into one projection.
* The last block has a single query, so keys and values need not exist. With x the normalised rows of the history and
  h a head, q_h . k_hj = (W_kh^T q_h) . x_j, and sum_j a_hj v_hj = W_vh (sum_j a_hj x_j): both projections move from
  every row to the one query and the one mixture (the "absorption" of DeepSeek-V2, 2024, section 2.1.2). The key bias
  adds the same to every score of a softmax and falls away; the value bias passes it unchanged into the output bias.
* The factor on embedded rows is folded into the table, and taken back in the last norm.

Weights are stored as ``(in, out)``, as ONNX's MatMul wants them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
import torch.nn.functional as F
from torch import nn

# Far below any score, and finite: a masked key's weight is exactly 0 after the softmax, and never NaN.
_HIDDEN = -1e9

Weights = Mapping[str, torch.Tensor]


class ServedCausalTransformer(nn.Module):
    """From right-padded histories to scores over the catalogue.

    Args:
        weights: The state dict of the causal transformer.
        heads: Attention heads of each block.
        scales: Factor on the attention scores of each block.
        embedding_scale: Factor on item rows when they are embedded.
    """

    def __init__(self, weights: Weights, heads: Sequence[int], scales: Sequence[float], embedding_scale: float) -> None:
        super().__init__()
        table = weights["item.weight"] * embedding_scale
        tied = "output.weight" not in weights
        self.item = _constant(table)
        self.output = None if tied else _constant(weights["output.weight"])
        self.position = _constant(weights["position.weight"])
        blocks = [_below(weights, f"blocks.{number}.") for number in range(len(heads))]
        self.blocks = nn.ModuleList(
            _Block(block, count, scale) for block, count, scale in zip(blocks[:-1], heads, scales, strict=False)
        )
        self.last = _LastBlock(blocks[-1], heads[-1], scales[-1])
        self.norm = _norm(_below(weights, "norm."), 1 / embedding_scale if tied else 1.0)

    def forward(self, items: torch.Tensor, length: torch.Tensor) -> torch.Tensor:
        """Scores of every item as the next one.

        Args:
            items: ``(batch, length)`` int64 item indices, padded on the right with any index.
            length: ``(batch,)`` int64 valid items of each row; 0 is computed as 1.

        Returns:
            ``(batch, items)`` float32.
        """
        last = length.clamp(min=1) - 1
        x = F.embedding(items, self.item) + self.position[: items.shape[1]]
        for block in self.blocks:
            x = block(x)
        return F.linear(self.norm(self.last(x, last)), self.item if self.output is None else self.output)


def is_multiplied_out(head_dim: int, dim: int) -> bool:
    """Whether the last block stores W_q^T W_k and W_o W_v of its heads: where they have no more weights than the
    four."""
    return dim <= 2 * head_dim


class _Projection(nn.Module):
    """``x @ weight + bias``."""

    def __init__(self, weight: torch.Tensor, bias: torch.Tensor | None) -> None:
        super().__init__()
        self.weight = _constant(weight)
        self.bias = None if bias is None else _constant(bias)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        product = x @ self.weight
        return product if self.bias is None else product + self.bias


class _FeedForward(nn.Module):
    """``x + ffn(norm(x))``."""

    def __init__(self, block: Weights) -> None:
        super().__init__()
        self.norm = _norm(_below(block, "ffn_norm."))
        self.into = _Projection(block["ffn_in.weight"].T, block["ffn_in.bias"])
        self.out = _Projection(block["ffn_out.weight"].T, block["ffn_out.bias"])

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x + self.out(F.gelu(self.into(self.norm(x))))


class _Block(nn.Module):
    """A block that computes every position, ``(batch, length, dim)``, with q, k and v fused."""

    def __init__(self, block: Weights, heads: int, scale: float) -> None:
        super().__init__()
        self.heads, self.scale = heads, scale
        self.norm = _norm(_below(block, "attention_norm."))
        q, k, v = (block[f"attention.{part}.weight"] for part in "qkv")
        bias = block["attention.q.bias"]
        # The key bias is the same for every key; the value bias goes into the output bias.
        self.qkv = _Projection(torch.cat([q, k, v]).T, torch.cat([bias, torch.zeros_like(bias).repeat(2)]))
        self.o = _Projection(block["attention.o.weight"].T, _output_bias(block))
        self.ffn = _FeedForward(block)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        parts = self.qkv(self.norm(x)).chunk(3, dim=-1)
        q, k, v = (part.unflatten(-1, (self.heads, -1)).transpose(1, 2) for part in parts)
        mixed = F.scaled_dot_product_attention(q, k, v, is_causal=True, scale=self.scale)
        return self.ffn(x + self.o(mixed.transpose(1, 2).flatten(2)))


class _LastBlock(nn.Module):
    """A block that computes the last valid position, ``(batch, dim)``, without keys or values.

    Per head, W_q^T W_k and W_o W_v are multiplied out beforehand where that needs no more weights than the four
    matrices (:func:`is_multiplied_out`); with many narrow heads they stay four.
    """

    def __init__(self, block: Weights, heads: int, scale: float) -> None:
        super().__init__()
        self.heads = heads
        self.norm = _norm(_below(block, "attention_norm."))
        q, k, v, o = (block[f"attention.{part}.weight"] for part in "qkvo")
        q, q_bias = q * scale, block["attention.q.bias"] * scale
        inner, dim = q.shape
        self.merged = is_multiplied_out(inner // heads, dim)
        if self.merged:
            q, k, v = (part.unflatten(0, (heads, -1)) for part in (q, k, v))
            merged_bias = torch.einsum("he,hej->hj", q_bias.unflatten(0, (heads, -1)), k).flatten()
            self.query = _Projection(torch.einsum("hei,hej->ihj", q, k).flatten(1), merged_bias)
            mixture = torch.einsum("hei,jhe->hij", v, o.unflatten(1, (heads, -1))).flatten(0, 1)
            self.mixture = _Projection(mixture, _output_bias(block))
        else:
            self.query = _Projection(q.T, q_bias)
            self.key = _Projection(k, None)
            self.value = _Projection(v.T, None)
            self.mixture = _Projection(o.T, _output_bias(block))
            self.own = _constant(torch.eye(heads).repeat_interleave(inner // heads, dim=1))
        self.ffn = _FeedForward(block)

    def forward(self, x: torch.Tensor, last: torch.Tensor) -> torch.Tensor:
        """``x`` ``(batch, length, dim)`` and the last valid position ``(batch,)`` to ``(batch, dim)``."""
        rows = self.norm(x)
        newest = x.gather(1, last[:, None, None].expand(-1, 1, x.shape[2])).squeeze(1)
        query = self._query(self.norm(newest))
        after = torch.arange(x.shape[1], device=x.device) > last[:, None]
        scores = (query @ rows.transpose(1, 2)).masked_fill(after[:, None], _HIDDEN)
        return self.ffn(newest + self._mixture(scores.softmax(-1) @ rows))

    def _query(self, newest: torch.Tensor) -> torch.Tensor:
        """``(batch, dim)`` to each head's query in the space of the rows, ``(batch, heads, dim)``."""
        query = self.query(newest)
        return query.unflatten(-1, (self.heads, -1)) if self.merged else self.key(query[:, None] * self.own)

    def _mixture(self, mixed: torch.Tensor) -> torch.Tensor:
        """Each head's mixture of rows ``(batch, heads, dim)`` to what attention adds, ``(batch, dim)``."""
        joined = mixed.flatten(1) if self.merged else (self.value(mixed) * self.own).sum(1)
        return self.mixture(joined)


def _output_bias(block: Weights) -> torch.Tensor:
    return block["attention.o.bias"] + block["attention.o.weight"] @ block["attention.v.bias"]


def _below(weights: Weights, prefix: str) -> dict[str, torch.Tensor]:
    return {name.removeprefix(prefix): tensor for name, tensor in weights.items() if name.startswith(prefix)}


def _norm(weights: Weights, factor: float = 1.0) -> nn.LayerNorm:
    norm = nn.LayerNorm(len(weights["weight"]))
    norm.load_state_dict({name: tensor * factor for name, tensor in weights.items()})
    return norm.requires_grad_(False)


def _constant(tensor: torch.Tensor) -> nn.Parameter:
    return nn.Parameter(tensor.detach().clone().contiguous(), requires_grad=False)
