"""The whole data path over real HTTP and a real Prefect server: what is asked, what is kept, what is refused."""

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from flows.dataset import DatasetError
from flows.failures import StageFailed
from flows.preferences import build_preferences, generate_responses, judge_responses
from flows.recipe import Recipe
from flows.run import Run
from flows.show import show, show_text
from records.store import StoreError
from serving.chat import Request
from serving.engine import Lane
from serving.errors import RequestFailed, WrongModel
from serving.purse import BudgetSpent
from tests.fake_model import Answer, Body, Fault, Reply, fake_model
from tests.flows.conftest import write_prompts
from tests.flows.fakes import answer, is_judging, luck, recipe

SAMPLER: dict[str, Any] = {"name": "third", "model": "fake", "temperature": 0.7, "max_tokens": 32}


def kinds(asked: list[Body]) -> tuple[int, int]:
    """(generating, judging) requests."""
    judging = sum(is_judging(body) for body in asked)
    return len(asked) - judging, judging


def samplers(settings: Recipe) -> list[dict[str, Any]]:
    return [sampler.model_dump() for sampler in settings.samplers]


async def artifacts(key: str, since: datetime) -> list[str]:
    """What was written under a key, each version. Other tests write under it too."""
    from prefect.client.orchestration import get_client
    from prefect.client.schemas.filters import ArtifactFilter, ArtifactFilterKey
    from prefect.client.schemas.sorting import ArtifactSort

    own = ArtifactFilter(key=ArtifactFilterKey(any_=[key]))
    async with get_client() as client:
        found = await client.read_artifacts(artifact_filter=own, sort=ArtifactSort.CREATED_DESC, limit=10)
    return [str(each.data) for each in found if each.created is not None and each.created >= since]


async def test_prompts_become_a_dataset_and_a_second_run_asks_nothing(tmp_path: Path, prompt_file: Path):
    began = datetime.now(UTC)
    with fake_model(answer) as fake:
        settings = recipe(fake.url, prompt_file)
        first = await build_preferences(settings, tmp_path)
        assert kinds(fake.asked) == (24, 24)
        fake.asked.clear()
        second = await build_preferences(settings, tmp_path)
        assert not fake.asked
    assert first["dataset"]["digest"] == second["dataset"]["digest"]
    assert sum(first["dataset"]["pairs"].values()) + sum(first["dataset"]["dropped"].values()) == 12
    assert first["stages"]["judge"]["rows"] == 48, "rules and rating of 24 answers"
    summary = json.loads((tmp_path / "flowtest/summary.json").read_text())
    assert summary["asked_this_run"] == {"generate and judge": 0}
    assert summary["endpoints"]["generate and judge"]["fake"]["requests"] == 48, (
        "of the last run that asked anything"
    )

    tables = await artifacts("endpoints", began)
    assert len(tables) == 1, "one, written over"
    assert {row["model"] for table in tables for row in json.loads(table)} == {"fake"}

    import datasets

    found = datasets.load_dataset(str(tmp_path / "flowtest/dataset"), cache_dir=str(tmp_path / "cache"))
    row = found["train_prefs"][0]
    assert row["chosen"][0]["content"] == row["prompt"]
    assert row["score_chosen"] > row["score_rejected"]


async def test_what_ended_its_server_is_left_out_until_it_is_asked_for(
    tmp_path: Path, prompt_file: Path, monkeypatch: pytest.MonkeyPatch
):
    ask = Lane.ask

    async def dies(lane: Lane, request: Request, priority: int = 0) -> Any:
        if "number 5 " in request.messages[-1]["content"]:
            raise RequestFailed("quarantined", "the server died 2 times")
        return await ask(lane, request, priority)

    with fake_model(answer) as fake:
        settings = recipe(fake.url, prompt_file, max_failed=0.5)
        monkeypatch.setattr(Lane, "ask", dies)
        first = await build_preferences(settings, tmp_path)
        assert first["stages"]["generate"]["dropped"] == {"quarantined": 2}
        monkeypatch.undo()
        fake.asked.clear()
        await judge_responses(settings, tmp_path)
        assert not fake.asked, "not by itself"
        again = await judge_responses(settings, tmp_path, retry_failed=True)
    assert kinds(fake.asked) == (2, 2)
    assert not again["stages"]["generate"]["dropped"]


async def test_a_spent_budget_stops_the_run_with_all_kept_and_the_way_on(tmp_path: Path, prompt_file: Path):
    with fake_model(answer) as fake:
        with pytest.raises(BudgetSpent, match=r"40 of 40 calls are spent.*--set budget\.calls=80"):
            await build_preferences(recipe(fake.url, prompt_file, budget={"calls": 40}), tmp_path)
        assert len(fake.asked) == 40
        some = recipe(fake.url, prompt_file, budget={"calls": 40, "partial": True})
        partial = await build_preferences(some, tmp_path)
        assert len(fake.asked) == 40
        assert sum(partial["dataset"]["pairs"].values()) > 0
        whole = await build_preferences(recipe(fake.url, prompt_file, budget={"calls": 60}), tmp_path)
        assert len(fake.asked) == 48, "nothing is paid for twice"
        unbound = await build_preferences(recipe(fake.url, prompt_file), tmp_path / "other")
    assert whole["budget"]["calls"] == 48
    assert whole["dataset"]["digest"] == unbound["dataset"]["digest"]


async def test_shards_and_order_change_no_pair(tmp_path: Path, prompt_file: Path):
    with fake_model(answer) as fake:
        one = await build_preferences(recipe(fake.url, prompt_file), tmp_path / "a")
        two = await build_preferences(
            recipe(fake.url, prompt_file, shard_size=3, shards_in_flight=1), tmp_path / "b"
        )
    assert one["dataset"]["digest"] == two["dataset"]["digest"]


async def test_a_new_model_is_the_only_one_asked(tmp_path: Path, prompt_file: Path):
    with fake_model(answer) as fake:
        settings = recipe(fake.url, prompt_file)
        await build_preferences(settings, tmp_path)
        fake.asked.clear()
        await build_preferences(
            recipe(fake.url, prompt_file, samplers=[*samplers(settings), SAMPLER]), tmp_path
        )
    assert kinds(fake.asked) == (12, 12)
    assert {body["temperature"] for body in fake.asked if not is_judging(body)} == {0.7}


@pytest.mark.parametrize("change", ["aspect", "wording"])
async def test_a_new_judge_prompt_asks_no_generator(tmp_path: Path, prompt_file: Path, change: str):
    judge: dict[str, Any] = {"kind": "rating", "model": "fake"}
    ours, own = Path("prompts/judges/rating.md").read_text(), tmp_path / "own.md"
    own.write_text(ours.replace("You grade", "Be strict. You grade"))
    new = {"aspects": ["honesty"]} if change == "aspect" else {"prompt": str(own)}
    with fake_model(answer) as fake:
        await build_preferences(recipe(fake.url, prompt_file, judge=judge), tmp_path)
        fake.asked.clear()
        await build_preferences(recipe(fake.url, prompt_file, judge=judge | new), tmp_path)
    assert kinds(fake.asked) == (0, 24)


async def test_a_new_policy_asks_nothing_at_all(tmp_path: Path, prompt_file: Path):
    with fake_model(answer) as fake:
        await build_preferences(recipe(fake.url, prompt_file), tmp_path)
        fake.asked.clear()
        result = await build_preferences(
            recipe(fake.url, prompt_file, pairs={"policy": "all_pairs"}), tmp_path
        )
    assert not fake.asked
    assert sum(result["dataset"]["pairs"].values()) > 0


async def test_new_prompts_are_the_only_ones_asked(tmp_path: Path):
    file = write_prompts(tmp_path / "p.jsonl", 7)
    with fake_model(answer) as fake:
        await build_preferences(recipe(fake.url, file), tmp_path)
        fake.asked.clear()
        write_prompts(file, 9, first=2)
        result = await build_preferences(recipe(fake.url, file), tmp_path)
    assert kinds(fake.asked) == (8, 8), "4 new prompts, 2 samplers"
    assert result["prompts"]["rows"] == 9


async def test_faults_lose_no_row_and_double_none(tmp_path: Path, prompt_file: Path):
    seen: dict[str, int] = {}

    def faulty(body: Body) -> Reply:
        key = json.dumps([body["messages"], body["temperature"], is_judging(body)])
        seen[key] = seen.get(key, 0) + 1
        if seen[key] == 1 and luck("fault", key) < 0.3:
            return [Fault(500), Fault(429, headers={"retry-after": "0"}), Fault(close=True)][
                int(luck("kind", key) * 3)
            ]
        return answer(body)

    with fake_model(answer) as fake:
        clean = await build_preferences(recipe(fake.url, prompt_file), tmp_path / "clean")
    with fake_model(faulty) as fake:
        result = await build_preferences(recipe(fake.url, prompt_file), tmp_path / "faulty")
    assert result["dataset"]["digest"] == clean["dataset"]["digest"]


async def test_a_judgement_that_cannot_be_read_is_no_number(tmp_path: Path, prompt_file: Path):
    def mumbling(body: Body) -> Reply:
        if is_judging(body) and luck("mumble", body["messages"]) < 0.3:
            return Answer("Well", logprobs={"Well": -0.1, "I": -3.0})
        return answer(body)

    with fake_model(mumbling) as fake:
        settings = recipe(fake.url, prompt_file, max_unjudged=0.5)
        result = await build_preferences(settings, tmp_path)
    statuses = result["preflight"]["judgements"]
    off = sum(counts.get("off_scale", 0) for counts in statuses.values())
    assert off > 0
    assert result["dataset"]["dropped"].get("unjudged", 0) > 0
    run = Run.at(settings, tmp_path)
    for folder in (run.folder / "judgements").glob("*/*.parquet"):
        import pandas

        for answers in pandas.read_parquet(folder)["answers"]:
            for judgement in answers:
                scored = judgement["score"] is not None and judgement["score"] == judgement["score"]
                assert scored == (judgement["status"] == "ok")


async def test_too_many_failures_stop_the_run_with_its_answers_kept(tmp_path: Path, prompt_file: Path):
    def refusing(body: Body) -> Reply:
        return Fault(400) if luck("refuse", body["messages"]) < 0.5 and not is_judging(body) else answer(body)

    with fake_model(refusing) as fake:
        with pytest.raises(
            StageFailed, match=r"sampler cool: \d+ of 12 rows failed \(\d+ rejected_request\)"
        ):
            await generate_responses(recipe(fake.url, prompt_file), tmp_path)
        answered = [body for body in fake.asked if luck("refuse", body["messages"]) >= 0.5]
        fake.asked.clear()
        await build_preferences(recipe(fake.url, prompt_file, max_failed=1.0), tmp_path)
        assert not [body for body in fake.asked if not is_judging(body)], (
            "a refused request is not asked again"
        )
    assert answered


async def test_an_edited_shard_is_one_clear_error(tmp_path: Path, prompt_file: Path):
    with fake_model(answer) as fake:
        settings = recipe(fake.url, prompt_file)
        await build_preferences(settings, tmp_path)
        shard = next((tmp_path / "flowtest/completions").glob("*/00000.parquet"))
        shard.write_bytes(shard.read_bytes() + b" ")
        with pytest.raises(StoreError, match=r"00000\.parquet is gone or was edited"):
            await build_preferences(settings, tmp_path)


async def test_an_unreachable_endpoint_is_named_before_anything_is_asked(tmp_path: Path, prompt_file: Path):
    with fake_model(answer) as fake:
        models = {
            "fake": {"kind": "endpoint", "model": "fake", "base_url": fake.url, "dialect": "vllm"},
            "gone": {"kind": "endpoint", "model": "m", "base_url": "http://127.0.0.1:9/v1"},
        }
        judge = {"kind": "rating", "model": "gone"}
        with pytest.raises(
            WrongModel, match=r"models\.gone\.base_url: cannot reach http://127\.0\.0\.1:9/v1"
        ):
            await build_preferences(recipe(fake.url, prompt_file, models=models, judge=judge), tmp_path)
    assert not fake.asked


async def test_equal_answers_make_no_dataset_and_say_so(tmp_path: Path, prompt_file: Path):
    def same(body: Body) -> Reply:
        return answer(body) if is_judging(body) else "the same words."

    with fake_model(same) as fake:
        settings = recipe(fake.url, prompt_file)
        with pytest.raises(DatasetError, match="0 train pairs"):
            await build_preferences(settings, tmp_path)


async def test_one_record_is_shown_at_every_stage(tmp_path: Path, prompt_file: Path):
    with fake_model(answer) as fake:
        settings = recipe(fake.url, prompt_file)
        await build_preferences(settings, tmp_path)
        fake.asked.clear()
        record = show(Run.at(settings, tmp_path), None)
        assert not fake.asked
    text = show_text(record)
    assert record["prompt"]["id"] in text
    assert "the judge was asked:" in text
    assert "pair: chosen" in text
    judged = record["completions"][0]["judgements"]
    assert {judgement["judge"] for judgement in judged} == {"rules", "rating"}
    assert record["completions"][0]["text"] in next(j["prompt"] for j in judged if j["judge"] == "rating")


async def test_judgements_go_where_the_store_is(
    tmp_path: Path, prompt_file: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("ZEPHYR_CACHE", str(tmp_path / "cache"))
    with fake_model(answer) as fake:
        settings = recipe(fake.url, prompt_file)
        far = await build_preferences(settings, tmp_path / "far", "memory://bucket/zephyr")
        near = await build_preferences(settings, tmp_path / "near")
    assert far["dataset"]["digest"] == near["dataset"]["digest"]
    assert not list((tmp_path / "far").rglob("completions"))
