"""Whether training fits: bytes needed by formula, bytes there are."""

from pathlib import Path

from puna.errors import UserError
from puna.model.config import LlamaConfig
from puna.model.head import CHUNK_FLOATS
from puna.model.remat import saved_floats
from puna.train.settings import TrainSettings

FLOAT = 4
LIBRARIES = 160_000_000


def training_bytes(config: LlamaConfig, settings: TrainSettings) -> int:
    """Bytes that training adds to a process, in float32.

    Weights, gradients and the two moments of AdamW: 16 bytes a parameter. What the layers hold between forward and backward, per
    token and layer: 12 d + 4 f floats under autograd alone, `saved_floats` under policy `llama`, and under `full` d, beside
    twice one layer's own. The head's chunk of logits. What one layer's backward has in hand: 6 d + 3 f floats a token. Libraries that
    load at the first step, threads and their buffers: about 160 MB. Measured peaks are within 10% of it, under `full` within 25%: what
    the allocator keeps of freed pieces differs from run to run.
    """
    tokens = settings.micro_batch * settings.sequence_length
    by_hand = saved_floats(config)
    held = {
        "none": config.n_layers * (12 * config.dim + 4 * config.ffn_dim),
        "llama": config.n_layers * by_hand,
        "full": config.n_layers * config.dim + 2 * by_hand,
    }[settings.remat]
    in_hand = 6 * config.dim + 3 * config.ffn_dim
    logits = min(tokens * config.vocab_size, CHUNK_FLOATS)
    return FLOAT * (4 * config.parameters() + tokens * (held + in_hand) + logits) + LIBRARIES


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
