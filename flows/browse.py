"""A run as `zephyr view` walks through it: every prompt with its answers and pairs, judgements when asked for.

Reads what is stored and asks no model. Judges' raw answers stay on the disk: a prompt's are read when it is opened.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import lru_cache
from itertools import combinations
from typing import Any

from flows.answers import stored
from flows.audit import answer_of
from flows.dataset import Judged, judged_shard
from flows.inputs import gather_prompts
from flows.recipe import RecipeError
from flows.run import Run
from judges.human import pair_key
from judges.jury import Jury, Member, combine_prompt
from judges.reward_model import RewardModel
from pairs.policies import Candidate, pair_all
from records.ids import rank
from records.schema import Completion, Judgement, Pair, Prompt
from reports.data import Answer

EQUAL = 1e-9
OPEN = 4
"""Shards whose judgements stay in memory."""


@dataclass
class Line:
    """One prompt."""

    place: int
    prompt: Prompt
    candidates: list[Candidate]
    disputed: list[tuple[Completion, Completion]]
    """Answers of which one judge prefers the one and another judge the other."""
    failed: int
    """Judgements without a score."""
    pairs: list[Pair] = field(default_factory=list)
    reason: str = ""
    """Why there is no pair."""

    @property
    def models(self) -> set[str]:
        return {each.completion.model for each in self.candidates}

    @property
    def margin(self) -> float | None:
        return max((pair.margin for pair in self.pairs), default=None)

    def has(self, words: str) -> bool:
        """Whether `words`, in lower case, are in the prompt or an answer."""
        return words in self.prompt.text.lower() or any(
            words in each.completion.text.lower() for each in self.candidates
        )


class Book:
    """Every prompt of a run, in order."""

    def __init__(self, run: Run, say: Callable[[str], None] = lambda text: None) -> None:
        """Raises: RecipeError, where nothing was answered yet."""
        self.run = run
        self.prompts, _ = gather_prompts(run)
        self.answers = stored(run)
        self._shard = lru_cache(maxsize=OPEN)(self._read)
        self.lines = list(self._lines(say))
        self.by_id = {line.prompt.id: line for line in self.lines}
        if not any(line.candidates for line in self.lines):
            raise RecipeError(
                f"{run.folder} holds no answers yet; run `zephyr generate` or `zephyr run` first"
            )
        for split in ("train", "test"):
            own = [line for line in self.lines if line.prompt.meta["split"] == split]
            made = pair_all(((line.prompt, line.candidates) for line in own), run.recipe.pairs)
            for pair in made.pairs:
                self.by_id[pair.prompt.id].pairs.append(pair)
            for drop in made.dropped:
                self.by_id[drop.id].reason = drop.reason

    def _read(self, index: int) -> list[Judged]:
        return judged_shard(self.run, self.prompts.shard(index), self.answers, index)

    def _lines(self, say: Callable[[str], None]) -> Iterator[Line]:
        voices = voices_of(self.run.recipe.jury)
        place = 0
        for index in range(len(self.prompts.receipts)):
            if index and index % 20 == 0:
                say(f"read {place} of {len(self.prompts)} prompts")
            for case in self._read(index):
                failed = sum(
                    judgement.status not in ("ok", "not_applicable")
                    for own in case.judgements.values()
                    for judgement in own
                )
                yield Line(place, case.prompt, case.candidates, disputed(case, voices), failed)
                place += 1

    def case(self, line: Line) -> Judged:
        """The prompt with every judgement of it, read from the disk."""
        size = self.run.recipe.shard_size
        return self._shard(line.place // size)[line.place % size]

    def answers_of(self, line: Line) -> dict[str, Answer]:
        """The prompt's answers by completion id, with all that their judges were asked and said."""
        case, members = self.case(line), {member.name: member for member in self.run.recipe.judges}
        return {
            each.completion.id: answer_of(case, each.completion, each.score, members)
            for each in line.candidates
        }

    def search(self, wanted: "Wanted") -> list[Line]:
        """Lines that fit, in the run's order or by margin."""
        found = [line for line in self.lines if wanted.fits(line)]
        if wanted.order == "closest":
            found.sort(key=lambda line: (line.margin is None, line.margin or 0.0))
        elif wanted.order == "widest":
            found.sort(key=lambda line: -(line.margin if line.margin is not None else -1.0))
        return found

    def queue(self, kind: str, seed: int) -> list[tuple[str, Completion, Completion]]:
        """Pairs of answers to ask people about, with their keys, in a drawn order.

        `disputed`: all that judges do not agree on. `any`: of every prompt two different answers, drawn, so that
        figures over them are those of the run.
        """
        found = []
        for line in self.lines:
            if kind == "disputed":
                chosen = line.disputed
            else:
                every = [two for two in combinations(_texts(line), 2) if two[0].text != two[1].text]
                chosen = sorted(every, key=lambda two: rank(seed, "any", two[0].id, two[1].id))[:1]
            found += [(pair_key(line.prompt, two), *two) for two in chosen]
        return sorted(found, key=lambda item: rank(seed, "queue", item[0]))


@dataclass(frozen=True)
class Wanted:
    """What is looked for. Empty: everything."""

    words: str = ""
    split: str = ""
    source: str = ""
    chosen: str = ""
    """Model of the chosen."""
    rejected: str = ""
    pair: str = ""
    """`yes`, `no`, or a reason for none."""
    judged: str = ""
    """`disputed`: judges do not agree. `failed`: a judgement has no score."""
    order: str = ""
    """`closest` or `widest` margin first."""

    def fits(self, line: Line) -> bool:
        pairs = [
            pair
            for pair in line.pairs
            if self.chosen in ("", pair.chosen.model) and self.rejected in ("", pair.rejected.model)
        ]
        return (
            (not (self.chosen or self.rejected) or bool(pairs))
            and self.split in ("", line.prompt.meta["split"])
            and self.source in ("", line.prompt.source)
            and (not self.pair or self.pair == ("yes" if line.pairs else "no") or self.pair == line.reason)
            and (self.judged != "disputed" or bool(line.disputed))
            and (self.judged != "failed" or line.failed > 0)
            and (not self.words or line.has(self.words.strip().lower()))
        )


def choices(book: Book) -> list[tuple[str, str, list[tuple[str, str]]]]:
    """What the list can be filtered by: field, label, its values."""
    every = ("", "any")
    models = sorted({model for line in book.lines for model in line.models})
    reasons = sorted({line.reason for line in book.lines if line.reason})
    return [
        ("split", "Split", [every, ("train", "train"), ("test", "test")]),
        ("source", "Source", [every, *((s, s) for s in sorted({line.prompt.source for line in book.lines}))]),
        ("chosen", "Chosen is by", [every, *((m, m) for m in models)]),
        ("rejected", "Rejected is by", [every, *((m, m) for m in models)]),
        (
            "pair",
            "Pair",
            [every, ("yes", "a pair"), ("no", "no pair"), *((r, f"none: {r}") for r in reasons)],
        ),
        ("judged", "Judges", [every, ("disputed", "disagree"), ("failed", "gave no score")]),
        (
            "order",
            "Order",
            [("", "as in the run"), ("closest", "smallest margin"), ("widest", "widest margin")],
        ),
    ]


def voices_of(jury: Jury) -> dict[str, Callable[[dict[str, list[Judgement]]], dict[str, float]]]:
    """Who can disagree: each judge, or each aspect of one that is alone. What each makes of a prompt's judgements."""
    first, *others = jury.members
    if others:
        return {member.name: _by_member(member) for member in jury.members}
    return {f"{first.name}, {aspect}": _by_aspect(aspect) for aspect in first.aspects}


def _by_member(member: Member) -> Callable[[dict[str, list[Judgement]]], dict[str, float]]:
    alone = Jury(members=(member,), standardise="prompt" if isinstance(member, RewardModel) else "none")

    def scores(judgements: dict[str, list[Judgement]]) -> dict[str, float]:
        found = combine_prompt(judgements, alone)
        return {id: score.value for id, score in found.items() if score.value is not None}

    return scores


def _by_aspect(aspect: str) -> Callable[[dict[str, list[Judgement]]], dict[str, float]]:
    def scores(judgements: dict[str, list[Judgement]]) -> dict[str, float]:
        return {
            id: judgement.score
            for id, own in judgements.items()
            for judgement in own
            if judgement.aspect == aspect and judgement.score is not None
        }

    return scores


def disputed(case: Judged, voices: dict[str, Any]) -> list[tuple[Completion, Completion]]:
    """Every two different answers of which one voice prefers the first and another the second."""
    said = [scores(case.judgements) for scores in voices.values()]
    found = []
    for a, b in combinations([each.completion for each in case.candidates], 2):
        gaps = [own[a.id] - own[b.id] for own in said if a.id in own and b.id in own]
        if gaps and max(gaps) > EQUAL and min(gaps) < -EQUAL and a.text != b.text:
            found.append((a, b))
    return found


def _texts(line: Line) -> list[Completion]:
    return [each.completion for each in line.candidates if each.completion.text.strip()]
