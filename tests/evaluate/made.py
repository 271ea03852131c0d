"""Made rows of every task, in its publishers' forms, a small model for them, and the record of prompts.

python -m tests.evaluate.made     # record the prompts of tasks that are new or have a raised version
"""

import json
import tempfile
from pathlib import Path
from typing import Any

import torch

from puna.evaluate.data import Data
from puna.evaluate.log import digest
from puna.evaluate.task import PROFILES, Choice, Options, Task, tasks
from puna.generate.load import Loaded, Origin
from puna.model.config import LlamaConfig
from puna.model.llama import Llama
from puna.tokens.settings import TokenizerSettings
from puna.tokens.tokenizer import Tokenizer, train

PROMPTS = Path(__file__).with_name("prompts.json")
ANIMALS = ("a llama", "an alpaca", "a condor", "a fox")
SUBJECTS = ("anatomy", "us_foreign_policy")


def letters(number: int) -> list[str]:
    return [f"{animal} of {number}" for animal in ANIMALS]


def csv(*rows: list[Any]) -> str:
    return "".join(",".join(f'"{cell}"' for cell in row) + "\n" for row in rows)


def jsonl(*rows: Any) -> str:
    return "".join(json.dumps(row) + "\n" for row in rows)


def mmlu(number: int, subject: str) -> dict[str, Any]:
    question = f" What grazes at {number} in {subject}?"
    return {"subject": subject, "question": question, "choices": letters(number), "answer": number % 4}


def pair(number: int) -> list[Any]:
    more, less = f"The old llama {number} is lazy.", f"The young llama {number} is lazy."
    return [number, more, less, "stereo", ("age", "race-color")[number % 2]]


def labelled(number: int) -> dict[str, Any]:
    return {"text": letters(number), "label": ["A", "B", "C", "D"]}


def truth(number: int) -> list[Any]:
    best = f"It sleeps {number} hours"
    return [f"How long does llama {number} sleep?", best, f"{best}; At night", "It never sleeps; It eats; "]


def program(number: int) -> dict[str, Any]:
    tests = [f"assert add({x}) == {x + number}" for x in range(3)]
    code = f"def add(x):\r\n    return x + {number}"
    return {
        "task_id": number,
        "text": f"Add {number}.",
        "code": code,
        "test_setup_code": "",
        "test_list": tests,
    }


ALL = range(6)
FILES = {
    "boolq/dev.jsonl": jsonl(
        *(
            {"passage": f"Llama {n} is {n % 2}.", "question": f"is llama {n} odd", "answer": n % 2 > 0}
            for n in ALL
        )
    ),
    "piqa/valid.jsonl": jsonl(
        *(
            {"goal": f"Feed llama {n}.", "sol1": f"Give it {n} leaves.", "sol2": f"Give it {n} stones. "}
            for n in ALL
        )
    ),
    "piqa/valid-labels.lst": "0\n1\n0\n0\n1\n0\n",
    "siqa/dev.jsonl": jsonl(
        *(
            {"context": f"Ana led llama {n} home.", "question": "How did she feel?", "answerA": "glad"}
            | {"answerB": "like a leader", "answerC": "sad"}
            for n in ALL
        )
    ),
    "siqa/dev-labels.lst": "1\n2\n3\n1\n2\n3\n",
    "hellaswag_val.jsonl": jsonl(
        *(
            {
                "activity_label": "Shearing",
                "ctx_a": f"Llama {n} stands. [header] Wool [title] Cut it.",
                "ctx_b": "the man",
            }
            | {"endings": ["cuts [step] wool.", "sleeps.", "flies off.", "sings."], "label": str(n % 4)}
            for n in ALL
        )
    ),
    "winogrande_1.1/dev.jsonl": jsonl(
        *(
            {"sentence": f"Llama {n} met the fox because _ was lost.", "option1": f"Llama {n}"}
            | {"option2": "the fox", "answer": str(1 + n % 2)}
            for n in ALL
        )
    ),
    "ARC-Easy-Test.jsonl": jsonl(
        *(
            {
                "id": f"Made_{n}",
                "question": {
                    "stem": f"Which one flies at {n}?",
                    "choices": [
                        {"text": t, "label": label} for t, label in zip(letters(n), "1234", strict=True)
                    ],
                },
                "answerKey": str(1 + n % 4),
            }
            for n in ALL
        )
    ),
    "arc_challenge_test.jsonl": jsonl(
        *(
            {"id": f"Made_{n}", "question": f"Which one spits at {n}?", "choices": labelled(n)}
            | {"answerKey": "ABCD"[n % 4]}
            for n in ALL
        )
    ),
    "obqa_test.jsonl": jsonl(
        *(
            {"id": f"7-{n}", "question_stem": f"Wool of {n} comes from", "choices": labelled(n)}
            | {"answerKey": "ABCD"[n % 4]}
            for n in ALL
        )
    ),
    **{
        f"RACE/test/{level}/{n}.txt": json.dumps(
            {
                "article": f"Llama {n} went to school.",
                "questions": ["Who went to school  _  .", f"Which llama of {level} school?"],
                "options": [letters(n), letters(n + 1)],
                "answers": ["A", "ABCD"[n % 4]],
                "id": f"{n}.txt",
            }
        )
        for level in ("middle", "high")
        for n in range(3)
    },
    "mmlu_test.jsonl": jsonl(*(mmlu(n, SUBJECTS[n % 2]) for n in ALL)),
    "mmlu_dev.jsonl": jsonl(*(mmlu(n, SUBJECTS[n % 2]) for n in range(10, 22))),
    "crows_pairs_anonymized.csv": csv(
        ["", "sent_more", "sent_less", "stereo_antistereo", "bias_type"], *map(pair, ALL)
    ),
    "winogender/all_sentences.tsv": "sentid\tsentence\n"
    + "".join(
        f"herder.{other}.{answer}.{gender}.txt\tThe herder told {other} that {pronoun} could go.\n"
        for other in ("someone", "visitor")
        for answer in "01"
        for gender, pronoun in (("male", "he"), ("female", "she"), ("neutral", "they"))
    ),
    "winogender/occupations-stats.tsv": "occupation\tbergsma_pct_female\tbls_pct_female\tbls_year\n"
    "herder\t9.5\t40.5\t2015\n",
    "TruthfulQA.csv": csv(
        ["Question", "Best Answer", "Correct Answers", "Incorrect Answers"], *map(truth, ALL)
    ),
}
WRITTEN = {  # rows of tasks whose answers are written
    "NQ-open.dev.jsonl": jsonl(
        {"question": "where do llamas live", "answer": ["The Andes", "South America"]},
        {"question": "who shears them?", "answer": ["herders"]},
    ),
    "NQ-open.efficientqa.dev.1.1.jsonl": jsonl(
        *({"question": f"what is {n} and {n}", "answer": [str(2 * n), "much"]} for n in range(70))
    ),
    "triviaqa_rc_val_made.jsonl": jsonl(
        {
            "context": "Question: What spins wool?\nAnswer:",
            "answer": "A wheel",
            "aliases": ["spinning wheel"],
        },
        {"question": "What spits?", "answer": {"value": "Llama", "aliases": ["Llamas", "Lama glama"]}},
        {"Question": "What hums?", "Answer": {"Value": "Alpaca", "Aliases": ["Alpacas"]}},
    ),
    "gsm8k_test.jsonl": jsonl(
        {"question": "3 llamas carry 400 g each. What do they carry?", "answer": "3 x 400 = 1200\n#### 1,200"}
    ),
    "math_test.jsonl": jsonl(
        {"problem": "Halve 3.", "level": "Level 1", "type": "Algebra", "solution": "So $\\boxed{\\frac32}$."},
        {"problem": "Double 3.", "level": 2, "subject": "Geometry", "solution": "It is $\\boxed{6}$."},
    ),
    "HumanEval.jsonl": jsonl(
        {
            "task_id": "HumanEval/0",
            "prompt": 'def double(x):\n    """Double x."""\n',
            "entry_point": "double",
            "test": "def check(candidate):\n    assert candidate(4) == 8\n",
        }
    ),
    "mbpp.jsonl": jsonl(*map(program, (2, 3, 4, 10, 11, 510, 511))),
    "prompts.jsonl": jsonl(
        {"prompt": {"text": "The herder said", "toxicity": 0.1}, "challenging": False},
        {"prompt": {"text": "The fox said", "toxicity": 0.9}, "challenging": True},
    ),
}


def write(folder: Path) -> Path:
    """Write the files of all tasks into a folder."""
    for name, text in {**FILES, **WRITTEN}.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return folder


def loaded(context: int = 512) -> Loaded:
    """A small model with weights from a seed, and a tokenizer of the made rows."""
    tokenizer = Tokenizer(train([*FILES.values(), "é ü \n"], TokenizerSettings(vocab_size=420)))
    config = LlamaConfig(
        dim=32, n_layers=2, n_heads=4, ffn_dim=48, vocab_size=tokenizer.vocab_size + 4, max_seq_len=context
    )
    model = Llama.empty(config)
    model.init_weights(5)
    with torch.no_grad():
        model.output.weight.mul_(30.0)  # so that options differ
    return Loaded(model, tokenizer, None, tokenizer.stops, Origin("native", Path("made"), {}, {}))


def prompts(task: Task, profile: str, folder: Path) -> list[Any]:
    """All that a task asks about the made rows, as text."""
    items = task.items(Data(task.name, task.parts, folder), Options(profile, task.shots))
    return [
        item.pairs() if isinstance(item, Choice)
        else [item.text(), item.stops, item.max_new_tokens, item.samples, item.temperature, item.top_p]
        for item in items
    ]  # fmt: skip


def record(folder: Path) -> None:
    """Write down the prompts of tasks that are new or have another version than in the record."""
    known = json.loads(PROMPTS.read_text()) if PROMPTS.is_file() else {}
    for name, task in tasks().items():
        if known.get(name, {}).get("version") != task.version:
            known[name] = {profile: digest(prompts(task, profile, folder)) for profile in PROFILES}
            known[name]["version"] = task.version
    PROMPTS.write_text(json.dumps(dict(sorted(known.items())), indent=1) + "\n")


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as made:
        record(write(Path(made)))
