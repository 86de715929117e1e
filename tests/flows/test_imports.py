"""A published dataset as a run: word for word, its defects without a score, and whatever is added costs only itself."""

import json
from pathlib import Path

import pytest
import yaml

from flows.answers import stored
from flows.dataset import judged_prompts
from flows.imports import import_dataset
from flows.inputs import gather_prompts
from flows.preferences import build_preferences, judge_responses
from flows.recipe import RecipeError
from flows.recipe_file import load_recipe
from flows.reparse import reparse
from flows.report import draw
from flows.run import Run
from flows.show import show
from prompts.load import PromptError
from records.ids import prompt_id
from records.schema import Message
from tests.fake_model import fake_model
from tests.flows.fakes import answer, is_judging
from tests.ultrafeedback_file import MODELS, annotated, clean, write


def id_of(row: dict) -> str:
    return prompt_id([Message(role="user", content=row["instruction"])])


def judged(recipe_file: str, *overrides: str, out: Path) -> dict:
    """By prompt id: what is stored, with scores."""
    run = Run.at(load_recipe(Path(recipe_file), overrides), out)
    prompts, _ = gather_prompts(run)
    return {case.prompt.id: case for case in judged_prompts(run, prompts, stored(run))}


async def test_an_import_is_a_run_whose_pairs_ask_nothing(tmp_path: Path):
    rows = [clean(i) for i in range(12)]
    file = write(tmp_path / "uf.jsonl", rows)
    found = import_dataset(str(file), "uf", tmp_path / "runs")
    assert (found["rows"], found["prompts"], found["dropped"]) == (12, 12, {})
    assert found["answers"] == dict.fromkeys(MODELS, 12)
    summary = await build_preferences(load_recipe(Path(found["recipe"])), tmp_path / "runs")
    assert summary["stages"]["generate"]["requests"] == summary["stages"]["judge"]["requests"] == 0
    import pyarrow.parquet as pq

    data = [pq.read_table(f).to_pylist() for f in (tmp_path / "runs/uf/dataset/data").glob("*_prefs.parquet")]
    best = {id_of(row): max(row["completions"], key=lambda c: c["overall_score"]) for row in rows}
    pairs = [row for part in data for row in part]
    assert len(pairs) == 12
    for pair in pairs:
        assert pair["chosen"][-1]["content"] == best[pair["prompt_id"]]["response"]
        assert pair["chosen_model"] == best[pair["prompt_id"]]["model"]
        assert pair["score_chosen"] == 1.0 and pair["score_rejected"] < 1
    data = json.loads(
        draw(Run.at(load_recipe(Path(found["recipe"])), tmp_path / "runs")).with_suffix(".json").read_text()
    )
    assert {model: len(scores) for model, scores in data["scores"].items() if scores} == dict.fromkeys(
        MODELS, 12
    )


def test_every_annotation_is_kept_as_it_came_and_a_wrong_ten_is_no_ten(tmp_path: Path):
    rows = [clean(i) for i in range(5)]
    for number, level, critique in (
        (0, 1, "Bad."),
        (1, 3, "So so."),
        (2, 5, "Great."),
        (3, 5, "Overall Score: 4"),
    ):
        rows[number]["completions"][2] |= {"overall_score": 10.0, "critique": critique}
        rows[number]["completions"][2]["annotations"] = annotated(level)
    rows[4]["completions"][1]["annotations"]["honesty"] = {"Rating": "N/A", "Rationale": "A poem."}
    rows[4]["completions"][3]["annotations"]["truthfulness"] = None
    found = import_dataset(str(write(tmp_path / "uf.jsonl", rows)), "uf", tmp_path)
    cases = judged(found["recipe"], "judge.aspects=[overall,honesty,truthfulness]", out=tmp_path)

    def verdict(number: int, place: int, aspect: str):
        case = cases[id_of(rows[number])]
        id = case.candidates[place].completion.id
        return next(j for j in case.judgements[id] if j.aspect == aspect)

    tens = [verdict(number, 2, "overall") for number in range(4)]
    assert [(j.status, j.score) for j in tens] == [("ok", 1), ("missing", None), ("ok", 10), ("ok", 4)]
    assert all(json.loads(j.raw)["overall_score"] == 10.0 for j in tens)
    assert "a 1 that was read as 10" in tens[0].detail and "may be a 1" in tens[1].detail
    assert verdict(4, 1, "honesty").status == "not_applicable"
    assert verdict(4, 3, "truthfulness").status == "missing"
    for number, row in enumerate(rows):
        for place, one in enumerate(row["completions"]):
            kept = json.loads(verdict(number, place, "honesty").raw)
            assert kept == one["annotations"]["honesty"]
    candidates = cases[id_of(rows[4])].candidates
    assert candidates[1].score is not None, "what does not apply is set aside"
    assert candidates[3].score is None and "missing" in candidates[3].why


def test_ratings_that_a_swallowed_block_moved_have_no_score(tmp_path: Path):
    rows = [clean(0), clean(1)]
    moved = "It is right.\n\n#### Output for Text 2\nRating: 2\nRationale: It is not."
    rows[0]["completions"][0]["annotations"]["honesty"]["Rationale"] = moved
    harmless = "It is right.\n\nAnd complete."
    rows[1]["completions"][0]["annotations"]["honesty"]["Rationale"] = harmless
    found = import_dataset(str(write(tmp_path / "uf.jsonl", rows)), "uf", tmp_path)
    assert found["ratings"]["honesty"] == {"missing": 4, "ok": 4}
    assert found["ratings"]["helpfulness"] == {"ok": 8}


async def test_which_ratings_count_changes_pairs_and_asks_nothing(tmp_path: Path):
    rows = [clean(i) for i in range(6)]
    worst = min(range(4), key=lambda i: rows[2]["completions"][i]["overall_score"])
    rows[2]["completions"][worst]["overall_score"] = 9.5  # the critic disagrees with the aspects
    found = import_dataset(str(write(tmp_path / "uf.jsonl", rows)), "uf", tmp_path)
    chosen = {}
    for aspects in ("[helpfulness]", "[overall]"):
        cases = judged(found["recipe"], f"judge.aspects={aspects}", out=tmp_path)
        chosen[aspects] = {
            id: max(c.candidates, key=lambda x: x.score or 0).completion.id for id, c in cases.items()
        }
    assert [id for id in chosen["[overall]"] if chosen["[overall]"][id] != chosen["[helpfulness]"][id]] == [
        id_of(rows[2])
    ]


async def test_a_model_and_a_judge_that_are_added_are_all_that_is_asked(tmp_path: Path):
    rows = [clean(i) for i in range(6)]
    found = import_dataset(str(write(tmp_path / "uf.jsonl", rows)), "uf", tmp_path)
    fields = yaml.safe_load(Path(found["recipe"]).read_text())
    with fake_model(answer) as fake:
        fields["models"]["fake"] = {
            "kind": "endpoint",
            "model": "fake",
            "base_url": fake.url,
            "dialect": "vllm",
        }
        fields["samplers"].append({"name": "fifth", "model": "fake", "max_tokens": 32})
        fields["judge"] = {
            "kind": "jury",
            "members": [fields["judge"], {"kind": "rating", "model": "fake", "aspects": ["quality"]}],
            "quorum": 1,
        }
        more = tmp_path / "more.yaml"
        more.write_text(yaml.safe_dump(fields))
        recipe = load_recipe(more)
        await build_preferences(recipe, tmp_path)
        assert sum(not is_judging(body) for body in fake.asked) == 6, (
            "one answer of the fifth model to each prompt"
        )
        assert sum(is_judging(body) for body in fake.asked) == 6 * 5
        fake.asked.clear()
        await build_preferences(recipe, tmp_path)
        assert not fake.asked
        record = show(Run.at(recipe, tmp_path), id_of(rows[0]))
    assert [c["model"] for c in record["completions"]] == [*MODELS, "fifth"]
    by_judge = [{j["judge"]: j["status"] for j in c["judgements"]} for c in record["completions"]]
    assert by_judge[:4] == [{"published": "ok", "rating": "ok"}] * 4
    assert by_judge[4] == {"published": "missing", "rating": "ok"}


async def test_a_part_is_judged_again_and_the_rest_later_costs_only_the_rest(tmp_path: Path):
    rows = [clean(i) for i in range(8)]
    found = import_dataset(str(write(tmp_path / "uf.jsonl", rows)), "uf", tmp_path)
    fields = yaml.safe_load(Path(found["recipe"]).read_text())
    with fake_model(answer) as fake:
        fields["models"]["fake"] = {
            "kind": "endpoint", "model": "fake", "base_url": fake.url, "dialect": "vllm"
        }  # fmt: skip
        fields["judge"] = {"kind": "rating", "model": "fake", "aspects": ["quality"]}
        again = tmp_path / "again.yaml"
        again.write_text(yaml.safe_dump(fields))
        summary = await judge_responses(load_recipe(again, ["prompts.0.limit=3"]), tmp_path)
        assert summary["stages"]["judge"]["answers"] == len(fake.asked) == 3 * 4
        await judge_responses(load_recipe(again), tmp_path)
        assert len(fake.asked) == 8 * 4 and all(is_judging(body) for body in fake.asked)


def test_a_binarized_dataset_keeps_its_splits_scores_and_scale(tmp_path: Path):
    folder = tmp_path / "binarized"
    folder.mkdir()
    for split, numbers in (("train_prefs", (1, 2, 3)), ("test_prefs", (4,)), ("train_sft", (1, 2, 3))):
        rows = [
            {
                "prompt": f"Question {n}?",
                "chosen": [
                    {"role": "user", "content": f"Question {n}?"},
                    {"role": "assistant", "content": "Yes."},
                ],
                "rejected": [
                    {"role": "user", "content": f"Question {n}?"},
                    {"role": "assistant", "content": "No."},
                ],
                "score_chosen": 8.5,
                "score_rejected": 8.5 if n == 2 else 6.0,
            }
            for n in numbers
        ]
        write(folder / f"{split}-00000-of-00001.jsonl", rows)
    found = import_dataset(str(folder), "bin", tmp_path)
    assert (found["rows"], found["prompts"]) == (4, 4), "the sft split repeats the pairs"
    recipe = load_recipe(Path(found["recipe"]))
    assert recipe.jury.members[0].aspects == ("overall",)
    prompts, _ = gather_prompts(Run.at(recipe, tmp_path))
    assert {p.text: p.meta["split"] for p in prompts} == {
        "Question 4?": "test", "Question 1?": "train", "Question 2?": "train", "Question 3?": "train"
    }  # fmt: skip
    scores = [[c.score for c in case.candidates] for case in judged(found["recipe"], out=tmp_path).values()]
    assert sorted(scores) == sorted([[7.5 / 9, 5 / 9]] * 3 + [[7.5 / 9, 7.5 / 9]])


def test_rows_that_repeat_a_prompt_and_those_without_one_are_counted(tmp_path: Path):
    rows = [clean(0), clean(1), clean(0), clean(2) | {"instruction": "  "}]
    found = import_dataset(str(write(tmp_path / "uf.jsonl", rows)), "uf", tmp_path)
    assert (found["prompts"], found["dropped"]) == (2, {"duplicate": 1, "empty_prompt": 1})


def test_what_cannot_be_imported_says_why(tmp_path: Path):
    odd = write(tmp_path / "odd.jsonl", [{"question": "?", "answer": "!"}])
    with pytest.raises(PromptError, match=r"wanted instruction and completions .* or chosen and rejected"):
        import_dataset(str(odd), "odd", tmp_path)
    broken = write(tmp_path / "broken.jsonl", [clean(0), {"instruction": 3, "completions": []}])
    with pytest.raises(PromptError, match=r"broken.jsonl line 2: wanted a text"):
        import_dataset(str(broken), "broken", tmp_path)
    one, two = (write(tmp_path / f"{n}.jsonl", [clean(n)]) for n in (1, 2))
    with pytest.raises(RecipeError, match="--as 'Bad Name'"):
        import_dataset(str(one), "Bad Name", tmp_path)
    import_dataset(str(one), "uf", tmp_path)
    with pytest.raises(RecipeError, match="the recipe of another run"):
        import_dataset(str(two), "uf", tmp_path)


async def test_a_prompt_that_was_not_imported_has_no_answers_and_stops_the_run(tmp_path: Path):
    found = import_dataset(str(write(tmp_path / "uf.jsonl", [clean(0)])), "uf", tmp_path)
    fields = yaml.safe_load(Path(found["recipe"]).read_text())
    other = write(tmp_path / "other.jsonl", [{"prompt": "Another question?"}])
    fields["prompts"].append({"file": str(other)})
    more = tmp_path / "more.yaml"
    more.write_text(yaml.safe_dump(fields))
    with pytest.raises(Exception, match=r"1 of 2 rows failed \(1 not_imported\)"):
        await build_preferences(load_recipe(more), tmp_path)


async def test_imported_ratings_are_not_asked_or_read_again(tmp_path: Path):
    rows = [clean(0), clean(1)]
    rows[0]["completions"][0]["overall_score"] = 12.0
    found = import_dataset(str(write(tmp_path / "uf.jsonl", rows)), "uf", tmp_path)
    recipe = load_recipe(Path(found["recipe"]), ["judge.aspects=[overall,helpfulness]"])
    before = {id: case.judgements for id, case in judged(found["recipe"], out=tmp_path).items()}
    await judge_responses(recipe, tmp_path, None, True)
    counts = await reparse(recipe, tmp_path)
    assert counts["reparsed"]["published"]["changed"] == 0
    assert {id: case.judgements for id, case in judged(found["recipe"], out=tmp_path).items()} == before
    overall = judged(found["recipe"], "judge.aspects=[overall]", out=tmp_path)[id_of(rows[0])]
    assert next(c.why for c in overall.candidates) == "published: off_scale"
