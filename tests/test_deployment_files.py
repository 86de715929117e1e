"""prefect.yaml, pool templates and automations say what they mean, before a server sees them."""

import re
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from typing import Any
from uuid import uuid4

import jsonschema
import pytest
import yaml
from prefect.client.schemas.actions import DeploymentCreate
from prefect.events.schemas.automations import AutomationCore
from prefect.exceptions import ParameterTypeError
from prefect.utilities.callables import parameter_schema
from prefect.utilities.schema_tools.validation import is_valid_schema, validate

from flows.recipe_file import load_recipe
from flows.setup import KINDS, POOLS, template

ROOT = Path(__file__).parent.parent
DEPLOYMENTS = yaml.safe_load((ROOT / "prefect.yaml").read_text())["deployments"]
AUTOMATIONS = sorted((ROOT / "deploy/automations").glob("*.yaml"))


def named(deployment: dict[str, Any]) -> str:
    return f"{deployment['entrypoint'].rpartition('.')[2]}/{deployment['name']}"


def flow_of(deployment: dict[str, Any]) -> Any:
    module, _, name = deployment["entrypoint"].rpartition(".")
    return getattr(import_module(module), name)


def refusals(flow: Any, parameters: dict[str, Any]) -> list[str]:
    """What a server says against these parameters at submission, by the schema that `prefect deploy` sends it."""
    known = parameter_schema(flow).model_dump(exclude_unset=True)
    sent = DeploymentCreate(name="local", flow_id=uuid4(), parameter_openapi_schema=known).model_dump(
        mode="json"
    )
    schema = sent["parameter_openapi_schema"]
    return [error.message for error in validate(parameters, schema)]


@pytest.mark.parametrize("deployment", DEPLOYMENTS, ids=named)
def test_a_deployment_names_a_flow_and_parameters_it_takes(deployment: dict[str, Any]):
    flow = flow_of(deployment)
    assert deployment["work_pool"]["name"] in POOLS
    assert deployment["enforce_parameter_schema"] is True
    parameters = deployment.get("parameters", {})
    if set(parameter_schema(flow).required) <= set(parameters):
        assert not refusals(flow, parameters)
        assert flow.validate_parameters(parameters).keys() >= parameters.keys()
    if isinstance(recipe := parameters.get("recipe"), str):
        assert load_recipe(ROOT / recipe)


def test_schedules_are_off_until_someone_switches_them_on():
    schedules = [schedule for each in DEPLOYMENTS for schedule in each.get("schedules", ())]
    assert len(schedules) == 2
    assert all(schedule["slug"] and schedule["active"] is False for schedule in schedules)


def test_every_flow_of_the_folder_that_takes_a_recipe_has_a_deployment():
    deployed = {each["entrypoint"] for each in DEPLOYMENTS}
    found = set()
    for path in (ROOT / "flows").rglob("*.py"):
        for name in re.findall(
            r"^@flow\(.*\)\nasync def (\w+)\(\n?\s*recipe: Given,", path.read_text(), re.MULTILINE
        ):
            found.add(".".join([*path.relative_to(ROOT).with_suffix("").parts, name]))
    steps = {"flows.rounds.train_in_rounds", "flows.sweep.sweep_dpo", "flows.reparse.reparse"}
    assert found - deployed == steps, "parts of other flows, or of a command alone"


SMOKE = {"recipe": "recipes/smoke.yaml"}


@pytest.mark.parametrize(
    ("parameters", "said"),
    [
        (SMOKE | {"recepi": 1}, "recepi"),
        ({}, "recipe"),
        ({"recipe": 7}, "7"),
        ({"recipe": "smoke"}, "smoke"),
        (SMOKE | {"elsewhere": {"shards": 0}}, "0"),
        (SMOKE | {"elsewhere": {"nodes": 4}}, "nodes"),
    ],
)
def test_parameters_that_cannot_be_meant_are_refused_before_a_run_is_made(
    parameters: dict[str, Any], said: str
):
    flow = flow_of(next(each for each in DEPLOYMENTS if named(each) == "zephyr/smoke"))
    assert not refusals(flow, SMOKE)
    assert any(said in message for message in refusals(flow, parameters))


@pytest.mark.parametrize("wrong", [{"shard_size": 0}, {"max_failed": 2}, {"judges": []}, {"samplers": "all"}])
def test_a_recipe_given_as_fields_is_held_to_its_bounds_at_submission(wrong: dict[str, Any]):
    flow = flow_of(next(each for each in DEPLOYMENTS if named(each) == "zephyr/local"))
    recipe = load_recipe(ROOT / "recipes/smoke.yaml").model_dump(mode="json")
    assert not refusals(flow, {"recipe": recipe})
    assert refusals(flow, {"recipe": recipe | wrong})


def test_the_form_explains_a_recipes_fields_in_our_words():
    schema = parameter_schema(flow_of(DEPLOYMENTS[0]))
    assert "S3" in schema.properties["store"]["description"].upper()
    assert schema.definitions["Recipe"]["properties"]["shard_size"]["description"].startswith(
        "Prompts per shard"
    )
    assert schema.definitions["Sampler"]["properties"]["temperature"]["maximum"] == 5


def test_a_file_is_read_as_a_recipe_and_a_wrong_one_says_which_field(tmp_path: Path):
    flow = flow_of(DEPLOYMENTS[0])
    file = tmp_path / "wrong.yaml"
    file.write_text((ROOT / "recipes/smoke.yaml").read_text() + "shard_sise: 3\n")
    assert flow.validate_parameters({"recipe": str(ROOT / "recipes/smoke.yaml")})["recipe"].name == "smoke"
    with pytest.raises(ParameterTypeError, match="shard_sise: unknown key"):
        flow.validate_parameters({"recipe": str(file)})


def placeholders(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield from re.findall(r"\{\{ *(\w+) *\}\}", value)
    for inner in value.values() if isinstance(value, dict) else value if isinstance(value, list) else ():
        yield from placeholders(inner)


@pytest.mark.parametrize("kind", KINDS)
def test_a_pools_settings_reach_its_jobs_and_its_defaults_keep_to_their_own_schema(kind: str):
    job = template(kind)
    assert set(placeholders(job["job_configuration"])) == set(job["variables"]["properties"])
    is_valid_schema(job["variables"])
    defaults = {name: each.get("default") for name, each in job["variables"]["properties"].items()}
    jsonschema.validate(defaults, job["variables"], jsonschema.Draft202012Validator)


def test_slurm_decides_which_gpus_a_run_sees():
    variables = template("slurm")["variables"]
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate({"env": {"CUDA_VISIBLE_DEVICES": "0"}}, variables)


@pytest.mark.parametrize("file", AUTOMATIONS, ids=lambda file: file.stem)
def test_an_automation_is_one_and_only_those_that_find_lost_runs_are_on(file: Path):
    automation = AutomationCore.model_validate(yaml.safe_load(file.read_text()))
    assert automation.name.startswith("zephyr-") and automation.description
    assert automation.enabled == (file.stem in ("lost-runs", "stuck-pending"))
