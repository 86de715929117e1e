"""An answer was lost, paid for twice, or taken for the answer to something else."""

import json
from pathlib import Path

import pytest

from flows.answers import generate
from flows.failures import JUDGED
from flows.recipe import Recipe
from flows.run import Run
from prompts.sources import PromptSource, load_prompts
from records.store import Stage, StoreError
from serving.chat import Choice, Reply
from serving.errors import RequestFailed
from tests.judges.examples import prompt
from tests.records.test_store import ASKED, dropped, fill, row

SETTINGS = {
    "name": "kept",
    "prompts": [{"file": "prompts/quickstart/prompts.jsonl"}],
    "models": {
        "one": {"kind": "endpoint", "model": "m", "base_url": "http://127.0.0.1:1/v1"},
        "two": {"kind": "endpoint", "model": "m", "base_url": "http://127.0.0.1:2/v1"},
    },
    "samplers": [{"name": "a", "model": "one"}, {"name": "b", "model": "one", "seed": 1}],
    "judge": {
        "kind": "jury",
        "members": [{"kind": "rating", "model": "one"}, {"kind": "critique", "model": "one"}],
    },
}


def recipe(**changes: object) -> Recipe:
    return Recipe.model_validate(SETTINGS | changes)


def test_a_failure_is_stored_as_a_result(tmp_path: Path):
    """argilla-io/distilabel, pipeline/step_wrapper.py:258: an exception fills all rows of the batch with None, the
    batch counts as done, and resuming asks none of them again."""
    shard = Stage(tmp_path, "judgements", ASKED).open(0, ["a", "b", "c"])
    shard.put(row("a"))
    shard.put(dropped("b", "transport_error"))
    shard.put(row("c"))
    receipt = shard.seal()
    assert receipt.answers == 2, "one timed out; the others of the batch are what they are"
    assert Stage(tmp_path, "judgements", ASKED).open(0, ["a", "b", "c"]).missing == ["b"]


def test_a_part_of_the_output_is_taken_for_all_of_it(tmp_path: Path):
    """argilla-io/distilabel, pipeline/batch_manager.py:1011: an earlier step's folder that exists is complete, even
    if it was cut off half-way."""
    shard = Stage(tmp_path, "completions", ASKED).open(0, ["a", "b"])
    shard.put(row("a"))
    with pytest.raises(StoreError):
        shard.seal()
    shard.close()
    again = Stage(tmp_path, "completions", ASKED)
    assert again.receipt(0) is None and again.open(0, ["a", "b"]).missing == ["b"]


def test_other_data_under_the_same_name_gives_the_old_answers(tmp_path: Path):
    """argilla-io/distilabel, steps/generators/data.py:63: the data are not part of what the cache is named after."""
    fill(Stage(tmp_path, "completions", ASKED), ["a", "b"])
    again = Stage(tmp_path, "completions", ASKED)
    assert again.sealed(0, ["a", "x"]) is None
    assert again.open(0, ["a", "x"]).missing == ["x"]


def test_rows_in_another_order_get_each_others_answers(tmp_path: Path):
    """MariSchn/ActiveUltraFeedback, activeuf/oracle/get_raw_annotations.py, magpie-align/magpie and RLHFlow: what
    is done is the first n rows, so a changed order or a new row in front gives every answer to its neighbour."""
    fill(Stage(tmp_path, "completions", ASKED), ["a", "b", "c"])
    turned = Stage(tmp_path, "completions", ASKED).open(0, ["x", "c", "b", "a"])
    assert turned.missing == ["x"]
    turned.put(row("x"))
    stage = Stage(tmp_path, "completions", ASKED)
    assert [(r.key, r.answers[0]["prompt_id"]) for r in stage.rows(turned.seal())] == [
        (key, key) for key in ("x", "c", "b", "a")
    ]


def test_going_on_starts_a_new_folder_or_repeats_the_rows(tmp_path: Path):
    """NVIDIA-NeMo/DataDesigner, issue 525: running again silently made a new folder; issue 709: going on replayed
    the first rows once more."""
    first = Stage(tmp_path, "completions", ASKED)
    receipt = fill(first, ["a", "b"])
    again = Stage(tmp_path, "completions", dict(reversed(ASKED.items())))
    assert again.folder == first.folder and again.sealed(0, ["a", "b"]) == receipt


def test_the_second_output_is_written_over_the_first(tmp_path: Path):
    """princeton-nlp/SimPO, on_policy_data_gen/reward_model_annotate.py:79: the pairs are written to the file of the
    rewards."""
    run = Run.at(recipe(), tmp_path)
    samplers = [run.completions_stage(sampler) for sampler in run.recipe.samplers]
    judges = [
        run.judgements_stage(member, [stage.fingerprint])
        for member in run.recipe.jury.members
        for stage in samplers
    ]
    folders = [stage.folder for stage in (run.prompts_stage(), *samplers, *judges)]
    assert len(folders) == len(set(folders)) == 7


def test_another_system_prompt_gives_the_old_answers():
    """bespokelabsai/curator, llm/llm.py:144: `system_prompt` is no part of the cache's key."""
    plain, honest, helpful = (
        recipe().asked(recipe(samplers=[{"name": "a", "model": "one", "n": 2, **more}]).samplers[0])
        for more in ({}, {"principle": "honesty"}, {"principle": "helpfulness"})
    )
    assert plain != honest != helpful != plain


def test_two_servers_that_call_their_model_the_same_share_one_cache():
    """bespokelabsai/curator, llm/llm.py:144: `base_url` is no part of the key, so the second model gets the answers
    of the first. An address is no part of ours either, so asking the same of two addresses is refused."""
    with pytest.raises(ValueError, match="sampler 'a' asks exactly what another one asks"):
        recipe(samplers=[{"name": "a", "model": "one"}, {"name": "b", "model": "two"}])


def test_another_wording_of_the_judge_costs_the_answers_too(tmp_path: Path):
    """NVIDIA-NeMo/DataDesigner: one configuration, one fingerprint; nothing is reused when the judge's prompt
    changes."""
    other = {"kind": "rating", "model": "one", "aspects": ["honesty"]}
    one, two = Run.at(recipe(), tmp_path), Run.at(recipe(judge=other), tmp_path)
    for a, b in zip(one.recipe.samplers, two.recipe.samplers, strict=True):
        assert one.completions_stage(a).folder == two.completions_stage(b).folder


def test_the_same_prompts_from_another_file_are_asked_again(tmp_path: Path):
    """bespokelabsai/curator, issues 143 and 215: the key hangs on how the data were saved and where the script
    lies."""
    texts = ["Explain tea.", "Explain salt."]
    (tmp_path / "one.jsonl").write_text("".join(json.dumps({"prompt": text}) + "\n" for text in texts))
    (tmp_path / "two.csv").write_text(
        "n,question\n" + "".join(f"{i},{text}\n" for i, text in enumerate(texts))
    )
    first = load_prompts(PromptSource(file=str(tmp_path / "one.jsonl")))
    second = load_prompts(PromptSource(file=str(tmp_path / "two.csv"), prompt="question"))
    assert [p.id for p in first.prompts] == [p.id for p in second.prompts]


async def test_an_answer_that_reached_its_limit_is_a_failure_and_made_again():
    """bespokelabsai/curator, `invalid_finish_reasons`: `length` is a failure, so an answer is made eleven times and
    the run then raises."""

    async def chat(_) -> Reply:
        return Reply((Choice("A long ans", "length"),))

    found = await generate(prompt(), recipe().samplers[0], "f", 0, chat)
    assert found.final and found.answers[0]["finish_reason"] == "length"


async def test_a_prompt_too_long_for_one_model_ends_the_run():
    """A trap of every pipeline with several models: one of them refuses a prompt that the others can read."""

    async def chat(_) -> Reply:
        raise RequestFailed("too_long", "5,000 tokens, 4,096 fit")

    found = await generate(prompt(), recipe().samplers[0], "f", 0, chat)
    assert found.final and not found.answers and found.dropped and found.dropped["reason"] == "too_long"


def test_a_solution_without_an_answer_counts_as_a_failed_judge():
    """huggingface/lighteval: `not attempted` is 0.0. Here it is no number, and not the judge's failure either."""
    assert "no_answer" in JUDGED and not {"parse_error", "refused", "truncated", "off_scale"} & JUDGED
