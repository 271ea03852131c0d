"""Continue prompts, many at once, with a KV cache."""

from collections.abc import Callable

import torch

from puna.errors import UserError
from puna.generate.cache import KVCache
from puna.generate.sampling import sample
from puna.model.llama import Llama
from puna.run.threads import Cores

# Weights of a model whose steps are done before a second thread has begun.
SMALL_BYTES = 16_000_000
LOOK_SECONDS = 0.25  # between two looks at what else runs


@torch.inference_mode()
def generate(
    model: Llama,
    prompts: list[list[int]],
    *,
    max_new_tokens: int,
    temperature: float = 0.0,
    top_p: float = 1.0,
    top_k: int = 0,
    seed: int = 0,
    eos_id: int | None = None,
    vocab_size: int | None = None,
    on_token: Callable[[int, int], None] = lambda row, token: None,
) -> list[list[int]]:
    """Generate the tokens that follow each prompt, up to `eos_id`, without the prompt and `eos_id`.

    A row's tokens depend on its prompt, the seed and its row number alone, not on the other prompts. On a CPU
    it computes on the cores that other programs leave, and looks again while it runs.
    vocab_size: tokens from this one on are never drawn; default: the model's, which may hold rows that no
    token of its tokenizer has. on_token(row, token) is called for each new token. Raises UserError for an
    empty prompt and for one that does not fit the model's context.
    """
    longest = model.config.max_seq_len
    for number, prompt in enumerate(prompts):
        if not prompt:
            raise UserError(f"prompt {number + 1} is empty: give it at least the begin token")
        if len(prompt) + max_new_tokens > longest:
            raise UserError(
                f"prompt {number + 1} has {len(prompt)} tokens; with {max_new_tokens} new ones "
                f"it passes the model's {longest}"
            )
    seeds = [(seed * 1_000_003 + row) % (1 << 63) for row in range(len(prompts))]
    generators = [torch.Generator().manual_seed(row_seed) for row_seed in seeds]
    weight = model.tok_embeddings.weight
    device = weight.device
    lengths = torch.tensor([len(prompt) for prompt in prompts], device=device)
    width = int(lengths.max())
    # Shorter prompts are padded at the right: no real token attends to the padding, and the first new tokens
    # overwrite it in the cache.
    tokens = torch.tensor([prompt + [0] * (width - len(prompt)) for prompt in prompts], device=device)
    cache = KVCache(model.config, len(prompts), width + max_new_tokens, weight.dtype, str(device))
    with Threads(model) as threads:
        hidden = model.hidden(tokens, cache=cache)
        cache.lengths = lengths
        logits = model.output(hidden[torch.arange(len(prompts), device=device), lengths - 1])
        results: list[list[int]] = [[] for _ in prompts]
        running = set(range(len(prompts)))
        for turn in range(max_new_tokens):
            threads.choose()
            if vocab_size is not None:
                logits[:, vocab_size:] = -torch.inf
            chosen = sample(logits, temperature, top_p, top_k, generators)
            for row in sorted(running):
                token = int(chosen[row])
                if token == eos_id:
                    running.remove(row)
                else:
                    results[row].append(token)
                    on_token(row, token)
            if not running or turn == max_new_tokens - 1:
                break
            logits = model(chosen[:, None], cache=cache)[:, 0]
    return results


class Threads:
    """torch's threads while a model generates: one for a small model, else one a core that is free."""

    def __init__(self, model: Llama) -> None:
        self.before, self.cores = torch.get_num_threads(), Cores()
        weights = sum(weight.numel() * weight.element_size() for weight in model.parameters())
        self.small = weights < SMALL_BYTES

    def __enter__(self) -> "Threads":
        if self.small:
            torch.set_num_threads(1)
        return self

    def __exit__(self, *error: object) -> None:
        torch.set_num_threads(self.before)

    def choose(self) -> None:
        """Look what else runs, if that was some time ago."""
        if not self.small and self.cores.seconds() > LOOK_SECONDS:
            torch.set_num_threads(min(self.before, self.cores.free()))
