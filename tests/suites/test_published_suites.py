"""Published questions, answers and verdicts, read and averaged again by this project's code."""

from collections import defaultdict
from typing import Any

import pytest

from flows.suites import ifeval, mt_bench
from flows.suites.regression import length_controlled
from flows.suites.result import Answered
from flows.suites.settings import IFEval
from judges.base import Unread
from judges.critique import rating
from prompts.questions import answers, questions
from records.schema import Completion
from serving.chat import Choice
from tests.judges.human import human_file, human_rows
from tests.suites.test_figures import answered


def test_mt_bench_has_eighty_questions_of_two_turns_and_thirty_with_right_answers():
    found = questions(
        str(human_file("mt-bench/question.jsonl")), str(human_file("mt-bench/reference_answer_gpt-4.jsonl"))
    )
    mt_bench.check("mt-bench", found)
    assert len(found) == 80 and all(len(question.turns) == 2 for question in found)
    graded = [question for question in found if question.reference]
    assert len(graded) == 30 and {question.category for question in graded} == {*mt_bench.BY_REFERENCE}
    assert found[20].id == "101" and "second place" in found[20].reference[0]


def test_alpaca_evals_files_are_joined_by_instruction():
    ours = answers(str(human_file("alpacaeval-outputs/outputs_zephyr-7b-beta.json")))
    baseline = questions(str(human_file("alpacaeval-outputs/outputs_text_davinci_003.json")))
    assert len(ours) == len(baseline) == 805 and {question.id for question in baseline} == set(ours)
    assert {answer.model for answer in ours.values()} == {"zephyr-7b-beta"}
    assert "helpful_base" in {question.category for question in baseline}


def test_published_mt_bench_gradings_have_the_published_averages():
    """GPT-4's texts, read again; FastChat's means leave out what is -1."""
    published: dict[tuple[str, int], list[float]] = defaultdict(list)
    sheets: dict[str, list[Answered]] = defaultdict(list)
    known = questions(str(human_file("mt-bench/question.jsonl")))
    by_id = {question.id: question for question in known}
    seen = set()
    for row in human_rows("mt-bench/gpt-4_single.jsonl"):
        place = row["model"], row["question_id"], row["turn"]
        if place in seen:  # graded twice: the first counts
            continue
        seen.add(place)
        if row["score"] != -1:
            published[row["model"], row["turn"]].append(row["score"])
        try:
            verdict: dict[str, Any] = {"score": rating(Choice(row["judgment"], "stop"))}
        except Unread as why:
            verdict = {"status": why.status}
        one = answered(by_id[str(row["question_id"])], row["turn"] - 1, **verdict)
        sheets[row["model"]].append(one)
    result = mt_bench.result(known, sheets)
    for (model, turn), scores in published.items():
        mean = result.metrics[f"turn {turn}"][model]
        assert mean is not None and mean.value == pytest.approx(sum(scores) / len(scores))


def test_shorter_answers_win_more_often_at_equal_length():
    """GPT-4's preferences for text-davinci-003, whose answers are a seventh as long as the baseline's."""
    rows = human_rows("alpacaeval-outputs/annotations_text_davinci_003_weighted.json")
    wins = [row["preference"] - 1 for row in rows]
    equal = length_controlled(
        wins, [len(row["output_2"]) for row in rows], [len(row["output_1"]) for row in rows]
    )
    assert equal is not None and equal.low > sum(wins) / len(wins)


PUBLISHED = {"strict": (417 / 540, 697 / 832), "loose": (430 / 540, 712 / 832)}
"""Accuracies of GPT-4 per prompt and per instruction, counted in the published files."""


def test_ifevals_published_accuracies_are_reached_within_one_percent():
    suite = IFEval(questions=str(human_file("ifeval/input_data.jsonl")))
    prompts = {prompt.text: prompt for prompt in ifeval.prompts_of(suite)}
    assert len(prompts) == 541
    sheet = []
    for row in human_rows("ifeval/responses_gpt4.jsonl"):
        prompt = prompts[row["prompt"]]
        completion = Completion(
            id=prompt.id,
            prompt_id=prompt.id,
            model="gpt-4",
            text=row["response"],
            finish_reason="stop",
            fingerprint="f",
        )
        sheet.append(Answered(ifeval.question_of(prompt), 0, prompt, completion))
    result = ifeval.result({"gpt-4": sheet})
    for reading, (whole, each) in PUBLISHED.items():
        for metric, right in ((f"{reading}, per prompt", whole), (f"{reading}, per instruction", each)):
            found = result.metrics[metric]["gpt-4"]
            assert found is not None and found.value == pytest.approx(right, abs=0.01)
            assert found.low < right < found.high
    assert set(result.groups) >= {"punctuation", "length_constraints", "language"}
