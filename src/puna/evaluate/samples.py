"""How a model goes on from the prompts of a recipe: when it is trained, and while it is."""

from collections.abc import Callable
from typing import Any

from puna.errors import UserError
from puna.evaluate.settings import EvaluateSettings

EARLIER = (8, 4, 2)  # while it is trained: after an eighth of the steps, a quarter and a half


def samples(
    wanted: EvaluateSettings, model: Any, tokenizer: Any, *, length: int, seed: int
) -> list[dict[str, Any]]:
    """Prompt, text and temperature of each sample. length: tokens that the model reads.

    Raises UserError for a prompt that leaves no room.
    """
    from puna.generate.decoder import BLOCK, block_bytes
    from puna.generate.engine import Engine, Request, Sampling

    prompts = _tokens(wanted, tokenizer, length)
    if not prompts:
        return []
    room = [min(wanted.sample_tokens, length - len(ids)) for ids in prompts]
    blocks = sum(-(-(len(ids) + new) // BLOCK) for ids, new in zip(prompts, room, strict=True))
    engine = Engine(model, tokenizer, memory_bytes=blocks * block_bytes(model))
    how = Sampling(temperature=wanted.temperature, top_p=wanted.top_p)
    writings = [
        engine.submit(Request(ids, new, how, seed=seed + number))
        for number, (ids, new) in enumerate(zip(prompts, room, strict=True))
    ]
    while engine.step():
        pass
    return [
        {"prompt": prompt, "text": writing.text, "temperature": wanted.temperature}
        for prompt, writing in zip(wanted.prompts, writings, strict=True)
    ]


def _tokens(wanted: EvaluateSettings, tokenizer: Any, length: int) -> list[list[int]]:
    """Token ids of each prompt, the begin token first."""
    encoded = [[*tokenizer.bos, *tokenizer.encode(prompt)] for prompt in wanted.prompts]
    for number, ids in enumerate(encoded, 1):
        if len(ids) >= length:
            raise UserError(
                f"evaluate.prompts: prompt {number} has {len(ids)} tokens, the model reads {length}"
            )
    return encoded


def while_trained(
    wanted: EvaluateSettings, *, steps: int, length: int, seed: int
) -> Callable[[Callable[[], Any], Any, Callable[[Any], None]], Callable[[Any], None]]:
    """A subscriber of `train.stage.train` that publishes samples several times on the way.

    A prompt that leaves no room is told before the first step.
    """
    chosen = {steps // part for part in EARLIER} if wanted.prompts else set()

    def subscribe(
        whole: Callable[[], Any], tokenizer: Any, publish: Callable[[Any], None]
    ) -> Callable[[Any], None]:
        import torch

        from puna.train.trainer import SamplesEvent, StepEvent

        _tokens(wanted, tokenizer, length)

        def listen(event: Any) -> None:
            if not isinstance(event, StepEvent) or event.step not in chosen:
                return
            if (model := whole()) is not None:
                with torch.compiler.set_stance("force_eager"):  # else compiled anew for every length
                    told = samples(wanted, model, tokenizer, length=length, seed=seed)
                publish(SamplesEvent(event.step, told))

        return listen

    return subscribe
