"""Labels of people: judgements in the store, appended and never changed, and a gold file for judge cards."""

import json
import os
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from flows.browse import Book
from flows.labels import Labels, gold_file, people_of, rows_of
from flows.people import figures
from flows.recipe import RecipeError
from flows.run import Run
from judges.gold import GoldError, load_gold
from judges.human import QUESTION, Choice, shown
from records.schema import Completion, Judgement, Prompt
from records.store import StoreError
from tests.view.stored_run import stored_run


def pairs(run: Run, kind: str = "any") -> list[tuple[str, Prompt, tuple[Completion, Completion]]]:
    book = Book(run)
    return [
        (key, book.by_id[two[0].prompt_id].prompt, shown(key, two, 0)) for key, *two in book.queue(kind, 0)
    ]


def label(run: Run, choices: list[Choice], annotator: str = "anna") -> None:
    labels = Labels(run, annotator)
    for (_, prompt, two), choice in zip(pairs(run), choices, strict=False):
        labels.put(prompt, two, choice, "any")
    labels.close()


def test_a_label_is_two_judgements_and_only_a_winner_has_scores(tmp_path: Path):
    run = stored_run(tmp_path, 4)
    label(run, ["first", "second", "tie", "unsure"])
    (stage,) = people_of(run)
    assert json.loads((Path(stage.folder) / "asked.json").read_text()) == {
        "judge": {"kind": "human", "annotator": "anna", "question": QUESTION},
        "model": None,
        "of": "pairs",
    }
    rows = [[Judgement(**answer) for answer in row.answers] for row in rows_of(stage)]
    said = [[(one.status, one.score, one.position) for one in row] for row in rows]
    assert said == [
        [("ok", 1.0, 0), ("ok", 0.0, 1)],
        [("ok", 0.0, 0), ("ok", 1.0, 1)],
        [("tie", None, 0), ("tie", None, 1)],
        [("not_applicable", None, 0), ("not_applicable", None, 1)],
    ]
    shown_first = [row[0].completion_id for row in rows]
    assert shown_first == [two[0].id for _, _, two in pairs(run)]


def test_labels_are_added_and_never_changed_and_the_later_one_holds(tmp_path: Path):
    run = stored_run(tmp_path, 4)
    label(run, ["first", "first"])
    (stage,) = people_of(run)
    sealed = {path.name: path.read_bytes() for path in Path(stage.folder).glob("[!.]*")}
    assert sorted(sealed) == ["00000.json", "00000.parquet", "asked.json"]
    label(run, ["second"])
    now = {path.name: path.read_bytes() for path in Path(stage.folder).glob("[!.]*")}
    assert {name: now[name] for name in sealed} == sealed
    assert "00001.parquet" in now and len(list(rows_of(stage))) == 3
    assert [row.answers[0]["raw"] for row in Labels(run, "anna").rows.values()] == ["second", "first"]


@contextmanager
def another_process(work: Callable[[], object]) -> Iterator[None]:
    """While a process that has done `work` and not ended it lives. It is killed at the end."""
    done, told = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            work()
            os.write(told, b".")
            signal.pause()
        finally:
            os._exit(1)
    os.close(told)
    try:
        assert os.read(done, 1) == b".", "its work failed"
        yield
    finally:
        os.close(done)
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)


def test_labels_of_a_process_that_was_killed_are_there_and_the_next_one_goes_on(tmp_path: Path):
    run = stored_run(tmp_path, 6)
    every = pairs(run)
    killed = Labels(run, "anna")
    with another_process(lambda: [killed.put(prompt, two, "first", "any") for _, prompt, two in every[:3]]):
        pass
    labels = Labels(run, "anna")
    assert len(labels.rows) == 3
    for _, prompt, two in every[2:4]:
        labels.put(prompt, two, "tie", "any")
    labels.close()
    (stage,) = people_of(run)
    assert [row.answers[0]["raw"] for row in rows_of(stage)] == ["first", "first", "tie", "tie"]
    assert not list(Path(stage.folder).glob("*.jsonl"))


def test_two_processes_do_not_label_under_one_name(tmp_path: Path):
    run = stored_run(tmp_path, 4)
    _, prompt, two = pairs(run)[0]
    open_elsewhere = Labels(run, "anna")
    with another_process(lambda: open_elsewhere.put(prompt, two, "first", "any")):
        with pytest.raises(StoreError, match="is in use by process"):
            Labels(run, "anna").put(prompt, two, "tie", "any")
        Labels(run, "ben").put(prompt, two, "tie", "any")
    assert [stage.asked["judge"]["annotator"] for stage in people_of(run)] == ["anna", "ben"]


def test_the_gold_file_holds_what_everybody_said_by_place(tmp_path: Path):
    run = stored_run(tmp_path, 4)
    label(run, ["first", "second", "tie", "unsure"])
    label(run, ["first", "first", "tie"], "ben")
    gold = load_gold(gold_file(run.folder))
    assert gold.layout == "gold" and len(gold.items) == 3, "nobody could tell of the fourth"
    by_prompt = {item.to_prompt().id: item for item in gold.items}
    for (_, prompt, two), said in zip(pairs(run), [(0, 0), (1, 0), ("tie", "tie")], strict=False):
        item = by_prompt[prompt.id]
        places = [item.completions.index(one.text) for one in two]
        assert item.annotators == tuple(places[s] if isinstance(s, int) else s for s in said)
        assert set(item.models) == {"cool", "hot"} and item.tags == ("any",)
        assert item.constraints == tuple(prompt.meta["constraints"])
        agreed = item.annotators[0] if item.annotators[0] == item.annotators[1] else "tie"
        assert item.label == agreed


def test_a_label_of_texts_that_were_answered_anew_is_not_used(tmp_path: Path):
    run = stored_run(tmp_path, 4)
    labels = Labels(run, "anna")
    (_, other, others), (_, prompt, two) = pairs(run)[:2]
    labels.put(prompt, (two[0].model_copy(update={"text": "as it was then"}), two[1]), "first", "any")
    labels.put(other, others, "first", "any")
    labels.close()
    (item,) = load_gold(gold_file(run.folder)).items
    assert item.to_prompt().id == other.id
    assert [found.pairs for found in figures(Book(run)) if found.name == "any"] == [1]


def test_without_labels_there_is_no_gold_file(tmp_path: Path):
    run = stored_run(tmp_path, 4)
    with pytest.raises(GoldError, match="no labels of people; make some with `zephyr view"):
        gold_file(run.folder)
    with pytest.raises(RecipeError, match="wanted a run's folder or a gold file"):
        gold_file(tmp_path)


def test_figures_against_people_count_each_judge_by_how_pairs_were_picked(tmp_path: Path):
    """A person who follows the rules agrees with the rules in all that they decide."""
    run = stored_run(tmp_path, 40, shard_size=20)
    labels, book = Labels(run, "anna"), Book(run)
    for _, prompt, two in pairs(run, "disputed"):
        judged = book.case(book.by_id[prompt.id]).judgements
        kept = [next(j.score or 0.0 for j in judged[one.id] if j.judge == "rules") for one in two]
        labels.put(prompt, two, "first" if kept[0] > kept[1] else "second", "disputed")
    labels.close()
    (found,) = figures(book)
    assert found.name == "disputed" and found.pairs == len(labels.rows) >= 8
    rules, rating = found.by_judge["rules"], found.by_judge["rating"]
    assert rules.decided and rules.decided.value == 1.0 and rules.kappa and rules.kappa.value == 1.0
    assert rating.decided and rating.decided.value == 0.0, (
        "they disagree with the rules on every one of these"
    )


def test_of_the_pairs_drawn_by_chance_only_those_before_the_first_gap_count(tmp_path: Path):
    """Whoever labels disagreements first, or leaves out hard pairs, does not bias what is said of the run."""
    run = stored_run(tmp_path, 12)
    every, labels = pairs(run), Labels(run, "anna")
    for place in (0, 1, 2, 5, 6):
        _, prompt, two = every[place]
        labels.put(prompt, two, "unsure" if place == 1 else "first", "any")
    counted = {found.name: found.pairs for found in figures(Book(run))}
    assert counted["any"] == 2, "the first and the third; of the second nobody could tell"
    _, prompt, two = every[3]
    labels.put(prompt, two, "first", "disputed")
    assert {found.name: found.pairs for found in figures(Book(run))}["any"] == 3, "by whichever list"
    labels.close()
