"""How much of each source training sees: shares of the token budget, and the epochs they come to.

Sources are mixed in blocks of `BLOCK_SEQUENCES` sequences; in each block every source has a fixed number of
slots. Counting is then exact at any step, without state, at a resolution of 1 / BLOCK_SEQUENCES.
"""

from dataclasses import dataclass

from puna.errors import UserError
from puna.tokens.settings import TokensSettings

BLOCK_SEQUENCES = 1024


@dataclass(frozen=True)
class SourceShare:
    """One source of the mixture.

    slots: sequences of each block; sequences, tokens: in one epoch; epochs: over the whole training.
    """

    source: str
    slots: int
    sequences: int
    tokens: int
    epochs: float

    @property
    def share(self) -> float:
        return self.slots / BLOCK_SEQUENCES


def plan(
    tokens: dict[str, int], sequences: dict[str, int], settings: TokensSettings, total_sequences: int
) -> list[SourceShare]:
    """Share of every source. tokens, sequences: size of each source's training split; total: of the training.

    Raises UserError when a source would be seen more than `settings.maximum_epochs` times.
    """
    weights = {}
    for source in tokens:
        wish = settings.mixture.get(source)
        if wish and wish.share is not None:
            weights[source] = wish.share
        else:
            weights[source] = tokens[source] * (wish.epochs or 1.0 if wish else 1.0)
    shares = []
    for source, slots in apportion(weights).items():
        epochs = total_sequences * slots / BLOCK_SEQUENCES / sequences[source]
        shares.append(SourceShare(source, slots, sequences[source], tokens[source], epochs))
    over = [item for item in shares if item.epochs > settings.maximum_epochs]
    if over:
        listed = ", ".join(f"{item.source} {item.epochs:.1f} times ({item.tokens:,} tokens)" for item in over)
        raise UserError(
            f"training would see {listed}, more than tokens.maximum_epochs={settings.maximum_epochs:g}; "
            "lower train.steps, give the source less in tokens.mixture, add documents, or raise the limit"
        )
    return shares


def apportion(weights: dict[str, float]) -> dict[str, int]:
    """Divide the slots of a block in proportion to `weights`, by largest remainders, one or more a source."""
    total = sum(weights.values())
    exact = {source: BLOCK_SEQUENCES * weight / total for source, weight in weights.items()}
    slots = {source: max(1, int(value)) for source, value in exact.items()}
    while (rest := BLOCK_SEQUENCES - sum(slots.values())) != 0:
        step = 1 if rest > 0 else -1
        open_to_change = [source for source in slots if step > 0 or slots[source] > 1]
        source = max(open_to_change, key=lambda name: step * (exact[name] - slots[name]))
        slots[source] += step
    return slots
