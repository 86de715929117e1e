"""Every planted defect has its name, and a good job has none."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from pydantic import TypeAdapter

from tests.trainers.conftest import CHATML, TOPICS, pair, said
from trainers.doctor import Examined, examine
from trainers.job import Job

GOOD = {"batch": 8, "micro_batch": 4, "max_length": 128, "epochs": 6, "learning_rate": 5e-7, "beta": 0.1}


@pytest.fixture
def examined(job: Callable[..., Any], tmp_path: Path) -> Callable[..., Examined]:
    """What the doctor says of 40 good pairs and 8 held out, after `rows` and `held_out` were changed."""

    def run(
        plant: Callable[[list[Any]], None] | None = None, held_out: list[Any] | None = None, **fields: Any
    ) -> Examined:
        settings = GOOD | fields.pop("settings", {})
        asked = job(settings=settings, **fields)
        rows = [pair(i) for i in range(40)]
        if plant is not None:
            plant(rows)
        for name, some in (("train", rows), ("eval", held_out or [pair(i) for i in range(50, 58)])):
            pq.write_table(pa.Table.from_pylist(some), asked[name]["files"][0])
        return examine(TypeAdapter(Job).validate_python(asked))

    return run


def names(found: Examined) -> set[str]:
    return {finding.what for finding in found.findings}


def balanced(rows: list[Any]) -> None:
    """Chosen and rejected change places in every second row, so that none is longer as a rule."""
    for i, row in enumerate(rows):
        row["chosen"] = [said("assistant", f"{TOPICS[i % 8]} is good{' and warm' * (2 + i % 3)}.")]
        row["rejected"] = [said("assistant", f"I do not know {TOPICS[i % 8]}{', no' * (i % 12)}.")]


def test_a_good_job_has_no_finding_and_a_cost(examined: Callable[..., Examined]):
    found = examined(balanced)
    assert found.findings == () and found.cost is not None
    assert found.cost.steps == 30 and found.cost.rows == 40
    assert found.cost.parameters == 32 * 400 + 2 * (32 * 32 * 2 + 32 * 16 * 2 + 3 * 32 * 64 + 64) + 32
    assert found.cost.memory_gb == pytest.approx(sum(found.cost.memory_parts_gb.values()), abs=0.01)


def same(rows: list[Any]) -> None:
    rows[3]["rejected"] = rows[3]["chosen"]


def same_once_cut(rows: list[Any]) -> None:
    start = "tea " * 300
    rows[3]["chosen"], rows[3]["rejected"] = (
        [said("assistant", start + "a")],
        [said("assistant", start + "b")],
    )


def empty(rows: list[Any]) -> None:
    rows[3]["chosen"] = [said("assistant", " ")]


def unanswered(rows: list[Any]) -> None:
    rows[3]["chosen"] = [said("user", "And then?")]


def long_prompt(rows: list[Any]) -> None:
    rows[3]["prompt"] = [said("user", "tea and rain " * 80)]


def long_answer(rows: list[Any]) -> None:
    rows[3]["chosen"] = [said("assistant", "tea and rain " * 80)]


def twice(rows: list[Any]) -> None:
    rows[3] = rows[4]


def both_ways(rows: list[Any]) -> None:
    rows[3] = {**rows[4], "chosen": rows[4]["rejected"], "rejected": rows[4]["chosen"]}


def longer(rows: list[Any]) -> None:
    for i, row in enumerate(rows):
        row["chosen"] = [said("assistant", f"It is {'very ' * (i % 5 + 9)}good.")]


@pytest.mark.parametrize(
    "plant, what, level",
    [
        (same, "identical", "warning"),
        (same_once_cut, "identical_after_truncation", "warning"),
        (empty, "empty_answer", "warning"),
        (unanswered, "no_answer", "warning"),
        (long_prompt, "prompt_too_long", "warning"),
        (long_answer, "chosen_cut", "warning"),
        (twice, "duplicates", "warning"),
        (both_ways, "contradictions", "error"),
        (longer, "longer_wins", "warning"),
    ],
)
def test_a_defect_of_the_data_is_named(plant: Any, what: str, level: str, examined: Callable[..., Examined]):
    def planted(rows: list[Any]) -> None:
        balanced(rows)
        plant(rows)

    found = examined(planted)
    assert names(found) == {what}
    (finding,) = found.findings
    assert finding.level == level and finding.fix


@pytest.mark.parametrize(
    "settings, what",
    [
        ({"dtype": "bfloat16", "optimizer": "rmsprop"}, "settings"),
        ({"max_length": 1024}, "max_length"),
        ({"learning_rate": 0.01}, "learning_rate"),
        ({"epochs": 1}, "few_steps"),
        ({"batch": 64, "epochs": 60}, "batch"),
        ({"template": CHATML.replace(" + eos_token", "")}, "data"),
        (
            {
                "template": CHATML.replace(
                    "{% if add_generation_prompt", "{{ messages | length }}{% if add_generation_prompt"
                )
            },
            "data",
        ),
    ],
)
def test_a_defect_of_the_settings_is_named(settings: Any, what: str, examined: Callable[..., Examined]):
    found = examined(balanced, settings=settings)
    assert names(found) == {what}


def test_a_template_that_never_ends_an_answer_is_told_as_that(examined: Callable[..., Examined]):
    (finding,) = examined(balanced, settings={"template": CHATML.replace(" + eos_token", "")}).findings
    assert "no end-of-sequence token" in finding.detail


def test_held_out_prompts_that_are_trained_on_are_counted(examined: Callable[..., Examined]):
    (finding,) = examined(balanced, held_out=[pair(i) for i in range(36, 44)]).findings
    assert (finding.what, finding.level) == ("leak", "error") and finding.detail.startswith("4 of 8")


def test_an_adapter_is_no_base(examined: Callable[..., Examined], tiny: Path, tmp_path: Path):
    shutil.copytree(tiny, tmp_path / "adapter")
    (tmp_path / "adapter" / "adapter_config.json").write_text(
        json.dumps({"base_model_name_or_path": "other"})
    )
    (finding,) = examined(balanced, base=str(tmp_path / "adapter")).findings
    assert finding.what == "base" and "LoRA adapter" in finding.detail


def test_what_does_not_fit_says_what_would(
    examined: Callable[..., Examined], monkeypatch: pytest.MonkeyPatch
):
    import trainers.cost

    needed = examined(balanced).cost
    assert needed is not None and needed.micro_batch_that_fits == 8
    less = needed.memory_gb - 0.35 * needed.memory_parts_gb["activations"]
    monkeypatch.setattr(trainers.cost, "_available", lambda: less)
    (finding,) = examined(balanced).findings
    assert finding.what == "memory" and finding.fix == "set micro_batch to 2"
