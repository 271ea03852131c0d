"""Continue prompts, many at once, with a KV cache."""

from collections.abc import Callable

import torch

from puna.errors import UserError
from puna.generate.sampling import sample
from puna.model.llama import KVCache, Llama


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
    """New tokens of each prompt, without the prompt and without `eos_id`, where a row ends.

    A row's tokens depend on its prompt, the seed and its place alone, not on the other prompts. on_token(row,
    token) is called as they come. Raises UserError for an empty prompt and for one that does not fit the
    model's context.
    """
    longest = model.config.max_seq_len
    for number, prompt in enumerate(prompts):
        if not prompt:
            raise UserError(f"prompt {number + 1} is empty: give it at least the begin token")
        if len(prompt) + max_new_tokens > longest:
            raise UserError(
                f"prompt {number + 1} has {len(prompt)} tokens; with {max_new_tokens} new ones it passes the model's {longest}"
            )
    generators = [
        torch.Generator().manual_seed((seed * 1_000_003 + row) % (1 << 63)) for row in range(len(prompts))
    ]
    weight = model.tok_embeddings.weight
    lengths = torch.tensor([len(prompt) for prompt in prompts], device=weight.device)
    room = int(lengths.max())
    # Shorter prompts are filled up at the right: no real token sees the filling, and the first new tokens
    # overwrite it in the cache.
    tokens = torch.tensor([prompt + [0] * (room - len(prompt)) for prompt in prompts], device=weight.device)
    cache = KVCache(model.config, len(prompts), room + max_new_tokens, weight.dtype, str(weight.device))
    hidden = model.hidden(tokens, cache=cache)
    cache.lengths = lengths
    logits = model.output(hidden[torch.arange(len(prompts), device=weight.device), lengths - 1])
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
