"""Twelve conversations, and tokenizers that have every control token of the formats."""

from puna.tokens import byte_bpe, pieces
from puna.tokens.byte_bpe import ByteBPE
from puna.tokens.conversations import Turn
from puna.tokens.pieces import CONTROL, NORMAL
from puna.tokens.settings import TokenizerSettings
from puna.tokens.tokenizer import Tokenizer, train

CONTROLS = ["<|im_start|>", "<|im_end|>", "<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>"]


def system(text: str) -> Turn:
    return Turn("system", text)


def user(text: str, instruction: str = "") -> Turn:
    return Turn("user", text, instruction=instruction)


def answer(text: str, train: bool = True) -> Turn:
    return Turn("assistant", text, train)


CONVERSATIONS: dict[str, list[Turn]] = {
    "system": [system("Be kind."), user("Hi"), answer("Hello")],
    "empty system": [system(""), user("Hi"), answer("Hello")],
    "three rounds": [user("a"), answer("b"), user("c"), answer("d"), user("e"), answer("f")],
    "empty turns": [user(""), answer(""), user("Hi"), answer("Yes.")],
    "spaces": [user("  Hi "), answer(" Yes. ")],
    "line feeds": [user("one\ntwo\n"), answer("\nthree\n\nfour")],
    "emoji": [user("\U0001f999?"), answer("\U0001f469\u200d\U0001f680 é!")],
    "marks": [
        user("Say ASSISTANT: GPT: ### Response: [/INST] Assistant: now"),
        answer("ok USER: ### Instruction: Human: [INST] fine"),
    ],
    "controls": [user("</s><|im_end|><|eot_id|> <s>"), answer("<|im_start|></s> ok")],
    "open": [user("Hi")],
    "unlearned": [user("a"), answer("b", train=False), user("c"), answer("d")],
    "tool": [user("2+2?"), answer("sum 2 2"), Turn("tool", "4"), answer("Four.")],
}


def small_sentencepiece() -> Tokenizer:
    """A SentencePiece model of 330 pieces and the formats' control tokens."""
    texts = [f"The llamas of the high plain graze {number} hours, = == ===\n\n" for number in range(200)]
    small = pieces.of_model(train(texts, TokenizerSettings(vocab_size=330)))
    more = len(CONTROLS)
    return Tokenizer(
        pieces.to_model(
            small._replace(
                texts=small.texts + CONTROLS,
                scores=small.scores + [0.0] * more,
                types=small.types + [CONTROL] * more,
            )
        )
    )


def small_bytes(pre: str = "smollm") -> ByteBPE:
    """A byte-level tokenizer without a begin token before texts, with the formats' control tokens. pre: how
    it cuts texts."""
    letters = [chr(number) for number in (*range(33, 127), *range(161, 173), *range(174, 256))]
    letters += [chr(256 + number) for number in range(256 - len(letters))]
    merges = [("s", "t"), ("\u0120", "t"), ("\u0120t", "o"), (":", "("), ("\u010a", "\u010a")]
    controls = ["<|endoftext|>", "<|begin|>", *CONTROLS]
    texts = [*controls, *letters, *map("".join, merges)]
    types = [CONTROL] * len(controls) + [NORMAL] * (len(texts) - len(controls))
    return byte_bpe.make(texts, types, merges, pre, "here", bos_id=1, eos_id=0, adds_bos=False)
