"""Figures that were published or counted by hand, computed again by this project's metric code on the same files."""

from typing import Any

import pytest

from judges.agreement import SIDES, Compared, Side, agreement, longer_wins, people, side_of
from judges.gold import GoldItem, load_gold
from judges.layouts import Label, majority
from judges.orders import Twice, orders
from judges.rating import Rating
from judges.scores import spread
from records.schema import Completion, Message, Prompt
from records.stats import share
from serving.chat import Choice, Reply, Request, Token
from tests.judges.human import human_file, human_rows


def said(verdict: object) -> Side | None:
    """PandaLM's and JudgeBench's words for a verdict; None for one that could not be read (`garbage`, null)."""
    if verdict in (1, "1", "A>B"):
        return "first"
    if verdict in (2, "2", "B>A"):
        return "second"
    return "tie" if verdict in (0, "Tie", "A=B") else None


def annotators(row: dict[str, Any]) -> tuple[Label, ...]:
    labels: dict[int, Label] = {0: "tie", 1: 0, 2: 1}
    return tuple(labels[row[f"annotator{i}"]] for i in (1, 2, 3))


def pandalm() -> list[Compared]:
    """All 999 rows, also those whose answers are empty or no text: the published figures count them."""
    pairs = []
    for row in human_rows("pandalm/testset-v1.json"):
        gold = majority(annotators(row))
        texts = tuple("" if isinstance(row[name], bool) else row[name] for name in ("response1", "response2"))
        pairs.append(Compared(str(row["idx"]), side_of(gold), None, texts))  # type: ignore[arg-type]
    return pairs


def said_by(file: str, field: str) -> list[Compared]:
    verdicts: dict[int, Side | None] = {row["idx"]: said(row[field]) for row in human_rows(f"pandalm/{file}")}
    return [Compared(pair.prompt, pair.gold, verdicts[int(pair.prompt)], pair.texts) for pair in pandalm()]


def test_pandalm_majority_labels_are_422_472_and_105():
    gold = [pair.gold for pair in pandalm()]
    assert [gold.count(side) for side in SIDES] == [422, 472, 105]


@pytest.mark.parametrize(
    ("file", "field", "accuracy", "kappa", "failed"),
    [
        ("gpt-3.5-turbo-testset-v1.json", "gpt_result", 0.698, 0.476, 25),
        ("pandalm-7b-testset-v1.json", "pandalm_result", 0.668, 0.435, 0),
    ],
)
def test_judges_agree_with_people_on_pandalm_as_published(
    file: str, field: str, accuracy: float, kappa: float, failed: int
):
    found = agreement(said_by(file, field))
    assert (found.n, found.failed) == (999, failed)
    assert found.accuracy is not None and found.kappa is not None
    assert found.accuracy.value == pytest.approx(accuracy, abs=0.0005)
    assert found.kappa.value == pytest.approx(kappa, abs=0.0005)
    assert found.accuracy.low < accuracy < found.accuracy.high
    assert found.kappa.low < kappa < found.kappa.high


def test_the_longer_answer_wins_on_pandalm_as_often_as_published():
    found = agreement(longer_wins(pandalm()))
    assert found.accuracy and found.kappa and found.decided
    assert found.accuracy.value == pytest.approx(0.611, abs=0.0005)
    assert found.kappa.value == pytest.approx(0.303, abs=0.0005)
    assert (found.decided.n, round(found.decided.value, 3)) == (894, 0.670)


def test_people_agree_with_each_other_on_pandalm_as_published():
    items = human_rows("pandalm/testset-v1.json")
    labels = [annotators(row) for row in items]
    found = people(labels, [str(i) for i in range(len(items))])
    assert found is not None
    assert sorted(round(kappa.value, 2) for kappa in found.kappas) == [0.85, 0.86, 0.88]


def test_the_order_table_of_claude_3_haiku_on_judgebench_is_the_counted_one():
    """Decisions are as the judge gave them, so A of the second order is B of the pair."""
    asked = []
    for row in human_rows("judgebench-claude/judgments_claude-3-haiku_arena-hard.jsonl"):
        one, two = row["judgments"]
        gold = said(row["label"])
        assert gold is not None
        asked.append(Twice(row["pair_id"], gold, said(one["decision"]), said(two["decision"])))
    found = orders(asked)
    assert (found.same_winner, found.same_winner_right) == (81, 38)
    assert (found.both_tie, found.first_twice, found.second_twice) == (54, 37, 7)
    assert (found.tie_and_winner, found.failed, found.n) == (78, 13, 270)
    assert found.consistent and found.consistent.n == 257


def test_gpt_4_ties_for_best_on_the_vicuna_questions_as_counted():
    """Four models per question, three scores of 1 to 5 each: one score ties on 63 of 80, the mean of three on 43."""
    single: dict[str, list[float]] = {}
    means: dict[str, list[float]] = {}
    everything = []
    for row in human_rows("mt-bench/prometheus_vicuna_eval.json"):
        scores = [(score - 1) / 4 for score in row["gpt4_score"]]
        single.setdefault(row["idx"], []).append(scores[0])
        means.setdefault(row["idx"], []).append(sum(scores) / 3)
        everything.append(scores)
    ones, three = spread(list(single.values())), spread(list(means.values()))
    assert ones.tied_for_best and three.tied_for_best
    assert (ones.tied_for_best.n, round(ones.tied_for_best.value * 80)) == (80, 63)
    assert round(three.tied_for_best.value * 80) == 43
    saturated = spread(everything).top_two
    assert saturated and (saturated.n, round(saturated.value, 2)) == (960, 0.86)


async def test_preferences_of_alpacaeval_follow_from_its_logprobs():
    """Read as a rating of 1 (`m`) or 2 (`M`), the mean is the published preference for the second output, or its
    mirror: outputs were exchanged at random, and by which draw is not in the file. Four rows have no reply at all and
    are published as 1.5, a failure as a number."""
    both, token = 0, Token("", {})

    async def chat(request: Request) -> Reply:
        return Reply((Choice("m", "stop", (token,)),))

    judge = Rating(model="judge", min_mass=1e-9).build(chat)
    prompt = Prompt(id="p", messages=(Message(role="user", content="Hi"),), source="test")
    answer = Completion(id="c", prompt_id="p", model="m", text="Hi", finish_reason="stop", fingerprint="f")
    for row in human_rows("alpacaeval-outputs/annotations_text_davinci_003_weighted.json"):
        if row["raw_completion"] is None:
            continue
        (first, *_) = row["raw_completion"]["logprobs"]["content"]
        alternatives = {one["token"]: one["logprob"] for one in first["top_logprobs"]}
        if not {"m", "M"} <= alternatives.keys():
            continue
        both += 1
        token = Token("m", {"1": alternatives["m"], "2": alternatives["M"]})
        (verdict,) = await judge(prompt, [answer], "quality")
        assert verdict.score is not None
        assert min(abs(seen - row["preference"]) for seen in (verdict.score, 3 - verdict.score)) < 1e-6
    assert both == 798


@pytest.mark.parametrize(
    ("name", "layout", "items", "ties"),
    [
        ("hhh-alignment/hhh_alignment_eval.json", "hhh", 221, 0),
        ("judgebench-claude/pairs.jsonl", "judgebench", 270, 0),
    ],
)
def test_human_files_load_whole(name: str, layout: str, items: int, ties: int):
    gold = load_gold(human_file(name))
    assert (gold.layout, len(gold.items), gold.dropped) == (layout, items, {})
    assert sum(item.label == "tie" for item in gold.items) == ties


def test_pandalm_loads_without_its_empty_and_boolean_answers():
    gold = load_gold(human_file("pandalm/testset-v1.json"))
    assert len(gold.items) + sum(gold.dropped.values()) == 999
    assert gold.dropped["empty_answer"] == 54
    assert all(isinstance(text, str) and text.strip() for item in gold.items for text in item.completions)


def test_the_better_answer_of_hhh_stands_first_about_as_often_as_second():
    items: list[GoldItem] = load_gold(human_file("hhh-alignment/hhh_alignment_eval.json")).items
    first = share([item.label == 0 for item in items], [str(i) for i in range(len(items))])
    assert first and first.low < 0.5 < first.high
    tags = [item.tags[0] for item in items]
    assert {tag: tags.count(tag) for tag in set(tags)} == {
        "honest": 61,
        "helpful": 59,
        "harmless": 58,
        "other": 43,
    }
