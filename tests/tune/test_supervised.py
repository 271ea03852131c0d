"""Noise on embeddings, the same under every layout, and the largest step that is tried first."""

import numpy as np
import pytest
import torch

from puna.model.config import LlamaConfig
from puna.model.llama import Llama
from puna.run.settings import ExecutionSettings
from puna.tokens.batches import Batch
from puna.train.noise import Noise
from puna.train.objective import NextToken, loss_and_gradients
from puna.train.settings import TrainSettings
from puna.tune import rows
from puna.tune.supervised import Supervised

CONFIG = LlamaConfig(dim=16, n_layers=2, n_heads=2, ffn_dim=32, vocab_size=50, max_seq_len=64)


def model() -> Llama:
    made = Llama(CONFIG)
    made.init_weights(3)
    return made


def packed(length: int, sizes: tuple[int, ...] = (9, 14, 5, 20)) -> Batch:
    chance = np.random.default_rng(1)
    made = [(chance.integers(1, 50, size), np.arange(size) >= size // 2) for size in sizes]
    return rows.batch_of(made, length)


def noise(alpha: float, seed: int = 5, of: Llama | None = None) -> Noise:
    return Noise(NextToken("llama"), of or model(), alpha, seed)


def test_the_noise_is_uniform_within_alpha_by_the_root_of_length_and_width() -> None:
    batch, alpha = packed(64, (60, 33)), 5.0
    drawn = noise(alpha).of(batch.document_ids).reshape(*batch.tokens.shape, CONFIG.dim)
    for number, length in enumerate((59, 32)):
        own = drawn[batch.document_ids == number]
        bound = alpha / np.sqrt(length * CONFIG.dim)
        assert own.shape == (length, CONFIG.dim)
        assert 0.97 * bound < np.abs(own).max() <= bound
        assert abs(own.mean()) < 0.1 * bound
        assert own.var() == pytest.approx(bound**2 / 3, rel=0.15)


def test_the_noise_is_a_function_of_seed_step_and_conversation_whatever_the_rows() -> None:
    wide, narrow = packed(64), packed(24)
    assert wide.tokens.shape != narrow.tokens.shape
    one = noise(5.0)
    first, second = (one.of(batch.document_ids) for batch in (wide, narrow))
    for number in range(4):
        here, there = (batch.document_ids.ravel() == number for batch in (wide, narrow))
        assert np.array_equal(first[here], second[there])
    one.step = 1
    assert not np.array_equal(one.of(wide.document_ids), first)
    assert not np.array_equal(noise(5.0, seed=6).of(wide.document_ids), first)


def test_noise_is_added_to_the_embeddings_in_training_alone() -> None:
    of, batch = model(), packed(64)
    noisy = noise(5.0, of=of)
    plain, weight = NextToken("llama")(of, batch)
    disturbed, _ = noisy(of, batch)
    assert abs(disturbed.item() - plain.item()) > 1e-4 * weight
    assert NextToken("llama")(of, batch)[0].item() == plain.item()
    with torch.no_grad():
        table = of.tok_embeddings.weight[torch.from_numpy(batch.tokens)].view(-1, CONFIG.dim)
        x = table + torch.from_numpy(noisy.of(batch.document_ids))
        layout = of._layout(
            torch.from_numpy(batch.tokens), torch.from_numpy(batch.document_ids), None, "llama", None
        )
        for layer in of.layers:
            x = layer(x, layout, None, "llama")
        targets = torch.from_numpy(batch.targets).ravel()
        logits = of.output(of.norm(x))[targets >= 0]
        expected = torch.nn.functional.cross_entropy(logits, targets[targets >= 0], reduction="sum")
    assert disturbed.item() == pytest.approx(expected.item(), rel=1e-5)


@pytest.mark.parametrize("size", [1, 2, 3])
def test_micro_batches_have_the_same_noise_and_gradients(size: int) -> None:
    batch = packed(24)

    def gradient(micro_batch: int) -> torch.Tensor:
        of = model()
        loss_and_gradients(of, batch, micro_batch, noise(5.0, of=of))
        return of.layers[0].attention.wq.weight.grad

    torch.testing.assert_close(gradient(size), gradient(9), rtol=1e-4, atol=1e-7)


def test_the_fullest_step_is_tried_before_the_first() -> None:
    made = rows.encoded(
        "a", [(list(range(size)), [place > 1 for place in range(size)]) for size in (30, 5, 40, 44)]
    )
    batches = rows.Batches([made], [8], seed=1, steps=4, conversations=8, length=48)
    settings = TrainSettings(
        steps=4, batch_sequences=batches.batch_sequences, sequence_length=48, warmup_steps=0
    )
    work = Supervised(model(), batches, {}, settings, ExecutionSettings(micro_batch_sequences=2))
    assert max(batches.rows) == batches.batch_sequences
    seen: list[int] = []

    def objective(of: Llama, part: Batch) -> tuple[torch.Tensor, float]:
        seen.append(part.tokens.size)
        return NextToken("llama")(of, part)

    work.objective = objective  # type: ignore[assignment]
    work.dry_run()
    parts = [part for step in range(4) for part in batches.batch(step).micro_batches(2)]
    assert seen == [max(part.tokens.size for part in parts)]


def test_noise_changes_a_step_and_no_validation() -> None:
    made = rows.encoded(
        "a", [(list(range(1, size)), [place > 1 for place in range(1, size)]) for size in (30, 8, 40)]
    )
    batches = rows.Batches([made], [6], seed=1, steps=3, conversations=6, length=48)
    settings = TrainSettings(
        steps=3, batch_sequences=batches.batch_sequences, sequence_length=48, warmup_steps=0
    )
    held = {"a": rows.whole(made, 48)}
    plain, noisy = (
        Supervised(model(), batches, held, settings, ExecutionSettings())  # type: ignore[arg-type]
        for _ in range(2)
    )
    noisy.add_noise(5.0, 1)
    plain.add_noise(0.0, 1)
    assert noisy.validate() == plain.validate()
    assert float(noisy.step(1).loss) != float(plain.step(1).loss)
