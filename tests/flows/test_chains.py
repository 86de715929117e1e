"""Calls that begin alike follow each other, and only so many chains are under way at a time."""

import asyncio
from pathlib import Path

from benchmarks.prefix import unique
from flows.preferences import judge_responses
from flows.stage import Chains, follow
from judges import Rating
from records.store import Row, Stage
from serving.settings import Endpoint, LlamaCpp, Vllm
from tests.fake_model import Body, fake_model
from tests.flows.fakes import answer, is_judging, recipe


async def test_a_chain_is_asked_in_turn_and_chains_run_beside_each_other(tmp_path: Path):
    running: list[str] = []
    most, order = 0, []

    async def step(key: str) -> Row:
        nonlocal most
        running.append(key)
        most = max(most, len(running))
        assert len({one[0] for one in running}) == len(running), "one of each chain"
        order.append(key)
        await asyncio.sleep(0.01)
        running.remove(key)
        return Row(key, [])

    async def arriving(name: str) -> list[str]:
        return [f"{name}{i}" for i in range(3)]

    shard = Stage(tmp_path, "judgements", {}).open(0)
    chains = Chains(LlamaCpp(model="m", slots=2))
    receipt = await follow(
        shard, map(arriving, "abcd"), step, lambda *_, **__: None, lambda key: chains.of(key[0])
    )
    assert (receipt.rows, most) == (12, 2)
    assert order.index("a2") < order.index("c0"), "a chain that was begun is finished first"


async def test_chains_of_one_prompt_keep_its_place_until_all_had_their_turn():
    chains, order = Chains(LlamaCpp(model="m", slots=1)), []

    async def one(prompt: str, who: int) -> None:
        async with chains.of(prompt):
            await asyncio.sleep(0)
            order.append(f"{prompt}{who}")

    waiting = [asyncio.create_task(one(prompt, who)) for who in range(3) for prompt in "ab"]
    gone = asyncio.create_task(one("c", 0))
    await asyncio.sleep(0)
    gone.cancel()
    await asyncio.gather(*waiting, gone, return_exceptions=True)
    assert order == ["a0", "a1", "a2", "b0", "b1", "b2"]
    await asyncio.wait_for(one("d", 0), 1)


async def test_aspects_of_an_answer_are_asked_one_after_the_other(tmp_path: Path, prompt_file: Path):
    under_way: list[str] = []
    clash = []

    def slowly(body: Body) -> object:
        if not is_judging(body):
            return answer(body)
        import time

        begun = body["messages"][-1]["content"].rpartition("### Grade")[0]
        clash.extend([begun] if begun in under_way else [])
        under_way.append(begun)
        time.sleep(0.02)
        under_way.remove(begun)
        return answer(body)

    judge = {"kind": "rating", "model": "fake", "aspects": ["honesty", "helpfulness", "truthfulness"]}
    with fake_model(slowly) as fake:  # type: ignore[arg-type]
        await judge_responses(recipe(fake.url, prompt_file, judge=judge), tmp_path)
        assert sum(map(is_judging, fake.asked)) == 12 * 2 * 3
    assert not clash


def test_llamacpp_has_a_chain_for_each_slot_and_a_server_no_more_than_keep_it_busy():
    assert Chains(LlamaCpp(model="m", slots=3)).limit == 3
    assert Chains(Endpoint(model="m", base_url="http://x", max_in_flight=7)).limit == 7
    assert Chains(Vllm(model="m")).limit == 256
    assert Rating(model="m").alike and not Rating(model="m", grade="full").alike


def test_unique_tokens_are_those_of_the_tree_of_prompts():
    assert unique(["abcd", "abce", "abce", "xy"]) == 4 + 1 + 0 + 2
    assert unique([]) == 0 and unique(["ab", "abc"]) == 3
