"""A judge that sees answers side by side is asked in both orders, and its scores find their way back."""

from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from flows.gold import Asked, ask, judged_items, plan
from judges.base import Verdict
from judges.canaries import best_of
from judges.card import GoldFacts, make_card
from judges.gold import GoldItem
from judges.jury import Jury
from judges.scores import Cost
from records.schema import Completion, Prompt, Usage

ITEMS = [
    GoldItem(prompt=f"Question {i}?", completions=(f"good {i}", f"bad {i}"), label=0) for i in range(4)
] + [GoldItem(prompt="Which?", completions=("bad x", "good x", "fair x"), label=1)]


class SideBySide:
    """What the plan reads of a judge's settings."""

    kind, name, scope, aspects = "listwise", "listwise", "prompt", ("quality",)
    asks = None

    def asked(self) -> dict[str, object]:
        return {"kind": self.kind}

    def question(self, aspect: str) -> str:
        return "Which is best?"


MEMBER: Any = SideBySide()
SUBJECT: Any = SimpleNamespace(
    jury=SimpleNamespace(members=(MEMBER,), weights={}, quorum=None, standardise="none"),
    identities={},
    models={},
)


async def filled(tmp_path: Path, judge: Any, tried: Sequence[int] = ()) -> list[Asked]:
    """Every row asked, as the task does."""
    members = plan(SUBJECT, ITEMS, tried, tmp_path)
    for own in members:
        for key, question in own.questions.items():
            own.rows[key] = await ask(key, question, judge, MEMBER, "f")
    return members


async def first_place(prompt: Prompt, completions: Sequence[Completion], aspect: str) -> list[Verdict]:
    """Likes what its ids put first."""
    order = sorted(completion.id for completion in completions)
    return [
        Verdict(aspect, "ok", 0, 1, score=1.0 - order.index(c.id) / 10, position=order.index(c.id))
        for c in completions
    ]


async def quality(prompt: Prompt, completions: Sequence[Completion], aspect: str) -> list[Verdict]:
    points = {"good": 1.0, "fair": 0.5}
    return [Verdict(aspect, "ok", 0, 1, score=points.get(c.text.split(" ")[0], 0.0)) for c in completions]


def card_of(members: Sequence[Asked], tried: Sequence[int] = ()) -> Any:
    gold = GoldFacts(
        name="g", layout="gold", digest="d", items=5, in_file=5, prompts=0, pairs=0, ties=0, dropped={}
    )
    judged = judged_items(SUBJECT, members, ITEMS, tried)
    cost = Cost(judgements=1, usable_pairs=0, usage=Usage(), seconds=0.0, price=0.0)
    jury = Jury.model_validate({"members": [{"kind": "rules"}]})
    options: Any = {"margin": 0.0, "statuses": {}, "cost": cost, "identities": {}}
    return make_card(judged, name="n", jury=jury, gold=gold, **options)


async def test_a_judge_of_places_flips_every_pair_and_names_no_winner(tmp_path: Path):
    card = card_of(await filled(tmp_path, first_place))
    assert (card.orders.n, card.orders.first_twice, card.orders.same_winner) == (6, 6, 0)
    assert card.agreement.ties.value == 1.0, "both orders together are a tie"


async def test_a_judge_of_quality_keeps_its_winner_and_more_than_two_answers_are_pairs_with_the_best(
    tmp_path: Path,
):
    tried = [i for i, item in enumerate(ITEMS) if best_of(item) is not None]
    card = card_of(await filled(tmp_path, quality, tried), tried)
    assert card.gold.pairs == 4 + 2
    assert (card.orders.same_winner, card.orders.same_winner_right) == (6, 6)
    assert card.agreement.decided.value == 1.0
    assert {canary.below.value for canary in card.canaries} == {1.0}


async def test_one_failed_order_fails_the_pair(tmp_path: Path):
    async def half(prompt: Prompt, completions: Sequence[Completion], aspect: str) -> list[Verdict]:
        found = await quality(prompt, completions, aspect)
        if completions[0].text.startswith("bad"):
            return [Verdict(aspect, "parse_error", 0, 1) for _ in found]
        return found

    card = card_of(await filled(tmp_path, half))
    assert card.orders.failed == card.agreement.failed == 6
    assert card.agreement.decided_judged is None
