"""Other people's code on conversations, in a process of its own: python oracles.py NAME, JSON in and out."""

import json
import sys
import types
from typing import Any


def fastchat(conversations: list[list[list[str]]]) -> Any:
    """By template, its prompt for every conversation of (role, text)."""
    from fastchat.conversation import get_conv_template

    prompts: dict[str, list[str]] = {}
    for name in ("vicuna_v1.1", "koala_v1", "alpaca", "llama-2", "phoenix"):
        for turns in conversations:
            template = get_conv_template(name)
            for role, text in turns:
                template.append_message(template.roles[role == "assistant"], text)
            prompts.setdefault(name, []).append(template.get_prompt())
    return prompts


def llama3(conversations: list[list[list[str]]]) -> Any:
    """Meta's ids of every conversation with the head of an answer behind it; texts by the tokenizers
    library."""
    for name in ("PIL", "tiktoken"):  # it imports them; text alone needs neither
        sys.modules[name] = types.ModuleType(name)
    sys.modules["PIL"].Image = types.SimpleNamespace(Image=object)  # type: ignore[attr-defined]
    from llama_models.datatypes import RawMessage, StopReason
    from llama_models.llama3.chat_format import ChatFormat

    from tests.tokens.conversations import small_bytes

    small = small_bytes("llama-bpe")

    special = {text: small.backend.token_to_id(text) for text in small.backend.get_vocab(True)}

    class Theirs:
        special_tokens = special | {"<|begin_of_text|>": small.bos_id, "<|image|>": -1}

        def encode(self, text: str, bos: bool, eos: bool) -> list[int]:
            return small.backend.encode(text).ids

    ended = {"stop_reason": StopReason.end_of_turn}
    return [
        ChatFormat(Theirs())
        .encode_dialog_prompt(
            [
                RawMessage(role=role, content=text, **(ended if role == "assistant" else {}))
                for role, text in turns
            ]
        )
        .tokens
        for turns in conversations
    ]


def transformers(asked: list[dict[str, Any]]) -> Any:
    """Of each asked for, the ids of every conversation by the template of a folder."""
    from transformers import AutoTokenizer

    answered = []
    for one in asked:
        theirs: Any = AutoTokenizer.from_pretrained(one["folder"])
        how = {"tokenize": True, "return_dict": False, "add_generation_prompt": one["open"]}
        answered.append([theirs.apply_chat_template(turns, **how) for turns in one["conversations"]])
    return answered


if __name__ == "__main__":
    sys.path.insert(0, ".")
    answered = globals()[sys.argv[1]](json.load(sys.stdin))
    print(json.dumps(answered))
