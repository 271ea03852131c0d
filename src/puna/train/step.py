"""Loss and gradient of one step, and the same loss without gradient on held-out rows."""

import torch

from puna.model.llama import Llama
from puna.tokens.batches import Batch
from puna.train.parallel import Parallel

ALONE = Parallel()


def loss_and_gradients(
    model: Llama, batch: Batch, micro_batch: int, *, remat: str = "none", z_loss: float = 0.0, dtype: torch.dtype | None = None,
    parallel: Parallel = ALONE,
) -> float:  # fmt: skip
    """Add the gradients of the mean loss over the batch's targets to `.grad`; the loss in nats per target
    token.

    Each micro-batch's loss is summed and divided by the number of targets in the whole batch, so
    accumulation, packing, padding and the number of processes do not change the number. batch: this data
    rank's rows. remat: see `puna.model.remat`. z_loss: factor of the squared log-sum that is added to each
    loss. dtype: of activations and products, default: the weights'.
    """
    device = model.output.weight.device
    targets = parallel.total(
        torch.tensor(float(batch.target_count), dtype=torch.float64, device=device)
    ).item()
    loss = torch.zeros((), dtype=torch.float64, device=device)
    for start in range(0, len(batch.tokens), micro_batch):
        part = _summed_loss(model, batch, start, start + micro_batch, 1 / targets, remat, z_loss, dtype)
        part.backward()
        loss += part.detach()
    return parallel.total(loss).item()


@torch.no_grad()
def mean_loss(model: Llama, batch: Batch, micro_batch: int, dtype: torch.dtype | None = None) -> float:
    """Mean loss over a batch's targets, in nats per token."""
    loss = torch.zeros((), dtype=torch.float64)
    for start in range(0, len(batch.tokens), micro_batch):
        loss += _summed_loss(model, batch, start, start + micro_batch, 1.0, "llama", 0.0, dtype).cpu()
    return loss.item() / batch.target_count


def _summed_loss(
    model: Llama,
    batch: Batch,
    start: int,
    end: int,
    scale: float,
    remat: str,
    z_loss: float,
    dtype: torch.dtype | None,
) -> torch.Tensor:
    device = model.output.weight.device
    tokens, segments, targets = (
        torch.from_numpy(array[start:end]).to(device)
        for array in (batch.tokens, batch.segments, batch.targets)
    )
    return model.loss(tokens, targets, segments=segments, scale=scale, remat=remat, z=z_loss, dtype=dtype)
