"""From a pair back to what its judges read and said, where judging failed, and judges that see all answers together."""

import json
from pathlib import Path
from typing import Any

import pytest

import flows.evaluate
from flows.audit import length_group, statuses
from flows.evaluate import Contender, evaluate
from flows.preferences import build_preferences
from flows.report import draw
from flows.run import Run
from flows.show import show
from serving.settings import Endpoint
from tests.fake_model import Body, Reply, fake_model
from tests.flows.fakes import luck, recipe
from tests.flows.test_judge_kinds import is_judging, judging, merit, text_of

RATING = {"kind": "rating", "model": "fake", "aspects": ["honesty", "helpfulness"]}


def mumbling(body: Body) -> Reply:
    """One in three answers is given feedback without a score."""
    if "### Feedback" in text_of(body) and luck("mumble", text_of(body)) < 0.3:
        return "I would rather not say."
    return judging(body)


async def test_the_report_leads_from_a_pair_to_every_prompt_answer_and_distribution(
    tmp_path: Path, prompt_file: Path
):
    members = [RATING, {"kind": "pairwise", "model": "fake"}, {"kind": "critique", "model": "fake"}]
    jury = {"kind": "jury", "members": members, "quorum": 1}
    with fake_model(mumbling) as fake:
        settings = recipe(fake.url, prompt_file, judge=jury, max_unjudged=1)
        await build_preferences(settings, tmp_path)
        asked = {text_of(body) for body in fake.asked if is_judging(body) or body.get("logprobs")}
        fake.asked.clear()
        run = Run.at(settings, tmp_path)
        page = draw(run).read_text()
        record = show(run, None)
        assert not fake.asked
    data = json.loads((tmp_path / "flowtest/report.json").read_text())
    for pair in data["pairs"]:
        for side in (pair["chosen"], pair["rejected"]):
            said = {(v["judge"], v["aspect"]): v for v in side["verdicts"]}
            assert set(said) == {
                ("rating", "honesty"), ("rating", "helpfulness"), ("pairwise", "quality"), ("critique", "overall")
            }  # fmt: skip
            for verdict in said.values():
                assert verdict["raw"] and all(side["text"] in prompt for prompt in verdict["prompts"])
                assert set(verdict["prompts"]) <= asked, "word for word what was sent"
            assert len(said["pairwise", "quality"]["prompts"]) == 2, "both orders"
            assert sum(said["rating", "honesty"]["distribution"].values()) == pytest.approx(1)
    assert f"zephyr show RECIPE {data['pairs'][0]['prompt_id'][:12]}" in page
    assert "what was asked and answered" in page
    shown = [j for c in record["completions"] for j in c["judgements"]]
    assert all(set(j["prompts"]) <= asked and j["prompts"] for j in shown)

    by = data["judgements_by"]
    failed = by["judge and aspect"]["critique, overall"]["parse_error"]
    assert 0 < failed < 24 and by["judge and aspect"]["rating, honesty"] == {"ok": 24}
    lengths = by["length of the answer"]
    assert sum(counts.get("parse_error", 0) for counts in lengths.values()) == failed
    assert sum(sum(counts.values()) for counts in lengths.values()) == 24 * 4
    assert {one["judge"] for one in data["agreement"]} == {"rating", "pairwise", "critique"}
    assert data["dialects"]["fake"].startswith("vllm; probabilities")


def test_answers_are_grouped_by_length():
    assert [length_group(words) for words in (0, 1, 25, 26, 400, 401)] == [
        "no words", "1 to 25 words", "1 to 25 words", "26 to 50 words", "201 to 400 words", "more than 400 words",
    ]  # fmt: skip
    assert statuses([]) == {"judge and aspect": {}, "length of the answer": {}}


@pytest.mark.parametrize("kind", ["ultrafeedback", "pairwise"])
async def test_models_are_evaluated_by_a_judge_that_sees_their_answers_side_by_side(
    tmp_path: Path, prompt_file: Path, monkeypatch: pytest.MonkeyPatch, kind: str
):
    judge: dict[str, Any] = {"kind": kind, "model": "fake"}
    if kind == "ultrafeedback":
        judge["aspects"] = ["helpfulness"]
    with fake_model(judging) as fake:
        endpoint = {"kind": "endpoint", "model": "fake", "base_url": fake.url, "dialect": "vllm"}
        settings = recipe(
            fake.url,
            prompt_file,
            judge=judge,
            models={"fake": endpoint, "served": {"kind": "vllm", "model": "org/model"}},
            training={"base": "served"},
            evaluation={"sampler": {"name": "e", "model": "served", "max_tokens": 32}},
        )
        at = [Endpoint.model_validate(endpoint | {"model": name}) for name in ("base", "dpo")]
        found = [Contender(one.model, one, {"model": one.model}) for one in at]
        monkeypatch.setattr(flows.evaluate, "contenders", lambda *_: found)
        result = (await evaluate(settings, tmp_path))["evaluation"]
        before = len(fake.asked)
        assert (await evaluate(settings, tmp_path))["evaluation"] == result
        assert len(fake.asked) == before, "what was judged is not asked again"
        assert sum(map(is_judging, fake.asked)) == {"ultrafeedback": 3, "pairwise": 6}[kind]
    examples = json.loads((tmp_path / "flowtest/evaluation.json").read_text())
    assert len(examples) == 3
    wins = []
    for example in examples:
        base, dpo = (example["answers"][name] for name in ("base", "dpo"))
        assert (dpo["score"] > base["score"]) == (merit(dpo["text"]) > merit(base["text"]))
        wins.append(dpo["score"] > base["score"])
        if kind == "pairwise":
            assert base["score"] + dpo["score"] == pytest.approx(1), "two answers share one win"
    assert result["against_base"]["dpo"]["win_rate"]["value"] == pytest.approx(sum(wins) / 3)
    assert result["models"]["dpo"]["unjudged"] == 0
