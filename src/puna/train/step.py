"""Loss and gradients of one step, and the same loss without gradients on held-out rows."""

from collections.abc import Iterator

import torch

from puna.model.llama import Llama
from puna.tokens.batches import Batch
from puna.train.parallel import Parallel

ALONE = Parallel()


def loss_and_gradients(
    model: Llama,
    batch: Batch,
    micro_batch: int,
    *,
    remat: str = "none",
    z_loss: float = 0.0,
    dtype: torch.dtype | None = None,
    parallel: Parallel = ALONE,
) -> float:
    """Add the gradients of the mean loss over the batch's targets to `.grad`; return it, in nats per token.

    Each micro-batch's loss is summed and divided by the number of targets in the whole batch, so
    accumulation, packing, padding and the number of processes do not change the number. batch: this data
    rank's rows. remat: see `puna.model.block`. z_loss: factor of the squared log-sum that is added to each
    loss. dtype: of activations and products, default: the weights'.
    """
    device = model.output.weight.device
    targets = torch.tensor(float(batch.target_count), dtype=torch.float64, device=device)
    total = parallel.total(targets)
    loss = torch.zeros((), dtype=torch.float64, device=device)
    for rows in _micro_batches(batch, micro_batch):
        micro_loss = _summed_loss(model, rows, remat=remat, z_loss=z_loss, dtype=dtype) / total
        micro_loss.backward()
        loss += micro_loss.detach()
    return parallel.total(loss).item()


@torch.no_grad()
def mean_loss(model: Llama, batch: Batch, micro_batch: int, dtype: torch.dtype | None = None) -> float:
    """Mean loss over a batch's targets, in nats per token."""
    loss = torch.zeros((), dtype=torch.float64)
    for rows in _micro_batches(batch, micro_batch):
        loss += _summed_loss(model, rows, remat="llama", z_loss=0.0, dtype=dtype).cpu()
    return loss.item() / batch.target_count


def _micro_batches(batch: Batch, size: int) -> Iterator[Batch]:
    for start in range(0, len(batch.tokens), size):
        rows = slice(start, start + size)
        yield Batch(batch.tokens[rows], batch.targets[rows], batch.document_ids[rows])


def _summed_loss(
    model: Llama, rows: Batch, *, remat: str, z_loss: float, dtype: torch.dtype | None
) -> torch.Tensor:
    tokens, targets = torch.from_numpy(rows.tokens), torch.from_numpy(rows.targets)
    document_ids = torch.from_numpy(rows.document_ids)
    return model.loss(tokens, targets, document_ids=document_ids, remat=remat, z=z_loss, dtype=dtype)
