"""What a model writes while it is trained."""

from types import SimpleNamespace
from typing import Any

import pytest

from puna.errors import UserError
from puna.evaluate import samples
from puna.evaluate.settings import EvaluateSettings
from puna.train.trainer import Notice, SamplesEvent, SkippedStepEvent, StepEvent


def test_samples_are_published_on_the_way_and_at_no_other_step(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []

    def written(wanted: Any, model: Any, tokenizer: Any, **how: Any) -> list[dict[str, Any]]:
        asked.append((model, tokenizer, how))
        return [{"prompt": "a", "text": "b", "temperature": 0.8}]

    monkeypatch.setattr(samples, "samples", written)
    published: list[SamplesEvent] = []
    subscribe = samples.while_trained(EvaluateSettings(), steps=80, length=16, seed=3)
    tokenizer = SimpleNamespace(bos=[1], encode=lambda text: [2] * len(text))
    listen = subscribe(lambda: "model", tokenizer, published.append)
    for step in range(1, 81):
        figures = (step, step * 16, 3.0, 1e-3, 1.0, 0.1)
        listen(SkippedStepEvent(*figures, 1, "not finite") if step == 20 else StepEvent(*figures))
        listen(Notice("nothing"))
    assert [event.step for event in published] == [10, 40]  # none of a model that was not to be updated
    assert asked[0] == ("model", tokenizer, {"length": 16, "seed": 3})


def test_a_prompt_without_room_is_told_before_the_first_step_and_no_prompt_is_no_sample() -> None:
    tokenizer = SimpleNamespace(bos=[1], encode=lambda text: [2] * len(text))
    long = samples.while_trained(EvaluateSettings(prompts=("a" * 15, "a" * 16)), steps=80, length=16, seed=3)
    with pytest.raises(UserError, match=r"evaluate\.prompts: prompt 1 has 16 tokens, the model reads 16"):
        long(None, tokenizer, lambda event: None)
    published: list[SamplesEvent] = []
    none = samples.while_trained(EvaluateSettings(prompts=()), steps=80, length=16, seed=3)
    none(None, tokenizer, published.append)(StepEvent(10, 160, 3.0, 1e-3, 1.0, 0.1))
    assert not published
