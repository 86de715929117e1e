"""The viewer's pages over HTTP: what they show, what they hide, whom they refuse, and that text stays text."""

import json
import re
import signal
import subprocess
import sys
import urllib.parse
import urllib.request
from pathlib import Path

import pytest
from starlette.testclient import TestClient
from typer.testing import CliRunner

from flows.browse import Book
from flows.cli import app
from flows.labels import Labels
from flows.run import Run
from flows.view import application, listen
from judges.human import shown
from tests.view.stored_run import ATTACK, stored_run

BASE = "http://127.0.0.1:8321"
OWN = {"Origin": BASE}


@pytest.fixture(scope="module")
def book(run: Run) -> Book:
    return Book(run)


@pytest.fixture
def client(book: Book, tmp_path: Path) -> TestClient:
    """The viewer of the shared run; labels go elsewhere."""
    elsewhere = Labels(Run(book.run.recipe, tmp_path, str(tmp_path)), "anna")
    return TestClient(application(book, elsewhere), base_url=BASE, follow_redirects=False)


def rows(page: str) -> list[str]:
    return re.findall(r'<a href="/prompt/([0-9a-f]+)">', page)


@pytest.mark.parametrize(
    "host", ["evil.example", "evil.example:8321", "127.0.0.1.evil.example", "", "0.0.0.0"]
)
def test_another_name_for_this_address_is_refused(client: TestClient, host: str):
    for path in ("/", "/label", "/report", "/static/label.js"):
        answer = client.get(path, headers={"Host": host})
        assert answer.status_code == 403 and "Host is" in answer.text


@pytest.mark.parametrize("host", ["localhost:9999", "127.0.0.1", "[::1]:8321", "LOCALHOST"])
def test_this_address_is_served_by_all_its_own_names(client: TestClient, host: str):
    assert client.get("/", headers={"Host": host}).status_code == 200


@pytest.mark.parametrize(
    "origin", ["https://evil.example", "http://127.0.0.1:3000", "null", "http://localhost:8321"]
)
def test_another_origin_neither_reads_nor_labels(client: TestClient, book: Book, origin: str):
    key = book.queue("any", 0)[0][0]
    label = {"queue": "any", "key": key, "choice": "first"}
    assert client.get("/", headers={"Origin": origin}).status_code == 403
    assert client.post("/label", data=label, headers={"Origin": origin}).status_code == 403
    assert client.post("/label", data=label).status_code == 403, "no Origin at all"
    assert "0 labelled" in client.get("/label?queue=any").text
    assert client.post("/label", data=label, headers=OWN).status_code == 303
    assert "1 labelled" in client.get("/label?queue=any").text


def test_pages_allow_nothing_but_their_own_script_and_style(client: TestClient):
    for path in ("/", "/label", "/people", "/diff", "/nothing"):
        answer = client.get(path)
        policy = answer.headers["content-security-policy"]
        assert (
            "default-src 'none'" in policy and "unsafe" not in policy and "frame-ancestors 'none'" in policy
        )
        assert answer.headers["x-content-type-options"] == "nosniff"
        assert answer.headers["cross-origin-resource-policy"] == "same-origin"
        assert not re.findall(r"https?://", answer.text.replace("http://www.w3.org", ""))
        assert not re.search(r"<script>|\sstyle=|\son\w+=", answer.text)


def test_what_a_model_wrote_is_text_on_every_page(client: TestClient, book: Book):
    id = next(line.prompt.id for line in book.lines if line.has("broken in"))
    key = next(key for key, one, _ in book.queue("any", 0) if one.prompt_id == id)
    for path in (f"/prompt/{id}", f"/label?queue=any&key={key}"):
        page = client.get(path).text
        assert "&lt;script&gt;document.title" in page and "<img" not in page
    assert "<script>document" not in client.get("/", params={"words": ATTACK}).text
    assert ATTACK.split()[0] not in client.get("/", params={"words": ATTACK, "split": ATTACK}).text


def test_the_list_is_filtered_searched_ordered_and_cut_into_pages(client: TestClient, book: Book):
    assert len(rows(client.get("/").text)) == 50 and len(rows(client.get("/?page=2").text)) == 10
    assert rows(client.get("/?page=99").text) == rows(client.get("/?page=2").text)
    (found,) = rows(client.get("/?words=NUMBER 17 in").text)
    assert book.by_id[found].prompt.text.startswith("Say something about number 17 ")
    test = rows(client.get("/?split=test").text)
    assert test and all(book.by_id[id].prompt.meta["split"] == "test" for id in test)
    hot = rows(client.get("/?chosen=hot&rejected=cool&order=closest").text)
    margins = [book.by_id[id].margin or 0 for id in hot]
    assert margins == sorted(margins) and {book.by_id[id].pairs[0].chosen.model for id in hot} == {"hot"}
    disputed = rows(client.get("/?judged=disputed").text)
    assert disputed == [line.prompt.id for line in book.lines if line.disputed][:50]
    assert "Nothing fits" in client.get("/?words=zebra").text


def test_a_prompt_shows_both_answers_with_what_judges_were_asked_and_said(client: TestClient, book: Book):
    line = next(line for line in book.lines if line.pairs and not line.has("<"))
    page = client.get(f"/prompt/{line.prompt.id}").text
    (pair,) = line.pairs
    assert page.index("Chosen") < page.index(pair.chosen.text) < page.index("Rejected")
    assert page.index("Rejected") < page.index(pair.rejected.text)
    assert page.count("You grade one response to an instruction") == 2, "the judge's prompt for each"
    for completion in (pair.chosen, pair.rejected):
        (rated,) = (j for j in book.case(line).judgements[completion.id] if j.judge == "rating")
        assert rated.distribution and f">{rated.raw}</pre>" in page
        for label, share in rated.distribution.items():
            assert f'<th scope="row">{label}</th><td class="n">{share:.2f}</td>' in page
    assert client.get("/prompt/none").status_code == 404


def test_labelling_is_blind_and_its_order_is_drawn_by_the_seed(book: Book, client: TestClient):
    """Nothing of the page says who wrote an answer, what it scored or which was chosen, and places carry no hint."""
    first, chosen_first = 0, 0
    queue = book.queue("any", 0)
    for key, *two in queue[:40]:
        page = client.get(f"/label?queue=any&key={key}").text
        said = page[page.index("<form") : page.index("</form>")]
        assert not re.search(r"\bcool\b|\bhot\b|chosen|rejected|score|points|margin", said)
        assert not any(one.id in page for one in two)
        left, right = shown(key, two, 0)
        if "<" not in left.text + right.text:
            assert said.index(f">{left.text}</p>") < said.index(f">{right.text}</p>")
        first += left.model == "cool"
        chosen_first += any(pair.chosen.id == left.id for pair in book.by_id[left.prompt_id].pairs)
    assert 10 <= first <= 30 and 8 <= chosen_first <= 30
    assert [key for key, *_ in book.queue("any", 1)] != [key for key, *_ in queue]
    assert [key for key, *_ in Book(book.run).queue("any", 0)] == [key for key, *_ in queue]


def test_a_label_that_the_page_cannot_have_sent_is_refused(client: TestClient, book: Book):
    key = book.queue("any", 0)[0][0]
    for wrong in (
        {},
        {"queue": "any", "key": key, "choice": "best"},
        {"queue": "any", "key": "?", "choice": "tie"},
    ):
        assert client.post("/label", data=wrong, headers=OWN).status_code == 400
    assert client.get("/label?queue=other").status_code == 404


def test_two_datasets_are_compared_prompt_by_prompt(tmp_path: Path):
    mine, yours = (
        stored_run(tmp_path / "a", 24),
        stored_run(
            tmp_path / "b", 20, judge={"kind": "rating", "model": "fake"}, pairs={"policy": "best_vs_worst"}
        ),
    )
    client = TestClient(application(Book(mine), Labels(mine, "anna"), yours.folder), base_url=BASE)
    page = client.get("/diff").text
    counts = {says: int(n) for says, n in re.findall(r">([a-z ]+) \((\d+)\)</a>", page)}
    ours, theirs = Book(mine), Book(yours)
    pairs = {
        id: (line.pairs[0], theirs.by_id[id].pairs[0])
        for id, line in ours.by_id.items()
        if line.pairs and id in theirs.by_id and theirs.by_id[id].pairs
    }
    swapped = [id for id, (a, b) in pairs.items() if a.chosen.id == b.rejected.id]
    assert counts["chosen and rejected have changed places"] == len(swapped) > 0
    assert counts["the same pair"] == sum(a.chosen.id == b.chosen.id for a, b in pairs.values()) > 0
    assert counts["a pair only here"] >= 2
    shown_ids = re.findall(r'/prompt/([0-9a-f]+)"', client.get("/diff?change=swapped").text)
    assert shown_ids == swapped[:10]
    alone = TestClient(application(ours, Labels(mine, "anna")), base_url=BASE).get("/diff").text
    assert "Nothing to compare with" in alone


def test_the_command_serves_until_it_is_told_to_stop_and_ends_with_what_was_labelled(tmp_path: Path):
    run = stored_run(tmp_path, 8)
    command = [sys.executable, "-m", "flows.cli", "view", str(run.folder), "--port", "0", "--json"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert process.stderr and process.stdout
    url = next(line for line in process.stderr if line.startswith("http://127.0.0.1:")).split()[0]
    with urllib.request.urlopen(f"{url}label?queue=any") as answer:
        key = re.findall(r'name="key" value="(\w+)"', answer.read().decode())[0]
    label = urllib.parse.urlencode({"queue": "any", "key": key, "choice": "tie"}).encode()
    urllib.request.urlopen(urllib.request.Request(f"{url}label", label, {"Origin": url.rstrip("/")})).close()
    process.send_signal(signal.SIGINT)
    said, _ = process.communicate(timeout=60)
    found = json.loads(said.splitlines()[-1])
    assert process.returncode == 0 and found == {"ok": True, "url": url, "prompts": 8, "labels": 1, "new": 1}
    taken = listen(0)
    port = str(taken.getsockname()[1])
    refused = CliRunner().invoke(app, ["view", str(run.folder), "--port", port])
    taken.close()
    assert refused.exit_code == 2 and f"--port {port}: Address already in use" in refused.stderr
    assert CliRunner().invoke(app, ["view", str(tmp_path)]).exit_code == 2
    other = CliRunner().invoke(app, ["view", str(run.folder), "--against", str(tmp_path)])
    assert other.exit_code == 2 and "--against" in other.stderr
