"""Clients side by side: all are asked for the same, what comes back and what it cost is counted right."""

import json
import re
import shutil
import signal
import subprocess
import sys
import time
import urllib.request
from pathlib import Path
from typing import Any

import pytest

from benchmarks.peers.environments import CACHE, CLIENTS, REQUIREMENTS, ROOT
from benchmarks.peers.job import ratings_in
from benchmarks.peers.measure import Work, bench, checked
from benchmarks.peers.plan import MEASUREMENTS, summaries
from benchmarks.peers.table import LARGE, NOT_RIGHT, PAGES, RESULT, SPEED, STOPS, cells, ended, rewrite, short
from benchmarks.replies import Lengths, planted, rating, say, shown
from benchmarks.simulator import simulator

RESULT_LIKE: dict[str, Any] = {
    "metrics": {
        "speeds": {"start, one model": {"ours": {"start_s": 1.0, "cpu_s": 2.0, "simulator_share": 0.1}}},
        "stops": {},
    }
    | {"rows": 1.0, "rounds": 3, "minutes": 20.0, "missing": {}, "pinned": {}},
    "machine": {"cores": 2, "cpu": "CPU", "load": [1.0, 1.0, 1.0]},
    "date": "2026-11-23T00:00:00+00:00",
}
TEXTS = ["q120 the answer", "q990 the answer", "q500 the answer"]
NAMES = ["a", "b", "c"]


def asked(text: str, **more: Any) -> dict[str, Any]:
    return {"model": "m", "messages": [{"role": "user", "content": text}], "max_tokens": 500} | more


def answer(body: dict[str, Any], lengths: Lengths | None = None) -> str:
    return say(body, shown(body), lengths or Lengths(seeded=0))[0].text


def test_every_tools_form_of_asking_for_ratings_gets_the_same_ratings():
    wanted = {name: rating(planted(text)[0]) for name, text in zip(NAMES, TEXTS, strict=True)}
    shown_texts = "\n\n".join(TEXTS)
    blocks = answer(asked(f"{shown_texts}\nWrite:\n#### Output for Text 1\nRating: a number"))
    assert ratings_in(blocks, NAMES) == wanted == {"a": 1, "b": 5, "c": 3}
    assert len(blocks.split("\n\n")) == 3, "distilabel splits at blank lines"
    score = {
        "type": "object",
        "properties": {"reasoning": {"type": "string"}, "score": {"enum": [1, 2, 3, 4, 5]}},
    }
    schema = {"type": "object", "properties": dict.fromkeys(NAMES, score)}
    fenced = answer(asked(f"{shown_texts}\n<response_schema>\n{json.dumps(schema)}\n</response_schema>"))
    inner = re.fullmatch(r"```json\n(.*)\n```", fenced, re.DOTALL)
    assert inner and {name: one["score"] for name, one in json.loads(inner[1]).items()} == wanted


def test_ratings_that_are_not_one_for_each_are_none():
    assert ratings_in("#### Output for Text 1\nRating: 3", ["a", "b"]) == {"a": None, "b": None}


def test_clients_that_send_seeds_or_parts_face_the_same_work():
    plain = answer(asked("hello"))
    assert answer(asked("hello", seed=7)) == plain
    parts = asked("") | {"messages": [{"role": "user", "content": [{"type": "text", "text": "hello"}]}]}
    assert answer(parts) == plain
    assert answer(asked("hello", seed=7), Lengths()) != answer(asked("hello"), Lengths()), (
        "as a rule, seeds count"
    )


def test_the_bare_loop_comes_to_the_rows_that_are_right_with_the_fewest_requests():
    work = Work(12, models=2, judged=True, speed=50, in_flight=8)
    with bench(work, CACHE) as place:
        run = place.run(CLIENTS["loop"], limit=60)
    assert run["error"] == ""
    assert sum(run["requests"].values()) == work.requests == 36
    assert [run[key] for key in ("rows", "lost", "wrong", "doubled", "unrated", "misrated")] == [
        12,
        0,
        0,
        0,
        0,
        0,
    ]
    assert 0 < run["span_s"] < run["wall_s"] and run["cpu_s"] > 0 and run["start_s"] > 0


def test_each_thing_that_is_not_right_is_counted(tmp_path: Path):
    work, path = Work(6, models=2, judged=True), tmp_path / "rows.jsonl"
    rows: list[dict[str, Any]] = [
        {"i": i, "answers": {name: work.truth[i, name] for name in work.names}, "ratings": {}}
        for i in range(6)
    ]
    for row in rows:
        row["ratings"] = {name: rating(planted(text)[0]) for name, text in row["answers"].items()}

    def found(given: list[dict[str, Any]]) -> dict[str, Any]:
        path.write_text("".join(json.dumps(row) + "\n" for row in given))
        return checked(work, path)

    right = found(rows)
    assert {key: right[key] for key in NOT_RIGHT} == dict.fromkeys(NOT_RIGHT, 0)
    assert found(rows[::-1]) == right, "in any order"
    rows[0]["answers"]["model-0"] = None
    rows[1]["answers"]["model-1"] += "!"
    rows[2]["ratings"]["model-0"] = None
    rows[3]["ratings"]["model-0"] = 6 - rows[3]["ratings"]["model-0"] % 5
    wrong = found([*rows[:5], rows[4]])
    counts = {"lost": 1 + 2, "wrong": 1, "doubled": 1, "unrated": 1 + 2, "misrated": 1}
    assert {key: wrong[key] for key in NOT_RIGHT} == counts, "row 5 is not there at all"
    assert wrong["digest"] != right["digest"]


def watch(tmp_path: Path, code: str, limit: float = 60) -> subprocess.Popen[str]:
    command = [
        sys.executable,
        "-m",
        "benchmarks.peers.watch",
        str(limit),
        str(tmp_path / "log"),
        sys.executable,
    ]
    return subprocess.Popen([*command, "-c", code], cwd=ROOT, stdout=subprocess.PIPE, text=True)


BUSY = "import time; end = time.process_time() + 0.5\nwhile time.process_time() < end: pass"


def test_the_cpu_of_processes_whose_parents_are_gone_is_counted(tmp_path: Path):
    start = f"import subprocess, sys; subprocess.Popen([sys.executable, '-c', {BUSY!r}])"
    leave = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {start!r}])"
    said, _ = watch(tmp_path, leave).communicate(timeout=60)
    assert json.loads(said)["cpu_s"] >= 0.5


def test_a_kill_leaves_no_process(tmp_path: Path):
    pid = tmp_path / "pid"
    child = f"import os, time; open({str(pid)!r}, 'w').write(str(os.getpid())); time.sleep(600)"
    watching = watch(tmp_path, f"import subprocess, sys; subprocess.run([sys.executable, '-c', {child!r}])")
    while not pid.exists() or not pid.read_text():
        time.sleep(0.05)
    watching.send_signal(signal.SIGTERM)
    said, _ = watching.communicate(timeout=60)
    assert json.loads(said)["killed"] and json.loads(said)["code"] == -signal.SIGKILL
    assert not Path(f"/proc/{pid.read_text()}").exists()


def test_an_aborted_reply_is_a_text_that_breaks_off():
    body = json.dumps(asked("hello", max_tokens=50)).encode()
    with simulator(faults=1, kinds=["abort"], speed=50) as model:
        request = urllib.request.Request(
            f"{model.url}/chat/completions", body, {"content-type": "application/json"}
        )
        with urllib.request.urlopen(request, timeout=30) as reply:
            choice = json.loads(reply.read())["choices"][0]
    whole = answer(asked("hello", max_tokens=50), Lengths())
    assert choice["finish_reason"] == "abort" and choice["message"]["content"] == whole[: len(whole) // 2]


def test_the_best_is_bold_whoever_it_is_and_the_loop_is_not_in_the_race():
    ours, peer, loop = ({"seconds": s, "runs": 1, "requests": 1.0} for s in (9.0, 7.0, 5.0))
    lines = cells(SPEED[:1], {"loop": loop, "ours": ours, "distilabel": peer}, bold=True)
    assert lines == [["bare loop", "5"], ["this project", "9"], ["distilabel", "**7**"]]


def test_a_run_that_hangs_has_no_figures_to_win_with():
    hangs = {"hangs": True, "seconds": 1.0, "asked_again": -500, "in_flight": 3, "error": ""}
    (line,) = cells(STOPS, {"distilabel": hangs}, bold=True)
    assert line == ["distilabel", "–", "–", "3", "–", "no", "hangs"]


def test_tables_go_between_the_markers_and_nothing_else_changes(tmp_path: Path):
    (tmp_path / "docs").mkdir()
    for page in PAGES:
        (tmp_path / page).write_text("before\n<!-- peers: written -->\nold\n<!-- peers: end -->\nafter\n")
    rewrite(RESULT_LIKE, root=tmp_path)
    text = (tmp_path / "docs/benchmarks.md").read_text()
    assert text.startswith("before\n<!-- peers: written -->\n\nMeasured on 2026-11-23 on 2 cores")
    assert "| this project | 1 | 2 |" in text and "old" not in text and "Preliminary" not in text
    assert text.endswith("<!-- peers: end -->\nafter\n")
    rewrite(RESULT_LIKE | {"machine": RESULT_LIKE["machine"] | {"load": [9.0, 9.0, 9.0]}}, root=tmp_path)
    assert "**Preliminary**: measured on" in (tmp_path / "docs/benchmarks.md").read_text()


def test_the_tables_are_those_of_the_committed_results(tmp_path: Path):
    for page in PAGES:
        (tmp_path / page).parent.mkdir(exist_ok=True)
        shutil.copy(ROOT / page, tmp_path / page)
    results = (json.loads(path.read_text()) if path.exists() else None for path in (RESULT, LARGE))
    rewrite(*results, root=tmp_path)  # pyright: ignore[reportArgumentType]  # the first is committed
    for page in PAGES:
        assert (tmp_path / page).read_text() == (ROOT / page).read_text(), (
            "run python -m benchmarks.peers --table"
        )


def test_a_page_without_markers_is_named(tmp_path: Path):
    (tmp_path / "docs").mkdir()
    for page in PAGES:
        (tmp_path / page).write_text("no markers")
    with pytest.raises(ValueError, match=r"docs/benchmarks\.md has 0 markers"):
        rewrite(RESULT_LIKE, root=tmp_path)


def test_a_client_that_ends_with_an_error_lost_everything_and_the_error_is_named():
    why = "╰──╯ | ArrowNotImplementedError: Unsupported cast from string to null"
    assert ended({"error": why}) == "no: ArrowNotImplementedError: Unsupported cast from string to null"
    speeds = {"four models, judge": {"distilabel": {}}, "3 % faults": {"distilabel": {"error": why}}}
    result = RESULT_LIKE | {"metrics": RESULT_LIKE["metrics"] | {"speeds": speeds}}
    assert "| distilabel | – | – | all: it ends with an error | – | – |" in short(result)


def test_a_client_that_never_ends_has_a_line_without_figures():
    run = {
        "rows": None,
        "span_s": 3.0,
        "timed_out": True,
        "error": "x",
        "requests": {"model-0": 5},
        "tokens": 9,
    }
    found = summaries({MEASUREMENTS[0].name: {"curator": [run]}}, 0.01)[MEASUREMENTS[0].name]["curator"]
    assert found["hangs"] == 1 and "seconds" not in found


@pytest.mark.parametrize("client", [c for c in CLIENTS.values() if c.requirements], ids=lambda c: c.name)
def test_every_peer_is_pinned_completely(client: Any):
    lines = (REQUIREMENTS / f"{client.requirements}.txt").read_text().splitlines()
    assert all(re.fullmatch(r"[A-Za-z0-9._-]+==[^\s;]+", line) for line in lines if not line.startswith("#"))
