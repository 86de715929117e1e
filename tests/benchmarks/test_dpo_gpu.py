"""The benchmark for one GPU: its figures are what they are called, and it runs in small on a CPU."""

import argparse
import json
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks import dpo_gpu
from benchmarks.dpo_workload import lengths, operations, shape

ROOT = Path(__file__).parents[2]


def test_lengths_are_those_of_ultrafeedbacks_paper_but_for_the_cut():
    made = lengths(20_000, 1)
    prompts, chosen, rejected = (sum(sizes[i] for sizes in made) / len(made) for i in range(3))
    assert prompts == pytest.approx(185.1, rel=0.06)
    assert (chosen + rejected) / 2 == pytest.approx(305.3, rel=0.08)
    assert max(p + max(c, r) for p, c, r in made) <= 1024


def test_operations_are_two_per_weight_and_token_forward_and_as_many_back():
    config = shape(small=False)
    rows = [{"prompt_ids": [0] * 100, "chosen_ids": [0] * 200, "rejected_ids": [0] * 300}]
    blocks, head = 6_979_321_856, 131_072_000
    forward = 2 * blocks * 600 + 2 * head * 500
    attention = 4 * 32 * 4096 * (100 * 50 + 200 * 200 + 300 * 250)
    assert operations(config, rows, lora=True) == pytest.approx(2 * (forward + attention))
    assert operations(config, rows, lora=False) == pytest.approx(3 * (forward + attention))


def test_what_was_wanted_is_reached_or_not_and_a_run_that_failed_says_nothing():
    one = {"pairs_per_s": 2.0, "tflops": 30.0, "peak_gb": 25.0, "logps": [[-10.0, -20.0], [-5.0, -8.0]]}
    ours = one | {"pairs_per_s": 21.0, "logps": [[-10.01, -20.0], [-5.0, -8.0]]}
    full = one | {"pairs_per_s": 12.5, "peak_gb": 61.0}
    runs = {"lora: trl": one, "lora: ours": ours, "all weights: trl": {"error": "out of memory"}}
    found = dpo_gpu.judged(runs | {"all weights: ours": full}, peak=600e12)
    assert found["lora: ours"]["times_trl"] == 10.5
    assert found["lora: ours"]["logps_apart"] == pytest.approx(1e-3)
    assert found["lora: ours"]["of_ceiling"] == pytest.approx(0.05)
    assert found["all weights: trl"] == {"error": "out of memory"}
    assert found["all weights: ours"]["times_trl"] is None
    assert dpo_gpu.reached(found) == {
        "lora: pairs_per_s >= 20": True,
        "lora: times_trl >= 10": True,
        "all weights: pairs_per_s >= 12": True,
        "all weights: peak_gb <= 60": False,
    }
    assert set(dpo_gpu.reached({}).values()) == {None}


@pytest.mark.parametrize("what", ["lora", "all weights"])
def test_ours_runs_in_small_with_trls_log_probabilities(what: str):
    asked = argparse.Namespace(batch=4, steps=3, tokens=300, small=True)
    ours, theirs = (dpo_gpu.run(way, what, asked) for way in ("ours", "trl"))
    for own, other in zip(ours["logps"], theirs["logps"], strict=True):
        assert own == pytest.approx(other, rel=1e-5)
    assert ours["losses"][0] == pytest.approx(0.693147, abs=1e-5) == theirs["losses"][0]
    assert ours["not_shared"] is None and ours["attention"] == {"kernel": "spans", "refused": {}}
    assert ours["pairs_per_s"] > 0 and ours["moved"] > 0.8


@pytest.mark.long
def test_the_command_ends_with_its_figures():
    command = [sys.executable, "-m", "benchmarks.dpo_gpu", "--small", "--batch", "4", "--steps", "3"]
    ended = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=600)
    assert ended.returncode == 0, ended.stderr[-2000:]
    metrics = json.loads(ended.stdout.splitlines()[-1])["metrics"]
    for what in dpo_gpu.WHATS:
        for way in dpo_gpu.WAYS:
            assert metrics[f"{what}: {way}"]["logps_apart"] < 1e-4
            assert metrics[f"{what}: {way}"]["times_trl"] > 0
