"""Who scores the answers of a model in training: judges at a socket, a reward model in the process."""

import asyncio
import json
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from peft import PeftModel
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM

from flows.evaluate import held_out
from flows.inputs import gather_prompts
from flows.plan import plan_text
from flows.recipe import Recipe, RecipeError
from flows.recipe_file import load_recipe
from flows.rewards import Rewards, held_out_beside_evaluation, identity, listening, looked_on
from flows.run import Run
from records.ids import fingerprint
from records.schema import Message, Prompt
from serving.chat import Choice, Reply, Request
from serving.classifier import ClassifierTransport
from serving.errors import RequestFailed
from serving.settings import Classifier
from tests.trainers.conftest import pair, said
from trainers.rewards import asked_at, given_by
from trainers.run import main

QUICKSTART = Path(__file__).parents[2] / "recipes" / "quickstart.yaml"
RULES = {"kind": "rules"}
CRITIQUE = {"kind": "critique", "model": "smol"}
RATING = {"kind": "rating", "model": "smol"}


def recipe_with(judge: dict[str, Any]) -> Recipe:
    return Recipe.model_validate(load_recipe(QUICKSTART).model_dump(mode="json") | {"judge": judge})


def prompt(name: str, words: int) -> Prompt:
    meta = {"constraints": [{"kind": "max_words", "n": words}]}
    return Prompt(id=name, messages=(Message(role="user", content=f"{name}?"),), source="test", meta=meta)


def scored(judge: dict[str, Any], answers: dict[str, list[str]], journal: Path, chat: Any = None) -> Any:
    """What training would see: each prompt's answers, asked for in turn, through a real socket."""
    recipe = recipe_with(judge)
    engine: Any = SimpleNamespace(chat=lambda name: chat)
    prompts = [prompt("short", 2), prompt("long", 5)]

    async def ask() -> Any:
        async with listening(Rewards(recipe, recipe.jury, prompts, engine, journal)) as socket:
            names = [name for name, texts in answers.items() for _ in texts]
            texts = [text for own in answers.values() for text in own]
            order = sorted(range(len(texts)), key=lambda i: (i % 2, i))  # a batch mixes prompts
            found = await asked_at(socket, {2})(
                prompts=[[] for _ in order],
                completions=[[said("assistant", texts[i])] for i in order],
                completion_ids=[[5, 2] for _ in order],
                prompt_id=[names[i] for i in order],
            )
            return {texts[i]: score for i, score in zip(order, found, strict=True)}

    return asyncio.run(ask())


def test_the_recipes_judge_scores_and_each_answer_gets_its_own(tmp_path: Path):
    answers = {"short": ["one", "one two three"], "long": ["one two", "1 2 3 4 5 6 7"]}
    found = scored(RULES, answers, tmp_path / "journal.jsonl")
    assert found["one"] == found["one two"] == 1.0
    assert found["one two three"] < 1 and found["1 2 3 4 5 6 7"] < 1


async def one_bad_one_good(request: Request) -> Reply:
    text = request.messages[-1]["content"]
    if "unreachable" in text:
        raise RequestFailed("transport_error", "gone")
    return Reply((Choice("no idea" if "qqq" in text else "Fine.\nOverall score: 8", "stop"),))


def test_a_failed_judgement_is_no_number(tmp_path: Path):
    journal = tmp_path / "journal.jsonl"
    found = scored(
        CRITIQUE, {"short": ["qqq", "plain"], "long": ["unreachable", "fine"]}, journal, one_bad_one_good
    )
    assert found["qqq"] is None and found["unreachable"] is None
    assert found["plain"] == found["fine"] == pytest.approx(7 / 9)  # 8 of 1 to 10
    lines = [json.loads(line) for line in journal.read_text().splitlines()]
    assert any("parse_error" in why for line in lines for why in line["why"])


def test_what_was_judged_before_a_run_was_killed_is_not_asked_again(tmp_path: Path):
    journal, asked = tmp_path / "journal.jsonl", []

    async def chat(request: Request) -> Reply:
        asked.append(request)
        return await one_bad_one_good(request)

    answers = {"short": ["a", "b"]}
    first = scored(CRITIQUE, answers, journal, chat)
    journal.write_text(journal.read_text() + '{"key": "torn')
    count = len(asked)
    assert scored(CRITIQUE, answers, journal, chat) == first and len(asked) == count > 0
    scored(RATING, answers, journal, chat)
    assert len(asked) > count, "another judge has not scored them"


def test_a_judge_that_breaks_ends_training_with_its_own_words(tmp_path: Path):
    async def chat(request: Request) -> Reply:
        raise OSError("the server is gone")

    with pytest.raises(RuntimeError, match="OSError: the server is gone"):
        scored(RATING, {"short": ["a"]}, tmp_path / "journal.jsonl", chat)


def test_another_judge_or_model_is_another_reward():
    judges = (RULES, RATING, RATING | {"aspects": ["honesty"]}, RATING | {"min_mass": 0.2})
    recipes = [recipe_with(judge) for judge in judges]
    assert len({fingerprint(identity(recipe, recipe.jury)) for recipe in recipes}) == len(judges)


@pytest.mark.parametrize("algorithm", ["rloo", "ppo"])
def test_a_job_learns_from_a_reward_model_and_leaves_a_plain_model(
    algorithm: str, job: Callable[..., Any], tmp_path: Path
):
    (tmp_path / "reward.json").write_text(json.dumps(job("reward", out=str(tmp_path / "reward"))))
    assert main([str(tmp_path / "reward.json")]) == 0
    row = pair(1)
    every = [[*row["prompt"], *row["chosen"]], [*row["prompt"], *row["rejected"]]]
    given = given_by(tmp_path / "reward", 8)
    found = given([row["prompt"]] * 3, [row["chosen"], row["rejected"], [said("assistant", " ")]])
    served = ClassifierTransport("r", Classifier(kind="classifier", model=str(tmp_path / "reward")))
    assert found[:2] == pytest.approx([served._score(each).scores[0] for each in every], abs=1e-5)
    assert found[2] is None

    rows = [{"prompt": pair(i)["prompt"], "prompt_id": str(i)} for i in range(8)]
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "prompts.parquet")
    settings = {
        "algorithm": algorithm,
        "batch": 8,
        "answers": 2,
        "max_tokens": 8,
        "epochs": 1,
        "lora": {"r": 4},
    }
    asked = job("rlhf", settings=settings, eval=None, train={"files": [str(tmp_path / "prompts.parquet")]})
    asked |= {"reward_model": str(tmp_path / "reward"), "reward": {"weights": "digest"}}
    (tmp_path / "job.json").write_text(json.dumps(asked))
    assert main([str(tmp_path / "job.json")]) == 0
    folder = Path(asked["out"])
    metrics = json.loads((folder / "metrics.json").read_text())
    assert metrics["steps"] == 2 and metrics["tokens_seen"] > 0
    assert all(line["metrics"]["unjudged"] == 0 for line in metrics["train"])
    assert set(load_file(folder / "model.safetensors")) == set(
        load_file(Path(asked["base"]) / "model.safetensors")
    )
    adapted = PeftModel.from_pretrained(
        AutoModelForCausalLM.from_pretrained(asked["base"]), str(folder / "adapter")
    )
    ids = torch.tensor([[5, 6, 7, 8]])
    assert torch.allclose(
        AutoModelForCausalLM.from_pretrained(folder)(ids).logits, adapted(ids).logits, atol=1e-5
    )


def test_a_look_asks_about_prompts_that_evaluation_does_not(tmp_path: Path):
    plain = load_recipe(QUICKSTART).model_dump(mode="json")
    plain["judge"], plain["evaluation"]["prompts"] = RULES, 30
    plain["training"]["dpo"]["win_rate"] = {"prompts": 12}

    def run_of(**changes: Any) -> Run:
        return Run.at(Recipe.model_validate(plain | changes), tmp_path)

    run = run_of()
    found = held_out_beside_evaluation(run, 12, "dpo")
    assert len({prompt.id for prompt in found}) == 12
    assert {prompt.meta["split"] for prompt in found} == {"test"}
    evaluated = {prompt.id for prompt in held_out(gather_prompts(run)[0], 30, run.recipe.seed)}
    assert not evaluated & {prompt.id for prompt in found}
    with pytest.raises(
        RecipeError, match=r"of 48 held-out prompts evaluation takes 30, so 18 are left; lower"
    ):
        held_out_beside_evaluation(run, 19, "dpo")
    assert len(held_out_beside_evaluation(run_of(evaluation=None), 48, "dpo")) == 48
    assert "dpo: the judge compares 12 pairs of answers, at most 1 looks; not counted above" in plan_text(run)


async def test_a_job_has_its_judge_where_the_recipe_wants_one(tmp_path: Path, tiny: Path):
    plain = load_recipe(QUICKSTART).model_dump(mode="json") | {"judge": RULES, "evaluation": None}
    plain["training"] = {"base": str(tiny), "dpo": {"win_rate": {"prompts": 8}}, "sft": {}}
    run = Run.at(Recipe.model_validate(plain), tmp_path)
    async with looked_on(run, "sft", "sft") as fields:
        assert fields == {}
    async with looked_on(run, "dpo", "dpo-a") as fields:
        assert fields["socket"].is_socket() and fields["judges"]["judges"]
        rows = pq.read_table(fields["prompts"]["files"][0]).to_pylist()
        assert len(rows) == 8 and set(rows[0]) == {"prompt", "prompt_id"}
    assert not fields["socket"].exists()
