"""Continue prompts, many at once, with a KV cache."""

from collections.abc import Callable

import torch

from puna.errors import UserError
from puna.generate.cache import KVCache
from puna.generate.sampling import sample
from puna.model.llama import Llama


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
    on_token: Callable[[int, int], None] = lambda row, token: None,
) -> list[list[int]]:
    """Generate the tokens that follow each prompt, up to `eos_id`, without the prompt and `eos_id`.

    A row's tokens depend on its prompt, the seed and its row number alone, not on the other prompts.
    on_token(row, token) is called for each new token. Raises UserError for an empty prompt and for one that
    does not fit the model's context.
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
    hidden = model.hidden(tokens, cache=cache)
    cache.lengths = lengths
    logits = model.output(hidden[torch.arange(len(prompts), device=device), lengths - 1])
    results: list[list[int]] = [[] for _ in prompts]
    running = set(range(len(prompts)))
    for turn in range(max_new_tokens):
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
