"""The simulated server is one a client cannot tell from vLLM, and its arithmetic can be checked by hand."""

import asyncio
import json
import re
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

import pytest

from benchmarks.batching import Batch, Job, Machine, blocks_of
from benchmarks.replies import conform, planted
from benchmarks.simulator import Simulated, simulator
from serving.chat import Request
from serving.client import PlainTransport, Retry

FAST = 200


def ask(text: str, **changes: Any) -> Request:
    fields: dict[str, Any] = {"temperature": 1.0, "top_p": 1.0, "max_tokens": 512, "seed": 1} | changes
    return Request(({"role": "user", "content": text},), **fields)


def transport_to(model: Simulated, timeout: float = 20) -> PlainTransport:
    return PlainTransport(model.url, "m", "vllm", None, timeout, 64)


def get(model: Simulated, path: str) -> str:
    with urllib.request.urlopen(model.url.removesuffix("/v1") + path) as reply:
        return reply.read().decode()


def run_to_the_end(batch: Batch) -> float:
    ended = 0.0
    while (end := batch.next_end()) is not None:
        ended = end
        batch.advance(end)
    return ended


def test_two_sequences_together_on_numbers_worked_by_hand():
    """Steps of 10 ms + 1 ms per sequence: 100 steps with two running (12 ms), then 100 with one (11 ms): 2.3 s."""
    batch = Batch(Machine(a=10, b=1, prefill=1000, slots=2))
    batch.add(Job(0, [100]), 0.0)
    batch.add(Job(0, [200]), 0.0)
    assert run_to_the_end(batch) == pytest.approx(2.3)
    assert batch.counts.area == pytest.approx(2 * 1.2 + 1.1)


def test_a_third_sequence_waits_for_a_slot_and_prefill_stalls_all():
    """One slot, 10 ms steps: 0.5 s prefill + 1 s, then 0.5 s prefill + 1 s."""
    batch = Batch(Machine(a=10, b=0, prefill=1000, slots=1))
    batch.add(Job(500, [100]), 0.0)
    batch.add(Job(500, [100]), 0.0)
    assert len(batch.waiting) == 1
    assert run_to_the_end(batch) == pytest.approx(3.0)


def test_a_request_nobody_waits_for_any_more_makes_room():
    batch = Batch(Machine(a=10, b=0, slots=1))
    long, short = Job(0, [1000]), Job(0, [10])
    batch.add(long, 0.0)
    batch.add(short, 0.0)
    assert batch.drop(long, 1.0) == []
    assert run_to_the_end(batch) == pytest.approx(1.1)
    assert batch.counts.requests == 1


async def test_closing_the_connection_stops_the_answer():
    with simulator(speed=1, slots=1) as model:
        gone, patient = transport_to(model, timeout=0.3), transport_to(model)
        with pytest.raises(Retry, match="timeout"):
            await gone.ask(ask("hello", seed=2))
        reply = await patient.ask(ask("hello again", max_tokens=4))
        assert reply.choices
        stats = model.stats()
        await gone.close()
        await patient.close()
    assert (stats["requests"], stats["running"]) == (1, 0)


def test_a_prompt_that_begins_like_another_is_read_from_there_on():
    batch = Batch(Machine(a=10, b=0, prefill=1000, slots=8))
    shared, own = "x" * 640, "y" * 640
    for text in (shared + own, shared + own[::-1] + "z"):
        batch.add(Job(320, [1], blocks_of(text)), 0.0)
    assert batch.counts.cache_hits == 320, "the second repeats it all but its last letter"
    batch.add(Job(320, [1], blocks_of(shared + "w" * 640)), 0.0)
    assert batch.counts.cache_hits == 320 + 160


async def test_the_same_request_is_answered_alike_and_another_seed_is_not():
    with simulator(speed=FAST) as model:
        transport = transport_to(model)
        first, same, other = [
            (await transport.ask(ask("hello", seed=seed))).choices[0].text for seed in (1, 1, 2)
        ]
        await transport.close()
    assert first == same != other


async def test_a_grade_is_the_quality_that_was_planted():
    with simulator(speed=FAST) as model:
        transport = transport_to(model)
        grading = ask("Grade this.\nq750 some text", max_tokens=1, top_logprobs=20)
        (choice,) = (await transport.ask(grading)).choices
        await transport.close()
    weights = {t: 2.718281828**p for t, p in choice.tokens[0].alternatives.items() if t.isdigit()}
    mean = sum(int(label) * weight for label, weight in weights.items()) / sum(weights.values())
    assert mean == pytest.approx(1 + 4 * 0.75, abs=0.01)


async def test_an_answer_carries_its_quality_and_n_answers_differ():
    with simulator(speed=FAST) as model:
        transport = transport_to(model)
        reply = await transport.ask(ask("hello", n=3))
        await transport.close()
    assert len({choice.text for choice in reply.choices}) == 3
    assert all(len(planted(choice.text)) == 1 for choice in reply.choices)


async def test_choices_are_kept_to():
    with simulator(speed=FAST) as model:
        transport = transport_to(model)
        reply = await transport.ask(ask("q999", choices=("1", "2", "3"), max_tokens=4))
        await transport.close()
    assert reply.choices[0].text == "3"


def test_json_answers_validate_and_carry_the_grades_in_order():
    rating = {
        "type": "object",
        "properties": {"why": {"type": "string"}, "rating": {"enum": [1, 2, 3, 4, 5]}},
    }
    schema = {"$defs": {"R": rating}, "type": "array", "minItems": 2, "items": {"$ref": "#/$defs/R"}}
    found = conform(schema, schema, iter([0.99, 0.0]))
    assert [one["rating"] for one in found] == [5, 1]
    assert all(isinstance(one["why"], str) for one in found)


async def test_counters_and_usage_are_vllms():
    with simulator(speed=FAST) as model:
        transport = transport_to(model)
        await transport.ask(ask("x" * 6400))
        again = await transport.ask(ask("x" * 6400, seed=2))
        await transport.close()
        metrics = get(model, "/metrics")
        assert json.loads(get(model, "/v1/models"))["data"][0]["max_model_len"] > 0
        assert get(model, "/health") == ""
    assert again.usage.cached_tokens > 1500
    found = dict(re.findall(r"^vllm:(\w+)\{[^}]*\} (\S+)$", metrics, re.MULTILINE))
    assert float(found["num_requests_running"]) == 0
    assert float(found["prompt_tokens_total"]) == 2 * again.usage.prompt_tokens
    assert float(found["prefix_cache_hits_total"]) == again.usage.cached_tokens


@pytest.mark.parametrize(
    ("kind", "cause"),
    [
        ("429", "429"),
        ("503", "503"),
        ("500", "500"),
        ("reset", "connection"),
        ("hang", "timeout"),
        ("cut", "malformed"),
        ("empty", "malformed"),
        ("malformed", "malformed"),
        ("abort", "abort"),
    ],
)
async def test_every_fault_is_one_a_client_asks_again_after(kind: str, cause: str):
    with simulator(speed=FAST, faults=1.0, kinds=[kind]) as model:
        transport = transport_to(model, timeout=0.5)
        with pytest.raises(Retry) as why:
            await transport.ask(ask("hello"))
        await transport.close()
        assert model.stats()["faults"] == {kind: 1}
    assert why.value.cause == cause


def test_two_servers_on_one_gpu_are_an_error(tmp_path: Path):
    with (
        simulator(gpu=tmp_path / "gpu0") as model,
        pytest.raises(RuntimeError, match="OutOfMemoryError"),
        simulator(gpu=tmp_path / "gpu0"),
    ):
        pass
    assert model.process.returncode == 0


def test_servers_that_fit_beside_each_other_share_a_gpu_and_a_sleeping_one_takes_none(tmp_path: Path):
    half = {"gpu": tmp_path / "gpu0", "share": 0.5}
    with simulator(**half) as first, simulator(**half):
        with (
            pytest.raises(RuntimeError, match="1 % wanted, 0 % free"),
            simulator(gpu=tmp_path / "gpu0", share=0.01),
        ):
            pass
        get(first, "/sleep?level=1&mode=wait")
        with simulator(**half):
            pass
        get(first, "/wake_up")
        with pytest.raises(RuntimeError, match="OutOfMemoryError"), simulator(**half):
            pass


async def test_more_requests_than_slots_are_served_in_turn_and_starvation_is_seen():
    with simulator(speed=FAST, slots=4) as model:
        transport = transport_to(model)
        await asyncio.gather(*(transport.ask(ask(f"question {i}")) for i in range(40)))
        crowded = model.stats()
        model.reset()
        for i in range(10):
            await transport.ask(ask(f"alone {i}"))
        await transport.close()
        alone = model.stats()
    assert crowded["requests"] == 40
    assert crowded["utilisation"] > 0.7
    assert alone["starved"] > 0.9


def test_an_unknown_route_is_refused():
    with simulator() as model, pytest.raises(urllib.error.HTTPError, match="404"):
        get(model, "/nowhere")
