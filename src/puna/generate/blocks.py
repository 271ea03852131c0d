"""Which blocks of keys and values are free, shared, or kept for a prompt that begins alike.

A full block is known by the block before it and its own tokens, so that equal beginnings are found token by
token, without hashes that could meet. Blocks that nobody uses stay known until their room is needed, the
longest unused first.
"""

import itertools


class Blocks:
    """Books of a store of `count` blocks. A chain of known blocks is named by the number of its last one; 0
    names the empty beginning."""

    def __init__(self, count: int) -> None:
        self.count = count
        self.forget()

    def forget(self) -> None:
        """Free all blocks, as after new weights: nobody may use one."""
        self._free = list(range(self.count - 1, -1, -1))
        self._users = [0] * self.count
        self._known: dict[tuple[int, tuple[int, ...]], tuple[int, int]] = {}
        self._keys: dict[int, tuple[int, tuple[int, ...]]] = {}
        self._idle: dict[int, None] = {}  # known blocks without a user, in the order in which they go
        self._numbers = itertools.count(1)

    @property
    def available(self) -> int:
        """Blocks that can be taken."""
        return len(self._free) + len(self._idle)

    def take(self) -> int:
        """Give a block to a first user. Raises IndexError where none is available."""
        if self._free:
            block = self._free.pop()
        elif self._idle:
            block = next(iter(self._idle))
            del self._idle[block]
            del self._known[self._keys.pop(block)]
        else:
            raise IndexError("no block is available")
        self._users[block] = 1
        return block

    def share(self, block: int) -> None:
        """Give a block one user more."""
        self._idle.pop(block, None)
        self._users[block] += 1

    def release(self, blocks: list[int]) -> None:
        """Take one user from each block of a sequence; its last blocks are to be forgotten first."""
        for block in reversed(blocks):
            self._users[block] -= 1
            if self._users[block] == 0:
                if block in self._keys:
                    self._idle[block] = None
                else:
                    self._free.append(block)

    def find(self, chain: int, tokens: tuple[int, ...]) -> tuple[int, int] | None:
        """(block, chain with it) of the known block with these tokens behind a chain."""
        return self._known.get((chain, tokens))

    def name(self, chain: int, tokens: tuple[int, ...], block: int) -> int:
        """Make a full block known; the chain with it. Where an equal one is known already, that one stays."""
        found = self._known.get((chain, tokens))
        if found is not None:
            return found[1]
        number = next(self._numbers)
        self._known[chain, tokens] = (block, number)
        self._keys[block] = (chain, tokens)
        return number
