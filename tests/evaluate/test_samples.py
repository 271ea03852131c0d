"""What a model writes while it is trained."""

from typing import Any

import pytest

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
    listen = subscribe("model", "tokenizer", published.append)
    for step in range(1, 81):
        figures = (step, step * 16, 3.0, 1e-3, 1.0, 0.1)
        listen(SkippedStepEvent(*figures, 1) if step == 20 else StepEvent(*figures))
        listen(Notice("nothing"))
    assert [event.step for event in published] == [10, 20, 40]
    assert asked[0] == ("model", "tokenizer", {"length": 16, "seed": 3})
