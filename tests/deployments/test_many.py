"""10 000 prompts and four models in child runs on two workers, one of which is killed twice."""

import os
import threading
import time
from collections import Counter
from contextlib import suppress
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from benchmarks.simulator import simulator
from tests.deployments.place import Place, processes_with, wait_for
from tests.deployments.recipes import asked_of

pytestmark = [pytest.mark.deployments, pytest.mark.timeout(2400)]

PROMPTS = int(os.environ.get("PROMPTS", "10000"))
SHARDS = -(-PROMPTS // 500)


def sealed(out: Path) -> int:
    return len(list((out / "many").glob("*/*/[0-9]*.parquet")))


def resident(id: str) -> int:
    """MiB of the process of a flow run; 0 where there is none."""
    sizes = [0]
    for pid in processes_with(f"PREFECT__FLOW_RUN_ID={id}"):
        with suppress(OSError, StopIteration):
            lines = Path(f"/proc/{pid}/status").read_text().splitlines()
            sizes.append(next(int(line.split()[1]) // 1024 for line in lines if line.startswith("VmRSS")))
    return max(sizes)


def test_no_row_is_lost_or_doubled_when_a_worker_is_killed_twice(here: Place, out: Path, tmp_path: Path):
    with simulator(speed=100, mean=60) as model:
        here.worker("zephyr-cpu", "conductor", limit=1)
        here.worker("zephyr-gpu", "left", limit=1)
        here.worker("zephyr-gpu", "right-0", limit=1)
        elsewhere = {"answers": "answer-shards/gpu", "shards": 2, "at_once": 6, "attempts": 4}
        recipe = asked_of(model.url, tmp_path, "many", PROMPTS)
        run = here.submit(
            "build-preferences/local", {"recipe": recipe, "out": str(out), "elsewhere": elsewhere}
        )

        sizes: list[tuple[int, int]] = []
        watching = threading.Event()

        def watch() -> None:
            while not watching.wait(1):
                if size := resident(run):
                    sizes.append((sealed(out), size))

        threading.Thread(target=watch, daemon=True).start()
        for kill in range(2):
            wait_for(lambda kill=kill: sealed(out) >= SHARDS * (1 + 2 * kill), 900, f"kill {kill + 1}")
            here.kill(f"right-{kill}")
            time.sleep(5)
            here.worker("zephyr-gpu", f"right-{kill + 1}", limit=1)
        ended = here.wait(run, 1800)
        watching.set()
        assert ended["state_type"] == "COMPLETED", ended["state"]
        stats = model.stats()

    prompts = sum(pq.read_metadata(path).num_rows for path in (out / "many/prompts").glob("*/*.parquet"))
    assert prompts == PROMPTS
    for stage in sorted((out / "many/completions").iterdir()):
        keys = Counter(
            key
            for path in stage.glob("[0-9]*.parquet")
            for key in pq.read_table(path, columns=["key"])["key"].to_pylist()
        )
        assert len(keys) == PROMPTS and set(keys.values()) == {1}, "no row lost or doubled"
    task_runs = here.count_task_runs("many")
    lost = [each for each in here.api("/flow_runs/filter", {"limit": 200}) if each["state_type"] == "CRASHED"]
    asked = 8 * PROMPTS
    before = [size for done, size in sizes if done <= SHARDS * 3]
    after = [size for done, size in sizes if done > SHARDS * 3 and done <= SHARDS * 9]
    print(
        f"\ntask runs {task_runs}; children lost {len(lost)}; asked {stats.get('requests', '?')} of {asked}; parent "
        f"{max(before)} MiB in the first third, {max(after)} MiB later"
    )
    assert task_runs <= 200
    assert len(lost) >= 1, "killed in the middle of a range"
    assert max(after) - max(before) < 40, "the parent keeps no rows"
