"""`zephyr view`: a run's pairs, judgements and labels as pages on the loopback address. Start at `application`.

Every page is written here from templates that escape what models and datasets wrote; the one script presses buttons.
"""

import socket
import threading
from collections import Counter
from collections.abc import Callable
from dataclasses import asdict
from functools import lru_cache
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlencode

import uvicorn
from fastapi import FastAPI, Request
from fastapi.responses import HTMLResponse, PlainTextResponse, RedirectResponse, Response

from flows.browse import Book, Wanted, choices
from flows.labels import Labels
from flows.loopback import Loopback
from flows.people import figures
from flows.recipe import RecipeError
from flows.recipe_file import load_recipe
from flows.run import Run
from judges.human import CHOICES, QUESTION, Choice, shown
from pairs.diff import CHANGES, Changed, diff, folder_of
from records.schema import Completion
from records.stats import Estimate, Rate
from records.store import StoreError
from reports.page import HERE, fill

ROWS, PAIRS = 50, 10
"""Of a page of the list, and of the diff."""
QUEUES = {"disputed": "Judges disagree", "any": "Drawn by chance"}
SAYS: dict[Choice, str] = {
    "first": "The first",
    "second": "The second",
    "tie": "Equally good",
    "unsure": "I cannot tell",
}
STATIC = {
    "report.css": ("report.css", "text/css"),
    "view.css": ("view/view.css", "text/css"),
    "label.js": ("view/label.js", "text/javascript"),
}


def serve(
    folder: Path,
    against: Path | None,
    annotator: str,
    seed: int,
    port: int,
    say: Callable[[str], None],
) -> dict[str, Any]:
    """Show the run in `folder` until Ctrl-C. Returns what was labelled.

    Raises:
        RecipeError: no run or no answers in it, no pairs in `against`, or the port is taken.
    """
    if not (folder / "recipe.yaml").exists():
        raise RecipeError(
            f"{folder} holds no run: no recipe.yaml is in it; wanted a folder such as runs/quickstart"
        )
    if against is not None:
        try:
            folder_of(against)
        except FileNotFoundError as error:
            raise RecipeError(f"--against: {error}") from error
    listening = listen(port)
    book = Book(Run(load_recipe(folder / "recipe.yaml"), folder, str(folder)), say)
    labels = Labels(book.run, annotator)
    before = len(labels.rows)
    url = f"http://127.0.0.1:{listening.getsockname()[1]}/"
    say(f"{url}  until Ctrl-C")
    config = uvicorn.Config(application(book, labels, against, seed), log_level="warning", lifespan="off")
    try:
        uvicorn.Server(config).run(sockets=[listening])
    except KeyboardInterrupt:
        pass  # how it is meant to end
    finally:
        labels.close()
    return {
        "url": url,
        "prompts": len(book.lines),
        "labels": len(labels.rows),
        "new": len(labels.rows) - before,
    }


def listen(port: int) -> socket.socket:
    """A socket on the loopback address; 0: any free port."""
    listening = socket.socket()
    listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listening.bind(("127.0.0.1", port))
        listening.listen(128)
    except OSError as error:
        listening.close()
        raise RecipeError(f"--port {port}: {error.strerror}; wanted a free one, 0 takes any") from error
    return listening


def application(book: Book, labels: Labels, against: Path | None = None, seed: int = 0) -> Loopback:
    """Every page of a run. `against`: another run or dataset that its dataset is compared with."""
    app = FastAPI(docs_url=None, redoc_url=None, openapi_url=None)
    lock = threading.Lock()
    pages = [("/", "Pairs"), ("/label", "Label"), ("/people", "People and judges"), ("/diff", "Diff")]
    if (book.run.folder / "report.html").exists():
        pages.append(("/report", "Report"))
    site = {"run": book.run.recipe.name, "pages": pages}
    queues = {kind: book.queue(kind, seed) for kind in QUEUES}
    pairs_of = {kind: {key: (one, two) for key, one, two in queue} for kind, queue in queues.items()}

    def page(template: str, here: str, **values: Any) -> HTMLResponse:
        return HTMLResponse(fill(f"view/{template}.html.jinja", site=site, here=here, **values))

    @app.get("/static/{name}")
    def static(name: str) -> Response:
        if name not in STATIC:
            return missing(f"no file {name}")
        path, kind = STATIC[name]
        return Response((HERE / path).read_bytes(), media_type=kind)

    @app.get("/")
    def pairs(request: Request) -> Response:
        asked = request.query_params
        wanted = Wanted(**{name: asked.get(name, "") for name in Wanted.__dataclass_fields__})
        found = book.search(wanted)
        number, count = paged(asked.get("page"), len(found), ROWS)
        return page(
            "pairs",
            "/",
            wanted=asdict(wanted),
            choices=choices(book),
            found=len(found),
            every=len(book.lines),
            lines=found[(number - 1) * ROWS : number * ROWS],
            page=number,
            pages=count,
            link=lambda to: "/?" + urlencode({k: v for k, v in asdict(wanted).items() if v} | {"page": to}),
        )

    @app.get("/prompt/{id}")
    def prompt(id: str) -> Response:
        line = book.by_id.get(id)
        if line is None:
            return missing(f"no prompt {id}")
        answers = book.answers_of(line)
        paired = {one.id for pair in line.pairs for one in (pair.chosen, pair.rejected)}
        around = [
            book.lines[i].prompt.id if 0 <= i < len(book.lines) else ""
            for i in (line.place - 1, line.place + 1)
        ]
        return page(
            "prompt",
            "/prompt",
            line=line,
            answers=answers,
            rest=[id for id in answers if id not in paired],
            before=around[0],
            after=around[1],
        )

    @app.get("/label")
    def label(request: Request) -> Response:
        kind, key = request.query_params.get("queue", "disputed"), request.query_params.get("key")
        if kind not in QUEUES or (key is not None and key not in pairs_of[kind]):
            return missing("no such pair to label")
        queue = list(pairs_of[kind])
        with lock:
            said = {one: row.answers[0]["raw"] for one, row in labels.rows.items()}
        left = [one for one in queue if one not in said]
        key = key or (left[0] if left else None)
        place = queue.index(key) if key else 0
        item = None
        if key is not None:
            first, second = shown(key, pairs_of[kind][key], seed)
            prompt = book.by_id[first.prompt_id].prompt
            item = {"key": key, "prompt": prompt, "first": first.text, "second": second.text}
        return page(
            "label",
            "/label",
            question=QUESTION,
            annotator=labels.annotator,
            queues=[(name, says, len(queues[name])) for name, says in QUEUES.items()],
            queue=kind,
            item=item,
            said=SAYS[said[key]] if key in said else "",
            number=place + 1,
            total=len(queue),
            labelled=len(queue) - len(left),
            choices=list(SAYS.items()),
            back=queue[place - 1] if place else "",
            next=queue[place + 1] if key and place + 1 < len(queue) else "",
            nothing="The judges agree everywhere."
            if kind == "disputed"
            else "No prompt has two different answers.",
        )

    @app.post("/label")
    async def put(request: Request) -> Response:
        form = {
            name: values[0]
            for name, values in parse_qs((await request.body()).decode(errors="replace")).items()
        }
        kind, key, choice = form.get("queue", ""), form.get("key", ""), form.get("choice", "")
        if key not in pairs_of.get(kind, {}) or choice not in CHOICES:
            return PlainTextResponse(
                "a label needs `queue`, `key` and `choice` as the page sends them\n", 400
            )
        two: tuple[Completion, Completion] = shown(key, pairs_of[kind][key], seed)
        try:
            with lock:
                labels.put(book.by_id[two[0].prompt_id].prompt, two, choice, kind)
        except StoreError as error:
            return PlainTextResponse(f"the label was not kept: {error}\n", 409)
        return RedirectResponse(f"/label?{urlencode({'queue': kind})}", 303)

    @app.get("/people")
    def people() -> Response:
        return page(
            "people",
            "/people",
            figures=figures(book, seed),
            names=QUEUES,
            estimate=estimate,
            command=f"zephyr judge-card {book.run.folder}/recipe.yaml --gold {book.run.folder}",
        )

    compared = lru_cache(maxsize=1)(lambda: diff(book.run.folder, against) if against else [])

    @app.get("/diff")
    def changes(request: Request) -> Response:
        if against is None:
            why = f"Nothing to compare with. Start it as: zephyr view {book.run.folder} --against OTHER"
            return page("diff", "/diff", why=why)
        try:
            every = compared()
        except (FileNotFoundError, ValueError) as error:
            return page("diff", "/diff", why=str(error))
        counts = Counter(one.change for one in every)
        shown_change = request.query_params.get("change", next((c for c in CHANGES if counts[c]), "same"))
        found: list[Changed] = [one for one in every if one.change == shown_change]
        number, count = paged(request.query_params.get("page"), len(found), PAIRS)
        return page(
            "diff",
            "/diff",
            why="",
            here_path=book.run.folder,
            there_path=against,
            counts=[(change, says, counts[change]) for change, says in CHANGES.items()],
            shown=shown_change,
            found=len(found),
            rows=[
                one._replace(here=sides(one.here), there=sides(one.there))
                for one in found[(number - 1) * PAIRS : number * PAIRS]
            ],
            page=number,
            pages=count,
        )

    @app.get("/report")
    def report() -> Response:
        path = book.run.folder / "report.html"
        if not path.exists():
            return missing("no report yet; `zephyr report` draws it")
        own = {"Content-Security-Policy": "frame-ancestors 'none'"}  # the page itself says what it may load
        return HTMLResponse(path.read_text(encoding="utf-8"), headers=own)

    return Loopback(app)


def sides(own: Any) -> dict[str, Any] | None:
    return own._asdict() if own else None


def missing(why: str) -> Response:
    return PlainTextResponse(f"{why}\n", 404)


def paged(asked: str | None, rows: int, size: int) -> tuple[int, int]:
    """The page that was asked for, or the nearest there is, and how many there are."""
    count = max(1, -(-rows // size))
    number = int(asked) if asked and asked.isdecimal() else 1
    return min(max(1, number), count), count


def estimate(own: Estimate | Rate | None) -> str:
    """`0.61 (0.50 to 0.72)`."""
    return "–" if own is None else f"{own.value:.2f} ({own.low:.2f} to {own.high:.2f})"
