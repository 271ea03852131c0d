"""Whether training fits: bytes needed by formula, bytes there are."""

from pathlib import Path

from puna.errors import UserError
from puna.model.config import LlamaConfig
from puna.model.head import CHUNK_FLOATS
from puna.model.remat import saved_floats
from puna.train.settings import TrainSettings

FLOAT = 4
LIBRARIES = 95_000_000  # what loads at the first step beside the model: the optimizer's modules, oneDNN, threads
UNUSED = 70_000_000


def tensor_bytes(config: LlamaConfig, settings: TrainSettings) -> int:
    """Bytes of all tensors at the fullest moment of a step in float32: exact for policies `llama` and `full` with the kernels.

    Weights, gradients and the two moments of AdamW are there always: 16 bytes a parameter (12 for Muon's). To that comes the larger of

        at the head         what all L layers hold, 3 d (what the head reads, the norm's result, its gradient), one chunk of logits,
                            and the gradient of the head's weight
        in the last block   what all layers hold, dy (d) and three arrays of the SwiGLU (3 f); under `full`, L d, what one block holds
                            under `llama`, d and 3 f

    with n tokens of a micro-batch and `saved_floats` a token and layer.
    """
    tokens, d, f = settings.micro_batch * settings.sequence_length, config.dim, config.ffn_dim
    held = config.n_layers * saved_floats(config, settings.remat)
    logits = min(tokens * config.vocab_size, max(CHUNK_FLOATS, config.vocab_size)) + config.vocab_size * d
    again = saved_floats(config) if settings.remat == "full" else 0
    step = max(tokens * (held + 3 * d) + logits, tokens * (held + again + d + 3 * f))
    muon = config.matrix_parameters() - d * config.vocab_size if settings.optimizer == "muon" else 0
    return FLOAT * (4 * config.parameters() - muon + step)


def training_bytes(config: LlamaConfig, settings: TrainSettings) -> int:
    """Bytes that training adds to a process on a processor: `tensor_bytes`, libraries, and what lies unused between activations.

    What lies unused is fitted to measured peaks: 70 MB, and 0.16 of what the layers hold; under `full`, where every block's activations
    come and go twice, as much as one block has in hand. Two runs of the same step differ by up to 7% (under `full` 15%), since what the
    allocator can use again hangs on where it happened to put things.
    """
    tokens, f = settings.micro_batch * settings.sequence_length, config.ffn_dim
    held = 0.16 * config.n_layers * saved_floats(config, settings.remat)
    unused = saved_floats(config) + config.dim + 3 * f if settings.remat == "full" else held
    return tensor_bytes(config, settings) + LIBRARIES + UNUSED + int(FLOAT * tokens * unused)


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
