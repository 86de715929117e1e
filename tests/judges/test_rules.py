"""The rule judge: scores, statuses, words for people, and a public set's labels reproduced."""

import json
from pathlib import Path
from typing import Any

import pytest

from judges.rules import RuleError, Rules, all_kept, read_constraints
from prompts.sources import PromptSource, load_prompts
from records.ids import prompt_id
from records.schema import Completion, Message, Prompt

GSM8K = Path(__file__).parents[3] / "shared" / "data" / "gsm8k"
BRIEF = [{"kind": "max_words", "n": 5}, {"kind": "min_words", "n": 2}, {"kind": "ends_with_punctuation"}]


def ask(constraints: object = None, **meta: object) -> Prompt:
    messages = (Message(role="user", content="Explain tea."),)
    given = {} if constraints is None else {"constraints": constraints}
    return Prompt(id=prompt_id(messages), messages=messages, source="test", meta=given | meta)


def answer(text: str) -> Completion:
    return Completion(id=text, prompt_id="p", model="m", text=text, finish_reason="stop", fingerprint="f")


async def judge(prompt: Prompt, *texts: str, settings: Rules | None = None):
    return await (settings or Rules()).build(None)(prompt, [answer(text) for text in texts])


async def test_the_score_is_one_only_when_every_check_holds():
    kept, long, longer = await judge(ask(BRIEF), "Tea is warm.", "Tea is a very warm drink", "Tea " * 20)
    assert kept.score == 1.0 and (kept.low, kept.high) == (0, 1)
    assert long.score == pytest.approx((0.5 * 5 / 6 + 1 + 0) / 3)
    assert longer.score is not None and long.score is not None and longer.score < long.score < 1


async def test_only_some_kinds_of_constraints_can_be_looked_at():
    text, prompt = "Tea is a very warm drink", ask(BRIEF)
    for only, score in ((("min_words",), 1.0), (("ends_with_punctuation",), 0.0)):
        [verdict] = await judge(prompt, text, settings=Rules(only=only))
        assert verdict.score == score
    [verdict] = await judge(prompt, text, settings=Rules(only=("json_object",)))
    assert verdict.status == "not_applicable"
    with pytest.raises(
        ValueError, match=r"only: \['max_word'\] are no kinds of constraints; there are .*max_words"
    ):
        Rules(only=("max_word",))
    assert "only" not in Rules().asked(), "judgements without it are those of before"


async def test_the_detail_lists_kept_and_broken_rules_in_words():
    [verdict] = await judge(ask(BRIEF), "Tea is a very warm drink")
    assert verdict.detail == (
        "kept: at least 2 words; broken: at most 5 words (6 words), "
        "ends with punctuation (it ends 'very warm drink')"
    )


async def test_a_prompt_without_constraints_is_not_applicable_and_has_no_score():
    for prompt in (ask(), ask([]), ask(reference="18")):
        [verdict] = await judge(prompt, "anything")
        assert (verdict.status, verdict.score) == ("not_applicable", None)


@pytest.mark.parametrize(
    ("constraints", "detail"),
    [
        ([BRIEF[0], {"kind": "max_wrods", "n": 3}], "constraint 2: .*max_wrods"),
        (
            [{"kind": "max_words", "n": "few"}],
            r"constraint 1: .*'n': 'few'.*n: Input should be a valid integer",
        ),
        (["max_words"], "constraint 1: 'max_words'"),
        ("max_words", "wanted a list"),
    ],
)
async def test_an_unreadable_constraint_is_a_rule_error_and_no_score(constraints: object, detail: str):
    prompt = ask(constraints)
    for verdict in await judge(prompt, "a", "b"):
        assert (verdict.status, verdict.score) == ("rule_error", None)
        with pytest.raises(RuleError, match=detail):
            raise RuleError(verdict.detail)
    with pytest.raises(RuleError, match=detail):
        all_kept(prompt, answer("a"))


async def test_an_empty_answer_scores_zero_and_says_so():
    [verdict] = await judge(ask(BRIEF), " \n")
    assert (verdict.status, verdict.score, verdict.detail) == ("ok", 0.0, "the answer is empty")


def test_all_kept_is_none_without_constraints():
    assert all_kept(ask(), answer("x")) is None
    assert all_kept(ask(BRIEF), answer("Tea is warm.")) is True
    assert all_kept(ask(BRIEF), answer("Tea is warm")) is False
    assert all_kept(ask(BRIEF), answer("")) is False


def test_fields_without_a_value_are_no_fields():
    """Parquet gives each constraint of a column the fields of all others, as nulls."""
    [rule] = read_constraints(ask([{"kind": "max_words", "n": 5, "phrases": None, "at_least": None}]))
    assert rule.describe() == "at most 5 words"


async def test_a_reference_can_be_the_rule():
    prompt = ask(reference="6 * 3 = <<6*3=18>>18\n#### 18")
    right, wrong, none = await judge(
        prompt, "A: $18.", "A: 19", "eighteen", settings=Rules(reference="marked")
    )
    assert (right.score, wrong.score) == (1.0, 0.0)
    assert (none.status, none.score) == ("no_answer", None), "not found is not wrong"
    assert none.detail == "no final number after a mark such as `A:` or `answer is`"
    [unreadable] = await judge(ask(reference="blue"), "18", settings=Rules(reference="last"))
    assert unreadable.status == "rule_error" and "reference='blue'" in unreadable.detail


@pytest.mark.parametrize(
    "row", load_prompts(PromptSource(file="prompts/quickstart/prompts.jsonl")).prompts, ids=lambda p: p.id[:8]
)
def test_every_shipped_prompts_constraints_parse(row: Prompt):
    kinds = [rule.kind for rule in read_constraints(row)]
    assert len(kinds) == len(set(kinds))
    if row.meta["kind"] == "brief":
        assert kinds == ["max_words", "min_words", "ends_with_punctuation"]


def gsm8k() -> list[tuple[Prompt, list[str], list[bool]]]:
    """1,319 problems as they load, each with four models' solutions and their published labels."""
    source = PromptSource(file=str(GSM8K / "test.jsonl"), prompt="question", meta={"reference": "answer"})
    prompts = {prompt.text: prompt for prompt in load_prompts(source).prompts}
    models = ("6b_finetuning", "6b_verification", "175b_finetuning", "175b_verification")
    with (GSM8K / "example_model_solutions.jsonl").open(encoding="utf-8") as lines:
        rows = [json.loads(line) for line in lines]
    return [
        (
            prompts[row["question"]],
            [row[model]["solution"] for model in models],
            [row[model]["is_correct"] for model in models],
        )
        for row in rows
    ]


@pytest.mark.skipif(not GSM8K.is_dir(), reason=f"the GSM8K solutions are not at {GSM8K}")
@pytest.mark.parametrize(("read", "without"), [("marked", 13), ("last", 1)])
async def test_the_labels_of_5276_gsm8k_solutions_are_reproduced(read: Any, without: int):
    """11 solutions are cut off before their mark, and two end on `-1.8 billion` and `10+John's age`."""
    settings, right, total, unmarked, unread = Rules(reference=read), [0, 0, 0, 0], 0, 0, 0
    for prompt, solutions, labels in gsm8k():
        verdicts = await judge(prompt, *solutions, settings=settings)
        assert [v.score == 1.0 for v in verdicts] == labels
        assert all((v.score is None) == (v.status == "no_answer") for v in verdicts)
        right = [n + (v.score == 1.0) for n, v in zip(right, verdicts, strict=True)]
        total += len(verdicts)
        unmarked += sum("\nA:" not in "\n" + solution for solution in solutions)
        unread += sum(v.status == "no_answer" for v in verdicts)
    assert (total, right, unmarked, unread) == (5276, [286, 515, 458, 742], 11, without)
