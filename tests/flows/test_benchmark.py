"""Suites from question files to figures, against models over HTTP."""

import json
import re
from pathlib import Path
from typing import Any

import pytest

from flows.recipe import Recipe, RecipeError
from flows.suites.flow import benchmark
from flows.suites.plan import suite_lines
from prompts.load import PromptError
from serving.errors import WrongModel
from tests.fake_model import Answer, Body, fake_model

QUESTIONS = [
    {"question_id": 81, "category": "writing", "turns": ["Write of tea.", "Shorter."]},
    {"question_id": 101, "category": "math", "turns": ["What is 1 + 1?", "Twice that?"]},
    {"question_id": 121, "category": "stem", "turns": ["Why is tea brown?", "UNREADABLE why?"]},
]
REFERENCES = [{"question_id": 101, "choices": [{"index": 0, "turns": ["It is 2.", "It is 4."]}]}]
ALPACA = [
    {"instruction": f"Tell me {i}.", "output": "word " * (5 + i), "generator": "davinci", "dataset": "koala"}
    for i in range(6)
]
HARD = [{"uid": f"u{i}", "category": "hard", "prompt": f"Solve {i}."} for i in range(4)]
HARD_BASE = [
    {
        "uid": f"u{i}",
        "model": "gpt",
        "messages": [{"role": "user", "content": "x"}, {"content": {"answer": "word " * i}}],
    }
    for i in range(4)
]
IFEVAL = [
    {"key": 1, "prompt": "No commas here.", "instruction_id_list": ["punctuation:no_comma"], "kwargs": [{}]},
    {
        "key": 2,
        "prompt": "Write LESS than 3 words.",
        "instruction_id_list": ["length_constraints:number_words", "punctuation:no_comma"],
        "kwargs": [{"relation": "less than", "num_words": 3}, {}],
    },
]


def reply(body: Body) -> str | Answer:
    """`small` says little, `large` says more. As a judge: a rating by length, the longer of two answers is better."""
    asked = body["messages"][-1]["content"]
    if "### Rating" in asked:
        said = asked.split("### Answer\n")[1].split("\n### Rating")[0]
        return (
            "It has its points."
            if "UNREADABLE" in asked
            else f"So be it. Rating: [[{min(10, len(said.split()))}]]"
        )
    if "### Choice" in asked:
        a, b = (re.split(r"\n###", part)[0].split() for part in re.split(r"### Response [AB]\n", asked)[1:])
        first = 0.5 if len(a) == len(b) else 0.9 if len(a) > len(b) else 0.1
        import math

        return Answer("A", logprobs={"A": math.log(first), "B": math.log(1 - first)})
    return "Yes, tea." if body["model"] == "small" else "It is tea and this is why: " + "so " * 4 + asked[:20]


def written(folder: Path) -> dict[str, Any]:
    """The suites, with their files beside the recipe."""
    for name, rows in (
        ("question.jsonl", QUESTIONS),
        ("reference.jsonl", REFERENCES),
        ("hard.jsonl", HARD),
        ("hard-base.jsonl", HARD_BASE),
        ("ifeval.jsonl", IFEVAL),
    ):
        (folder / name).write_text("".join(json.dumps(row) + "\n" for row in rows))
    (folder / "alpaca.json").write_text(json.dumps(ALPACA))
    at = str(folder)
    return {
        "mt-bench": {
            "kind": "mt_bench",
            "questions": f"{at}/question.jsonl",
            "references": f"{at}/reference.jsonl",
            "judge": {"model": "judge"},
        },
        "alpaca-eval": {"kind": "alpaca_eval", "questions": f"{at}/alpaca.json", "judge": {"model": "judge"}},
        "arena-hard": {
            "kind": "arena_hard",
            "questions": f"{at}/hard.jsonl",
            "baseline": f"{at}/hard-base.jsonl",
            "judge": {"model": "judge"},
        },
        "ifeval": {"kind": "ifeval", "questions": f"{at}/ifeval.jsonl"},
    }


def recipe(url: str, suites: dict[str, Any], **more: Any) -> Recipe:
    models = {
        name: {"kind": "endpoint", "model": name, "base_url": url, "dialect": "vllm"}
        for name in ("small", "large", "judge")
    }
    asked = {"suites": suites, "models": ["small", "large"], "system": ""} | more
    return Recipe.model_validate(
        {"name": "suites", "models": models, "benchmark": asked, "max_unjudged": 0.5}
    )


async def test_suites_are_asked_judged_and_compared_and_a_rerun_asks_nothing(tmp_path: Path):
    with fake_model(reply, owner="vllm") as fake:
        settings = recipe(fake.url, written(tmp_path))
        found = (await benchmark(settings, tmp_path))["benchmark"]["suites"]
        first = len(fake.asked)
        again = await benchmark(settings, tmp_path)
        assert len(fake.asked) == first and again["asked_this_run"]["benchmark"] == 0
        assert again["benchmark"]["suites"] == found

        more = written(tmp_path)
        more["alpaca-eval"]["limit"] = 3
        await benchmark(recipe(fake.url, more), tmp_path)
        assert len(fake.asked) == first, "a part of what is there was asked again"

    answering = [body for body in fake.asked if body["model"] != "judge"]
    judging = [body["messages"][-1]["content"] for body in fake.asked if body["model"] == "judge"]
    assert len(answering) == 2 * (3 * 2 + 6 + 4 + 2)
    assert all(body["messages"][0] == {"role": "system", "content": ""} for body in answering)
    second = [body for body in answering if body["messages"][-1]["content"] == "Shorter."]
    assert {body["messages"][2]["content"] for body in second} == {
        str(reply(body)) for body in answering if body["messages"][-1]["content"] == "Write of tea."
    }
    heats = {body["messages"][-1]["content"]: body["temperature"] for body in answering}
    assert (heats["Shorter."], heats["Twice that?"], heats["Why is tea brown?"]) == (0.7, 0.0, 0.1)
    assert (heats["Tell me 0."], heats["Solve 0."], heats["No commas here."]) == (0.7, 0.0, 0.0)
    shown = [text for text in judging if "### Reference" in text]
    assert len(shown) == 4 and all("It is 2." in text for text in shown)
    assert sum("It is 4." in text for text in shown) == 2

    talks = found["mt-bench"]
    assert talks["counts"]["small"]["unread"] == {"parse_error": 1}
    assert talks["metrics"]["mean"]["small"]["value"] == 2.0 and talks["metrics"]["mean"]["small"]["n"] == 5
    assert talks["gains"]["mean"]["large"]["value"] > 0
    assert set(talks["groups"]) == {"writing", "math", "stem"}
    wins = found["alpaca-eval"]["metrics"]["win rate"]
    assert wins["small"]["value"] == pytest.approx(0.1) and wins["large"]["value"] > 0.8
    assert "not the leaderboard's figure" in " ".join(found["alpaca-eval"]["notes"])
    assert found["arena-hard"]["metrics"]["win rate"]["large"]["value"] == pytest.approx(0.9)
    strict = found["ifeval"]["metrics"]["strict, per instruction"]
    assert strict["small"]["value"] == pytest.approx(1 / 3) and strict["large"]["value"] == pytest.approx(
        2 / 3
    )
    lines = [json.loads(line) for line in (tmp_path / "suites/benchmark/mt-bench/small.jsonl").open()]
    assert len(lines) == 6 and sum(line["status"] == "parse_error" for line in lines) == 1
    page = (tmp_path / "suites/report.html").read_text()
    assert "Published suites" in page and "win rate, style controlled" in page


async def test_a_template_other_than_the_trained_one_is_noticed_before_a_question_is_asked(tmp_path: Path):
    from flows.suites.templates import check_template, rendered, same
    from serving.engine import Engine
    from serving.settings import LlamaCpp

    def chatml(body: Body) -> str:
        turns = "".join(f"<|im_start|>{m['role']}\n{m['content']}<|im_end|>\n" for m in body["messages"])
        return turns + "<|im_start|>assistant\n"

    def zephyr(body: Body) -> str:
        return "".join(f"<|{m['role']}|>\n{m['content']}</s>\n" for m in body["messages"]) + "<|assistant|>\n"

    model = LlamaCpp(model="base.gguf", template="zephyr")
    for template, right in ((zephyr, True), (chatml, False)):
        with fake_model(reply, template=template) as fake:

            class Here(Engine):
                async def address(self, model: str, url: str = fake.url) -> str:
                    return url

            if right:
                assert "<|user|>\nHello!" in await check_template("m", model, Here({}), "")
            else:
                with pytest.raises(WrongModel, match="asked otherwise than template 'zephyr' says"):
                    await check_template("m", model, Here({}), "")
            assert not fake.asked
    assert same("<|user|>\nHi\x00\nYes\x00", "<s><|user|>\nHi</s>\nYes</s>")
    assert not same("<|user|>\nHi\x00\nYes\x00", "<|user|>\nHi</s>\nYes<eos>"), "turns end alike"
    assert not same("<|user|>\nHi\x00", "Hi")
    with fake_model(reply) as fake:
        assert await rendered(fake.url, "m", [{"role": "user", "content": "Hi"}]) is None


@pytest.mark.parametrize(
    ("change", "error"),
    [
        ({"mt-bench": {"references": None}}, "references: 1 questions on math"),
        ({"arena-hard": {"baseline": "nowhere.jsonl"}}, "no file 'nowhere.jsonl'"),
        ({"alpaca-eval": {"calibration": "nowhere.csv"}}, "nowhere.csv"),
    ],
)
async def test_what_a_suite_lacks_is_said_before_anything_is_asked(tmp_path: Path, change: Any, error: str):
    with fake_model(reply) as fake:
        suites = written(tmp_path)
        for name, fields in change.items():
            suites[name] |= fields
        with pytest.raises((RecipeError, PromptError), match=error):
            await benchmark(recipe(fake.url, suites), tmp_path)
        assert not fake.asked


def test_a_judge_that_is_no_model_of_the_recipe_is_refused(tmp_path: Path):
    suites = written(tmp_path)
    suites["mt-bench"]["judge"] = {"model": "gpt-4"}
    with pytest.raises(
        ValueError, match=r"benchmark\.suites\.mt-bench\.judge\.model: 'gpt-4' is not in models"
    ):
        recipe("http://127.0.0.1:1/v1", suites)


def test_the_plan_counts_answers_and_judgements_and_misses_a_file_before_the_run(tmp_path: Path):
    suites = written(tmp_path)
    lines = suite_lines(recipe("http://127.0.0.1:1/v1", suites))
    assert lines == [
        "mt-bench: 6 answers by 2 models, 12 requests to judge",
        "alpaca-eval: 6 answers by 2 models, 24 requests to judge",
        "arena-hard: 4 answers by 2 models, 16 requests to judge",
        "ifeval: 2 answers by 2 models, nothing to a judge",
    ]
    suites["mt-bench"]["questions"] = "nowhere.jsonl"
    with pytest.raises(PromptError, match=r"no file 'nowhere\.jsonl'"):
        suite_lines(recipe("http://127.0.0.1:1/v1", suites))
