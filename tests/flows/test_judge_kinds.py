"""Judges that see a prompt's answers side by side, what is asked again, and what is only read again."""

import json
import math
import re
from pathlib import Path
from typing import Any

import pandas
import pytest

import judges.critique
from flows.dataset import DatasetError
from flows.failures import StageFailed
from flows.plan import plan
from flows.preferences import build_preferences, judge_responses
from flows.reparse import reparse
from flows.run import Run
from flows.show import show, show_text
from tests.fake_model import Answer, Body, Reply, Scores, fake_model
from tests.flows.fakes import answer, luck, recipe

THIRD: dict[str, Any] = {"name": "third", "model": "fake", "temperature": 0.7, "max_tokens": 32}
LISTWISE = {"kind": "ultrafeedback", "model": "fake", "aspects": ["honesty", "helpfulness"]}
CRITIQUE = {"kind": "critique", "model": "fake"}


def merit(text: str) -> float:
    """Of an answer, 0 to 1, whoever asks."""
    return luck("merit", text.strip())


def text_of(body: Body) -> str:
    return body["messages"][-1]["content"]


def is_judging(body: Body) -> bool:
    return "to be rated" in text_of(body) or "to be judged" in text_of(body) or "n" not in body


def judging(body: Body) -> Reply:
    """Judges as every kind wants it, by `merit`; generates as the other fakes do."""
    if "n" not in body:
        return Scores([10 * merit(body["messages"][-1]["content"])])
    text = text_of(body)
    if "## Texts" in text:
        shown = re.findall(r"#### Text (\d+)\n(.*?)(?=\n\n#### Text|\n\n## Your)", text, re.DOTALL)
        return "\n".join(
            f"#### Output for Text {number}\nRating: {1 + 4 * merit(own):.3f}\nRationale: so."
            for number, own in shown
        )
    if "### Response B" in text:
        first, second = (
            merit(re.findall(rf"### Response {side}\n(.*?)\n\n###", text, re.DOTALL)[0]) for side in "AB"
        )
        p = 1 / (1 + math.exp(-4 * (first - second) - 1))  # and a liking for the first
        return Answer("A", logprobs={"A": math.log(p), "B": math.log(1 - p)})
    if "### Feedback" in text:
        own = re.findall(r"### Response\n(.*?)\n\n### Feedback", text, re.DOTALL)[0]
        return f"Fine.\nOverall score: {1 + 9 * merit(own):.3f}"
    return answer(body)


def counted(asked: list[Body]) -> tuple[int, int]:
    """(generating, judging) requests."""
    judged = sum(is_judging(body) for body in asked)
    return len(asked) - judged, judged


def rows(folder: Path) -> list[dict[str, Any]]:
    """Every judgement in the store that holds."""
    files = sorted((folder / "judgements").glob("*/0*.parquet"))
    return [
        judgement
        for file in files
        for answers in pandas.read_parquet(file)["answers"]
        for judgement in answers
    ]


async def test_a_prompt_is_judged_side_by_side_while_others_of_its_shard_are_answered(
    tmp_path: Path, prompt_file: Path
):
    with fake_model(judging) as fake:
        model = {
            "kind": "endpoint",
            "model": "fake",
            "base_url": fake.url,
            "dialect": "vllm",
            "max_in_flight": 2,
        }
        settings = recipe(fake.url, prompt_file, judge=LISTWISE, shard_size=100, models={"fake": model})
        await judge_responses(settings, tmp_path)
    order = [is_judging(body) for body in fake.asked]
    assert counted(fake.asked) == (24, 24)
    assert False in order[order.index(True) :], "judging begins while answers are still asked for"


async def test_answers_are_judged_side_by_side_and_another_model_costs_a_new_question(
    tmp_path: Path, prompt_file: Path
):
    with fake_model(judging) as fake:
        settings = recipe(fake.url, prompt_file, judge=LISTWISE, shard_size=3, shards_in_flight=2)
        first = await build_preferences(settings, tmp_path)
        assert counted(fake.asked) == (24, 24), "12 prompts, 2 aspects, both answers in one request"
        order = [is_judging(body) for body in fake.asked]
        assert False in order[order.index(True) :], "no shard waits for all others"
        for judgement in rows(tmp_path / "flowtest"):
            said = re.findall(r"Rating: (\S+)", judgement["raw"])
            assert judgement["score"] == float(said[0])

        fake.asked.clear()
        second = await build_preferences(settings, tmp_path)
        assert not fake.asked
        assert first["dataset"]["digest"] == second["dataset"]["digest"]
        assert first["stages"]["judge"]["rows"] == 24 and first["stages"]["judge"]["answers"] == 48

        turned = settings.model_copy(update={"samplers": settings.samplers[::-1]})
        await build_preferences(turned, tmp_path)
        assert not fake.asked, "the order of the samplers is not part of the question"

        more = [*(sampler.model_dump() for sampler in settings.samplers), THIRD]
        third = recipe(fake.url, prompt_file, judge=LISTWISE, shard_size=3, samplers=more)
        await build_preferences(third, tmp_path)
        assert counted(fake.asked) == (12, 24)
        fake.asked.clear()
        await build_preferences(settings, tmp_path)
        assert not fake.asked, "what was judged without it is still there"

    texts = {c["id"]: c["text"] for c in completions(tmp_path / "flowtest")}
    for judgement in rows(tmp_path / "flowtest"):
        assert judgement["score"] == pytest.approx(1 + 4 * merit(texts[judgement["completion_id"]]), abs=1e-3)


def completions(folder: Path) -> list[dict[str, Any]]:
    files = (folder / "completions").glob("*/0*.parquet")
    return [c for file in files for answers in pandas.read_parquet(file)["answers"] for c in answers]


async def test_a_jury_of_pairwise_and_a_reward_model_finds_the_better_answer(
    tmp_path: Path, prompt_file: Path
):
    with fake_model(judging) as fake:
        members = [{"kind": "pairwise", "model": "fake"}, {"kind": "reward_model", "model": "fake"}]
        jury = {"kind": "jury", "members": members, "standardise": "prompt"}
        settings = recipe(fake.url, prompt_file, judge=jury)
        run = Run.at(settings, tmp_path)
        lines = {line.stage: line for line in plan(run).lines}
        assert lines["judge pairwise"].requests == lines["judge reward_model"].requests == 24
        result = await build_preferences(settings, tmp_path)
        assert counted(fake.asked) == (24, 48)
        assert fake.paths.count("/classify") == 24
        assert {line.requests for line in plan(run).lines} == {0}
        fake.asked.clear()
        record = show(run, None)
        assert not fake.asked
    assert result["agreement"]["pairwise"]["rate"] == 1.0, "they see the same merit"
    import datasets

    found: Any = datasets.load_dataset(str(tmp_path / "flowtest/dataset"), cache_dir=str(tmp_path / "cache"))
    for row in found["train_prefs"]:
        assert merit(row["chosen"][-1]["content"]) > merit(row["rejected"][-1]["content"])
        both = [row["score_chosen"], row["score_rejected"]]
        assert both == pytest.approx([1, -1]), "in standard deviations of two answers"
    text = show_text(record)
    assert "### Response B" in text and "[and 1 more requests like it]" in text
    assert "against" in text and "reward_model/reward" in text


async def test_only_what_failed_is_asked_again_and_the_old_answer_is_kept(tmp_path: Path, prompt_file: Path):
    mumbles = True

    def mumbling(body: Body) -> Reply:
        if mumbles and "### Feedback" in text_of(body) and luck("mumble", text_of(body)) < 0.4:
            return "I would rather not say."
        return judging(body)

    with fake_model(mumbling) as fake:
        settings = recipe(fake.url, prompt_file, judge=CRITIQUE, max_unjudged=1)
        await judge_responses(settings, tmp_path)
        failed = sum(row["status"] == "parse_error" for row in rows(tmp_path / "flowtest"))
        assert 5 < failed < 24

        fake.asked.clear()
        strict = recipe(fake.url, prompt_file, judge=CRITIQUE)
        with pytest.raises(
            StageFailed, match=r"judge critique: .* verdicts are none .*max_unjudged=0\.2 allows 4"
        ):
            await judge_responses(strict, tmp_path)
        assert not fake.asked, "a failed verdict is a verdict until it is asked again"

        mumbles = False
        await judge_responses(settings, tmp_path, retry_failed=True)
        assert len(fake.asked) == failed
        await judge_responses(strict, tmp_path)
        assert {row["status"] for row in rows(tmp_path / "flowtest")} == {"ok"}
        fake.asked.clear()
        await judge_responses(settings, tmp_path, retry_failed=True)
        await build_preferences(settings, tmp_path)
        assert not fake.asked
    old = list((tmp_path / "flowtest/judgements").glob("*/replaced-*.parquet"))
    kept = [j for file in old for answers in pandas.read_parquet(file)["answers"] for j in answers]
    assert sum(j["raw"] == "I would rather not say." for j in kept) == failed


@pytest.mark.parametrize("kind", ["critique", "jury"])
async def test_a_better_parser_reads_stored_replies_and_asks_nothing(
    tmp_path: Path, prompt_file: Path, monkeypatch: pytest.MonkeyPatch, kind: str
):
    def otherwise(body: Body) -> Reply:
        reply = judging(body)
        return reply.replace("Overall score", "My verdict") if isinstance(reply, str) else reply

    members = [CRITIQUE, LISTWISE, {"kind": "pairwise", "model": "fake"}, {"kind": "rules"}]
    judge = CRITIQUE if kind == "critique" else {"kind": "jury", "members": members}
    with fake_model(otherwise) as fake:
        settings = recipe(fake.url, prompt_file, judge=judge, max_unjudged=1)
        await judge_responses(settings, tmp_path)
        before = rows(tmp_path / "flowtest")
        fake.asked.clear()
        assert (await reparse(settings, tmp_path))["reparsed"]["critique"] == {"read": 24, "changed": 0}

        monkeypatch.setattr(judges.critique, "_MARKER", re.compile("My verdict:"))
        counts = (await reparse(settings, tmp_path))["reparsed"]
        assert counts.pop("critique") == {"read": 24, "changed": 24}
        assert all(count["read"] and not count["changed"] for count in counts.values())
        assert not fake.asked
        after = rows(tmp_path / "flowtest")
        assert {row["status"] for row in after} <= {"ok", "not_applicable"}
        assert len(after) == len(before)
        critiques = [row for row in after if row["judge"] == "critique"]
        assert all(row["usage"]["requests"] == 1 and row["replies"] for row in critiques)
        await build_preferences(settings, tmp_path)
        assert not fake.asked


async def test_a_judge_that_cannot_judge_stops_the_run_before_all_is_asked(tmp_path: Path, prompt_file: Path):
    def mute(body: Body) -> Reply:
        return "" if is_judging(body) else judging(body)

    with fake_model(mute) as fake:
        settings = recipe(fake.url, prompt_file, judge=CRITIQUE, shard_size=3, shards_in_flight=1)
        with pytest.raises(StageFailed, match=r"judge critique: 6 of 6 verdicts are none \(6 parse_error\)"):
            await build_preferences(settings, tmp_path)
        generated, judged = counted(fake.asked)
        # the sampler whose shard was judged first may have gone on to its next while the other was judged
        assert generated < 24 and 6 <= judged <= 9
        await build_stored(settings.model_copy(update={"max_unjudged": 1.0}), tmp_path)
        # what was under way when the run stopped is asked again, nothing else
        assert 24 <= counted(fake.asked)[1] <= 24 + judged - 6, "the first six are kept"


async def build_stored(settings: Any, folder: Path) -> None:
    """Judges all; nothing can be made of it."""
    with pytest.raises(DatasetError):
        await build_preferences(settings, folder)


async def test_a_judge_leaves_out_what_its_own_model_wrote(tmp_path: Path, prompt_file: Path):
    with fake_model(judging) as fake:
        endpoint = {"kind": "endpoint", "base_url": fake.url, "dialect": "vllm"}
        models = {name: {**endpoint, "model": name} for name in ("fake", "other")}
        jury = {"kind": "jury", "members": [CRITIQUE, {"kind": "rules"}], "exclude_own": True}
        jury["standardise"] = "prompt"
        two = [
            {"name": "own", "model": "fake", "max_tokens": 32},
            {"name": "foreign", "model": "other", "max_tokens": 32},
        ]
        settings = recipe(fake.url, prompt_file, models=models, samplers=two, judge=jury)
        await judge_responses(settings, tmp_path)
        record = show(Run.at(settings, tmp_path), None)
    rules = {
        c["model"]: next(j["score"] for j in c["judgements"] if j["judge"] == "rules")
        for c in record["completions"]
    }
    sign = (rules["own"] > rules["foreign"]) - (rules["own"] < rules["foreign"])
    scores = {c["model"]: c["score"] for c in record["completions"]}
    assert scores["own"] == pytest.approx(sign), "one deviation from the mean of two, by rules alone"
    assert scores["foreign"] == pytest.approx(-sign / 2), "critique has one answer left and compares nothing"
    assert json.dumps(record)
