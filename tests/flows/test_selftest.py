"""The self-test: judges as they are pass it, and famous mistakes in reading them do not."""

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

import judges.critique
import judges.pairwise
import judges.rating
import pairs.dataset
import pairs.policies
from flows.recipe import Recipe, RecipeError
from flows.recipe_file import load_recipe
from flows.selftest import built_in, chosen_cases, selftest
from flows.selftest_text import selftest_text
from judges.base import Unread, Verdict
from judges.labels import Shares
from judges.ultrafeedback import SideBySide
from serving.chat import Reply

ROUGH = {"bias": 0.2, "noise": 0.05, "malformed": 0.1, "truncated": 0.02, "refused": 0.02}
ROUGHER = ROUGH | {"malformed": 0.5}
NAMES = [name for name in built_in(4) if not name.startswith("jury")]


async def labelled(
    kinds: Sequence[str], rates: dict[str, float] = ROUGH, prompts: int = 20
) -> dict[str, Any]:
    return await selftest(None, list(kinds), prompts, 4, rates)


@pytest.mark.parametrize(
    "kinds",
    [("rules", "rating"), ("ultrafeedback", "critique"), ("pairwise",), ("reward_model", "jury")],
    ids="-".join,
)
async def test_every_verdict_that_can_be_told_is_recovered_and_no_other_is_made(kinds: tuple[str, ...]):
    result = await labelled(kinds)
    assert set(result["judges"]) == set(chosen_cases(kinds, 4))
    for name, found in result["judges"].items():
        assert found["wrong_labels"] == [] and found["lost_labels"] == [], name
        assert found["recovered"] == found["recoverable"] > 0
        assert found["recovered"] + sum(found["unjudged"].values()) >= found["judgements"]
        assert found["pairs"]["made"] > 0 and found["pairs"]["better"] > found["pairs"]["noise"]
        if not name.startswith("rules"):
            assert set(found["unjudged"]) - {"not_applicable"}, "nothing was made hard"
    assert result["ok"]
    assert "no label is wrong" in selftest_text(result)


def first_label(reply: Reply, labels: Sequence[str], *, samples: int, min_mass: float) -> Shares:
    found = [m[0] for c in reply.choices if (m := re.search(f"[{''.join(labels)}]", c.text))]
    if not found:
        raise Unread("nothing")
    return Shares({label: found.count(label) / len(found) for label in labels}, 0.0)


def one_is_ten(line: str, low: float, high: float, read: Any = judges.critique.read_score) -> float:
    found = read(line, low, high)
    return 10.0 if found == 1.0 else found


def failure_is_zero(choice: Any, mark: Any) -> Verdict:
    try:
        return Verdict("overall", "ok", 1, 10, score=judges.critique.parse(choice).score)
    except Unread:
        return Verdict("overall", "ok", 1, 10, score=1.0)


def likeliest(found: Shares, aspect: str, raw: str) -> Verdict:
    best = max(found.shares, key=lambda label: found.shares[label])
    return Verdict(aspect, "ok", 1, 5, score=float(best), distribution=found.shares)


def ties_by_order(
    prompt: Any, chosen: Any, rejected: Any, settings: Any, old: Any = pairs.policies._falls_short
) -> Any:
    return None if chosen.score == rejected.score else old(prompt, chosen, rejected, settings)


def unmapped(
    self: SideBySide, prompt: Any, completions: Any, aspect: str, replies: Any, read: Any = SideBySide.read
):
    judge = SideBySide(self.settings, None)
    judge.orders = lambda p, c, a: [[one for one in c if one.text.strip()]] * len(replies)  # type: ignore[method-assign]
    return read(judge, prompt, completions, aspect, replies)


def turned(pair: Any, row: Any = pairs.dataset.pair_row) -> Any:
    found = row(pair)
    return found | {"chosen": found["rejected"], "rejected": found["chosen"]}


@pytest.mark.parametrize(
    ("kind", "where", "mistake", "says"),
    [
        ("pairwise/samples", "judges.pairwise.read_label", first_label, "it became a score"),
        ("critique", "judges.critique.read_score", one_is_ten, "not what the judge said"),
        ("critique", "judges.critique.verdict", failure_is_zero, "it became a score"),
        ("rating", "judges.rating._expected", likeliest, "not what the judge said"),
        ("critique", "pairs.policies._falls_short", ties_by_order, "both are equal"),
        ("ultrafeedback", "judges.ultrafeedback.SideBySide.read", unmapped, "not what the judge said"),
        ("rating", "pairs.dataset.pair_row", turned, "not those of its completions"),
    ],
    ids=[
        "the first [[A]] wins",
        "a 1 is read as 10",
        "a failure is a zero",
        "the likeliest label instead of the mean",
        "ties go to the first in the list",
        "listwise ratings are not mapped back",
        "chosen and rejected change places",
    ],
)
async def test_a_famous_mistake_is_found(
    kind: str, where: str, mistake: Any, says: str, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(where, mistake)
    result = await labelled([kind], ROUGHER if kind == "pairwise/samples" else ROUGH)
    found = result["judges"][kind]
    assert not result["ok"] and found["wrong"] > 0
    assert any(says in label["what"] for label in found["wrong_labels"])
    text = selftest_text(result)
    assert says in text and "labels are wrong" in text


async def test_noise_is_counted_apart_and_is_no_mistake():
    still = {"bias": 0.2, "noise": 0.0, "malformed": 0.0, "truncated": 0.0, "refused": 0.0}
    quiet = await labelled(["rating"], still)
    loud = await labelled(["rating"], still | {"noise": 0.3})
    assert quiet["ok"] and quiet["judges"]["rating"]["pairs"]["noise"] == 0
    assert loud["ok"] and loud["judges"]["rating"]["pairs"]["noise"] > 5


def recipe(tmp_path: Path, judge: dict[str, Any], **more: Any) -> Recipe:
    fields: dict[str, Any] = {
        "name": "own",
        "prompts": [{"file": "prompts/quickstart/prompts.jsonl"}],
        "models": {
            "gpt": {"kind": "endpoint", "model": "gpt", "base_url": "http://127.0.0.1:9/v1", "key_env": "NO"}
        },
        "samplers": [
            {"name": "one", "model": "gpt", "n": 3},
            {"name": "two", "model": "gpt", "temperature": 0.5},
        ],
        "judge": judge | {"model": "gpt"},
    }
    return Recipe.model_validate(fields | more)


async def own(settings: Recipe, rates: dict[str, float] = ROUGH) -> dict[str, Any]:
    result = await selftest(settings, [], 20, 4, rates)
    return result["judges"][settings.name] | {"all": result["ok"]}


async def test_one_order_side_by_side_lets_the_first_place_decide_and_as_many_as_texts_do_not(tmp_path: Path):
    biased = ROUGH | {"bias": 0.4, "malformed": 0.0}
    judge = {"kind": "ultrafeedback", "aspects": ["helpfulness"]}
    everyone = {"policy": "all_pairs"}
    found = await own(recipe(tmp_path, judge, pairs=everyone), biased)
    assert {label["what"].split(":")[0] for label in found["wrong_labels"]} == {"the first place decided"}
    found = await own(recipe(tmp_path, judge | {"orders": 4}, pairs=everyone), biased)
    assert found["all"] and found["pairs"]["made"] > 0


async def test_the_quickstart_s_own_judge_passes():
    found = await own(load_recipe(Path("recipes/quickstart.yaml")))
    assert found["all"] and found["pairs"]["made"] > 0


def wording(tmp_path: Path, of: str, *changes: tuple[str, str]) -> str:
    text = Path(f"prompts/judges/{of}.md").read_text()
    for old, new in changes:
        assert old in text
        text = text.replace(old, new)
    path = tmp_path / "own.md"
    path.write_text(text)
    return str(path)


async def test_a_wording_of_one_s_own_that_can_be_answered_passes(tmp_path: Path):
    prompt = wording(
        tmp_path,
        "pairwise",
        ("### Response A\n{{first}}", "## The first answer (A)\n{{first}}"),
        ("### Response B\n{{second}}", "## The second answer (B)\n{{second}}"),
        ("You compare two responses", "Two writers have answered. You compare their responses"),
    )
    found = await own(recipe(tmp_path, {"kind": "pairwise", "prompt": prompt}))
    assert found["all"], found


async def test_a_wording_that_shows_the_answers_under_each_other_s_name_is_found(tmp_path: Path):
    swap = ("{{first}}", "{{x}}"), ("{{second}}", "{{first}}"), ("{{x}}", "{{second}}")
    prompt = wording(tmp_path, "pairwise", *swap)
    found = await own(recipe(tmp_path, {"kind": "pairwise", "prompt": prompt}))
    assert found["wrong"] > 0 and "the score is not what the judge said" in str(found["wrong_labels"])


@pytest.mark.parametrize(
    ("kind", "old", "new", "says"),
    [
        ("rating", "from 1 (worst) to 5 (best)", "from 1 (worst) to 10 (best)", "its scale is 1 to 10"),
        ("rating", "from 1 (worst) to 5 (best)", "from 1 (best) to 5 (worst)", "1 is its best score"),
        ("pairwise", "Reply with one letter, {{labels}}.", "Which is better?", "never says that A or B"),
        ("critique", "a number from 1 to 10", "your verdict", "shows no line on which the score is to stand"),
    ],
)
async def test_a_wording_that_nobody_can_answer_is_named(
    tmp_path: Path, kind: str, old: str, new: str, says: str
):
    unnamed = (", labels]", "]"), ("### Response A", "### Response 1"), ("### Response B", "### Response 2")
    prompt = wording(tmp_path, kind, (old, new), *(unnamed if kind == "pairwise" else ()))
    found = await own(recipe(tmp_path, {"kind": kind, "prompt": prompt}))
    assert not found["all"] and says in " ".join(found["complaints"])


async def test_a_wording_whose_verdict_is_not_what_the_judge_looks_for_loses_it_and_says_so(tmp_path: Path):
    prompt = wording(tmp_path, "critique", ("Overall score:", "Final grade:"))
    found = await own(recipe(tmp_path, {"kind": "critique", "prompt": prompt}))
    assert not found["all"] and found["recovered"] == 0 < found["recoverable"]
    assert "no 'Overall score:' in the answer" in found["lost_labels"][0]["stored"]


async def test_too_few_tokens_for_a_verdict_are_named(tmp_path: Path):
    found = await own(recipe(tmp_path, {"kind": "critique", "max_tokens": 5}))
    assert "max_tokens is 5" in " ".join(found["complaints"])


async def test_what_cannot_be_tested_is_refused(tmp_path: Path):
    with pytest.raises(RecipeError, match="--kinds pairwse: wanted some of rules, rating"):
        chosen_cases(["pairwse"], 4)
    (tmp_path / "old.txt").write_text("x")
    with pytest.raises(RecipeError, match="is not empty"):
        await selftest(None, ["rules"], 5, 4, ROUGH, 0, tmp_path)
