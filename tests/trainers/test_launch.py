"""Training is launched as accelerate's own loader and launcher read the configurations."""

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from accelerate.commands.config.config_args import load_config_from_file
from accelerate.commands.launch import _validate_launch_command, launch_command_parser
from accelerate.utils import DistributedType
from accelerate.utils.launch import prepare_deepspeed_cmd_env, prepare_multi_gpu_env

from trainers.launch import CONFIGS, Launch, command, main

KINDS = {
    "one": DistributedType.NO,
    "ddp": DistributedType.MULTI_GPU,
    "cpu": DistributedType.MULTI_GPU,
    "fsdp2": DistributedType.FSDP,
    "hsdp": DistributedType.FSDP,
    "zero3": DistributedType.DEEPSPEED,
}


def environment(name: str) -> dict[str, str]:
    """What accelerate's launcher tells the processes."""
    parsed = launch_command_parser().parse_args([*command(Launch(accelerate=name), Path("job.json"))[3:]])
    asked, read, _ = _validate_launch_command(parsed)
    defaults: Any = read
    if asked.use_deepspeed:
        asked.deepspeed_fields_from_accelerate_config = ",".join(defaults.deepspeed_config)
        return prepare_deepspeed_cmd_env(asked)[1]
    return prepare_multi_gpu_env(asked)


def test_there_is_a_configuration_for_every_name():
    assert {path.stem for path in CONFIGS.glob("*.yaml")} == KINDS.keys()


@pytest.mark.parametrize("name", KINDS)
def test_accelerate_reads_every_configuration(name: str):
    read: Any = load_config_from_file(str(CONFIGS / f"{name}.yaml"))
    assert read.distributed_type == KINDS[name]
    assert read.num_processes == Launch(accelerate=name).devices
    assert read.use_cpu is (name == "cpu")


@pytest.mark.parametrize("name", ["fsdp2", "hsdp"])
def test_shards_are_float32_gathered_as_bfloat16_and_saved_by_all(name: str):
    said = environment(name)
    assert said["ACCELERATE_USE_FSDP"] == "true" and said["FSDP_VERSION"] == "2"
    assert (
        said["FSDP_STATE_DICT_TYPE"] == "SHARDED_STATE_DICT" and said["ACCELERATE_MIXED_PRECISION"] == "bf16"
    )
    assert said["FSDP_RESHARD_AFTER_FORWARD"] == "true"


def test_several_machines_shard_within_and_copy_between():
    said = environment("hsdp")
    assert said["PARALLELISM_CONFIG_DP_REPLICATE_SIZE"] == "2"
    assert said["PARALLELISM_CONFIG_DP_SHARD_SIZE"] == "8"


def test_plan_b_is_zero_3():
    said = environment("zero3")
    assert said["ACCELERATE_USE_DEEPSPEED"] == "true" and said["ACCELERATE_DEEPSPEED_ZERO_STAGE"] == "3"


def test_the_command_says_what_the_recipe_says(tmp_path: Path):
    job = tmp_path / "dpo.job.json"
    assert command(None, job) == [sys.executable, "-m", "trainers.run", str(job)]
    two = command(Launch(accelerate="ddp", processes=2), job)
    assert two[two.index("--num_processes") + 1] == "2" and two[-3:] == ["-m", "trainers.run", str(job)]
    second = command(Launch(accelerate="hsdp", address="10.0.0.1:4000"), job, machine=1)
    for option, value in (
        ("--machine_rank", "1"),
        ("--main_process_ip", "10.0.0.1"),
        ("--main_process_port", "4000"),
    ):
        assert second[second.index(option) + 1] == value


def test_a_configuration_that_is_not_there_is_named(tmp_path: Path):
    with pytest.raises(ValueError, match=r"launch.accelerate='fsdp3' is no file and none of cpu, ddp, fsdp2"):
        _ = Launch(accelerate="fsdp3").file
    own = tmp_path / "own.yaml"
    own.write_text(yaml.safe_dump({"num_processes": 3}))
    assert Launch(accelerate=str(own)).devices == 3


@pytest.mark.long
def test_a_launched_job_ends_with_the_model_or_with_the_code_of_what_was_wrong(
    job: Callable[..., dict[str, Any]], tmp_path: Path
):
    path = tmp_path / "job.json"
    asked = job(settings={"lora": {"r": 4}, "max_steps": 2})
    path.write_text(json.dumps(asked))
    given = command(Launch(accelerate="cpu"), path)[3:]
    assert main(given) == 0
    assert json.loads((Path(asked["out"]) / "metrics.json").read_text())["steps"] == 2
    path.write_text(json.dumps(job("sft", settings={"batch": 6})))
    assert main(given) == 2
