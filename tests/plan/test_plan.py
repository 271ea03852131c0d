"""What a run needs, against measured memory."""

import itertools
from collections.abc import Callable
from typing import Any

import pytest
import torch

from puna.errors import UserError
from puna.model import kernels
from puna.model.config import LlamaConfig, config
from puna.model.llama import Llama
from puna.plan import memory
from puna.run import machine
from puna.run.settings import ExecutionSettings
from puna.tokens.batches import Batch
from puna.train.objective import NextToken, loss_and_gradients
from puna.train.optimizer import build, update
from puna.train.pretraining import precision
from puna.train.settings import TrainSettings


def one_step(
    size: dict[str, int], micro: int, remat: str, **options: Any
) -> tuple[LlamaConfig, TrainSettings, ExecutionSettings, Callable[[], None]]:
    """A step on packed rows of 256 random tokens, after one that fills the optimizer's state."""
    config = LlamaConfig(**size, max_seq_len=256)
    settings = TrainSettings.model_validate(
        {"steps": 2, "batch_sequences": micro, "sequence_length": 256, "warmup_steps": 0, **options}
    )
    execution = ExecutionSettings.model_validate({"remat": remat})
    model = Llama(config)
    model.init_weights(1)
    optimizer = build(model, settings)
    tokens = torch.randint(0, config.vocab_size, (micro, 256)).numpy()
    batch = Batch(tokens, tokens, tokens * 0 + (torch.arange(256) > 100).long().numpy())

    def step() -> None:
        loss_and_gradients(model, batch, micro, NextToken(execution.remat, dtype=precision(settings)))
        update(model, optimizer, 0, settings)

    step()
    return config, settings, execution, step


SHAPES = [
    ({"dim": 288, "n_layers": 6, "n_heads": 6, "ffn_dim": 768, "vocab_size": 4096}, 16),
    ({"dim": 512, "n_layers": 2, "n_heads": 8, "ffn_dim": 1376, "vocab_size": 32000}, 2),
    ({"dim": 256, "n_layers": 6, "n_heads": 4, "n_kv_heads": 2, "ffn_dim": 704, "vocab_size": 300}, 8),
    ({"dim": 256, "n_layers": 1, "n_heads": 4, "ffn_dim": 1024, "vocab_size": 2000}, 1),
    (
        {
            "dim": 256,
            "n_layers": 1,
            "n_heads": 4,
            "ffn_dim": 1024,
            "vocab_size": 2000,
            "tie_embeddings": True,
        },
        1,
    ),
]


@pytest.mark.skipif(
    kernels.library() is None, reason="no C++ compiler here: torch's operations hold more for a moment"
)
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(
    ("optimizer", "precision"), [("adamw", "float32"), ("muon", "float32"), ("adamw", "bfloat16")]
)
@pytest.mark.parametrize("policy", ["llama", "full"])
@pytest.mark.parametrize(("size", "micro"), SHAPES)
def test_the_formula_counts_every_tensor(
    size: dict[str, int], micro: int, policy: str, optimizer: str, precision: str
) -> None:
    """Against what torch's profiler sees allocated and freed within a step, beside weights, gradients and the
    optimizer's state."""
    config, settings, execution, step = one_step(
        size, micro, remat=policy, optimizer=optimizer, precision=precision
    )
    matrices = config.matrix_parameters() - config.dim * config.vocab_size
    always = 16 * config.parameters() - (4 * matrices if optimizer == "muon" else 0)
    with torch.profiler.profile(
        activities=[torch.profiler.ProfilerActivity.CPU], profile_memory=True
    ) as profile:
        step()
    events = [
        event.nbytes() for event in profile.profiler.kineto_results.events() if event.name() == "[memory]"
    ]
    measured = always + max(itertools.accumulate(events))
    assert measured == pytest.approx(memory.tensor_bytes(config, settings, execution), rel=0.02)


def test_a_batch_that_does_not_fit_is_refused_with_figures() -> None:
    settings = TrainSettings(steps=10, batch_sequences=512, sequence_length=2048, warmup_steps=1)
    execution = ExecutionSettings()
    with pytest.raises(
        UserError,
        match=r"training needs about [\d.]+ GB and 8\.0 GB may be used: a micro-batch of 512 sequences",
    ):
        memory.check(config("7b"), settings, execution, 8_000_000_000)
    memory.check(config("2m"), settings, ExecutionSettings(micro_batch_sequences=1), 8_000_000_000)
    assert 0 < machine.available_bytes() <= machine.describe()["memory_bytes"]


@pytest.mark.parametrize(("optimizer", "moments"), [("adamw", 2), ("muon", 1)])
def test_the_copy_for_checkpoints_counts_on_processors_and_processes_share_the_state(
    optimizer: str, moments: int
) -> None:
    model = config("7b")
    settings = TrainSettings(
        steps=10, batch_sequences=4, sequence_length=64, warmup_steps=1, optimizer=optimizer
    )
    matrices = model.matrix_parameters() - model.vocab_size * model.dim
    state = 4 * (model.parameters() + 2 * model.parameters() - (2 - moments) * matrices)
    assert memory.snapshot_bytes(model, settings) == state
    alone, eight = (memory.training_bytes(model, settings, parts=parts) for parts in (1, 8))
    assert alone - eight == pytest.approx(7 / 8 * (2 * state + 4 * model.parameters()), abs=16)
    cuda = ExecutionSettings(device="cuda")
    shared = memory.training_bytes(model, settings, parts=8, tensor=2)
    assert eight / 2 < shared < eight
    on_gpu = [memory.training_bytes(model, settings, cuda, parts=parts) for parts in (1, 8)]
    assert on_gpu[0] - on_gpu[1] == pytest.approx(7 / 8 * (state + 4 * model.parameters()), abs=16)
