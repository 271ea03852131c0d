"""Questions without a text that has the answer: NaturalQuestions, the open test (Kwiatkowski et al. 2019, Lee
et al. 2019), and TriviaQA (Joshi et al. 2017).

In `paper`, questions begin with a capital and end with a question mark, as in the paper's appendix, though
NaturalQuestions writes them without. Examples are the first ones of a pool: of NaturalQuestions, the
development set of EfficientQA; of TriviaQA, its training set, or where that is missing, other questions of
the set that is asked.
"""

import re
import string
from collections.abc import Iterator, Sequence
from functools import partial
from itertools import islice

from puna.evaluate.answers import exact_match, short_answer, strict_answer
from puna.evaluate.data import Data, Part, Row
from puna.evaluate.task import Generation, Options, Scores, Task

LM_EVAL_IGNORES = re.compile(r"\b(?:[Tt]he|[Aa]n?) ")
NO_PUNCTUATION = str.maketrans("", "", string.punctuation)


def read(row: Row) -> tuple[str, list[str]]:
    """(question, its aliases, the usual one first), in any form in which publishers have them."""
    question = row["Question"] if "Question" in row else row["question" if "question" in row else "context"]
    question = question.removeprefix("Question: ").removesuffix("\nAnswer:").strip()
    answer = row["Answer" if "Answer" in row else "answer"]
    if isinstance(answer, str):
        return question, [answer, *row["aliases"]]
    if isinstance(answer, dict):
        lower = {name.lower(): value for name, value in answer.items()}
        return question, [lower["value"], *lower["aliases"]]
    return question, list(answer)


def lm_eval_form(text: str, articles: bool) -> str:
    """A text as lm-eval compares it; articles: they count."""
    return (text if articles else LM_EVAL_IGNORES.sub("", text)).lower().translate(NO_PUNCTUATION)


def check(text: str, aliases: Sequence[str], profile: str, articles: bool) -> float:
    if profile == "paper":
        return float(exact_match(short_answer(text), aliases))
    said = lm_eval_form(text.lstrip(), articles)
    return float(any(said == lm_eval_form(alias, articles) for alias in aliases))


def scores(item: Generation, texts: Sequence[str]) -> Scores:
    """Beside the rule that counts, the other reading of the paper's, by which many right answers are cut."""
    text = texts[0]
    strict = {} if "." in item.stops else {"strict": float(exact_match(strict_answer(text), item.gold))}
    return {"accuracy": item.check(text)} | strict


def items(data: Data, options: Options, trivia: bool) -> Iterator[Generation]:
    """Questions in the order of the file."""
    paper, count = options.profile == "paper", options.shots or 0
    head, between = ("", "\n\n") if trivia else ("Answer these questions:\n\n", "\n")
    if paper:
        head, between = "Answer these questions:\n", "\n"

    def asked(question: str) -> str:
        if paper:
            return f"Q: {question[:1].upper()}{question[1:].removesuffix('?')}?\nA:"
        return f"Question: {question}?\nAnswer:" if trivia else f"Q: {question}?\nA:"

    pool = data.rows("pool") if data.files("pool") else data.rows()
    examples = [(number, *read(row)) for number, row in enumerate(islice(pool, count + 1))] if count else []
    for row in data.rows():
        question, aliases = read(row)
        others = [(q, answers[0]) for _, q, answers in examples if q != question][:count]
        yield Generation(
            id=str(row.number), head=head, question=asked(question), gold=aliases,
            shots=tuple(f"{asked(example)} {answer}{between}" for example, answer in others),
            check=partial(check, aliases=aliases, profile=options.profile, articles=trivia),
            stops=("\n",) if paper else ("\n", ".", ","), max_new_tokens=64 if paper else 256,
        )  # fmt: skip


NQ = "google-research-datasets/nq_open@5dd9790a83002ad084ddeb7c420dc716852c6f28:nq_open/"
TRIVIA = "mandarjoshi/trivia_qa@0f7faf33a3908546c6fd5b73a660e0f8ff173c2f:rc.nocontext/"
TEST, TRAIN = "validation-00000-of-00001.parquet", "train-00000-of-00001.parquet"
NQ_PARTS = {
    "items": Part(("NQ-open.dev.jsonl",), NQ + TEST),
    "pool": Part(("NQ-open.efficientqa.dev.1.1.jsonl",), NQ + TRAIN),
}
TRIVIA_PARTS = {
    "items": Part(("triviaqa_rc_val*.jsonl",), TRIVIA + TEST),
    "pool": Part(("triviaqa_train.jsonl",), TRIVIA + TRAIN, needed=False),
}
TASKS = (
    Task("naturalquestions", 1, 3610, NQ_PARTS, partial(items, trivia=False), score=scores),
    Task("triviaqa", 1, 17944, TRIVIA_PARTS, partial(items, trivia=True), score=scores),
)
