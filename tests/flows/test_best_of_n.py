"""Rejection sampling over real HTTP: how many requests it takes, what is pooled, when a prompt has enough."""

from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from flows.preferences import build_preferences, reject_sampling
from flows.recipe import Recipe
from tests.fake_model import Body, Fault, Reply, fake_model
from tests.flows.fakes import answer, is_judging, luck, recipe, sentence
from tests.flows.test_judge_kinds import judging

RATING: dict[str, Any] = {"kind": "rating", "model": "fake"}


def settings(url: str, prompts: Path, n: int, **changes: Any) -> Recipe:
    """One sampler of n answers, one model judge."""
    one = [{"name": "many", "model": "fake", "temperature": 1.0, "max_tokens": 32, "n": n}]
    return recipe(url, prompts, **({"samplers": one, "judge": RATING} | changes))


def asked_for(bodies: list[Body]) -> list[int]:
    """n of every generating request."""
    return [body["n"] for body in bodies if not is_judging(body)]


def judged(bodies: list[Body]) -> int:
    return sum(map(is_judging, bodies))


def rows(folder: Path, name: str = "train_sft") -> list[dict[str, Any]]:
    return pq.read_table(folder / f"flowtest/best-of-n/data/{name}.parquet").to_pylist()


async def test_n_answers_come_from_one_request_and_the_best_becomes_a_row_with_all_scores(
    tmp_path: Path, prompt_file: Path
):
    with fake_model(answer) as fake:
        result = await reject_sampling(settings(fake.url, prompt_file, 4), tmp_path)
        assert asked_for(fake.asked) == [4] * 12
        fake.asked.clear()
        again = await reject_sampling(settings(fake.url, prompt_file, 4), tmp_path)
        assert not fake.asked
    assert again["best_of_n"] == result["best_of_n"]
    assert result["best_of_n"]["n"] == {"4": 12}
    for row in rows(tmp_path):
        scores = [scored["score"] for scored in row["scores"]]
        assert row["n"] == len(scores) == 4 and row["winner"] == scores.index(max(scores))
        assert row["scores"][row["winner"]]["completion_id"] == row["chosen_id"]
        assert row["lead"] == pytest.approx(sorted(scores)[-1] - sorted(scores)[-2])
        assert row["round"] == 1
    winners = {row["prompt_id"]: row["chosen_id"] for row in rows(tmp_path)}
    pairs = rows(tmp_path, "train_prefs")
    assert pairs and all(pair["chosen_id"] == winners[pair["prompt_id"]] for pair in pairs)
    curve = result["best_of_n"]["curve"]
    assert [point["k"] for point in curve] == [1, 2, 3, 4]
    assert [point["value"] for point in curve] == sorted(point["value"] for point in curve)
    assert (tmp_path / "flowtest/best-of-n/trl/train.parquet").exists()
    assert not (tmp_path / "flowtest/dataset").exists(), "a preference dataset is left as it is"


async def test_a_larger_n_asks_only_for_the_samples_that_are_new_and_a_smaller_one_for_none(
    tmp_path: Path, prompt_file: Path
):
    with fake_model(answer) as fake:
        few = await reject_sampling(settings(fake.url, prompt_file, 3), tmp_path)
        fake.asked.clear()
        many = await reject_sampling(settings(fake.url, prompt_file, 8), tmp_path)
        assert asked_for(fake.asked) == [5] * 12 and judged(fake.asked) == 60
        assert all(row["n"] == 8 for row in rows(tmp_path))
        fake.asked.clear()
        back = await reject_sampling(settings(fake.url, prompt_file, 3), tmp_path)
        assert not fake.asked
    assert back["best_of_n"]["digest"] == few["best_of_n"]["digest"] != many["best_of_n"]["digest"]
    stages = [path.name for path in (tmp_path / "flowtest/completions").glob("*/*") if path.is_file()]
    assert not [name for name in stages if name.startswith(("kept-", "replaced-"))], (
        "a row that grew is one row"
    )


async def test_a_further_sampler_joins_the_pool(tmp_path: Path, prompt_file: Path):
    with fake_model(answer) as fake:
        one = settings(fake.url, prompt_file, 3)
        await reject_sampling(one, tmp_path)
        fake.asked.clear()
        cold = {"name": "cold", "model": "fake", "temperature": 0.3, "max_tokens": 32, "n": 2}
        both = [*(s.model_dump() for s in one.samplers), cold]
        await reject_sampling(settings(fake.url, prompt_file, 3, samplers=both), tmp_path)
        assert asked_for(fake.asked) == [2] * 12 and judged(fake.asked) == 24
    assert {row["n"] for row in rows(tmp_path)} == {5}
    assert {row["chosen_model"] for row in rows(tmp_path)} == {"many", "cold"}


async def test_a_server_that_gives_fewer_than_n_is_asked_for_the_rest(tmp_path: Path, prompt_file: Path):
    def stingy(body: Body) -> Reply:
        return answer(body) if is_judging(body) else answer(body | {"n": min(2, body["n"])})

    with fake_model(stingy, honours_n=False) as fake:
        await reject_sampling(settings(fake.url, prompt_file, 5), tmp_path)
    assert sorted(asked_for(fake.asked)) == sorted([5, 3, 1] * 12)
    assert {row["n"] for row in rows(tmp_path)} == {5}, "each batch has a seed of its own"


async def test_what_a_failing_request_leaves_short_is_kept_and_gone_on_with(
    tmp_path: Path, prompt_file: Path
):
    refusing = True

    def faulty(body: Body) -> Reply:
        if is_judging(body):
            return answer(body)
        if refusing and body["n"] < 4:
            return Fault(400)
        return answer(body | {"n": min(3, body["n"])})

    with fake_model(faulty, honours_n=False) as fake:
        await reject_sampling(settings(fake.url, prompt_file, 4), tmp_path)
        assert {row["n"] for row in rows(tmp_path)} == {3}
        fake.asked.clear()
        refusing = False
        await reject_sampling(settings(fake.url, prompt_file, 4), tmp_path)
        assert asked_for(fake.asked) == [1] * 12 and judged(fake.asked) == 12
    assert {row["n"] for row in rows(tmp_path)} == {4}


async def test_a_prompt_gets_more_rounds_only_while_they_are_expected_to_help(
    tmp_path: Path, prompt_file: Path
):
    with fake_model(answer) as fake:
        adaptive = {"max_n": 16, "stop_gain": 0.06}
        result = await reject_sampling(settings(fake.url, prompt_file, 2, best_of_n=adaptive), tmp_path)
        found = result["best_of_n"]
        used = {int(n): count for n, count in found["n"].items()}
        assert len(used) > 1 and max(used) > 2 and min(used) < 16, used
        spent = sum(n * count for n, count in used.items())
        assert asked_for(fake.asked) == [2] * (spent // 2) and judged(fake.asked) == spent
        assert found["curve"][0]["reached"] == 12
        assert max(row["round"] for row in rows(tmp_path)) > 1
        fake.asked.clear()

        again = await reject_sampling(settings(fake.url, prompt_file, 2, best_of_n=adaptive), tmp_path)
        assert not fake.asked and again["best_of_n"] == found, "the same rounds again, from what is there"

        more = {"max_n": 16, "stop_gain": 0.03}
        result = await reject_sampling(settings(fake.url, prompt_file, 2, best_of_n=more), tmp_path)
        total = sum(int(n) * count for n, count in result["best_of_n"]["n"].items())
        assert total > spent and sum(asked_for(fake.asked)) == total - spent, "only the further rounds"


async def test_rounds_without_a_threshold_go_to_max_n_and_pairs_use_the_same_pool(
    tmp_path: Path, prompt_file: Path
):
    with fake_model(answer) as fake:
        six = settings(fake.url, prompt_file, 2, best_of_n={"max_n": 6})
        result = await reject_sampling(six, tmp_path)
        assert asked_for(fake.asked) == [2] * 36 and result["best_of_n"]["rounds"] == {"3": 12}
        fake.asked.clear()
        await build_preferences(six, tmp_path)
        assert not fake.asked


async def test_judges_that_see_answers_side_by_side_see_the_whole_pool(tmp_path: Path, prompt_file: Path):
    """Shares of comparisons won within one round say nothing of another round's answers."""
    with fake_model(judging) as fake:
        pool = settings(
            fake.url,
            prompt_file,
            2,
            judge={"kind": "pairwise", "model": "fake"},
            best_of_n={"max_n": 4, "ties": "random"},
        )
        await reject_sampling(pool, tmp_path)
        comparing = [body for body in fake.asked if is_judging(body)]
        assert len(comparing) == 12 * (2 * 1 + 2 * 6), "both orders of 1 pair, then of all 6"
        fake.asked.clear()
        await reject_sampling(pool, tmp_path)
        assert not fake.asked
    for row in rows(tmp_path):
        assert row["n"] == 4 and row["score_chosen"] == max(scored["score"] for scored in row["scores"])


async def test_identical_texts_count_once_and_are_reported(tmp_path: Path, prompt_file: Path):
    def repeating(body: Body) -> Reply:
        if is_judging(body):
            return answer(body)
        return [sentence(body["messages"], i % 2) for i in range(body["n"])]

    with fake_model(repeating) as fake:
        result = await reject_sampling(settings(fake.url, prompt_file, 6), tmp_path)
    assert result["best_of_n"]["candidates"] == {
        "asked": 72, "unjudged": 0, "cut_off_or_empty": 0, "duplicates": 48,
    }  # fmt: skip
    assert {row["n"] for row in rows(tmp_path)} == {2}


async def test_ties_at_the_top_are_dropped_and_counted(tmp_path: Path, prompt_file: Path):
    def level(body: Body) -> Reply:
        if is_judging(body):
            return answer(body | {"messages": [{"content": str(luck(body["messages"]) < 0.4)}]})
        return answer(body)

    with fake_model(level) as fake:
        strict = await reject_sampling(settings(fake.url, prompt_file, 4), tmp_path)
        drawn = await reject_sampling(
            settings(fake.url, prompt_file, 4, best_of_n={"ties": "random"}), tmp_path
        )
    ties = strict["best_of_n"]["dropped"]["tie"]
    assert 0 < ties < 12 and sum(strict["best_of_n"]["sft_rows"].values()) == 12 - ties
    assert sum(drawn["best_of_n"]["sft_rows"].values()) == 12


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"max_n": 7}, r"max_n=7 is no multiple of the 4 candidates .* set it to 4 or 8"),
        ({"max_n": 2}, r"max_n=2 is no multiple of the 4 candidates .* set it to 4,"),
        ({"stop_gain": 0.1}, r"stop_gain=0.1 ends further rounds, and best_of_n.max_n allows none"),
    ],
)
def test_rounds_that_do_not_fit_are_refused(wrong: dict[str, Any], message: str, prompt_file: Path):
    with pytest.raises(ValueError, match=message):
        settings("http://127.0.0.1:1/v1", prompt_file, 4, best_of_n=wrong)
