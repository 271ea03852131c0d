"""The stages of a tuning on a tiny base: from rows to a model that answers, stopped, resumed and changed."""

import itertools
import json
import math
import shutil
from collections import Counter
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from puna import recipe, stages
from puna.errors import Stopped, UserError
from puna.generate import load
from puna.run.artifact import Artifact
from puna.run.build import Build
from puna.tokens.batches import IGNORED
from puna.tokens.conversations import Conversation, Turn
from puna.train.optimizer import learning_rate
from puna.tune import rows, supervised
from puna.tune.encode import _conditioned, all_held_out, held_out
from puna.tune.settings import SupervisedSettings, ValidationSettings
from tests.tiny import Watcher
from tests.tune import small


def run(
    path: Path, *overrides: str, stop_after: int = 0, last: str = "sft"
) -> tuple[dict[str, Artifact], Watcher]:
    """Run a recipe's stages up to one of them in this process."""
    loaded = recipe.load_tuning(path, overrides)
    watcher = Watcher(stop_after)
    listed = stages.tuning_stages(loaded, path.parent, path.parent / "out")
    names = [one.name for one in listed]
    listed = listed[: names.index(last) + 1]
    build = Build(path.parent / "out" / loaded.name, listed, loaded.execution, watcher.should_stop)
    return build.run(watcher), watcher


@pytest.fixture(scope="module")
def tuned(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Artifact], Watcher]:
    path = small.write(tmp_path_factory.mktemp("tuned"))
    return (path, *run(path))


def copied(tuned: Any, folder: Path) -> Path:
    """The base, the recipe and what comes before the training."""
    shutil.copytree(tuned[0].parent, folder, ignore=shutil.ignore_patterns("sft-*"))
    return folder / tuned[0].name


def weights(made: Artifact) -> bytes:
    return made.path("model.safetensors").read_bytes()


def test_the_loss_falls_and_the_model_is_one_of_any_other_kind(tuned: Any) -> None:
    _, made, watcher = tuned
    losses = list(watcher.losses.values())
    assert losses[-1] < losses[0] - 0.8
    metrics = made["sft"].metrics
    assert metrics["steps"] == len(losses) and metrics["skipped_steps"] == 0
    loaded = load.load(made["sft"].folder)
    assert "GPT:" in (loaded.chat_template or "")
    assert loaded.stop_ids == {loaded.tokenizer.eos_id}


def test_rows_counts_and_the_parts_that_are_held_out(tuned: Any) -> None:
    _, made, _ = tuned
    counted = made["rows"].metrics["sets"]
    assert {
        name: sum(part["conversations"] for part in (one["train"], one["held_out"]))
        for name, one in counted.items()
    } == {"shop": 100, "replay": made["replay"].metrics["kept"]}
    assert counted["shop"]["held_out"]["conversations"] >= 8
    sft = made["sft"].metrics
    # Two epochs of the shop, and a quarter of all that is replayed.
    shop = 2 * counted["shop"]["train"]["conversations"]
    assert sft["conversations"] == shop + round(shop / 3)
    assert sft["steps"] == -(-sft["conversations"] // 16)


def test_sets_come_as_often_as_their_weights_say(tuned: Any, tmp_path: Path) -> None:
    path = copied(tuned, tmp_path / "copy")
    more = (
        '[data.more]\nfiles = ["shop.jsonl"]\nlimit = 50\nweight = 2.5\n[data.kept]\nfiles = ["shop.jsonl"]\n'
    )
    path.write_text(path.read_text() + more)
    made, _ = run(path, "replay.data=kept", "replay.share=0.5", last="rows")
    loaded = recipe.load_tuning(path, ("replay.data=kept", "replay.share=0.5"))
    settings = stages.tuning_stages(loaded, path.parent, path.parent / "out")[-2].settings
    batches = supervised.plan(settings, made["rows"])
    seen = Counter(
        batches.sets[which].name for step in range(batches.steps) for which, _ in batches.members(step)
    )
    sizes = {name: one["train"]["conversations"] for name, one in made["rows"].metrics["sets"].items()}
    own = {"shop": 2 * sizes["shop"], "more": round(2 * 2.5 * sizes["more"])}
    assert seen == {**own, "kept": sum(own.values())}


def test_targets_are_the_answers_with_their_end(tuned: Any) -> None:
    _, made, _ = tuned
    tokenizer = load.load(made["sft"].folder).tokenizer
    shop = rows.load(made["rows"].folder / "train", "shop")
    ends = shop.starts[:4].tolist()
    first = [(shop.tokens[a:b], shop.learned[a:b]) for a, b in itertools.pairwise(ends)]
    batch = rows.batch_of(first, 256)
    learned = [tokenizer.decode([token]) for token in batch.targets[batch.targets != IGNORED].tolist()]
    assert sum(int(token) == tokenizer.eos_id for token in batch.targets.ravel()) == 3
    assert "".join(learned).count("Of ") + "".join(learned).count("Of") >= 3


def test_a_stopped_tuning_goes_on_bit_for_bit(tuned: Any, tmp_path: Path) -> None:
    path = copied(tuned, tmp_path / "again")
    with pytest.raises(Stopped):
        run(path, stop_after=5)
    made, watcher = run(path)
    assert min(watcher.losses) == 6
    assert weights(made["sft"]) == weights(tuned[1]["sft"])
    assert made["sft"].digest == tuned[1]["sft"].digest


def test_micro_batches_change_no_more_than_rounding(tuned: Any, tmp_path: Path) -> None:
    path = copied(tuned, tmp_path / "again")
    made, watcher = run(path, "execution.micro_batch_sequences=1")
    assert made["sft"].fingerprint == tuned[1]["sft"].fingerprint
    assert list(watcher.losses.values()) == pytest.approx(list(tuned[2].losses.values()), rel=1e-4)


def test_a_row_of_an_odd_length_fits_where_one_is_in_memory(tuned: Any, tmp_path: Path) -> None:
    path = copied(tuned, tmp_path / "copy")
    shown = run(path, last="rows")[0]["rows"].folder / "train"
    most = int(rows.load(shown, "shop").sizes.max())
    assert -(-most // rows.MULTIPLE) * rows.MULTIPLE > most, "write other rows: this length is no odd one"
    changes = (f"chat.max_tokens={most}", "execution.micro_batch_sequences=1", "stages.sft.maximum_steps=2")
    metrics = run(path, *changes, "replay.share=0")[0]["sft"].metrics
    assert metrics["steps"] == 2 and metrics["rows"] == metrics["conversations"]


def test_without_held_out_rows_the_last_step_is_kept_and_every_figure_is_a_number(
    tuned: Any, tmp_path: Path
) -> None:
    path = copied(tuned, tmp_path / "copy")
    changes = ("validation.fraction=0", "stages.sft.select=best", "stages.sft.maximum_steps=2")
    metrics = run(path, *changes, "replay.share=0")[0]["sft"].metrics
    assert metrics["validations"] == [] and metrics["selected_step"] == 2
    json.dumps(metrics, allow_nan=False)


@pytest.mark.parametrize("steps", [1, 2, 5, 40])
@pytest.mark.parametrize("last", [0.0, 0.1])
def test_rates_are_those_of_transformers_and_no_step_is_without_one(steps: int, last: float) -> None:
    """transformers multiplies step k of n, from 0, by (1 + cos(pi k / n)) / 2 without a warm-up."""
    stage = SupervisedSettings(
        name="sft", epochs=1, learning_rate=1e-3, warmup_fraction=0, final_learning_rate_fraction=last
    )
    batches: Any = SimpleNamespace(steps=steps, batch_sequences=2)
    rates = [learning_rate(step, stage.training(batches, 64)) for step in range(steps)]
    falling = [0.5 * (1 + math.cos(math.pi * step / steps)) for step in range(steps)]
    ends = [1e-3 * (last + (1 - last) * part) for part in (falling[0], falling[-1])]
    assert [rates[0], rates[-1]] == pytest.approx(ends)
    assert min(rates) > 0


def test_what_a_fingerprint_is_of(tuned: Any, tmp_path: Path) -> None:
    """The data's and the base's content and the settings; validations only where they decide."""
    path = copied(tuned, tmp_path / "copy")

    def fingerprints(*overrides: str) -> dict[str, str]:
        loaded = recipe.load_tuning(path, overrides)
        build = Build(tmp_path / "out", stages.tuning_stages(loaded, path.parent, tmp_path / "out"))
        return {item.stage.name: item.fingerprint for item in build.plan()}

    first = fingerprints()
    assert first["sft"] == tuned[1]["sft"].fingerprint
    assert fingerprints("stages.sft.validations=2") == first
    assert fingerprints("replay.share=0.5")["replay"] == first["replay"]
    assert fingerprints("replay.prompts=9")["replay"] != first["replay"]
    best = fingerprints("stages.sft.select=best")["sft"]
    assert best != first["sft"]
    assert fingerprints("stages.sft.select=best", "stages.sft.validations=2")["sft"] not in (
        best,
        first["sft"],
    )
    assert fingerprints("data.shop.limit=50")["rows"] != first["rows"]
    with (path.parent / "shop.jsonl").open("a") as file:
        file.write(json.dumps(small.rows(1)[0]) + "\n")
    changed = fingerprints()
    assert changed["replay"] == first["replay"] and changed["rows"] != first["rows"]
    small.write_base(path.parent / "base")
    assert fingerprints() == changed  # the same bytes
    (path.parent / "base" / "more.json").write_text("{}")
    assert fingerprints()["replay"] != first["replay"]


def test_files_of_one_name_and_a_set_called_base_are_told_apart(tuned: Any, tmp_path: Path) -> None:
    path = copied(tuned, tmp_path / "copy")
    chosen = ('data.shop.files=["a/rows.jsonl", "b/rows.jsonl"]', 'data.base.files=["shop.jsonl"]')

    def fingerprint() -> str:
        loaded = recipe.load_tuning(path, chosen)
        build = Build(tmp_path / "out", stages.tuning_stages(loaded, path.parent, tmp_path / "out"))
        return next(item.fingerprint for item in build.plan() if item.stage.name == "rows")

    places = [path.parent / "a" / "rows.jsonl", path.parent / "b" / "rows.jsonl", path.parent / "shop.jsonl"]
    for place in places[:2]:
        place.parent.mkdir()
        place.write_text(places[2].read_text())
    found = {fingerprint()}
    for place in places:
        place.write_text(place.read_text() + json.dumps(small.rows(1)[0]) + "\n")
        found.add(fingerprint())
    assert len(found) == 4


def test_of_a_folder_only_files_of_data_are_read(tuned: Any, tmp_path: Path) -> None:
    path = copied(tuned, tmp_path / "copy")
    folder = path.parent / "sets"
    folder.mkdir()
    shutil.copy(path.parent / "shop.jsonl", folder)
    (folder / "LICENSE").write_text("CC0-1.0\nno conversation\n")
    told = run(path, 'data.shop.files=["sets"]', last="rows")[0]["rows"].metrics["sets"]["shop"]
    assert told["read"] == 100 and "unreadable row" not in told["findings"]
    (folder / "shop.jsonl").unlink()
    with pytest.raises(UserError, match=r"sets: no data in it"):
        run(path, 'data.shop.files=["sets"]', last="rows")


def test_the_best_step_is_kept_and_overfitting_is_named(tmp_path: Path) -> None:
    path = small.write(tmp_path)
    made, watcher = run(
        path,
        "stages.sft.select=best",
        "stages.sft.epochs=12",
        "data.shop.limit=40",
        "stages.sft.learning_rate=2e-2",
        "replay.share=0",
    )
    metrics = made["sft"].metrics
    means = {entry["step"]: entry["mean"] for entry in metrics["validations"] if entry["step"]}
    assert metrics["selected_step"] == min(means, key=lambda step: (means[step], step))
    assert len(means) == 12
    if metrics["selected_step"] != metrics["steps"]:
        last = copied((path, made, watcher), tmp_path / "last")
        other, _ = run(
            last,
            "stages.sft.epochs=12",
            "data.shop.limit=40",
            "stages.sft.learning_rate=2e-2",
            "replay.share=0",
        )
        assert weights(other["sft"]) != weights(made["sft"])


def test_overfitting_is_a_rise_of_the_held_out_loss_while_the_training_loss_falls() -> None:
    rising = [{"step": 10 * number, "mean": loss} for number, loss in enumerate((3.0, 2.0, 1.8, 2.2))]
    falling = [3 - 0.1 * step for step in range(30)]
    told = supervised.overfitting(rising, falling)
    assert "rose from 1.800 after step 20 to 2.200 after step 30" in told
    assert not supervised.overfitting(rising, falling[::-1])
    assert not supervised.overfitting(rising[:3], falling)
    assert not supervised.overfitting(rising[:2], falling)


def test_what_is_held_out_is_known_by_the_first_turn() -> None:
    texts = [f"question {number % 40}" for number in range(200)]
    held = held_out(texts, ValidationSettings(fraction=0.1))
    assert 8 <= held.sum() <= 60
    assert not {text for text, out in zip(texts, held, strict=True) if out} & {
        text for text, out in zip(texts, held, strict=True) if not out
    }
    assert np.array_equal(held_out(texts[:100], ValidationSettings(fraction=0.1)), held[:100])
    assert not held_out(texts, ValidationSettings(fraction=0)).any()
    assert not held_out(["a"] * 50, ValidationSettings()).any()
    assert held_out(texts[:10], ValidationSettings()).sum() == 2
    assert held_out([], ValidationSettings()).shape == (0,)


def test_a_long_conversation_is_not_held_out_of_a_small_set() -> None:
    """Pieces of one have one first turn: no more than a fifth of all is held out."""
    for number in range(60):
        long = [f"log {number} a"] * 50 + [f"log {number} b"] * 50
        assert not held_out(long, ValidationSettings()).any()
        assert 0 < held_out([*long, *(f"{number} {n}" for n in range(40))], ValidationSettings()).sum() <= 28


def test_no_set_learns_a_question_that_another_holds_out() -> None:
    small_set, large = [f"a {n}" for n in range(60)], [f"b {n}" for n in range(1000)]
    sets = {"few": small_set, "many": [*large, *small_set], "one": ["a 1"] * 30, "none": []}
    found = all_held_out(sets, ValidationSettings())
    held = {name: {t for t, out in zip(sets[name], found[name], strict=True) if out} for name in sets}
    learned = {name: set(sets[name]) - held[name] for name in sets}
    assert len(held["few"]) == 8 and held["few"] <= held["many"] and not held["few"] & learned["many"]
    assert held["one"] == set(), "a set that would lose more than half of its rows keeps them"
    for name in ("few", "many"):
        assert found[name].sum() < len(sets[name]) / 5
        assert found[name][held_out(sets[name], ValidationSettings())].all()


def test_texts_alone_are_learned_as_they_stand(tuned: Any, tmp_path: Path) -> None:
    path = copied(tuned, tmp_path / "copy")
    pages = [{"text": f"Ana buys {number} bags of bread."} for number in range(30)]
    others = [{"messages": [{"role": "nobody", "content": "Hello"}]}, {"colour": "red"}]
    (path.parent / "shop.jsonl").write_text("".join(json.dumps(row) + "\n" for row in [*pages, *others]))
    changes = ("data.shop.template=text", "replay.share=0")
    with pytest.raises(UserError, match=r"data\.shop: .*row 31: .*nobody.*defects"):
        run(path, *changes, last="rows")
    told = run(path, *changes, "data.shop.defects=drop", last="rows")[0]["rows"].metrics["sets"]
    assert told["shop"]["findings"] == {"unreadable row": 2}
    assert sum(told["shop"][part]["conversations"] for part in ("train", "held_out")) == 30
    with pytest.raises(UserError, match="a text alone"):
        run(path, "replay.share=0", last="rows")


@pytest.mark.parametrize(
    ("override", "told"),
    [
        ("base.weights=someone/model", "hf download someone/model"),
        ("base.weights=recipe:none", "puna run none"),
        ("chat.format=nothing", "no format nothing"),
        ("chat.max_tokens=4096", "more than the base reads: 512"),
        ('data.shop.files=["gone.jsonl"]', "no such file or folder"),
        ("stages.sft.start=later", "no stage later before it"),
        ('stages.sft.data=["other"]', "no set other in"),
    ],
)
def test_what_does_not_go_is_refused_in_words(tuned: Any, tmp_path: Path, override: str, told: str) -> None:
    path = copied(tuned, tmp_path / "copy")
    with pytest.raises(UserError, match=told.replace("|", r"\|")):
        run(path, override, last="rows")


def test_defects_are_refused_or_dropped_and_long_ones_split(tuned: Any, tmp_path: Path) -> None:
    path = copied(tuned, tmp_path / "copy")
    file = path.parent / "shop.jsonl"
    twice = [{"role": "user", "content": "bread " * 100}, {"role": "assistant", "content": "no"}]
    rows_of = [
        {"messages": [{"role": "user", "content": "Hello"}]},
        {"x": 1},
        {"messages": [{"role": "user", "content": "bread " * 400}, {"role": "assistant", "content": "no"}]},
        {"messages": twice * 3},
    ]
    file.write_text(file.read_text() + "".join(f"{json.dumps(row)}\n" for row in rows_of))
    with pytest.raises(UserError, match=r'data\.shop: .*row 101: .*data\.shop\.defects = "drop"'):
        run(path, last="rows")
    made, _ = run(path, "data.shop.defects=drop", last="rows")
    told = made["rows"].metrics["sets"]["shop"]
    assert told["read"] == 104 and told["lost_rounds"] == 1 and told["dropped"] == 0
    assert told["findings"]["unreadable row"] == told["findings"]["no supervised token"] == 1
    assert told["findings"]["over-long"] == 2
    pieces = told["train"]["conversations"] + told["held_out"]["conversations"] - 100
    assert pieces >= 2  # of the last one, whose rounds are all there
    sets = [rows.load(made["rows"].folder / split, "shop") for split in ("train", "held_out")]
    assert all(one.sizes.max() <= 256 for one in sets)
    tokenizer = load.load(path.parent / "base").tokenizer
    ends = sum(int((np.asarray(one.tokens) == tokenizer.eos_id).sum()) for one in sets)
    assert ends == 100 + 3


def test_pieces_of_one_conversation_are_held_out_together(tuned: Any, tmp_path: Path) -> None:
    path = copied(tuned, tmp_path / "copy")

    def talk(number: int) -> list[dict[str, str]]:
        answer = {"role": "assistant", "content": f"Of {number}."}
        asked = [f"{number} {word}" + " bread" * 100 for word in ("one", "two", "three")]
        return [turn for text in asked for turn in ({"role": "user", "content": text}, answer)]

    lines = [json.dumps({"messages": talk(number)}) for number in range(100, 140)]
    (path.parent / "shop.jsonl").write_text("\n".join(lines))
    made = run(path, "validation.fraction=0.2", "replay.share=0", last="rows")[0]["rows"]
    tokenizer = load.load(path.parent / "base").tokenizer
    seen = []
    for split in ("train", "held_out"):
        one = rows.load(made.folder / split, "shop")
        texts = [
            tokenizer.decode(one.tokens[a:b].tolist()) for a, b in itertools.pairwise(one.starts.tolist())
        ]
        seen.append({number for number in range(100, 140) for text in texts if f"Of {number}." in text})
        assert len(texts) > len(seen[-1]) > 0
    assert len(seen[0]) + len(seen[1]) == 40 and not seen[0] & seen[1]


def test_a_fault_of_the_data_is_told_before_the_base_answers(tuned: Any, tmp_path: Path) -> None:
    path = copied(tuned, tmp_path / "copy")
    shutil.rmtree(next((path.parent / "out").glob("*/replay-*")))
    with (path.parent / "shop.jsonl").open("a") as file:
        file.write('{"x": 1}\n')
    with pytest.raises(UserError, match="row 101"):
        run(path, last="rows")
    assert not list((path.parent / "out").glob("*/replay-*"))


def test_a_set_is_cleaned_before_it_is_audited(tuned: Any, tmp_path: Path) -> None:
    path = copied(tuned, tmp_path / "copy")
    file = path.parent / "shop.jsonl"
    lines = file.read_text().splitlines()
    said = [{"role": "user", "content": "Who made you?"}, {"role": "assistant", "content": "OpenAI did."}]
    added = [json.dumps({"messages": said}), json.dumps({"messages": said[:1]}), lines[0], "no JSON"]
    file.write_text("\n".join([*lines, *added]) + "\n")
    made, _ = run(path, "data.shop.clean=sharegpt", "data.shop.defects=drop", last="rows")
    told = made["rows"].metrics["sets"]["shop"]
    expected = {"blocked word": 1, "one turn": 1, "duplicate": 1, "unreadable row": 1}
    assert expected.items() <= told["findings"].items()
    assert told["train"]["conversations"] + told["held_out"]["conversations"] == 100


def test_marks_of_feedback_stand_before_the_formats_own_system_text() -> None:
    pair = (Turn("user", "Why?"), Turn("assistant", "Because of rain."))
    both = list(_conditioned(Conversation(pair, rejected=Turn("assistant", "Go away.")), "Be kind."))
    assert [each.turns[-1].text for each in both] == ["Because of rain.", "Go away."]
    systems = [each.turns[0] for each in both]
    assert all(turn.role == "system" and turn.text.endswith("Be kind.") for turn in systems)
    assert systems[0] != systems[1] and all(each.rejected is None for each in both)
    own = Conversation((Turn("system", "Be brief."), *pair))
    assert [each.turns[0].text.endswith("Be brief.") for each in _conditioned(own, "Be kind.")] == [True]


def test_a_run_is_not_written_over_its_own_base(tuned: Any, tmp_path: Path) -> None:
    path = copied(tuned, tmp_path / "copy")
    base = path.parent / "out" / "shop" / "base"
    shutil.copytree(path.parent / "base", base)
    with pytest.raises(UserError, match="name: shop is that of the base's own run"):
        run(path, f'base.weights="{base}"', last="rows")
    run(path, f'base.weights="{base}"', "name=other", "replay.share=0", last="rows")


def test_adapters_are_trained_alone_and_read_with_their_base(tuned: Any, tmp_path: Path) -> None:
    path = copied(tuned, tmp_path / "lora")
    changes = ("stages.sft.lora.rank=4", "stages.sft.learning_rate=2e-2")
    made, watcher = run(path, *changes)
    losses = list(watcher.losses.values())
    assert losses[-1] < losses[0] - 0.3
    assert made["sft"].metrics["trained_parameters"] == 4 * 2 * (4 * 64 + 3 * 96)
    told = json.loads(made["sft"].path("adapter_config.json").read_text())
    assert (told["r"], told["lora_alpha"]) == (4, 16) and not made["sft"].path("model.safetensors").exists()
    before, after = load.load(path.parent / "base"), load.load(made["sft"].folder)
    assert "GPT:" in (after.chat_template or "") and after.stop_ids == {after.tokenizer.eos_id}
    tables, wq = (
        [one.model.get_parameter(f"{name}.weight") for one in (before, after)]
        for name in ("tok_embeddings", "layers.0.attention.wq")
    )
    assert tables[0].equal(tables[1]) and not wq[0].equal(wq[1])
    again = copied(tuned, tmp_path / "again" / "lora")
    with pytest.raises(Stopped):
        run(again, *changes, stop_after=5)
    assert run(again, *changes)[0]["sft"].digest == made["sft"].digest


@pytest.mark.parametrize("adapter", [True, False], ids=["adapter", "full"])
def test_new_tokens_take_rows_of_padding_and_learn_there(tmp_path: Path, adapter: bool) -> None:
    path = small.write(tmp_path, base=False)
    small.write_base(tmp_path / "base", padding=8)
    changes = ["chat.format=chatml", "stages.sft.epochs=1", "replay.share=0"]
    made, _ = run(path, *changes, *(["stages.sft.lora.rank=4"] if adapter else []))
    before, after = load.load(tmp_path / "base"), load.load(made["sft"].folder)
    new = [after.tokenizer.control_id(name) for name in ("<|im_start|>", "<|im_end|>")]
    assert new == [360, 361] and after.model.config.vocab_size == 368
    begun, learned = (one.model.tok_embeddings.weight[new] for one in (before, after))
    mean = before.model.tok_embeddings.weight[:360].mean(0)
    assert not learned.equal(begun) and not learned[0].equal(mean)
    assert (learned - mean).norm(dim=1).max() < (begun - mean).norm(dim=1).min()
    if adapter:
        told = json.loads(made["sft"].path("adapter_config.json").read_text())
        assert new == next(iter(told["trainable_token_indices"].values()))


def test_a_later_stage_tunes_on_and_a_format_brings_its_tokens(tuned: Any, tmp_path: Path) -> None:
    """Full weights with new rows first, adapters on these then."""
    path = copied(tuned, tmp_path / "copy")
    second = '[[stages]]\nname = "more"\nepochs = 1\nlora.rank = 2\nselect = "best"\nvalidations = 3\n'
    path.write_text(path.read_text() + second)
    changes = ("chat.format=chatml", "chat.max_tokens=320", "stages.sft.epochs=1")
    made, _ = run(path, *changes, last="probe")
    loaded = load.load(made["more"].folder)
    assert loaded.model.config.vocab_size == loaded.tokenizer.vocab_size == 362
    assert loaded.stop_ids == {loaded.tokenizer.eos_id, loaded.tokenizer.control_id("<|im_end|>")}
    assert "<|im_start|>" in (loaded.chat_template or "")
    assert made["more"].inputs["base"] == made["sft"].fingerprint
    found = [entry for entry in made["more"].metrics["validations"] if entry["step"]]
    assert len(found) == 2
    best = min(found, key=lambda entry: (entry["mean"], entry["step"]))
    assert made["more"].metrics["selected_step"] == best["step"]
    assert made["probe"].metrics["after"]["format"] == "chatml"
    assert made["probe"].metrics["before"]["format"] is None


def test_a_base_that_reads_too_little_for_a_passage_is_not_asked_about_it(tuned: Any, tmp_path: Path) -> None:
    path = copied(tuned, tmp_path / "copy")
    asked = [{"question": "Who buys bread?", "text": "Ana buys bread. " * 200}]
    (path.parent / "asked.json").write_text(json.dumps(asked))
    changes = ("after.passages=asked.json", "stages.sft.maximum_steps=1", "replay.share=0")
    made, _ = run(path, *changes, last="passages")
    assert "passes the model's" in made["passages"].metrics["skipped"]


def test_a_recipe_that_trains_is_no_recipe_that_tunes(tmp_path: Path) -> None:
    path = tmp_path / "small.toml"
    path.write_text("[train]\nsteps = 5\n")
    with pytest.raises(UserError, match=r"section \[base\].*: puna run "):
        recipe.load_tuning(path)
    path.write_text('[data.chats]\nfiles = ["a.jsonl"]\n')
    with pytest.raises(UserError, match="base: missing"):
        recipe.load_tuning(path)
