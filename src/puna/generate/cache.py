"""Keys and values of the tokens read so far, as `puna.model.block.Cache` wants them."""

import torch
import torch.nn.functional as F
from torch import Tensor

from puna.model.config import LlamaConfig


class KVCache:
    """Keys and values [layers, b, k, capacity, e] of as many tokens as fit.

    Rows may hold different numbers of tokens: row r holds `lengths[r]`, at positions 0 .. lengths[r] - 1, and
    its next token goes to the next position.
    """

    def __init__(
        self,
        config: LlamaConfig,
        rows: int,
        capacity: int,
        dtype: torch.dtype = torch.float32,
        device: str = "cpu",
    ) -> None:
        shape = (config.n_layers, rows, config.n_kv_heads, capacity, config.head_dim)
        self.keys, self.values = (torch.zeros(shape, dtype=dtype, device=device) for _ in range(2))
        self.lengths = torch.zeros(rows, dtype=torch.long, device=device)
        self._positions, self._used = self.lengths[:, None], 0
        self._mask: Tensor | None = None

    def extend(self, length: int) -> Tensor:
        """Positions [b, length] of each row's next tokens, which are then read."""
        self._positions = self.lengths[:, None] + torch.arange(length, device=self.lengths.device)
        self._used, self._mask = int(self._positions.max()) + 1, None
        if self.lengths.any() or length == 1:
            keys = torch.arange(self._used, device=self.lengths.device)
            self._mask = (keys <= self._positions[..., None])[:, None]
        self.lengths = self.lengths + length
        return self._positions

    def attend(self, layer: int, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """Keep a layer's k, v [b, t, k, e] of the tokens of `extend`; attention [b, t, h, e] of their q [b,
        t, h, e] over all that the rows hold up to each."""
        index = self._positions[:, None, :, None].expand(-1, k.shape[2], -1, k.shape[3])
        self.keys[layer].scatter_(2, index, k.transpose(1, 2))
        self.values[layer].scatter_(2, index, v.transpose(1, 2))
        k, v = self.keys[layer, :, :, : self._used], self.values[layer, :, :, : self._used]
        groups = q.shape[2] // k.shape[1]
        if groups > 1:
            k, v = k.repeat_interleave(groups, 1), v.repeat_interleave(groups, 1)
        mask, q = self._mask, q.transpose(1, 2)
        out = F.scaled_dot_product_attention(q, k, v, attn_mask=mask, is_causal=mask is None)
        return out.transpose(1, 2)
