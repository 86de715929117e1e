"""IFEval's published verdicts on answers of GPT-4 and Mistral-7B-Instruct-v0.3, given again by our constraints.

Every verdict that differs is named here with its reason: another difference fails, and so does one that went away.
"""

from collections import Counter
from typing import Any, NamedTuple

import pytest

from judges.constraints import CONSTRAINT
from judges.rules import ASPECT, Rules, judge_text
from prompts.ifeval import INSTRUCTIONS, constraints_of
from prompts.sources import PromptSource, load_prompts
from records.schema import Completion
from tests.judges.human import human_file, human_rows

GPT_4, MISTRAL = "gpt4", "mistral-7b-instruct-v0.3"

RANDOM_LETTER = "the checker replaces a letter outside a to z by one drawn at random"
LIST_NUMBERS = "the checker's sentence splitter takes the number of a list item for a sentence"

Item = tuple[int, str]
"""The prompt's key and the instruction."""

DIFFERENT: dict[tuple[str, bool], dict[Item, str]] = {
    (GPT_4, False): {},
    (GPT_4, True): {(1122, "keywords:letter_frequency"): RANDOM_LETTER},
    (MISTRAL, False): {
        (2162, "length_constraints:number_sentences"): LIST_NUMBERS,
        (2266, "length_constraints:number_sentences"): LIST_NUMBERS,
        (2589, "length_constraints:number_sentences"): LIST_NUMBERS,
    },
}
"""By model and by whether the reading is loose."""

PUBLISHED = {(GPT_4, False): (417, 697), (GPT_4, True): (430, 712), (MISTRAL, False): (255, 492)}
"""Answers that follow all of their instructions, and instructions followed, counted in the published files."""


class Checked(NamedTuple):
    item: Item
    ours: bool
    published: bool


def checked(model: str, loose: bool) -> list[list[Checked]]:
    """Every instruction of every answer, by answer. A prompt reworded by the second file is found by its place."""
    prompts = human_rows("ifeval/input_data.jsonl")
    by_text = {row["prompt"]: row for row in prompts}
    answers = []
    for place, row in enumerate(human_rows(f"ifeval/eval_{'loose' if loose else 'strict'}_{model}.jsonl")):
        prompt = by_text.get(row["prompt"]) or prompts[place]
        ids = [id.removeprefix("en:") for id in row["instruction_id_list"]]
        assert ids == prompt["instruction_id_list"]
        constraints = [CONSTRAINT.validate_python(made) for made in constraints_of(ids, prompt["kwargs"])]
        answers.append(
            [
                Checked((prompt["key"], id), rule.grade(row["response"], loose).kept, verdict)
                for id, rule, verdict in zip(ids, constraints, row["follow_instruction_list"], strict=True)
            ]
        )
    return answers


@pytest.mark.parametrize(("model", "loose"), DIFFERENT)
def test_published_verdicts_are_given_again_but_for_those_listed(model: str, loose: bool):
    found = [one for answer in checked(model, loose) for one in answer]
    assert len(found) == (832 if model == GPT_4 else 834)
    assert {one.item for one in found if one.ours != one.published} == DIFFERENT[model, loose].keys()


@pytest.mark.parametrize(("model", "loose"), DIFFERENT)
def test_published_accuracies_are_reached_within_one_percent(model: str, loose: bool):
    answers = checked(model, loose)
    instructions = [one for answer in answers for one in answer]
    published = (
        sum(all(one.published for one in answer) for answer in answers),
        sum(one.published for one in instructions),
    )
    ours = (sum(all(one.ours for one in answer) for answer in answers), sum(one.ours for one in instructions))
    assert published == PUBLISHED[model, loose]
    for count, was, total in zip(ours, published, (len(answers), len(instructions)), strict=True):
        assert abs(count - was) / total < 0.01


def test_every_instruction_of_ifeval_is_checked_on_published_verdicts():
    seen = Counter(one.item[1] for answer in checked(GPT_4, False) for one in answer)
    assert set(seen) == set(INSTRUCTIONS) and len(seen) == 25 and min(seen.values()) >= 10


async def test_prompts_of_ifeval_load_as_they_come_and_are_judged():
    """541 prompts from the file itself; GPT-4's answers through the judge, strictly and loosely."""
    source = PromptSource(file=str(human_file("ifeval/input_data.jsonl")), meta={"key": "key"})
    prompts = {prompt.text: prompt for prompt in load_prompts(source).prompts}
    assert len(prompts) == 541
    for loose, name in ((False, "strict"), (True, "loose")):
        judge, all_kept = Rules(loose=loose).build(None), 0
        for row in human_rows(f"ifeval/eval_{name}_{GPT_4}.jsonl"):
            text: dict[str, Any] = {"text": row["response"], "finish_reason": "stop", "fingerprint": "f"}
            answer = Completion(id="a", prompt_id="p", model=GPT_4, **text)
            [verdict] = await judge(prompts[row["prompt"]], [answer], ASPECT)
            assert verdict.status == "ok"
            all_kept += verdict.score == 1.0
        assert all_kept == PUBLISHED[GPT_4, loose][0] + (loose and 1), "one verdict differs, see above"


def test_the_detail_of_a_verdict_names_what_was_broken():
    made = constraints_of(["punctuation:no_comma", "startend:quotation"], [{}, {}])
    verdict = judge_text('"Tea, warm."', [CONSTRAINT.validate_python(one) for one in made])
    assert verdict.detail == "kept: between double quotation marks; broken: leaves out ',' (it has [','])"
