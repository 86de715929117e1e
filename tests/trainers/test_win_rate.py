"""The judge looks on while a model trains: its wins over the model as it came, an early end, and the best kept."""

import asyncio
import json
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from datasets import Dataset
from transformers import AutoModelForCausalLM

from tests.trainers.conftest import pair, said
from trainers.checkpoints import TrainingFailed
from trainers.dpo import dpo_trainer
from trainers.guards import BadInput, check_settings
from trainers.job import DPOJob
from trainers.rows import pairs_to_tokens
from trainers.settings import DPOSettings, WinRate
from trainers.win_rate import Answer, Looks, answers, compared

ROWS = [{"prompt": [said("user", f"Tell me about {i}.")], "prompt_id": f"p{i}"} for i in range(8)]


def test_wins_ties_and_what_was_not_judged():
    found = compared([0.5, 0.5, 0.5, None, 0.5], [0.7, 0.5, 0.1, 0.9, None])
    assert (found["win_rate"], found["judged"], found["unjudged"]) == (0.5, 3, 2)
    assert found["low"] < 0.5 < found["high"]
    assert compared([0.0, 0.0], [1.0, 1.0])["win_rate"] == 1.0
    with pytest.raises(TrainingFailed, match="none of 2 held-out prompts could be judged"):
        compared([None, 0.5], [0.5, None])


@pytest.fixture
def looked(tiny: Path, tokenizer: Any, tmp_path: Path) -> Callable[..., Any]:
    """Train with a judge whose scores of the model in training are given look by look, and give the looks."""

    def run(
        rates: list[float], steps: int = 6, watched: bool = True, rate: float = 5e-2, **win_rate: Any
    ) -> Any:
        torch.set_num_threads(1)
        own = DPOSettings.model_validate(
            {
                "batch": 4,
                "micro_batch": 4,
                "max_length": 128,
                "learning_rate": rate,
                "warmup": 0.0,
                "epochs": None,
            }
            | {"max_steps": steps, "compute": "float32", "lora": {"r": 4}, "scheduler": "constant"}
        )
        rows = pairs_to_tokens(Dataset.from_list([pair(i) for i in range(16)]), tokenizer, own).tokens
        torch.manual_seed(0)
        model = AutoModelForCausalLM.from_pretrained(tiny)
        trainer: Any = dpo_trainer(own, model, tokenizer, rows, None, tmp_path / "work", 1, [])
        asked: list[Any] = []

        async def judge(prompts: Any, completions: Any, completion_ids: Any, prompt_id: Any) -> list[float]:
            """Both answers to each prompt are there; so many of the later ones win as the rate of this look says."""
            asked.append((prompt_id, completions))
            half = len(prompt_id) // 2
            assert (
                prompt_id[:half] == prompt_id[half:] and len(completions) == len(completion_ids) == 2 * half
            )
            wins = round(rates[trainer.state.global_step - 1] * half)
            return [0.5] * half + [1.0] * wins + [0.0] * (half - wins)

        settings = WinRate.model_validate({"every": 1, "prompts": 8, "max_tokens": 6} | win_rate)
        (tmp_path / "work").mkdir(exist_ok=True)
        looks = Looks(settings, ROWS, judge, [2], tokenizer, 3, tmp_path / "work")
        if watched:
            looks.begin(trainer)
        if rates:  # answers that it never gives again, so that all are asked about
            looks.start = [Answer("No.", [5, 2])] * 8
        trained: dict[int, Any] = {}
        from transformers import TrainerCallback

        class Keep(TrainerCallback):
            def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
                trained[state.global_step] = {
                    n: p.detach().clone() for n, p in trainer.model.named_parameters() if p.requires_grad
                }

        trainer.add_callback(Keep())
        trainer.train()
        return SimpleNamespace(looks=looks, trainer=trainer, weights=trained, asked=asked)

    return run


def test_the_best_look_is_kept_and_a_look_changes_no_weight(looked: Callable[..., Any]):
    run = looked([0.25, 0.75, 0.5, 0.75, 0.5, 0.5])
    assert [look["step"] for look in run.looks.found] == [1, 2, 3, 4, 5, 6]
    assert [len(ids) for ids, _ in run.asked] == [16] * 6
    last = run.weights[6]
    assert run.looks.keep_best() == 2, "the first of equals"
    kept = {n: p for n, p in run.trainer.model.named_parameters() if p.requires_grad}
    assert all(torch.equal(kept[n], run.weights[2][n]) for n in kept)
    alone = looked([], watched=False).weights[6]
    assert all(torch.equal(alone[n], last[n]) for n in last)
    rates = [line["win_rate"] for line in run.trainer.state.log_history if "win_rate" in line]
    assert rates == [look["win_rate"] for look in run.looks.found]
    assert run.trainer.clock.seconds["judging"] > 0


def test_an_answer_that_stayed_the_same_is_a_tie_and_is_not_asked_about(looked: Callable[..., Any]):
    run = looked([], steps=2, rate=1e-12)
    assert run.asked == [] and [look["win_rate"] for look in run.looks.found] == [0.5, 0.5]


def test_training_ends_where_the_judge_sees_nothing_better(looked: Callable[..., Any]):
    run = looked([0.5, 1.0, 0.5, 0.25, 1.0, 1.0], patience=2)
    assert run.trainer.state.global_step == 4, "2 was the best, 3 and 4 were not better"
    assert run.looks.keep_best() == 2


def test_without_keep_best_the_last_weights_stay(looked: Callable[..., Any]):
    run = looked([1.0, 0.5], steps=2, keep_best=False)
    assert run.looks.keep_best() is None and not list(run.looks.work.glob("best-*"))


def test_looks_come_every_so_many_steps_and_at_the_last(looked: Callable[..., Any]):
    assert [look["step"] for look in looked([0.5] * 5, steps=5, every=2).looks.found] == [2, 4, 5]


def test_an_answer_ends_with_its_end_token_and_batches_change_none(tiny: Path, tokenizer: Any):
    model = AutoModelForCausalLM.from_pretrained(tiny).eval()
    prompts = [row["prompt"] for row in ROWS] + [[said("user", "Tell me about tea and rain and bread.")]]
    one, many = (answers(model, tokenizer, prompts, [2], 8, batch) for batch in (1, 9))
    assert [a.ids for a in one] == [a.ids for a in many]
    ends = {token for a in one for token in a.ids[2:3]}
    cut = answers(model, tokenizer, prompts, sorted(ends), 8, 4)
    assert all(a.ids[-1] in ends and not set(a.ids[:-1]) & ends for a in cut if set(a.ids) & ends)


def test_a_judge_is_asked_through_its_socket_and_is_part_of_the_models_name(
    job: Callable[..., Any], tmp_path: Path
):
    """The whole way: a job with `win_rate`, a judge at a Unix socket, and what metrics.json says of it."""
    import pyarrow as pa
    import pyarrow.parquet as pq
    from aiohttp import web

    from trainers.job import key_of
    from trainers.run import run

    pq.write_table(pa.Table.from_pylist(ROWS), tmp_path / "prompts.parquet")
    win_rate = {"every": 2, "prompts": 8, "max_tokens": 4}
    settings = {"max_steps": 4, "learning_rate": 5e-2, "win_rate": win_rate, "lora": {"r": 4}}
    socket = tmp_path / "s"
    plain = job(settings=settings, socket=str(socket), judges={"rules": 1}, eval=None)
    made = DPOJob.model_validate(plain | {"prompts": {"files": [str(tmp_path / "prompts.parquet")]}})

    async def score(request: web.Request) -> web.Response:
        asked = await request.json()
        assert all(len(each["answers"]) == 2 for each in asked), "both answers to a prompt come together"
        return web.json_response([[0.0, 1.0] for _ in asked])

    async def whole() -> Any:
        app = web.Application()
        app.router.add_post("/score", score)
        runner = web.AppRunner(app)
        await runner.setup()
        await web.UnixSite(runner, str(socket)).start()
        try:
            return await asyncio.to_thread(run, made)
        finally:
            await runner.cleanup()

    asyncio.run(whole())
    metrics = json.loads((tmp_path / "model" / "metrics.json").read_text())
    assert [look["step"] for look in metrics["win_rates"]] == [2, 4] and metrics["kept_step"] == 2
    assert metrics["win_rates"][0]["win_rate"] > 0.5
    assert [each["metrics"].get("win_rate") is not None for each in metrics["train"]] == [
        False,
        True,
        False,
        True,
    ]
    assert key_of(made) != key_of(made.model_copy(update={"judges": {"rules": 2}}))


def test_settings_without_a_judge_or_on_many_devices_are_refused(job: Callable[..., Any]):
    with pytest.raises(ValueError, match=r"settings.win_rate wants socket, prompts and judges"):
        DPOJob.model_validate(job(settings={"win_rate": {}}))
    with pytest.raises(BadInput, match="win_rate with 2 devices"):
        check_settings(DPOSettings(win_rate=WinRate()), 2)
