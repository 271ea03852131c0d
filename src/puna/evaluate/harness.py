"""Tasks of lm-evaluation-harness on our engine: its prompts and scores, our computing.

results = run(loaded, ["arc_easy"], limit=100)["results"]
"""

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from puna.errors import UserError
from puna.generate.load import Loaded


def run(
    loaded: Loaded,
    tasks: Sequence[str],
    *,
    shots: int | None = None,
    limit: int | None = None,
    folder: Path | None = None,
    samples: bool = False,
) -> dict[str, Any]:
    """What lm-evaluation-harness finds for a model: its "results" by task, with `samples` each item, too.

    folder: with YAML files of tasks of one's own, to choose from instead of its own. Raises UserError where
    it is not installed, and for tasks that it does not have. Its tasks that run what a model writes are
    refused: they have no sandbox.
    """
    try:
        import lm_eval
        from lm_eval.tasks import TaskManager
    except ImportError as error:
        raise UserError("lm-evaluation-harness is not here: pip install 'puna[lm-eval]'") from error
    from puna.generate.engine import Engine

    manager = TaskManager(include_path=folder and str(folder), include_defaults=folder is None)
    if unknown := sorted(set(tasks) - set(manager.all_tasks)):
        raise UserError(f"lm-evaluation-harness has no task {unknown[0]}: `lm-eval ls tasks` lists them")
    return lm_eval.simple_evaluate(
        adapter(loaded, Engine(loaded.model, loaded.tokenizer)),
        tasks=list(tasks),
        num_fewshot=shots,
        limit=limit,
        task_manager=manager,
        log_samples=samples,
    )


def table(found: Mapping[str, Any]) -> str:
    """What `run` found as the harness prints it, with the items of each task."""
    from lm_eval.utils import make_table

    counts = (f"{task} {count['effective']:,}" for task, count in found["n-samples"].items())
    return f"{make_table(found)}items: {', '.join(counts)}"


def adapter(loaded: Loaded, engine: Any) -> Any:
    """A model as lm-evaluation-harness asks for one. What is too long for the model is cut at its beginning,
    as the harness' own backends do."""
    from lm_eval import utils
    from lm_eval.api.model import TemplateLM
    from lm_eval.models.utils import normalize_gen_kwargs

    from puna.generate.engine import Sampling, Tree

    tokenizer, most = loaded.tokenizer, loaded.model.config.max_seq_len

    class Adapter(TemplateLM):
        eot_token_id = tokenizer.eos_id
        prefix_token_id = tokenizer.bos_id if tokenizer.bos_id >= 0 else tokenizer.eos_id

        def tok_encode(self, string: str, add_special_tokens: bool | None = None, **unused: Any) -> list[int]:
            return [*([] if add_special_tokens is False else tokenizer.bos), *tokenizer.encode(string)]

        def _loglikelihood_tokens(
            self, requests: Sequence[tuple[Any, list[int], list[int]]], **unused: Any
        ) -> list[tuple[float, bool]]:
            members: dict[tuple[int, ...], list[int]] = {}
            for number, (_, context, option) in enumerate(requests):
                room = max(1, most + 1 - len(option))
                members.setdefault(tuple(context[-room:]), []).append(number)
            trees = [Tree(list(ids), [requests[n][2] for n in numbers]) for ids, numbers in members.items()]
            places, found = list(members.values()), [(0.0, False)] * len(requests)
            for index, scores in engine.score(trees):
                for number, score in zip(places[index], scores, strict=True):
                    found[number] = (math.fsum(score.log_probs), score.is_greedy)
            return found

        def loglikelihood_rolling(self, requests: Sequence[Any], disable_tqdm: bool = False) -> list[float]:
            sums = []
            for (text,) in (request.args for request in requests):
                ids = self.tok_encode(text, add_special_tokens=False)
                windows = utils.get_rolling_token_windows(ids, self.prefix_token_id, most, 1)
                parts = [(None, *utils.make_disjoint_window(window)) for window in windows]
                sums.append(math.fsum(log_prob for log_prob, _ in self._loglikelihood_tokens(parts)))
            return sums

        def generate_until(self, requests: Sequence[Any], disable_tqdm: bool = False) -> list[str]:
            groups: dict[str, list[int]] = {}
            for number, request in enumerate(requests):
                groups.setdefault(json.dumps(request.args[1], sort_keys=True), []).append(number)
            texts = [""] * len(requests)
            for told, numbers in groups.items():
                wanted: dict[str, Any] = normalize_gen_kwargs(json.loads(told))
                new, stops = wanted["max_gen_toks"], wanted["until"]
                known = ("temperature", "top_p", "top_k")
                sampling = Sampling(**{name: wanted[name] for name in known if name in wanted})
                prompts = [self.tok_encode(requests[n].args[0])[-max(1, most - new) :] for n in numbers]
                made = engine.sample(prompts, max_new_tokens=new, sampling=sampling, stops=stops)
                for place, _, sample in made:
                    texts[numbers[place]] = sample.text
            return texts

    return Adapter()
