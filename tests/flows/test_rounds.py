"""On-policy rounds: each samples from the model that the round before made, and a stopped run goes on where it was."""

import json
from pathlib import Path
from typing import Any

import pytest

import flows.train
from flows.inputs import gather_prompts
from flows.recipe import Recipe
from flows.recipe_file import load_recipe
from flows.rounds import round_recipe, train_in_rounds
from flows.run import Run
from flows.trainer import TrainingFailed
from flows.zephyr import zephyr
from serving.weights import Weights

QUICKSTART = Path("recipes/quickstart.yaml")
ROUNDS = ["training.rounds=2", "training.sft=null"]


def model_at(folder: Path, weights: str) -> Path:
    folder.mkdir(parents=True)
    (folder / "model.json").write_text(json.dumps({"weights": weights}))
    return folder


def refusal(*overrides: str) -> str:
    with pytest.raises(ValueError) as error:
        load_recipe(QUICKSTART, [*ROUNDS, *overrides])
    return str(error.value)


def test_a_round_samples_from_the_model_before_and_the_judge_stays_what_it_is(tmp_path: Path):
    recipe = load_recipe(QUICKSTART, ROUNDS)
    second = round_recipe(recipe, 2, model_at(tmp_path / "dpo", "digest-1"))
    assert {sampler.model for sampler in second.samplers} == {"smol.round-1"}
    assert second.models["smol.round-1"].model == str(tmp_path / "dpo")
    assert second.training and second.training.base == "smol.round-1" and second.training.rounds is None
    assert [member.asks for member in second.jury.members] == [None, "smol"]
    assert second.jury == recipe.jury and second.models["smol"] == recipe.models["smol"]
    first = round_recipe(recipe, 1, None)
    assert first.samplers == recipe.samplers and first.models == recipe.models


def test_answers_belong_to_the_weights_not_to_the_folder_they_lie_in(tmp_path: Path):
    recipe = load_recipe(QUICKSTART, ROUNDS)
    here, there, other = (
        round_recipe(recipe, 2, model_at(tmp_path / name, weights))
        for name, weights in (("a", "same"), ("b", "same"), ("c", "other"))
    )

    def asked(one: Recipe) -> dict[str, Any]:
        return one.asked(one.samplers[0])

    assert asked(here) == asked(there) != asked(other)


def test_every_round_may_start_from_the_base_instead(tmp_path: Path):
    recipe = load_recipe(QUICKSTART, ["training.rounds={count: 2, start: base}"])
    second = round_recipe(recipe, 2, model_at(tmp_path / "dpo", "digest-1"))
    assert second.training and second.training.base == "smol"
    assert {sampler.model for sampler in second.samplers} == {"smol.round-1"}


@pytest.mark.parametrize("prompts", ["split", "reuse"])
def test_prompts_are_split_over_the_rounds_or_all_in_each(tmp_path: Path, prompts: str):
    recipe = load_recipe(QUICKSTART, [f"training.rounds={{count: 3, prompts: {prompts}}}"])
    every = {p.id: p.meta["split"] for p in gather_prompts(Run.at(recipe, tmp_path))[0]}
    rounds = []
    for number in (1, 2, 3):
        own = round_recipe(recipe, number, None)
        rounds.append({p.id for p in gather_prompts(Run.at(own, tmp_path / str(number)))[0]})
    if prompts == "reuse":
        assert rounds == [set(every)] * 3
    else:
        assert sum(map(len, rounds)) == len(every) and set.union(*rounds) == set(every)
        held_out = [sum(every[id] == "test" for id in own) for own in rounds]
        assert max(held_out) - min(held_out) <= 1 and max(map(len, rounds)) - min(map(len, rounds)) <= 2


def test_rounds_that_cannot_be_are_refused():
    assert "must be a model of kind llamacpp or vllm that a sampler asks" in refusal(
        "training.base=HuggingFaceTB/SmolLM2-135M", "training.gguf=null", "evaluation=null"
    )
    assert "set training.gguf: q8_0" in refusal("training.gguf=null", "evaluation=null")
    assert "add training.sft or training.dpo" in refusal("training.dpo=null")
    assert "training.rounds.count: Input should be greater than or equal to 1" in refusal("training.rounds=0")


SMALL = [
    *ROUNDS,
    "prompts.0.limit=6",
    "prompts.1.limit=2",
    "judge={kind: rules}",
    "training.dpo.max_steps=1",
    "training.dpo.warmup=0",  # else the only step has a learning rate of 0
    "training.dpo.batch=4",
    "evaluation.prompts=2",
    "evaluation.sampler.max_tokens=24",
    "pairs={policy: best_vs_worst, chosen_may_be_cut_off: true, ties: random}",
    "samplers=[{name: warm, model: smol, temperature: 1.0, max_tokens: 24, n: 4}]",
]


@pytest.mark.long
@pytest.mark.timeout(560)
async def test_two_rounds_run_on_real_weights_and_a_stopped_run_repeats_nothing(
    tmp_path: Path, smol_gguf: Weights, monkeypatch: pytest.MonkeyPatch
):
    recipe = load_recipe(QUICKSTART, SMALL)
    train, trained = flows.train.run_training, []

    async def stopped_in_the_second(job: Path, *rest: Any) -> None:
        trained.append(job)
        if len(trained) == 2:
            raise TrainingFailed("stopped")
        await train(job, *rest)

    monkeypatch.setattr(flows.train, "run_training", stopped_in_the_second)
    with pytest.raises(TrainingFailed):
        await train_in_rounds(recipe, tmp_path)
    rounds = tmp_path / "quickstart/rounds"
    first = (rounds / "round-1/models/dpo/model.safetensors").stat().st_mtime_ns
    monkeypatch.setattr(flows.train, "run_training", train)

    result = await zephyr(recipe, tmp_path)
    assert [row["asked_this_run"] for row in result["rounds"]] == [0, 0], "round 2 was answered already"
    assert (rounds / "round-1/models/dpo/model.safetensors").stat().st_mtime_ns == first
    assert set(result["evaluation"]["models"]) == {"base", "round-1", "round-2"}
    one, two = result["rounds"]
    assert one["answers"] == two["answers"] == 16 and one["prompts"] == two["prompts"] == 4
    assert one["model"]["weights"] != two["model"]["weights"]

    made = json.loads((rounds / "round-2/models/dpo/receipts.json").read_text())
    assert one["model"]["weights"] in json.dumps(made), "the second began from the first"
    asked = [path.read_text() for path in (rounds / "round-2/completions").glob("*/asked.json")]
    assert len(asked) == 1 and f"weights:{one['model']['weights']}" in asked[0]
    assert "Rounds" in (tmp_path / "quickstart/report.html").read_text()

    again = await zephyr(recipe, tmp_path)
    assert set(again["asked_this_run"].values()) == {0}
    assert [row["model"]["weights"] for row in again["rounds"]] == [
        one["model"]["weights"],
        two["model"]["weights"],
    ]
