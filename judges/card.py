"""The judge card: everything that is known of a judge before its labels are used. Start at `make_card`.

Pure: scores of gold answers in, one record out. `flows/judge_card.py` asks the judge, `reports/judge_card.py` draws it.
"""

from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from typing import Any

from pydantic import Field

from judges.agreement import (
    Agreement,
    Paired,
    People,
    agreement,
    coin,
    compare,
    first_wins,
    longer_wins,
    people,
)
from judges.bias import Preference, for_first, for_lists, for_longer, for_own, length_slope
from judges.compared import EQUAL, Judged, asked_twice, compared
from judges.jury import Jury
from judges.orders import Orders, orders
from judges.scores import (
    AtMargin,
    Calibration,
    Cost,
    Spread,
    by_margin,
    calibration,
    spread,
)
from records.base import Strict
from records.ids import fingerprint
from records.stats import Estimate, Rate, share


class Canary(Strict):
    """One kind of bad answer against real ones."""

    name: str
    n: int
    """Asked."""
    below: Rate | None
    """It scores below the real answer, of those where both have a score. Level with it is not below."""
    unscored: int
    """The judge gave the canary no score, so it can never be chosen."""


class GoldFacts(Strict):
    """What the card was measured on."""

    name: str
    layout: str
    digest: str
    """SHA-256 of the file."""
    items: int
    """Asked; of `in_file` where a limit was set."""
    in_file: int
    prompts: int
    """Different ones; intervals are over these."""
    pairs: int
    ties: int
    """Pairs that people call a tie."""
    dropped: dict[str, int]
    """Rows of the file without two readable answers, by reason."""


class Card(Strict):
    """How good one judge is on one gold file."""

    name: str
    judge: str
    """Fingerprint of everything that decides its verdicts, models included."""
    settings: dict[str, Any]
    """The judge as its recipe says it."""
    models: dict[str, dict[str, Any]]
    """Identity of every model it asks."""
    gold: GoldFacts
    margin: float
    """Scores nearer than this were a tie; on the scale 0 to 1."""
    agreement: Agreement
    baselines: dict[str, Agreement]
    """Rules that know nothing, on the same pairs."""
    against: dict[str, Paired]
    """Judge against each of them."""
    people: People | None
    orders: Orders | None
    """None: answers are judged alone, or a jury's member asks in both orders itself."""
    longer: Preference
    lists: Preference
    first: Preference
    own: Preference | None
    length_slope: Estimate | None
    statuses: dict[str, dict[str, int]]
    """Member -> how its judgements ended -> how many."""
    failures: Rate | None
    """Answers without a score."""
    spread: Spread
    calibration: Calibration | None
    margins: tuple[AtMargin, ...]
    canaries: tuple[Canary, ...]
    cost: Cost
    dialects: dict[str, dict[str, Any]] = Field(default_factory=dict)
    """How each model was asked and read, see `serving.way`."""
    versions: dict[str, str] = Field(default_factory=dict)
    date: str = ""


def judge_fingerprint(jury: Jury, identities: Mapping[str, Any]) -> str:
    """`identities`: of the models, by the names the members ask them under."""
    members = [
        {
            "judge": member.asked(),
            "questions": {aspect: member.question(aspect) for aspect in member.aspects},
            "model": identities.get(member.asks or ""),
            "weight": jury.weights.get(member.name, 1.0),
        }
        for member in jury.members
    ]
    rest = jury.model_dump(mode="json", exclude={"kind", "members", "weights"})
    return fingerprint("judge", members, rest)


def make_card(
    judged: Sequence[Judged],
    *,
    name: str,
    jury: Jury,
    identities: dict[str, dict[str, Any]],
    gold: GoldFacts,
    margin: float,
    statuses: dict[str, dict[str, int]],
    cost: Cost,
    own: Collection[str] = (),
    dialects: dict[str, dict[str, Any]] | None = None,
    versions: dict[str, str] | None = None,
    date: str = "",
) -> Card:
    """Prompts, pairs and ties of `gold`, and the cost's usable pairs, are counted here."""
    chances = [member.kind for member in jury.members] == ["pairwise"]
    pairs = [pair for case in judged for pair in compared(case, margin, chances)]
    baselines = {"longer wins": longer_wins(pairs), "first wins": first_wins(pairs), "a coin": coin(pairs)}
    everyone = [(case.item.annotators, case.item.to_prompt().id) for case in judged]
    scored = [(score.value is None, case.item.to_prompt().id) for case in judged for score in case.forward]
    usable = sum(pair.judged in ("first", "second") for pair in pairs)
    return Card(
        name=name,
        judge=judge_fingerprint(jury, identities),
        settings=jury.model_dump(mode="json"),
        models=identities,
        gold=gold.model_copy(
            update={
                "prompts": len({pair.prompt for pair in pairs}),
                "pairs": len(pairs),
                "ties": sum(pair.gold == "tie" for pair in pairs),
            }
        ),
        margin=margin,
        agreement=agreement(pairs),
        baselines={rule: agreement(said) for rule, said in baselines.items()},
        against={rule: compare(pairs, said) for rule, said in baselines.items()},
        people=people([labels for labels, _ in everyone], [prompt for _, prompt in everyone]),
        orders=orders(twice)
        if (twice := [t for case in judged for t in asked_twice(case, margin)])
        else None,
        longer=for_longer(pairs),
        lists=for_lists(pairs),
        first=for_first(pairs),
        own=for_own(pairs, own) if own else None,
        length_slope=length_slope(pairs),
        statuses=statuses,
        failures=share([failed for failed, _ in scored], [prompt for _, prompt in scored]),
        spread=spread([[s.value for s in case.forward if s.value is not None] for case in judged], EQUAL),
        calibration=calibration(pairs),
        margins=by_margin(pairs),
        canaries=canary_rates(judged),
        cost=cost.model_copy(update={"usable_pairs": usable}),
        dialects=dialects or {},
        versions=versions or {},
        date=date,
    )


def canary_rates(judged: Sequence[Judged]) -> tuple[Canary, ...]:
    names = dict.fromkeys(name for case in judged for name in case.canaries)
    rates = []
    for name in names:
        asked = [(*case.canaries[name], case.item.to_prompt().id) for case in judged if name in case.canaries]
        both = [(c.value, b.value, p) for c, b, p in asked if c.value is not None and b.value is not None]
        rates.append(
            Canary(
                name=name,
                n=len(asked),
                below=share([bad < good - EQUAL for bad, good, _ in both], [prompt for *_, prompt in both]),
                unscored=sum(canary.value is None for canary, _, _ in asked),
            )
        )
    return tuple(rates)


def status_counts(found: Mapping[str, Sequence[str]]) -> dict[str, dict[str, int]]:
    """Member -> statuses, counted, the most frequent first."""
    return {member: dict(Counter(statuses).most_common()) for member, statuses in found.items()}
