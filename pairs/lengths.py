"""Length balance of a whole split: a chosen that is longer as often as shorter, at every length ratio.

Judges like long answers, and DPO amplifies it. Dropping pairs until both sides weigh the same removes length
as a clue without touching a label. Order of the pairs and the number of shards do not matter: who goes is a
seeded rank.
"""

from collections import defaultdict
from typing import NamedTuple

from records.ids import chance
from records.schema import Dropped, Pair

EDGES = (1.25, 2.0, 4.0)
"""Strata of longer / shorter, in characters: up to 1.25, up to 2, up to 4, above. Our choice."""


class Balanced(NamedTuple):
    kept: list[Pair]
    dropped: list[Dropped]


def balance_lengths(pairs: list[Pair], seed: int) -> Balanced:
    """In each stratum of the ratio, drop from the larger of {chosen longer, chosen shorter} to the smaller.

    Pairs of equal length stay. The kept keep their order.
    """
    sides: dict[tuple[int, bool], list[Pair]] = defaultdict(list)
    for pair in pairs:
        if _ratio(pair) > 1:
            sides[_stratum(pair), _chosen_is_longer(pair)].append(pair)

    gone: dict[int, str] = {}
    for (stratum, longer), side in sides.items():
        room = len(sides.get((stratum, not longer), []))
        ranked = sorted(side, key=lambda p: chance(seed, "stratified", p.chosen.id, p.rejected.id).random())
        for pair in ranked[room:]:
            gone[id(pair)] = (
                f"chosen {'longer' if longer else 'shorter'} by {_ratio(pair):.2g}x, {len(side)} to {room}"
            )
    return Balanced(
        kept=[pair for pair in pairs if id(pair) not in gone],
        dropped=[
            Dropped(id=pair.prompt.id, stage="pairs", reason="length", detail=gone[id(pair)])
            for pair in pairs
            if id(pair) in gone
        ],
    )


def _chosen_is_longer(pair: Pair) -> bool:
    return len(pair.chosen.text) > len(pair.rejected.text)


def _ratio(pair: Pair) -> float:
    """Longer / shorter, in characters; at least 1."""
    short, long = sorted((len(pair.chosen.text), len(pair.rejected.text)))
    return long / short


def _stratum(pair: Pair) -> int:
    return sum(_ratio(pair) > edge for edge in EDGES)
