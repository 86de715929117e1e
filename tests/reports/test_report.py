"""The report renders from realistic and from no data, loads nothing and runs nothing but its own script."""

import base64
import hashlib
import json
import re
import sys
from html.parser import HTMLParser
from pathlib import Path

import pytest

from reports.data import Answer, ExamplePair, ReportData, Training
from reports.draw import script
from reports.page import figures_of, number, render, seconds, write_report
from reports.plots import BINS, binned, quartiles
from tests.reports.figures import needs_vega
from tests.reports.realistic import log, realistic

VOID = {"meta", "link", "br", "img", "hr", "input"}


class Outline(HTMLParser):
    """Collects ids and tags, and fails on tags that do not close."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.ids: list[str] = []
        self.tags: list[str] = []
        self.open: list[str] = []
        self.attributes: list[tuple[str, str]] = []
        self.feed(page)
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += [(name, value or "") for name, value in attrs]
        self.ids += [value or "" for name, value in attrs if name == "id"]
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attrs)
        if tag not in VOID:
            self.open.pop()

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag, f"</{tag}>"


@pytest.fixture(scope="module")
def page() -> str:
    return render(realistic())


def test_a_report_is_stored_drawn_and_drawn_again_the_same(tmp_path: Path, page: str):
    realistic().save(tmp_path)
    path = write_report(tmp_path)
    assert path == tmp_path / "report.html" and path.read_text() == page
    assert sorted(p.name for p in tmp_path.iterdir()) == ["report.html", "report.json"]
    assert ReportData.load(tmp_path) == realistic()


@needs_vega
def test_the_page_is_well_formed_and_every_figure_is_there(page: str):
    outline = Outline(page)
    assert len(outline.ids) == len(set(outline.ids))
    targets = [value[1:] for name, value in outline.attributes if name.endswith("href")]
    assert targets and set(targets) <= set(outline.ids)
    assert page.count('class="chart"') == 7 and outline.tags.count("h1") == 1
    assert outline.tags.count("table") == outline.tags.count("caption") + 2  # the judges' words need none


def without_script(page: str) -> str:
    return re.sub(r"<script.*?</script>", "", page, flags=re.DOTALL)


@needs_vega
def test_the_page_loads_nothing_and_its_policy_lets_its_own_script_run_and_no_other(page: str):
    rest = without_script(page)
    assert not re.search(r"https?://|@import|src=|<link", rest)
    assert all(address.startswith("#") for address in re.findall(r"url\(([^)]*)\)", rest))
    scripts = re.findall(r"<script>(.*?)</script>", page, re.DOTALL)
    assert len(scripts) == 1 and len(page) < 2_000_000
    digest = base64.b64encode(hashlib.sha256(scripts[0].encode()).digest()).decode()
    assert (
        f"default-src 'none'; style-src 'unsafe-inline'; script-src 'sha256-{digest}'; img-src data:" in page
    )


@needs_vega
def test_figures_take_their_colours_from_the_page(page: str):
    drawings = re.findall(r'<div class="chart".*?</svg>', page, re.DOTALL)
    assert len(drawings) == 7
    for drawing in drawings:
        drawn = set(re.findall(r'(?:fill|stroke)="(#[0-9a-fA-F]{3,6}|[a-z]+)"', drawing))
        assert not drawn - {"none", "transparent"}, drawn
        assert "var(--" in drawing


@needs_vega
def test_what_a_script_draws_is_what_is_drawn_already(page: str):
    """Each figure's specification stands beside it, as JSON that no text can leave."""
    specs = re.findall(r'data-spec="([\w-]+)"', page)
    for id in specs:
        (data,) = re.findall(rf'<script type="application/json" id="{id}">(.*?)</script>', page, re.DOTALL)
        assert json.loads(data)["config"] and "<" not in data


def test_without_the_library_the_page_says_what_is_missing(monkeypatch: pytest.MonkeyPatch):
    """A run does not fail at its end for want of its figures."""
    monkeypatch.setitem(sys.modules, "vl_convert", None)
    script.cache_clear()
    bare = render(realistic())
    script.cache_clear()
    assert "Figures are missing: vl-convert-python is not installed here" in bare
    assert "<script" not in bare and "script-src 'none'" in bare and 'class="chart"' not in bare
    Outline(bare)


def test_text_of_models_is_text():
    attack = "</p><script>alert(1)</script><img src=x onerror=alert(1)> {{ 7 * 7 }} $\\frac{1}{0}$"
    answer = Answer(model=attack, text=attack, score=1)
    data = realistic().model_copy(
        update={
            "title": attack,
            "plan": attack,
            "headline": {attack: attack},
            "messages": (attack,),
            "scores": {attack: (1.0, 2.0)},
            "judgements": {attack: {attack: 1}},
            "pairs": (ExamplePair(prompt=attack, chosen=answer, rejected=answer),),
            "lengths": tuple(p.model_copy(update={"model": attack}) for p in realistic().lengths[:3]),
        }
    )
    hostile = render(data)
    assert not {"script", "img"} & set(Outline(without_script(hostile)).tags)
    assert "<script>alert" not in hostile and hostile.count("<script>") == bool(script())
    assert "&lt;script&gt;" in hostile and "{{ 7 * 7 }}" in hostile


def test_a_section_without_data_says_so():
    bare = render(ReportData(title="Nothing", recipe="none"))
    said = re.findall(r'<p class="none">([^<]*)</p>', bare)
    assert len(said) == 15 and "No model was trained." in said and "Nothing was evaluated." in said
    assert "<svg" not in bare and "<script" not in bare and "script-src 'none'" in bare
    empty = ReportData(title="t", recipe="r", scores={"a": ()}, training=(Training(stage="SFT", curves=()),))
    assert "This stage logged no curve." in render(empty)
    Outline(bare)


def test_how_busy_models_were_is_in_a_table_and_in_words_beside_each_figure(page: str):
    section = page[page.index('id="endpoints"') : page.index('id="versions"')]
    assert "Starved: a place was free at the model and nothing waited there" in section
    assert "<td>429: 9, timeout: 4</td>" in section and "3.1\u202f%" in section and "32.5\u202f%" in section
    assert section.count("Over 4 min 59 s") == 1 + bool(script()), "under the figure, and read aloud"


def test_a_line_over_time_is_of_means():
    series = [(float(t), float(t % 2), 0.0, 8.0, 0.0, 100.0 * (t % 10 == 9)) for t in range(600)]
    points = binned(series)
    assert len(points) == BINS and {round(p[5]) for p in points[:-1]} == {10}
    assert binned([(0.0, 1.0)]) == [(0.0, 1.0)]


def test_quartiles_and_whiskers_of_a_box():
    assert quartiles([1.0, 2.0, 3.0, 4.0, 5.0, 50.0]) == (1.0, 2.25, 3.5, 4.75, 5.0)
    assert quartiles([3.0]) == (3.0,) * 5


def test_one_score_one_margin_and_one_step_still_draw():
    data = ReportData(
        title="Small",
        recipe="r",
        scores={"a": (3.0,), "b": ()},
        margins=(0.0,),
        training=(Training.from_log("SFT", [{"step": 1, "loss": 2.0}]),),
    )
    assert set(figures_of(data)) == {"scores", "margins", "training0"}
    assert render(data).count('class="chart"') == 3 * bool(script())


def test_a_trainers_log_becomes_curves_without_what_is_no_metric():
    training = Training.from_log("DPO", [*log(100, dpo=True), {"step": 100, "loss": float("nan")}])
    assert [curve.metric for curve in training.curves] == [
        "loss", "eval_loss", "rewards/accuracies", "rewards/margins", "grad_norm", "learning_rate",
    ]  # fmt: skip
    assert training.curves[0].points[0][0] == 1 and len(training.curves[0].points) == 50


def test_training_shows_its_speed_its_alarms_and_accuracy_by_model():
    metrics = {
        "steps": 6,
        "kept_step": 4,
        "train": [{"step": i, "loss": 0.7, "metrics": {"saturated": 0.1, "win_rate": 0.6}} for i in (4, 6)],
        "win_rates": [{"step": 4, "win_rate": 0.6}, {"step": 6, "win_rate": 0.5}],
        "speed": {"seconds": {"forward": 3.0, "backward": 6.0, "saving": 1.0}, "tokens_per_s/unique": 1234.5}
        | {"tokens_per_s/padded": 2345.6, "mfu": 0.41, "device": "H100"},
        "alarms": ["by_length: 80% of held-out pairs are right"],
        "by_model": {
            "a<b": {"chosen": {"pairs": 9, "accuracy": 1.0}, "rejected": {"pairs": 3, "accuracy": 1 / 3}}
        },
    }
    training = Training.from_metrics("dpo", metrics)
    curves = {curve.metric: curve.points for curve in training.curves}
    assert curves["win_rate"] == ((4, 0.6), (6, 0.5)) and set(curves) == {"loss", "win_rate", "saturated"}
    page = render(ReportData(title="t", recipe="r", training=(training,)))
    for shown in (
        "by_length: 80%",
        "1,234",
        "2,346",
        "41% of H100",
        "10 s: forward 30%, backward 60%, saving 10%",
        "6, 4",
    ):
        assert shown in page, shown
    assert "a&lt;b" in page and "33.3" in page
    bare = Training.from_metrics("sft", {"train": [{"step": 1, "loss": 2.0, "metrics": {}}]})
    assert (bare.alarms, bare.facts, bare.by_model) == ((), (), ()), "of a model that an older release made"


def test_a_run_without_a_report_file_says_what_was_wanted(tmp_path: Path):
    with pytest.raises(FileNotFoundError, match=r"no report\.json in .*; wanted the folder of a run"):
        write_report(tmp_path)
    (tmp_path / "report.json").write_text('{"title": "t", "recipe": "r", "margin": 1}')
    with pytest.raises(ValueError, match=r"report\.json: margin: Extra inputs"):
        write_report(tmp_path)


def test_numbers_are_written_for_people():
    assert [number(n) for n in (None, 0, 1234567, 0.123456, 5e-7, 1234.5)] == [
        "–", "0", "1\u202f234\u202f567", "0.1235", "5e-07", "1\u202f234",
    ]  # fmt: skip
    assert [seconds(s) for s in (1.234, 62, 3723)] == ["1.2 s", "1 min 2 s", "1 h 2 min"]
