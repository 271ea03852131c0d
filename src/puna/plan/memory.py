"""Whether training fits: bytes needed by formula, bytes there are."""

from pathlib import Path

from puna.errors import UserError
from puna.model.config import LlamaConfig
from puna.train.settings import TrainSettings

FLOAT = 4


def training_bytes(config: LlamaConfig, settings: TrainSettings) -> int:
    """Bytes of one training process in float32, an upper estimate.

    Weights, gradients and the two moments of AdamW: 16 bytes a parameter. Activations that autograd holds for one micro-batch, per
    token and layer: about 16 dim (norms, projections, residuals, rotations) + 4 ffn_dim floats, the attention mask of one byte per
    pair of positions, and 3 vocabularies of floats a token for logits, their log-softmax and gradient.
    """
    tokens = settings.micro_batch * settings.sequence_length
    layer = 16 * config.dim + 4 * config.ffn_dim
    activations = tokens * FLOAT * (config.n_layers * layer + 3 * config.vocab_size + 4 * config.dim)
    mask = 3 * settings.micro_batch * settings.sequence_length**2 * FLOAT
    return 4 * FLOAT * config.parameters() + activations + mask


def available_bytes() -> int:
    """Memory this process may still take: the machine's, or less where a control group limits it."""
    values = {}
    for line in Path("/proc/meminfo").read_text().splitlines():
        name, _, rest = line.partition(":")
        values[name] = int(rest.split()[0]) * 1024
    available = values["MemAvailable"]
    limit, used = Path("/sys/fs/cgroup/memory.max"), Path("/sys/fs/cgroup/memory.current")
    if limit.exists() and used.exists() and (text := limit.read_text().strip()) != "max":
        available = min(available, int(text) - int(used.read_text()))
    return available


def check(config: LlamaConfig, settings: TrainSettings, available: int) -> None:
    """Raises UserError when training needs more than `available` bytes."""
    needed = training_bytes(config, settings)
    if needed > available:
        raise UserError(
            f"training needs about {needed / 1e9:.1f} GB and {available / 1e9:.1f} GB are free: a micro-batch of {settings.micro_batch} "
            f"sequences of {settings.sequence_length} tokens does not fit; lower train.micro_batch_sequences or train.sequence_length, "
            "or take a smaller model.size"
        )
