"""Models that share GPUs: who is served with whom, how often each is started, and that nothing waits for ever."""

import asyncio
import random
from collections import Counter
from itertools import combinations

import pytest

from serving.errors import WrongModel
from serving.gpus import need_of, place_of
from serving.placement import GENERATE, JUDGE, Machine, Need, Part, Room, Schedule, schedule
from serving.settings import Vllm
from serving.turns import Turns

WHOLE, HALF, THIRD = Need(1, 73.6), Need(1, 36.0), Need(1, 24.0)
ONE, TWO = Machine(gpus=1), Machine(gpus=2)


def order(found: Schedule) -> list[set[str]]:
    return [{f"{stay.model} {'+'.join(stay.parts)}" for stay in gang} for gang in found.gangs]


def test_models_that_fit_beside_each_other_are_served_at_once():
    found = schedule({"a": HALF, "judge": HALF}, ONE, ["a"], ["judge"])
    assert order(found) == [{"a generate", "judge judge"}]
    assert not found.by_turns and found.switches == 0
    assert found.together("a", "judge")


def test_on_one_gpu_every_generator_has_its_turn_and_the_judge_is_last():
    found = schedule({"a": WHOLE, "judge": WHOLE, "b": WHOLE}, ONE, ["a", "b"], ["judge"])
    assert order(found) == [{"a generate"}, {"b generate"}, {"judge judge"}]
    assert found.switches == 2
    assert not found.together("a", "judge")
    assert found.together("a", "hosted"), "an endpoint takes no place and is always there"


def test_a_model_that_also_judges_answers_last_and_stays():
    found = schedule({"own": WHOLE, "b": WHOLE}, ONE, ["own", "b"], ["own"])
    assert order(found) == [{"b generate"}, {"own generate+judge"}]
    assert found.together("own", "own") and not found.together("b", "own")


def test_of_two_that_judge_each_other_one_comes_back():
    found = schedule({"x": WHOLE, "y": WHOLE}, ONE, ["x", "y"], ["x", "y"])
    assert [stay.parts for stay in found.stays] == [(GENERATE,), (GENERATE, JUDGE), (JUDGE,)]


def test_two_that_judge_each_other_are_served_together_where_they_fit():
    found = schedule({"big": WHOLE, "x": HALF, "y": HALF}, ONE, ["big", "x", "y"], ["x", "y"])
    assert order(found) == [{"big generate"}, {"x generate+judge", "y generate+judge"}]


def test_a_small_judge_stays_beside_generators_that_take_turns():
    found = schedule(
        {"a": HALF, "b": HALF, "judge": THIRD}, Machine(gpus=1, gpu_memory=64), ["a", "b"], ["judge"]
    )
    assert order(found) == [{"judge judge"}, {"a generate"}, {"b generate"}]
    assert found.together("a", "judge") and found.together("b", "judge")


def test_a_judge_does_not_keep_a_generator_waiting():
    needs = {"a": WHOLE, "b": WHOLE, "judge": WHOLE}
    assert order(schedule(needs, TWO, ["a", "b"], ["judge"])) == [
        {"a generate"},
        {"b generate"},
        {"judge judge"},
    ]


def test_a_judge_on_gpus_that_nobody_else_can_use_is_there_from_the_start():
    needs = {"a": Need(2, 70), "b": Need(2, 70), "judge": WHOLE}
    found = schedule(needs, Machine(gpus=3), ["a", "b"], ["judge"])
    assert order(found)[0] == {"judge judge"}


def test_a_model_without_room_is_named():
    with pytest.raises(
        WrongModel, match=r"models.large needs 4 GPUs with 73.6 GiB on each, the machine has 2 with 80"
    ):
        schedule({"large": Need(4, 73.6)}, TWO, ["large"], [])


def test_needs_are_read_from_vllms_own_flags():
    assert need_of(Vllm(model="m"), ONE) == WHOLE
    assert need_of(Vllm(model="m", args={"tensor_parallel_size": 2, "dp": 2}), ONE) == Need(4, 73.6)
    assert need_of(Vllm(model="m", args={"gpu-memory-utilization": 0.4}), ONE) == Need(1, 32)
    assert need_of(Vllm(model="m", gpu_memory=20), ONE) == Need(1, 20)
    with pytest.raises(ValueError, match="say the same"):
        Vllm(model="m", gpu_memory=20, args={"gpu-memory-utilization": 0.4})


def test_a_server_is_told_its_gpus_and_its_share(monkeypatch: pytest.MonkeyPatch):
    assert place_of(Need(1, 20), (1,), TWO) == (0.25, {"CUDA_VISIBLE_DEVICES": "1"})
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "4,6")
    assert place_of(Need(2, 20), (0, 1), TWO).env == {"CUDA_VISIBLE_DEVICES": "4,6"}


def drawn(seed: int) -> tuple[Machine, dict[str, Need], list[str], list[str]]:
    """A machine and models for it, each of which fits alone; some answer, some judge, some do both."""
    dice = random.Random(seed)
    machine = Machine(gpus=dice.choice([1, 1, 2, 3, 4, 8]), gpu_memory=80)
    needs = {
        f"m{i}": Need(
            dice.choice([n for n in (1, 1, 1, 2, 4, 8) if n <= machine.gpus]),
            dice.choice([16.0, 24.0, 32.0, 40.0, 56.0, 73.6, 80.0]),
        )
        for i in range(dice.randint(1, 7))
    }
    roles = {name: dice.choice(["answer", "answer", "judge", "both"]) for name in needs}
    generators = [name for name, role in roles.items() if role != "judge"]
    judges = [name for name, role in roles.items() if role != "answer"]
    return machine, needs, generators, judges


async def carry_out(
    machine: Machine, needs: dict[str, Need], generators: list[str], judges: list[str], seed: int
):
    """A run in which everything takes a random while; returns how often each model was started, and the schedule."""
    dice, starts, used = random.Random(seed), Counter[str](), [0.0] * machine.gpus
    up: dict[str, tuple[int, ...]] = {}

    async def leave(model: str, again: bool) -> None:
        await asyncio.sleep(0)
        for gpu in up.pop(model, ()):
            used[gpu] -= needs[model].memory

    turns = Turns(needs, machine, leave)
    found = await turns.begin(generators, judges)
    written = {name: asyncio.Event() for name in generators}

    def start(model: str) -> None:
        if model in up:
            return
        starts[model] += 1
        up[model] = turns.gpus[model]
        assert len(up[model]) == needs[model].gpus
        for gpu in up[model]:
            used[gpu] += needs[model].memory
            assert used[gpu] <= machine.gpu_memory + 1e-6, f"too much on GPU {gpu}"

    async def work(model: str, part: Part, there: bool) -> None:
        await turns.wait(model, part)
        if part == JUDGE:  # at its end a judge has read what every model wrote
            for event in written.values():
                await event.wait()
        if not there:
            start(model)
        for _ in range(dice.randint(0, 5)):
            await asyncio.sleep(0)
            assert there or model in up, "it was ended while it worked"
        if part == GENERATE:
            written[model].set()
        await turns.finished(model, part)

    everything_there = dice.random() < 0.1
    roles: list[tuple[Part, list[str]]] = [(GENERATE, generators), (JUDGE, judges)]
    jobs: list[tuple[str, Part]] = [(name, part) for part, names in roles for name in names]
    dice.shuffle(jobs)
    there = [everything_there or dice.random() < 0.2 * (seed % 2) for _ in jobs]
    tasks = [work(name, part, done) for (name, part), done in zip(jobs, there, strict=True)]
    await asyncio.wait_for(asyncio.gather(*tasks), 20)
    await turns.close()
    return starts, found, there


@pytest.mark.parametrize("block", range(10))
async def test_no_configuration_waits_for_ever_overlaps_or_starts_a_model_needlessly(block: int):
    for seed in range(block * 100, block * 100 + 100):
        machine, needs, generators, judges = drawn(seed)
        starts, found, there = await carry_out(machine, needs, generators, judges, seed)
        if not any(there):
            assert sum(starts.values()) == len(found.stays), seed
        assert sum(starts.values()) <= len(found.stays), seed
        assert len(found.stays) == fewest(machine, needs, generators, judges), seed
        assert {stay.model for stay in found.stays} == {*generators, *judges}


def fewest(machine: Machine, needs: dict[str, Need], generators: list[str], judges: list[str]) -> int:
    """Starts that any order needs: all models once, and again those that answer and judge and are not served at the
    moment the last answer is written; those that are have room together."""
    both = [name for name in generators if name in judges]
    most = max(
        n
        for n in range(len(both) + 1)
        for some in combinations(both, n)
        if Room(machine).take({name: needs[name] for name in some}) is not None
    )
    return len(needs) + len(both) - most
