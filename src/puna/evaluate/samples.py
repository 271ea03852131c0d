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
    from puna.generate.engine import generate

    told = []
    for number, prompt in enumerate(wanted.prompts):
        ids = [tokenizer.bos_id, *tokenizer.encode(prompt)]
        room = min(wanted.sample_tokens, length - len(ids))
        if room < 1:
            raise UserError(
                f"evaluate.prompts: prompt {number + 1} has {len(ids)} tokens, the model reads {length}"
            )
        (new,) = generate(
            model,
            [ids],
            max_new_tokens=room,
            temperature=wanted.temperature,
            top_p=wanted.top_p,
            seed=seed + number,
            eos_id=tokenizer.eos_id,
        )
        text = tokenizer.decode(ids + new)[len(prompt) :]
        told.append({"prompt": prompt, "text": text, "temperature": wanted.temperature})
    return told


def while_trained(
    wanted: EvaluateSettings, *, steps: int, length: int, seed: int
) -> Callable[[Any, Any, Callable[[Any], None]], Callable[[Any], None]]:
    """A subscriber of `train.stage.train` that publishes samples several times on the way."""
    chosen = {steps // part for part in EARLIER}

    def subscribe(model: Any, tokenizer: Any, publish: Callable[[Any], None]) -> Callable[[Any], None]:
        from puna.train.trainer import SamplesEvent, StepFigures

        def listen(event: Any) -> None:
            if isinstance(event, StepFigures) and event.step in chosen:
                told = samples(wanted, model, tokenizer, length=length, seed=seed)
                publish(SamplesEvent(event.step, told))

        return listen

    return subscribe
