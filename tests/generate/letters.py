"""A tokenizer for tests: id i is a letter, and the end token ends a text."""


class Stream:
    def add(self, token: int) -> str:
        return chr(65 + token)

    def end(self) -> str:
        return ""


class Letters:
    def __init__(self, vocab_size: int, eos_id: int = -1) -> None:
        self.vocab_size, self.bos_id, self.eos_id, self.adds_bos = vocab_size, -1, eos_id, False
        self.stops = frozenset(token for token in (eos_id,) if token >= 0)
        self.bos: list[int] = []

    def encode(self, text: str) -> list[int]:
        return [ord(letter) - 65 for letter in text]

    def decode(self, ids: list[int]) -> str:
        return "".join(chr(65 + token) for token in ids)

    def piece(self, token: int) -> str:
        return chr(65 + token)

    def stream(self) -> Stream:
        return Stream()
