"""Loss and gradient of one step, and the same loss without gradient on held-out rows."""

import torch
import torch.nn.functional as F

from puna.model.llama import Llama
from puna.tokens.batches import IGNORED, Batch


def loss_and_gradients(model: Llama, batch: Batch, micro_batch: int) -> float:
    """Add the gradients of the mean loss over the batch's targets to `.grad`; the loss in nats per target token.

    Each micro-batch's loss is summed and divided by the number of targets in the whole batch, so accumulation, packing and padding
    do not change the number.
    """
    total = batch.target_count
    loss = torch.zeros((), dtype=torch.float64)
    for start in range(0, len(batch.tokens), micro_batch):
        part = _summed_loss(model, batch, start, start + micro_batch) / total
        part.backward()
        loss += part.detach().double().cpu()
    return loss.item()


@torch.no_grad()
def mean_loss(model: Llama, batch: Batch, micro_batch: int) -> float:
    """Mean loss over a batch's targets, in nats per token."""
    loss = torch.zeros((), dtype=torch.float64)
    for start in range(0, len(batch.tokens), micro_batch):
        loss += _summed_loss(model, batch, start, start + micro_batch).double().cpu()
    return loss.item() / batch.target_count


def _summed_loss(model: Llama, batch: Batch, start: int, end: int) -> torch.Tensor:
    device = next(model.parameters()).device
    tokens, segments, targets = (torch.from_numpy(array[start:end]).to(device) for array in (batch.tokens, batch.segments, batch.targets))
    logits = model(tokens, segments=segments).flatten(0, 1)
    wide = logits if logits.dtype == torch.float64 else logits.float()
    return F.cross_entropy(wide, targets.flatten(), ignore_index=IGNORED, reduction="sum")
