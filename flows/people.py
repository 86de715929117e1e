"""How far a run's judges agree with its people, from stored judgements; the rest is in the judge card.

Two lists of pairs, and a figure for each. All that judges dispute, as far as it is labelled. And of the pairs that were
drawn by chance only those before the first that nobody has labelled yet: what people left out, or labelled in the other
list before, would make another sample than the drawn one.
"""

from collections.abc import Callable, Mapping
from itertools import takewhile
from typing import NamedTuple

from flows.browse import Book, voices_of
from flows.labels import labels_of, people_of, rows_of
from judges.agreement import Agreement, Compared, agreement, side_of
from judges.compared import side
from judges.human import label_of, pair_key
from judges.layouts import majority
from records.schema import Judgement

TOGETHER = "all judges together"


class Figures(NamedTuple):
    """Of one list of pairs."""

    name: str
    pairs: int
    by_judge: dict[str, Agreement]


def figures(book: Book, seed: int = 0) -> list[Figures]:
    """Every judge against the majority of the people, on `disputed` pairs and on `any`, as `Book.queue` lists them."""
    stages = people_of(book.run)
    seen = {row.key for stage in stages for row in rows_of(stage)}
    lists = {name: [key for key, *_ in book.queue(name, seed)] for name in ("disputed", "any")}
    lists["any"] = list(takewhile(lambda key: key in seen, lists["any"]))
    labels = labels_of(stages)
    found = []
    for name, keys in lists.items():
        compared = [own for key in keys if key in labels and (own := _compared(book, key, labels[key]))]
        by_judge: dict[str, list[Compared]] = {}
        for own in compared:
            for judge, pair in own.items():
                by_judge.setdefault(judge, []).append(pair)
        if compared:
            figures = {judge: agreement(pairs) for judge, pairs in by_judge.items()}
            found.append(Figures(name, len(compared), figures))
    return found


def _compared(book: Book, key: str, people: list[list[Judgement]]) -> dict[str, Compared]:
    """One labelled pair as each judge has it; nothing where its answers are not those that were seen."""
    line = book.by_id[people[0][0].prompt_id]
    known = {each.completion.id: each for each in line.candidates}
    two = [known[judgement.completion_id] for judgement in people[0] if judgement.completion_id in known]
    if len(two) < 2 or pair_key(line.prompt, [each.completion for each in two]) != key:
        return {}
    gold = side_of(majority(tuple(label for one in people if (label := label_of(one)) is not None)))
    scores: dict[str, Mapping[str, float | None]] = {
        TOGETHER: {each.completion.id: each.score for each in two}
    }
    voices: Mapping[str, Callable[[dict[str, list[Judgement]]], dict[str, float]]]
    voices = voices_of(book.run.recipe.jury)
    if len(voices) > 1:
        judged = book.case(line).judgements
        scores |= {name: of(judged) for name, of in voices.items()}
    found = {}
    for name, own in scores.items():
        a, b = (own.get(each.completion.id) for each in two)
        gap = None if a is None or b is None else a - b
        found[name] = Compared(line.prompt.id, gold, side(gap, 0.0))
    return found
