"""What a judge wrote was taken for something else."""

import ast
import math
import random
from pathlib import Path

import pytest
from pydantic import ValidationError

from flows.answers import Case, judge_one, row_of
from judges.agreement import Compared, agreement
from judges.base import Unread
from judges.constraints import CONSTRAINT
from judges.critique import Critique
from judges.jury import Jury, combine
from judges.labels import sample_shares, token_shares
from judges.pairwise import Pairwise
from judges.rating import LABELS, Rating
from judges.reward_model import RewardModel
from judges.rules import Rules
from judges.ultrafeedback import UltraFeedback
from records.schema import Judgement, Status
from serving.chat import Choice, Reply, Token
from serving.errors import RequestFailed
from tests.failures.judging import JUDGES, NONSENSE, READING, ask, blocks
from tests.judges.examples import completion, prompt, said

ROOMS = ("flows", "judges", "pairs", "prompts", "records", "reports", "serving", "trainers")
ROOT = Path(__file__).parents[2]


def judgement(judge: str, aspect: str, score: float | None, status: Status = "ok") -> Judgement:
    return Judgement(
        id=f"{judge}-{aspect}", prompt_id="p", completion_id="c", judge=judge, aspect=aspect, status=status,
        score=score, low=1, high=5, fingerprint="f",
    )  # fmt: skip


@pytest.mark.parametrize(
    ("written", "right"),
    [
        ("1", 1.0),
        ("10", 10.0),
        ("8/10", 8.0),
        ("1/10", 1.0),
        ("10/10", 10.0),
        ("7.5", 7.5),
        ("7.5/10", 7.5),
        ("0.8", None),
    ],
)
async def test_a_one_becomes_a_ten_and_a_decimal_loses_its_fraction(written: str, right: float | None):
    """OpenBMB/UltraFeedback, src/data_annotation/annotate_critique.py, issue 8: 2,628 answers got a 10 they may not
    have earned. Its parser made 10, 10, 8, 1, 10, 7, 7 and 0 of these."""
    [verdict], _ = await ask(Critique(model="j"), f"Brief. Be warmer.\nOverall score: {written}", "Tea.")
    assert (verdict.score, verdict.status) == (right, "parse_error" if right is None else "ok")
    assert verdict.score is None or isinstance(verdict.score, float)


@pytest.mark.parametrize(
    "code", ["__import__('os').getpid()", "2*5", "10 - 1", "[9][0]", "8 (3)", "int('9')"]
)
async def test_what_a_judge_writes_is_run_as_code(code: str):
    """OpenBMB/UltraFeedback, src/data_annotation/annotate_critique.py and fix_overall_score_issue.py: `eval` of the
    model's text."""
    for judge in (Critique(model="j"), UltraFeedback(model="j", aspects=("helpfulness",))):
        verdicts, _ = await ask(judge, f"Overall score: {code}\n{blocks(code)}", "Tea.")
        assert [(v.score, v.status) for v in verdicts] == [(None, "parse_error")]


def test_anything_is_run_as_code_anywhere():
    """The same, for every file of ours; allenai/open-instruct, scripts/synth_pref/parse_preferences.py, also left a
    `breakpoint()` in its parser."""
    for path in (path for room in ROOMS for path in (ROOT / room).rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
                assert node.func.id not in ("eval", "exec", "compile", "breakpoint"), f"{path}:{node.lineno}"


async def test_a_blank_line_in_a_rationale_shifts_the_ratings():
    """OpenBMB/UltraFeedback, annotate_preference.py; argilla-io/distilabel, steps/tasks/ultrafeedback.py:302: the
    answer is split at blank lines."""
    judge = UltraFeedback(model="j", aspects=("helpfulness",))
    answer = blocks("2", "5", rationale="short.\n\nAnd it is\n\n4 words long.\n\nRating it was hard.")
    verdicts, asked = await ask(judge, answer)
    text = asked[0].messages[0]["content"]
    first_shown = "a" if text.index("Tea is warm.") < text.index("Tea is hot.") else "b"
    assert [v.score for v in verdicts] == ([2.0, 5.0] if first_shown == "a" else [5.0, 2.0])


@pytest.mark.parametrize("ratings", [("4",), ("4", "3", "5"), ("4", "3", "5", "1")])
async def test_a_list_of_the_wrong_length_is_accepted(ratings: tuple[str, ...]):
    """argilla-io/distilabel, steps/tasks/ultrafeedback.py: its JSON schema sets no length, three ratings of four
    texts are valid; allenai/open-instruct, scripts/synth_pref/parse_preferences.py: ragged rows are filled up at
    the end."""
    verdicts, _ = await ask(UltraFeedback(model="j", aspects=("helpfulness",)), blocks(*ratings))
    assert [(v.score, v.status) for v in verdicts] == [(None, "parse_error")] * 2


@pytest.mark.parametrize("name", JUDGES)
async def test_a_judgement_that_cannot_be_read_becomes_a_number(name: str):
    """0.0 in allenai/open-instruct, open_instruct/judge_utils.py, in huggingface/lighteval,
    metrics/utils/judge_utils.py, in haizelabs/verdict, verdict/extractor.py, and in NVIDIA-NeMo/Evaluator, issue
    1094; 0.5 in allenai/reward-bench, scripts/run_generative.py; -1 in lm-sys/FastChat,
    fastchat/llm_judge/common.py; 1 in allenai/open-instruct, scripts/synth_pref."""
    verdicts, _ = await ask(JUDGES[name], NONSENSE)
    assert len(verdicts) == 2
    assert all(v.score is None and v.status in ("parse_error", "off_scale") for v in verdicts)


@pytest.mark.parametrize("number", [0.0, 0.5, -1.0, 1.0, 2.0, math.nan])
def test_a_failure_is_stored_with_a_number(number: float):
    """The same projects: nothing kept a record from being both."""
    with pytest.raises(ValidationError, match="only 'ok' has a score"):
        judgement("j", "quality", number, "parse_error")


async def test_a_reply_that_can_never_be_read_leaves_a_hole():
    """OpenBMB/UltraFeedback, src/data_annotation/annotate_preference.py: the branch for giving up cannot be reached
    (`i < 10` within `range(10)`), so `annotations` lack the answer and nothing says so. bespokelabsai/curator,
    base_online_request_processor.py:622: what cannot be parsed is not written, and paid for again."""
    for judge in (Critique(model="j"), UltraFeedback(model="j", aspects=("helpfulness",))):
        verdicts, _ = await ask(judge, "Hm.")
        case = Case(prompt(), (completion("a"), completion("b")), "overall")
        stored = row_of("key", case, verdicts, "j", "f")
        assert stored.final and [answer["status"] for answer in stored.answers] == ["parse_error"] * 2


async def test_the_raw_answer_is_lost_when_it_cannot_be_parsed():
    """NVIDIA-NeMo/Nemotron, issue 327."""
    for judge in READING.values():
        verdicts, _ = await ask(judge, said("My own words.", logprobs={"My": -0.1}))
        assert all("My own words." in v.raw and v.detail for v in verdicts)


async def test_a_failed_comparison_becomes_a_two_when_the_order_is_turned_round():
    """huggingface/trl, trl/experimental/judges/judges.py: `1 - rank` undoes the exchange, and -1 stands for
    failure."""
    clear = said("A", logprobs={"A": -0.01, "B": -5.0})
    for failing in ("Tea is warm.", "Tea is hot."):

        async def chat(request, failing: str = failing) -> Reply:
            text = request.messages[-1]["content"]
            first = min(("Tea is warm.", "Tea is hot."), key=text.index)
            return NONSENSE if first == failing else clear

        answers = [completion("a", "Tea is warm."), completion("b", "Tea is hot.")]
        verdicts = await Pairwise(model="j").build(chat)(prompt(), answers, "quality")
        assert [(v.score, v.status) for v in verdicts] == [(None, "off_scale")] * 2


def test_incorrect_passes_for_correct():
    """allenai/open-instruct, open_instruct/judge_utils.py: the text is searched for `correct` before `incorrect`."""
    alternatives = {" incorrect": math.log(0.75), "correct": math.log(0.25)}
    found = token_shares(
        Choice("incorrect", "stop", (Token("incorrect", alternatives),)), ("correct", "incorrect"), 0.5
    )
    assert found.shares == pytest.approx({"correct": 0.25, "incorrect": 0.75})
    said_so = Reply((Choice("incorrect", "stop"),))
    assert sample_shares(said_so, ("correct", "incorrect")).shares == {"correct": 0.0, "incorrect": 1.0}
    for constraint in (
        {"kind": "one_of", "options": ["correct"]},
        {"kind": "one_of", "options": ["correct"], "anywhere": True},
        {"kind": "contains", "phrases": ["correct"]},
    ):
        rule = CONSTRAINT.validate_python(constraint)
        assert rule.check("correct") and not rule.check("incorrect")


async def test_seven_and_seven_of_ten_are_on_two_scales():
    """allenai/open-instruct, open_instruct/judge_utils.py: `Score: 7/10` is 0.7 and `Score: 7` is 7.0."""
    for written in ("7", "7/10", "7 out of 10", "7.0", "**7**"):
        [verdict], _ = await ask(Critique(model="j"), f"Overall score: {written}", "Tea.")
        assert verdict.score == 7.0
    [verdict], _ = await ask(Critique(model="j"), "Overall score: 4/5", "Tea.")
    assert verdict.score is None, "another scale is not this one"


@pytest.mark.parametrize("written", ["4", "4.0", "4/5", "**4**"])
async def test_the_same_rating_written_otherwise_is_another_one(written: str):
    """NVIDIA-NeMo/DataDesigner, issue 756: `4`, `"4"` and 4.0 were three answers."""
    verdicts, _ = await ask(UltraFeedback(model="j", aspects=("helpfulness",)), blocks(written, "4"))
    assert [v.score for v in verdicts] == [4.0, 4.0]


@pytest.mark.parametrize("word", ["excellent", "four", "N/A", "four stars", "4 or 5", ""])
async def test_a_rating_in_words_kills_the_batch(word: str):
    """argilla-io/distilabel, pull request 1182: a rating that is no number raises IndexError, and the whole batch
    becomes None."""
    judge = UltraFeedback(model="j", aspects=("helpfulness",))
    failed, _ = await ask(judge, blocks(word, "4"))
    assert [(v.score, v.status) for v in failed] == [(None, "parse_error")] * 2
    fine, _ = await ask(judge, blocks("3", "3"))
    assert [v.score for v in fine] == [3.0, 3.0], "another prompt's judgement is its own"


def test_a_rating_that_does_not_apply_pulls_the_mean_down():
    """allenai/open-instruct, scripts/synth_pref/parse_preferences.py:140: `N/A` is -1, and averaged."""
    jury = Jury(members=(UltraFeedback(model="j", aspects=("honesty", "helpfulness")),))
    rated = judgement("ultrafeedback", "helpfulness", 5.0)
    both = [judgement("ultrafeedback", "honesty", None, "not_applicable"), rated]
    alone = Jury(members=(UltraFeedback(model="j", aspects=("helpfulness",)),))
    assert combine(both, jury).value == combine([rated], alone).value == 1.0


def test_a_failed_aspect_enters_the_mean():
    """allenai/open-instruct, open_instruct/rejection_sampling/generation.py:134: a score that cannot be read is -1 in
    the mean, so the parser's failure is the worst answer; lm-sys/FastChat: whoever averages gets the -1s."""
    jury = Jury(members=(UltraFeedback(model="j", aspects=("honesty", "helpfulness")),))
    found = combine(
        [
            judgement("ultrafeedback", "honesty", None, "parse_error"),
            judgement("ultrafeedback", "helpfulness", 5.0),
        ],
        jury,
    )
    assert found.value is None and "parse_error" in found.why


async def test_zero_is_taken_for_nothing():
    """huggingface/lighteval, metrics/utils/llm_as_judge.py: `x if not None else y` is always x; the same slip the
    other way round, `x or y`, loses a zero."""
    sent = (await ask(Critique(model="j", temperature=0.0), "Overall score: 5", "Tea."))[1]
    assert sent[0].temperature == 0.0
    member = Rules()
    worst = Judgement(
        id="w", prompt_id="p", completion_id="c", judge="rules", aspect="constraints", status="ok", score=0.0, low=0,
        high=1, fingerprint="f",
    )  # fmt: skip
    assert combine([worst], Jury(members=(member,))).value == 0.0


@pytest.mark.parametrize("name", READING)
async def test_the_judge_draws_its_verdict_at_a_temperature_nobody_set(name: str):
    """huggingface/lighteval, metrics/utils/llm_as_judge.py: 0.8 for the vLLM judge. prometheus-eval/prometheus-eval
    repeats what it cannot read at 1.0."""
    verdicts, asked = await ask(READING[name], NONSENSE)
    drawn = getattr(READING[name], "samples", 0) > 0
    assert {request.temperature for request in asked} == {1.0 if drawn else 0.0}
    assert len(asked) == (1 if name == "ultrafeedback" else 2), (
        "what cannot be read is not asked again in secret"
    )
    assert verdicts


async def test_top_p_is_ignored():
    """allenai/open-instruct, scripts/synth_pref: fixed at 1.0 whatever the argument says."""
    for judge in (
        Critique(model="j", top_p=0.3),
        UltraFeedback(model="j", aspects=("helpfulness",), top_p=0.3),
    ):
        _, asked = await ask(judge, "Hm.")
        assert {request.top_p for request in asked} == {0.3}


async def test_an_error_message_is_read_as_a_verdict():
    """lm-sys/FastChat, fastchat/llm_judge/common.py: a failed request returns `$ERROR$`, which goes to the parser;
    huggingface/lighteval, metrics/utils/llm_as_judge.py: `ERROR: Failed to get response from the API.`"""

    async def broken(_) -> Reply:
        raise RequestFailed("transport_error", "connection refused after 8 tries")

    for judge in JUDGES.values():
        answers = (completion("a", "5"), completion("b", "A. Overall score: 5"))
        case = Case(prompt(), answers, next(iter(judge.aspects)))  # type: ignore[attr-defined]
        row = await judge_one("key", case, judge.build(broken), "j", "f")
        assert row.answers == [] and row.dropped and row.dropped["reason"] == "transport_error"
        assert not row.final, "and it is asked again"
    verdicts, _ = await ask(Critique(model="j"), "$ERROR$")
    assert [v.status for v in verdicts] == ["parse_error"] * 2


async def test_the_first_verdict_wins_though_the_conclusion_is_another():
    """lm-sys/FastChat, fastchat/llm_judge/common.py: `[[A]]` anywhere wins, in `[[A]] is longer, so [[B]]` too;
    ScalerLab/JudgeBench: 13 of 540 texts hold several verdicts."""
    [verdict], _ = await ask(Critique(model="j"), "Overall score: 9 is too much.\nOverall score: 4", "Tea.")
    assert verdict.score == 4.0
    choosing = Pairwise(model="j", samples=1)
    verdicts, _ = await ask(choosing, "[[A]] is longer, so [[B]]")
    assert [(v.score, v.status) for v in verdicts] == [(None, "off_scale")] * 2


async def test_no_probability_on_the_scale_divides_by_zero():
    """MariSchn/ActiveUltraFeedback, activeuf/oracle/get_raw_annotations.py: 0/0 offline, a distribution of zeros
    from a server; haizelabs/verdict, verdict/extractor.py: the weighted sum is 0."""
    for alternatives in ({"Well": -0.1, "I": -2.0}, dict.fromkeys(LABELS, -math.inf) | {"Well": 0.0}):
        verdicts, _ = await ask(Rating(model="j"), said("Well", logprobs=alternatives))
        assert [(v.score, v.distribution, v.status) for v in verdicts] == [(None, None, "off_scale")] * 2
        assert all(v.off_scale == pytest.approx(1.0) or alternatives["Well"] == -0.1 for v in verdicts)


async def test_the_mass_off_the_scale_is_thrown_away_unseen():
    """MariSchn/ActiveUltraFeedback: shares are normalised and how much they were of is not kept."""
    reply = said("4", logprobs={"4": math.log(0.5), "5": math.log(0.2), "The": math.log(0.3)})
    verdicts, _ = await ask(Rating(model="j"), reply)
    assert all(v.off_scale == pytest.approx(0.3) for v in verdicts)


async def test_a_digit_with_a_space_before_it_does_not_count():
    """haizelabs/verdict, verdict/extractor.py; tatsu-lab/alpaca_eval: only the exact token is looked for."""
    reply = said(" 4", logprobs={" 4": math.log(0.6), "4": math.log(0.2), " 2": math.log(0.2)})
    verdicts, _ = await ask(Rating(model="j"), reply)
    assert [v.score for v in verdicts] == [pytest.approx(0.8 * 4 + 0.2 * 2)] * 2


@pytest.mark.parametrize("first", ["\n", "<think>", "**", "Grade", "Score"])
async def test_the_first_token_is_a_grade_whatever_it_is(first: str):
    """MariSchn/ActiveUltraFeedback, activeuf/oracle/get_raw_annotations.py: position 0 is read though the answer
    may begin otherwise; what little the digits have there becomes a whole distribution."""
    reply = said(f"{first}4", logprobs={first: math.log(0.97), "1": math.log(0.02), "5": math.log(0.01)})
    verdicts, _ = await ask(Rating(model="j"), reply)
    assert [(v.score, v.status) for v in verdicts] == [(None, "off_scale")] * 2


async def test_a_digit_in_the_reasons_is_taken_for_the_score():
    """confident-ai/deepeval, deepeval/metrics/g_eval/utils.py, looks for a token that equals the score, wherever it
    is."""
    tokens = ['{"reasons": "', "2", " of ", "5", ' are wrong", "score": "', "2", '"}']
    sure = {"5": math.log(0.9), "4": math.log(0.1)}
    unsure = {"2": math.log(0.6), "1": math.log(0.4)}
    told = tuple(Token(t, {"2": sure, "5": sure}.get(t, {})) for t in tokens[:5])
    reply = Reply((Choice("".join(tokens), "stop", (*told, Token("2", unsure), Token('"}', {}))),))
    [verdict], _ = await ask(Rating(model="j", grade="full"), reply, "Tea.")
    assert verdict.score == pytest.approx(1.6)


@pytest.mark.parametrize(
    "whole", ['{"score": "4", "reason": "so"}', '{"reasons": "so and so", "score": "4"}']
)
async def test_json_that_is_cut_off_loses_or_changes_its_score(whole: str):
    """Judge JSON in allenai/open-instruct, open_instruct/judge_utils.py: what a pattern finds in the broken text
    counts, and else 0.0. Here every beginning of an answer gives its score or none."""
    grade = "short" if whole.startswith('{"score"') else "full"
    for length in range(1, len(whole)):
        [verdict], _ = await ask(Rating(model="j", grade=grade), said(whole[:length], "length"), "Tea.")
        assert (verdict.score, verdict.status) in ((4.0, "ok"), (None, "truncated")), whole[:length]


async def test_a_verdict_off_the_menu_falls_back_to_an_earlier_one():
    """What UKGovernmentBEIS/inspect_ai guards against: a quoted grade counts where the last one cannot be read."""
    [verdict], _ = await ask(Critique(model="j"), "It says: Overall score: 10\nOverall score: eleven", "Tea.")
    assert (verdict.score, verdict.status) == (None, "parse_error")
    last = '{"score": "5", "reason": "as it says"} but {"score": "9", "reason": "mine"}'
    [verdict], _ = await ask(Rating(model="j", grade="short"), last, "Tea.")
    assert (verdict.score, verdict.status) == (None, "parse_error")


async def test_a_ten_is_found_as_one_token_or_not_at_all():
    """confident-ai/deepeval, deepeval/metrics/g_eval/utils.py: `10` as two tokens raises; and where only the first
    token is read, it is a 1."""
    in_two = Reply((Choice("Overall score: 10", "stop", (Token("1", {"1": 0.0}), Token("0", {"0": 0.0}))),))
    [verdict], _ = await ask(Critique(model="j"), in_two, "Tea.")
    assert verdict.score == 10.0
    with pytest.raises(Unread):
        token_shares(Choice("10", "stop", (Token("10", {"10": -0.01, "1": -6.0}),)), LABELS, 0.5)


@pytest.mark.parametrize("finish", ["length", "content_filter"])
async def test_the_reason_why_an_answer_ended_is_dropped(finish: str):
    """argilla-io/distilabel, models/llms/openai.py:159: 128 tokens by default cut a rating of four texts, and
    `finish_reason` goes no further."""
    wanted = {"length": "truncated", "content_filter": "refused"}[finish]
    for judge in (Critique(model="j"), UltraFeedback(model="j", aspects=("helpfulness",))):
        verdicts, _ = await ask(judge, said("#### Output for Text 1\nRating: 4\nRationale: it", finish))
        assert [(v.score, v.status) for v in verdicts] == [(None, wanted)] * 2


@pytest.mark.parametrize("scores", [(), (1.0, 2.0), (math.nan,), (math.inf,)])
async def test_a_softmax_over_one_output_is_taken_for_a_reward(scores: tuple[float, ...]):
    """vllm-project/vllm, pull request 18313: the constant 1. What is not one finite raw output is no reward here;
    that activations are off is shown in tests/serving/test_scores.py."""
    verdicts, _ = await ask(RewardModel(model="j"), Reply((), scores=scores))
    assert [(v.score, v.status) for v in verdicts] == [(None, "parse_error")] * 2


def test_a_failure_earns_half_a_point():
    """allenai/reward-bench, scripts/run_generative.py: 0.5 for a judgement that could not be read."""
    right = Compared("p1", "first", "first")
    failed = Compared("p2", "first", None)
    found = agreement([right, failed, Compared("p3", "second", "second")])
    assert found.failed == 1 and found.accuracy and found.accuracy_judged
    assert (found.accuracy.value, found.accuracy_judged.value) == (pytest.approx(2 / 3), 1.0)


async def test_judging_moves_everybodys_dice():
    """allenai/reward-bench, scripts/run_generative.py: the order is drawn from the global generator, so a resumed or
    parallel run has other orders."""
    judge = UltraFeedback(model="j", aspects=("helpfulness",))
    random.seed(1)
    before = random.getstate()
    _, first = await ask(judge, "Hm.")
    assert random.getstate() == before
    random.seed(2)
    _, second = await ask(judge, "Hm.")
    assert [request.messages for request in first] == [request.messages for request in second]
