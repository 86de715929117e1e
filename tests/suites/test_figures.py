"""Figures of the suites: what is left out, what counts as the worst, and what length and style do to a win rate."""

import math
import random
from pathlib import Path
from typing import Any

import pytest

from flows.suites import compared, ifeval, mt_bench
from flows.suites.regression import calibration, length_controlled, style_controlled
from flows.suites.result import Answered, average, gain
from flows.suites.settings import AlpacaEval, MTBench
from flows.suites.table import benchmark_lines
from judges.pairwise import Pairwise
from prompts.load import PromptError
from prompts.questions import Known, Question
from records.schema import Completion, Judgement, Message, Prompt
from tests.judges.examples import model, said


def answered(
    question: Question, turn: int = 0, text: str = "Tea.", score: float | None = None, status: str = "ok"
) -> Answered:
    prompt = Prompt(id=f"{question.id}{turn}", messages=(Message(role="user", content="?"),), source="t")
    completion = Completion(
        id=f"c{question.id}{turn}",
        prompt_id=prompt.id,
        model="m",
        text=text,
        finish_reason="stop",
        fingerprint="f",
    )
    fields: dict[str, Any] = {"judge": "j", "aspect": "overall", "low": 1, "high": 10, "fingerprint": "f"}
    judgement = Judgement(
        id="j",
        prompt_id=prompt.id,
        completion_id=completion.id,
        status=status,  # type: ignore[arg-type]
        score=score,
        **fields,
    )
    return Answered(question, turn, prompt, completion, judgement)


def asked(count: int, turns: int = 1, category: str = "") -> list[Question]:
    return [Question(id=str(i), turns=("?",) * turns, category=category) for i in range(count)]


def test_a_rating_that_cannot_be_read_is_not_minus_one_in_the_mean():
    questions = asked(4, category="math")
    sheet = [answered(q, score=8.0) for q in questions[:3]] + [answered(questions[3], status="parse_error")]
    result = mt_bench.result(questions, {"base": sheet})
    mean = result.metrics["mean"]["base"]
    assert mean is not None and (mean.value, mean.n) == (8.0, 3)
    assert result.counts["base"].unread == {"parse_error": 1}
    assert result.groups["math"]["base"] == 8.0


def test_an_empty_answer_is_the_worst_and_not_left_out():
    questions = asked(2)
    sheet = [
        answered(questions[0], score=9.0),
        answered(questions[1], text=" \n", status="not_applicable"),
    ]
    result = mt_bench.result(questions, {"base": sheet})
    mean = result.metrics["mean"]["base"]
    assert mean is not None and mean.value == 5.0
    assert result.counts["base"].empty == 1 and result.counts["base"].unread == {}


def test_turns_have_a_mean_each_and_the_whole_is_over_all_gradings():
    questions = asked(3, turns=2)
    sheet = [answered(q, 0, score=8.0) for q in questions] + [answered(q, 1, score=5.0) for q in questions]
    sheet[-1] = answered(questions[-1], 1, status="parse_error")
    found = mt_bench.result(questions, {"m": sheet}).metrics
    values = {metric: own["m"].value for metric, own in found.items() if own["m"]}
    assert values == {"mean": pytest.approx(34 / 5), "turn 1": 8.0, "turn 2": 5.0}


def test_a_gain_is_of_the_questions_that_both_have_a_grade_for():
    hard, easy = ("hard", 0), ("easy", 0)
    more = ("more", 0)
    lift = gain({hard: 3.0, easy: 9.0}, {hard: 2.0, easy: 8.0, more: 10.0})
    assert lift is not None and lift.value == 1.0 and lift.low == lift.high == 1.0
    whole = average({hard: 2.0, easy: 8.0, more: 10.0})
    assert whole is not None and whole.low < whole.value < whole.high


async def test_a_judge_that_always_takes_the_first_gives_nobody_a_win():
    chat, requests = model(lambda text: said("A", logprobs={"A": -0.01, "B": -4.6}))
    question = asked(1)[0]
    one = answered(question, text="ours", score=1)
    [case] = compared.to_judge(
        AlpacaEval(questions="", judge=Pairwise(model="j")), [one], {"0": Known(turns=("theirs",), model="b")}
    )
    verdicts = await case.member.build(chat)(case.case.prompt, case.case.completions, "quality")
    assert len(requests) == 2 and all(verdict.score == pytest.approx(0.5) for verdict in verdicts)


def planted(theta: float, phi: float, n: int, shift: float) -> tuple[list[float], list[int], list[int]]:
    """A judge that likes length: chances to win, our lengths and the baseline's."""
    dice = random.Random(1)
    baseline = [dice.randint(500, 2500) for _ in range(n)]
    ours = [max(10, int(b + shift + dice.gauss(0, 700))) for b in baseline]
    gaps = [b - o for b, o in zip(baseline, ours, strict=True)]
    mean = sum(gaps) / n
    sd = math.sqrt(sum((g - mean) ** 2 for g in gaps) / (n - 1))
    wins = [1 / (1 + math.exp(-theta - phi * math.tanh(g / sd))) for g in gaps]
    return wins, ours, baseline


def test_longer_answers_win_and_with_length_controlled_they_do_not():
    wins, ours, baseline = planted(theta=0.0, phi=-1.5, n=400, shift=900)
    assert sum(wins) / len(wins) > 0.68
    equal = length_controlled(wins, ours, baseline)
    assert equal is not None and equal.value == pytest.approx(0.5, abs=0.005)
    assert equal.low <= equal.value <= equal.high


def test_a_better_model_stays_better_at_equal_length():
    wins, ours, baseline = planted(theta=1.0, phi=-1.5, n=400, shift=-600)
    equal = length_controlled(wins, ours, baseline)
    assert equal is not None and equal.value == pytest.approx(0.731, abs=0.005)


def test_headings_and_lists_that_a_judge_likes_do_not_win_with_style_controlled():
    dice = random.Random(2)
    plain = [" ".join(["word"] * dice.randint(50, 150)) for _ in range(300)]
    dressed = [text + "\n- **point**" * dice.randint(0, 8) for text in plain]
    wins = [0.9 if len(a) > len(b) else 0.5 for a, b in zip(dressed, plain, strict=True)]
    equal = style_controlled(wins, dressed, plain)
    assert sum(wins) / 300 > 0.8
    assert equal is not None and equal.value < 0.75


def test_one_model_that_always_wins_has_a_finite_figure():
    equal = length_controlled([1.0] * 50, [100 + i for i in range(50)], [90 + 2 * i for i in range(50)])
    assert equal is not None and 0.9 < equal.value <= 1.0


def test_an_empty_answer_follows_no_instruction():
    prompt = Prompt(
        id="p",
        messages=(Message(role="user", content="No commas."),),
        source="ifeval",
        meta={
            "constraints": [{"kind": "excludes", "phrases": [","], "whole_words": False}],
            "instructions": ["punctuation:no_comma"],
        },
    )
    fields = {"id": "c", "prompt_id": "p", "model": "m", "finish_reason": "stop", "fingerprint": "f"}
    sheet = [
        Answered(ifeval.question_of(prompt), 0, prompt, Completion.model_validate(fields | {"text": text}))
        for text in ("", "Tea is warm")
    ]
    assert [ifeval.kept(one) for one in sheet] == [[(False, False)], [(True, True)]]


def test_the_second_turn_holds_the_first_answer_and_a_reference_for_both():
    question = Question(id="1", turns=("1 + 1?", "Twice that?"), category="math", reference=("2", "4"))
    prompt = mt_bench.prompt_of(question, 1, ["Three."], "")
    assert [m.content for m in prompt.messages] == ["", "1 + 1?", "Three.", "Twice that?"]
    assert prompt.meta["reference"] == "To the question: 1 + 1?\n2\n\nTo the question: Twice that?\n4"
    suite = MTBench(questions="", judge={"model": "j"})  # type: ignore[arg-type]
    assert (suite.judge.prompt, suite.judge.mark, suite.judge.max_tokens) == (
        "judges/graded",
        "brackets",
        2048,
    )
    [case] = mt_bench.to_judge(suite, [answered(question, score=1)])
    assert case.member.prompt == "judges/graded_reference"  # type: ignore[union-attr]


def test_with_calibration_a_short_loser_is_not_lifted(tmp_path: Path):
    """All answers are far shorter than the baseline's; what length does, only the calibration says."""
    dice = random.Random(3)
    hard = [dice.gauss(0, 1) for _ in range(300)]

    def chance_of(theta: float, gap: float, difficulty: float) -> float:
        return 1 / (1 + math.exp(-theta + 1.0 * math.tanh(gap) - 0.5 * difficulty))

    gamed = [(i, d, gap, chance_of(0, gap, d)) for i, d in enumerate(hard) for gap in (-0.8, 0.9)]
    file = tmp_path / "df_gamed.csv"
    head = "index,instruction_difficulty,std_delta_len,preference,model\n"
    file.write_text(head + "".join(f"{i},{d},{gap},{1 + p},gamed\n" for i, d, gap, p in gamed))
    known = calibration(str(file))
    assert len(known.rows) == 600 and all(0 <= preferred <= 1 for *_, preferred in known.rows)

    baseline = [dice.randint(1500, 2500) for _ in hard]
    ours = [dice.randint(100, 400) for _ in hard]
    wins = [chance_of(-3.0, 3.0 + dice.gauss(0, 0.3), d) for d in hard]
    without = length_controlled(wins, ours, baseline)
    controlled = length_controlled(wins, ours, baseline, list(range(300)), known)
    assert without is not None and controlled is not None
    truth = sum(chance_of(-3.0, 0.0, d) for d in hard) / 300
    assert controlled.value == pytest.approx(truth, abs=0.02)
    assert abs(controlled.value - truth) < abs(without.value - truth)
    with pytest.raises(PromptError, match="line 2: wanted numbers as index"):
        file.write_text("index,preference\n0,1\n")
        calibration(str(file))


def test_figures_are_read_with_what_they_leave_out():
    questions = asked(3)
    first = [answered(q, score=6.0 + i) for i, q in enumerate(questions)]
    second = [answered(q, score=8.0) for q in questions[:2]] + [
        answered(questions[2], status="refused"),
    ]
    suite = mt_bench.result(questions, {"base": first, "dpo": second}).model_dump(mode="json")
    head, mean, *_ = lines = benchmark_lines({"suites": {"mt-bench": suite}})
    assert head.split("  ")[0] == "mt-bench, 3 questions" and head.split()[-3:] == ["dpo", "-", "base"]
    assert mean.split()[:2] == ["mean", "7.00"] and "+1.50 [" in mean
    assert "dpo, of 3 answers: 1 judgements left out: refused" in lines[-1]
