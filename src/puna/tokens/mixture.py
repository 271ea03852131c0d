"""How much of each source training sees: shares of the token budget, and the epochs they come to.

The order of sources repeats in blocks of `BLOCK` sequences; within a block every source has a fixed number of
places. Counting is then exact at any step, without state, at a resolution of 1 / BLOCK.
"""

from dataclasses import dataclass

from puna.errors import UserError
from puna.tokens.settings import TokensSettings

BLOCK = 1024


@dataclass(frozen=True)
class Part:
    """One source of the mixture. places: sequences of each block; sequences: in one epoch; epochs: over the
    whole training."""

    source: str
    places: int
    sequences: int
    tokens: int
    epochs: float

    @property
    def share(self) -> float:
        return self.places / BLOCK


def plan(
    tokens: dict[str, int], sequences: dict[str, int], settings: TokensSettings, total_sequences: int
) -> list[Part]:
    """Places of every source in a block. tokens, sequences: size of each source's training split, as tokens
    and as sequences.

    Raises UserError when a source would be seen more than `settings.maximum_epochs` times.
    """
    weights = {}
    for source in tokens:
        wish = settings.mixture.get(source)
        weights[source] = (
            wish.share
            if wish and wish.share is not None
            else tokens[source] * (wish.epochs or 1.0 if wish else 1.0)
        )
    places = apportion(weights)
    parts = [
        Part(
            source,
            places[source],
            sequences[source],
            tokens[source],
            total_sequences * places[source] / BLOCK / sequences[source],
        )
        for source in tokens
    ]
    over = [part for part in parts if part.epochs > settings.maximum_epochs]
    if over:
        told = ", ".join(f"{part.source} {part.epochs:.1f} times ({part.tokens:,} tokens)" for part in over)
        raise UserError(
            f"training would see {told}, more than tokens.maximum_epochs={settings.maximum_epochs:g}; "
            "lower train.steps, give the source less in tokens.mixture, add documents, or raise the limit"
        )
    return parts


def apportion(weights: dict[str, float]) -> dict[str, int]:
    """Whole places of a block in proportion to `weights`, by largest remainders; every source gets at least
    one."""
    total = sum(weights.values())
    exact = {source: BLOCK * weight / total for source, weight in weights.items()}
    places = {source: max(1, int(value)) for source, value in exact.items()}
    while (rest := BLOCK - sum(places.values())) != 0:
        step = 1 if rest > 0 else -1
        open_to_change = [source for source in places if step > 0 or places[source] > 1]
        source = max(open_to_change, key=lambda name: step * (exact[name] - places[name]))
        places[source] += step
    return places
