"""Every recipe loads; a wrong one is refused with the field, the value and what was wanted."""

import json
import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from flows.inputs import gather_prompts
from flows.recipe import RecipeError
from flows.recipe_file import load_recipe
from flows.run import Run
from judges.rating import Rating
from prompts.load import PromptError
from prompts.sources import load_prompts

ROOT = Path(__file__).parent.parent
RECIPES = sorted((ROOT / "recipes").glob("*.yaml"))
QUICKSTART = ROOT / "recipes/quickstart.yaml"

SMALL: dict[str, Any] = {
    "name": "small",
    "prompts": [{"file": "prompts/quickstart/prompts.jsonl"}],
    "models": {"one": {"kind": "endpoint", "model": "m", "base_url": "http://127.0.0.1:1/v1"}},
    "samplers": [{"name": "a", "model": "one"}, {"name": "b", "model": "one", "seed": 1}],
    "judge": {"kind": "rules"},
}


def write(folder: Path, content: dict[str, Any] | str) -> Path:
    path = folder / "recipe.yaml"
    path.write_text(content if isinstance(content, str) else yaml.safe_dump(content, sort_keys=False))
    return path


def refusal(path: Path, *overrides: str) -> str:
    with pytest.raises(RecipeError) as error:
        load_recipe(path, overrides)
    return str(error.value)


SETS = [
    (path, [each.strip('"') for each in sets])
    for path in RECIPES
    for line in path.read_text().splitlines()
    if line.startswith("#") and (sets := re.findall(r'--set ("[^"]+"|[^\s,]+)', line))
]


@pytest.mark.parametrize("path, sets", SETS, ids=lambda value: getattr(value, "stem", None))
def test_what_a_recipe_says_may_be_set_may_be_set(path: Path, sets: list[str]):
    load_recipe(path, sets)


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)
def test_every_recipe_loads(path: Path):
    assert load_recipe(path).name


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)
def test_every_recipe_opens_with_what_it_is_and_its_command(path: Path):
    head = [line for line in path.read_text().splitlines() if line.startswith("#")]
    assert len(head) >= 2, f"{path.name} should open with what it is and what it costs"
    assert f"zephyr run recipes/{path.name}" in path.read_text()


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)
def test_the_texts_a_recipe_names_exist(path: Path):
    recipe = load_recipe(path)
    assert recipe.fingerprint
    for member in recipe.judges:
        assert member.asked()
    for sampler in recipe.samplers:
        assert recipe.asked(sampler)
    for source in recipe.prompts:
        if source.file is not None:
            assert load_prompts(source)[0], f"{path.name}: {source.file} gives no prompt"


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)
def test_a_recipe_as_run_is_the_same_recipe(path: Path, tmp_path: Path):
    recipe = load_recipe(path)
    again = load_recipe(write(tmp_path, recipe.model_dump(mode="json")))
    assert again.fingerprint == recipe.fingerprint


def test_recipes_have_names_of_their_own():
    names = [load_recipe(path).name for path in RECIPES]
    assert len(set(names)) == len(names), names


def test_the_smallest_recipe_needs_five_fields(tmp_path: Path):
    recipe = load_recipe(write(tmp_path, SMALL))
    assert [sampler.name for sampler in recipe.samplers] == ["a", "b"]
    for field in SMALL:
        rest = {key: value for key, value in SMALL.items() if key != field}
        said = (
            "name: Field required"
            if field == "name"
            else f"{field} missing or empty; wanted unless every stage"
        )
        assert said in refusal(write(tmp_path, rest))


def test_set_replaces_fields_of_any_depth():
    recipe = load_recipe(
        QUICKSTART,
        [
            "seed=3",
            "samplers.1.temperature=0.5",
            "pairs.min_margin=0.25",
            "judge.members.1.aspects=[helpfulness, honesty]",
            "training.dpo.lora=null",
            "description=a=b, c",
        ],
    )
    assert recipe.seed == 3
    assert recipe.samplers[1].temperature == 0.5
    assert recipe.pairs.min_margin == 0.25
    rating = recipe.jury.members[1]
    assert isinstance(rating, Rating) and rating.aspects == ("helpfulness", "honesty")
    assert recipe.training and recipe.training.dpo and recipe.training.dpo.lora is None
    assert recipe.description == "a=b, c"


def test_set_makes_a_section_that_was_not_there(tmp_path: Path):
    recipe = load_recipe(write(tmp_path, SMALL), ["splits.test=0.2", "pairs.policy=all_pairs"])
    assert recipe.splits.test == 0.2
    assert recipe.pairs.policy == "all_pairs"


def test_of_two_replacements_of_one_field_the_last_holds():
    assert load_recipe(QUICKSTART, ["seed=1", "seed=2"]).seed == 2


def test_a_replacement_does_not_reach_into_the_next_load():
    load_recipe(QUICKSTART, ["seed=9"])
    assert load_recipe(QUICKSTART).seed == 0


@pytest.mark.parametrize(
    "override",
    ["seed", "=3", "prompts.7.limit=3", "samplers.x.name=a", "name.x=1", "seed.x=1", "models.smol.model.x=1"],
)
def test_a_replacement_that_fits_nowhere_is_quoted(override: str):
    said = refusal(QUICKSTART, override)
    assert f"--set {override!r}" in said
    assert "\n" not in said


WRONG = [
    # override, the field as people wrote it, and words of the message
    ("seed=-1", "seed", ["greater than or equal to 0", "-1"]),
    ("seed=abc", "seed", ["integer", "'abc'"]),
    ("seed=", "seed", ["integer", "None"]),
    ("name=Bad Name", "name", ["'Bad Name'", "a-z0-9"]),
    ("nonsense=1", "nonsense", ["unknown key"]),
    ("shard_size=0", "shard_size", ["greater than or equal to 1", "0"]),
    ("max_failed=2", "max_failed", ["less than or equal to 1", "2"]),
    ("prompts=[]", "recipe", ["prompts missing or empty"]),
    ("samplers=[]", "recipe", ["samplers missing or empty"]),
    ("models={}", "recipe", ["models missing or empty"]),
    ("samplers_per_prompt=5", "recipe", ["samplers_per_prompt=5 of 4 samplers"]),
    ("samplers_per_prompt=1", "recipe", ["1 answers per prompt, pairs.min_completions wants 2"]),
    ("training.dialogues={dataset: a, file: b}", "training.dialogues", ["'b'", "'a'", "exactly one"]),
    ("training.pairs={dataset: a, split: train_prefs}", "training.pairs.split", ["unknown key"]),
    ("training.sft.template=zefyr", "recipe", ["training.sft", "did you mean 'zephyr'"]),
    ("samplers.0.principle=ultrafeedback/paper", "recipe", ["no 'paper'", "readme, code"]),
    ("prompts.0.limit=0", "prompts.0.limit", ["greater than or equal to 1", "0"]),
    ("prompts.0={file: a.jsonl, dataset: b}", "prompts.0", ["'a.jsonl'", "'b'", "exactly one"]),
    ("models.smol.kind=tgi", "models.smol", ["'tgi'", "'llamacpp', 'vllm', 'adapter', 'endpoint'"]),
    ("models.smol.slot=4", "slot", ["unknown key", "4"]),
    ("models.smol={kind: endpoint, model: m, base_url: 'ftp://x'}", "base_url", ["'ftp://x'", "https?://"]),
    ("models.Big={kind: llamacpp, model: m}", "models.Big", ["'Big'", "a-z0-9"]),
    ("samplers.0.temperature=hot", "samplers.0.temperature", ["number", "'hot'"]),
    ("samplers.0.temperatur=1", "samplers.0.temperatur", ["unknown key"]),
    ("samplers.0.top_p=0", "samplers.0.top_p", ["greater than 0", "0"]),
    ("samplers.0.n=0", "samplers.0.n", ["greater than or equal to 1", "0"]),
    ("samplers.0.n=99", "samplers.cool.n", ["99 answers", "slots"]),
    ("samplers.0.model=big", "samplers.cool.model", ["'big' is not in models (smol)"]),
    ("samplers.1.name=cool", "samplers", ["'cool', 'cool'", "two have the same name"]),
    ("samplers.0.principle=nope", "principle", ["'principles/nope'", "principles/honesty"]),
    ("judge.kind=oracle", "judge", ["'oracle'", "'rules', 'rating', 'ultrafeedback'"]),
    ("judge.members.1.model=gpt", "judge rating.model", ["'gpt' is not in models (smol)"]),
    ("judge.members.1.name=rules", "members", ["['rules', 'rules']", "two have the same name"]),
    ("judge.weights={rules: -1}", "weights", ["'rules': -1.0", "above 0"]),
    ("judge.weights={nobody: 1}", "weights", ["'nobody'", "['rules', 'rating']"]),
    ("judge.quorum=5", "quorum", ["5", "2 members"]),
    ("pairs.policy=best", "pairs.policy", ["'best'", "'best_vs_worst'"]),
    ("pairs.min_margin=-1", "pairs.min_margin", ["greater than or equal to 0", "-1"]),
    ("pairs.ties=random", "pairs", ["ties='random'", "min_margin=0.1", "set ties to 'drop'"]),
    ("pairs.min_completions=9", "samplers", ["4 answers per prompt", "9"]),
    ("training.dpo.beta=0", "training.dpo.beta", ["greater than 0", "0"]),
    ("training.dpo.loss=ppo", "training.dpo.loss", ["'ppo'", "'sigmoid'"]),
    ("training.dpo.max_steps=null", "training.dpo", ["never ends"]),
    ("training.dpo.lora.dropout=0.1", "training.dpo", ["dropout=0.1"]),
    ("training.dpo.label_smoothing=0.1", "training.dpo", ["label_smoothing=0.1", "robust"]),
    ("training.sft.dtype=float16", "training.sft.dtype", ["'float16'", "'bfloat16'"]),
    ("training.gguf=onnx", "training.gguf", ["'onnx'", "'q8_0'"]),
    ("training=null", "evaluation", ["`training` is missing"]),
    ("evaluation.sampler.model=big", "samplers.evaluation.model", ["'big' is not in models (smol)"]),
]


@pytest.mark.parametrize(("override", "field", "words"), WRONG, ids=[override for override, _, _ in WRONG])
def test_a_wrong_value_is_named_with_its_field_and_what_was_wanted(
    override: str, field: str, words: list[str]
):
    first, *lines = refusal(QUICKSTART, override).split("\n")
    assert first == f"{QUICKSTART}:"
    assert any(field in line and all(word in line for word in words) for line in lines), lines


def test_every_wrong_field_has_its_line():
    lines = refusal(QUICKSTART, "seed=-1", "nonsense=1", "pairs.policy=best").split("\n")[1:]
    assert [line.split(":")[0].strip() for line in lines] == ["seed", "pairs.policy", "nonsense"]


def test_two_samplers_that_ask_the_same_are_told_apart_by_their_seeds(tmp_path: Path):
    same = SMALL | {"samplers": [{"name": "a", "model": "one"}, {"name": "b", "model": "one"}]}
    assert "'a' asks exactly what another one asks; give them different seeds" in refusal(
        write(tmp_path, same)
    )


def test_one_answer_per_prompt_makes_no_pair(tmp_path: Path):
    one = SMALL | {"samplers": [{"name": "a", "model": "one"}]}
    assert "add a sampler or set n: 2" in refusal(write(tmp_path, one))
    assert load_recipe(write(tmp_path, one), ["samplers.0.n=2"])


def test_a_missing_recipe_is_answered_with_those_there_are(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(ROOT)
    said = refusal(Path("recipes/quikstart.yaml"))
    assert "no recipe 'recipes/quikstart.yaml'" in said
    assert "recipes/quickstart.yaml" in said


@pytest.mark.parametrize("content", ["", "- a\n- b\n", "just text", "3"])
def test_a_file_without_fields_is_no_recipe(tmp_path: Path, content: str):
    assert "must hold fields" in refusal(write(tmp_path, content))


@pytest.mark.parametrize("content", ["name: [", "name: a\n  b: c\n", "{", "\x00"])
def test_what_is_not_yaml_is_named_with_its_file(tmp_path: Path, content: str):
    said = refusal(write(tmp_path, content))
    assert "recipe.yaml is not readable YAML" in said


def test_a_folder_is_no_recipe(tmp_path: Path):
    assert str(tmp_path) in refusal(tmp_path)


def test_training_data_are_looked_for_beside_the_recipe(tmp_path: Path):
    for name in ("mine.jsonl", "held.jsonl"):
        (tmp_path / name).write_text("{}")
    pairs = {"file": "mine.jsonl", "test": "held.jsonl"}
    recipe = load_recipe(
        write(tmp_path, {"name": "mine", "training": {"base": "b", "pairs": pairs, "dpo": {}}})
    )
    assert recipe.training and recipe.training.pairs
    found = (recipe.training.pairs.file, recipe.training.pairs.test)
    assert found == (str(tmp_path / "mine.jsonl"), str(tmp_path / "held.jsonl"))


def test_a_key_written_twice_is_refused(tmp_path: Path):
    assert "seed" in refusal(write(tmp_path, yaml.safe_dump(SMALL) + "seed: 1\nseed: 2\n"))


def test_an_adapter_names_its_server_without_quotes(tmp_path: Path):
    models = (
        "models:\n  base: {kind: vllm, model: m}\n  one: {kind: adapter, model: folder, served_by: base}\n"
    )
    rest = yaml.safe_dump({key: value for key, value in SMALL.items() if key != "models"})
    assert load_recipe(write(tmp_path, rest + models)).models["one"].kind == "adapter"


@pytest.mark.parametrize(
    "override",
    [
        "training.sft.batch=4",  # below micro_batch 8
        "training.sft.batch=30",  # micro_batch 8 divides it on no number of devices
        "models.smol={kind: vllm, model: m}",  # a GGUF needs llama.cpp's tokenizer
        "models.smol={kind: endpoint, model: m, base_url: 'http://127.0.0.1:1/v1'}",  # serves no new weights
        "judge.members.1.prompt=judges/nope",
        "judge.members.1.aspects=[nope]",
    ],
)
def test_what_would_fail_after_hours_is_refused_at_once(override: str):
    assert refusal(QUICKSTART, override)


@pytest.mark.parametrize("override", ["training.dpo.loss=ppo", "samplers.0.principle=3", "seed=["])
def test_one_mistake_is_one_line(override: str):
    said = refusal(QUICKSTART, override)
    assert len(said.split("\n")) <= 2
    assert "literal[" not in said


@pytest.mark.parametrize(
    ("override", "said"),
    [
        (
            "judge={kind: reward_model, model: one}",
            "a reward model is of kind classifier, of kind vllm with args",
        ),
        ("judge={kind: reward_model, model: chat}", "judge reward_model.model: 'chat' is of kind vllm"),
        ("judge={kind: rating, model: rm}", "which only a judge of kind reward_model can ask"),
        ("judge={kind: pairwise, model: gone}", "judge pairwise.model: 'gone' is not in models"),
        ("judge={kind: ultrafeedback, model: one, aspects: [wit]}", "'instruction_following', 'honesty'"),
        ("judge={kind: ultrafeedback, model: one, prompt: nope}", "no prompt 'nope'"),
        ("samplers.0.model=rm", "is of kind classifier: it scores and does not write"),
        (
            "judge={kind: jury, members: [{kind: rules}, {kind: reward_model, model: rm}]}",
            "have no scale; set standardise: prompt",
        ),
    ],
)
def test_a_judge_that_its_model_cannot_serve_is_refused(tmp_path: Path, override: str, said: str):
    models = {
        "models": {
            **SMALL["models"],
            "rm": {"kind": "classifier", "model": "org/reward"},
            "chat": {"kind": "vllm", "model": "org/chat"},
        }
    }
    assert said in refusal(write(tmp_path, SMALL | models), override)


def test_a_reward_model_alone_is_standardised_within_the_prompt(tmp_path: Path):
    models = {"models": {**SMALL["models"], "rm": {"kind": "classifier", "model": "org/reward"}}}
    recipe = load_recipe(write(tmp_path, SMALL | models), ["judge={kind: reward_model, model: rm}"])
    assert recipe.jury.standardise == "prompt"


@pytest.mark.parametrize(
    ("judge", "slots", "missing"),
    [
        ("rating", ["instruction", "question"], "{{response}}"),
        ("rating", ["response", "question"], "{{instruction}}"),
        ("rating", ["instruction", "response"], "{{question}}"),
        ("critique", ["instruction", "note"], "{{response}}"),
        ("critique", ["response"], "{{instruction}}"),
        ("pairwise", ["instruction", "first", "question"], "{{second}}"),
        ("pairwise", ["instruction", "question", "labels"], "{{first}}, {{second}}"),
        ("ultrafeedback", ["instruction", "count"], "{{texts}}"),
        ("ultrafeedback", ["texts", "count"], "{{instruction}}"),
    ],
)
def test_a_judge_that_would_not_see_what_it_judges_is_refused(
    tmp_path: Path, judge: str, slots: list[str], missing: str
):
    said = refusal(with_prompt_file(tmp_path, judge, slots))
    assert f"mine.md has no slot {missing}, without which the judge would not see it" in said


@pytest.mark.parametrize("judge", ["rating", "critique", "pairwise", "ultrafeedback"])
def test_a_slot_of_a_judges_prompt_that_nobody_fills_is_refused(tmp_path: Path, judge: str):
    known = ["instruction", "response", "question", "first", "second", "texts"]
    needed = {
        "rating": known[:3],
        "critique": known[:2],
        "pairwise": ["instruction", "question", "first", "second"],
        "ultrafeedback": ["instruction", "texts"],
    }[judge]
    assert load_recipe(with_prompt_file(tmp_path, judge, needed))
    said = refusal(with_prompt_file(tmp_path, judge, [*needed, "answer"]))
    assert "mine.md has the slot {{answer}}, which this judge cannot fill" in said


def with_prompt_file(folder: Path, judge: str, slots: list[str]) -> Path:
    """A recipe whose judge has a prompt file of its own, with these slots."""
    body = "\n".join(f"{{{{{slot}}}}}" for slot in slots)
    (folder / "mine.md").write_text(
        f"---\nsource: ours\nlicense: MIT\nslots: [{', '.join(slots)}]\n---\n{body}\n"
    )
    kind = {"kind": judge, "model": "one", "prompt": str(folder / "mine.md")}
    return write(folder, SMALL | {"judge": kind})


@pytest.mark.parametrize(
    ("row", "judge", "said"),
    [
        ({"constraints": [{"kind": "max_wrods", "n": 3}]}, {"kind": "rules"}, "constraint 1: .*max_wrods"),
        ({"constraints": [{"kind": "max_words"}]}, {"kind": "rules"}, "constraint 1: .*n: Field required"),
        (
            {"reference": "blue"},
            {"kind": "rules", "reference": "last"},
            "reference='blue', wanted one that ends in",
        ),
    ],
)
def test_a_constraint_that_cannot_be_checked_is_refused_before_anything_is_asked(
    tmp_path: Path, row: dict[str, Any], judge: dict[str, Any], said: str
):
    (tmp_path / "mine.jsonl").write_text(json.dumps({"prompt": "Explain tea."} | row))
    sources = [{"file": str(tmp_path / "mine.jsonl")}]
    run = Run.at(load_recipe(write(tmp_path, SMALL | {"prompts": sources, "judge": judge})), tmp_path)
    with pytest.raises(PromptError, match=f"^mine: prompt .*{said}"):
        gather_prompts(run)
    assert not list(run.folder.rglob("*.parquet"))
    other = {"kind": "rating", "model": "one"}
    unread = Run.at(load_recipe(write(tmp_path, SMALL | {"prompts": sources, "judge": other})), tmp_path)
    assert len(gather_prompts(unread)[0]) == 1, "no judge would check it"


def test_a_trained_model_that_no_recipe_names_is_asked_by_its_identity():
    recipe = load_recipe(Path("recipes/quickstart.yaml"))
    trained = recipe.samplers[0].model_copy(update={"name": "dpo", "model": "dpo"})
    assert recipe.asked(trained, {"model": "weights:abc"})["model"] == {"model": "weights:abc"}
