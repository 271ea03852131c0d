"""Whether training fits: bytes needed by formula, bytes there are."""

from puna.errors import UserError
from puna.model.block import saved_floats
from puna.model.config import LlamaConfig
from puna.model.loss import chunk_bytes
from puna.run.settings import DEFAULT_EXECUTION, ExecutionSettings
from puna.train.settings import TrainSettings

FLOAT = 4
# libraries that load at the first step, and what the C library's allocator loses even in small models
PROCESS = 190_000_000


def tensor_bytes(
    config: LlamaConfig, settings: TrainSettings, execution: ExecutionSettings = DEFAULT_EXECUTION
) -> int:
    """Bytes of all tensors at the fullest moment of a step, to 2% for policies `llama` and `full` with the
    kernels.

    Weights, gradients and the two moments of AdamW are there always: 16 bytes a parameter (12 for Muon's). To
    that comes the larger of

        at the head         what all L layers hold, 3 d (what the head reads, the norm's result, its
                            gradient), one chunk of logits
        in the last block   what all layers hold, dy (d) and three arrays of the SwiGLU (3 f); under `full`,
                            L d, what one block holds under `none`, and 3 f, and new gradients of w1, w3

    for each of n tokens of a micro-batch, with `saved_floats` a layer; and at the head a new gradient of it,
    which on GPUs waits for the embedding's where they are tied. Activations take 2 bytes in bfloat16, else 4.
    On processors bfloat16 adds 2 bytes for each weight of a matrix, which is rounded once a step, and for the
    products that are added to the gradients of the head, or of w1 and w3 under `full`.
    """
    tokens, d, f = settings.micro_batch(execution) * settings.sequence_length, config.dim, config.ffn_dim
    held, head = config.n_layers * saved_floats(config, execution.remat), config.vocab_size * d
    width = 2 if settings.precision == "bfloat16" else FLOAT
    on_cpu = width < FLOAT and execution.device == "cpu"
    rounded = width * config.matrix_parameters() if on_cpu else 0
    logits = min(tokens * config.vocab_size, max(chunk_bytes(execution.device) // width, config.vocab_size))
    at_the_head = width * (tokens * (held + 3 * d) + logits) + FLOAT * head + width * head * on_cpu
    new = 2 * d * f if execution.remat == "full" else 0
    again = saved_floats(config, "none") if execution.remat == "full" else d
    if config.tie_embeddings and execution.device == "cuda":
        new += head
    in_the_block = width * tokens * (held + again + 3 * f) + (FLOAT + width * on_cpu) * new
    muon = config.matrix_parameters() - head if settings.optimizer == "muon" else 0
    return FLOAT * (4 * config.parameters() - muon) + rounded + max(at_the_head, in_the_block)


def snapshot_bytes(config: LlamaConfig, settings: TrainSettings) -> int:
    """Bytes of the copy that checkpoints are written from: weights and the optimizer's moments."""
    matrices = config.matrix_parameters() - config.vocab_size * config.dim
    return FLOAT * (3 * config.parameters() - (matrices if settings.optimizer == "muon" else 0))


def training_bytes(
    config: LlamaConfig,
    settings: TrainSettings,
    execution: ExecutionSettings = DEFAULT_EXECUTION,
    parts: int = 1,
    tensor: int = 1,
) -> int:
    """Bytes that training adds to a process, or takes of a GPU, where nothing but tensors is
    counted. parts: processes that share weights, gradients, moments and their copy; tensor: those of them
    that share each layer and its tokens, which hold as many parts of the activations, but for what a block
    reads and gives (2 d a token).

    On processors the copy for checkpoints and libraries come to `tensor_bytes`, and what the allocator leaves
    unused between activations, fitted to measured peaks: 95 MB, and 0.16 of what the layers hold; under
    `full`, where every block's activations come and go twice, 0.6 of what one block has in hand and as much
    as the head's gradient. Two runs of the same step differ by up to 7%, since it hangs on where things were
    put.
    """
    copy = snapshot_bytes(config, settings)
    shared = FLOAT * config.parameters() + copy  # and the gradients
    width = 2 if settings.precision == "bfloat16" else FLOAT
    tokens, f = settings.micro_batch(execution) * settings.sequence_length // tensor, config.ffn_dim
    own = settings.model_copy(update={"sequence_length": settings.sequence_length // tensor})
    needed = tensor_bytes(config, own, execution) - shared + shared // parts
    if tensor > 1:
        needed += 2 * width * config.dim * tokens * tensor
    if execution.device == "cuda":
        return needed
    unused = 0.16 * tokens * config.n_layers * saved_floats(config, execution.remat)
    if execution.remat == "full":
        unused = 0.6 * tokens * (saved_floats(config) + config.dim + 3 * f) + config.vocab_size * config.dim
    return needed + copy // parts + PROCESS + int(width * unused)


def check(
    config: LlamaConfig,
    settings: TrainSettings,
    execution: ExecutionSettings,
    available: int,
    parts: int = 1,
    tensor: int = 1,
) -> None:
    """Raises UserError when training needs more than `available` bytes in a process, see `training_bytes`."""
    needed = training_bytes(config, settings, execution, parts, tensor)
    if needed > available:
        micro_batch = settings.micro_batch(execution)
        raise UserError(
            f"training needs about {needed / 1e9:.1f} GB and {available / 1e9:.1f} GB may be used: a "
            f"micro-batch of {micro_batch} sequences of {settings.sequence_length} tokens does not fit; "
            "lower execution.micro_batch_sequences or train.sequence_length, or take a smaller model.size"
        )
