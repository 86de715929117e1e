"""What the documentation says is there: commands, options, recipes, code, links, fields, columns."""

import json
import re
import shlex
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple, get_args

import pytest
import typer.main
from typer.testing import CliRunner

from flows.cli import app
from flows.recipe_file import load_recipe
from pairs.rows import COLUMNS, VIEWS
from records.arrow import COMPLETION, DROPPED, JUDGEMENT, PROMPT
from records.schema import Reason, Status
from tests.test_install import load
from tests.view.stored_run import stored_run

ROOT = Path(__file__).parent.parent
PAGES = [*sorted(ROOT.glob("*.md")), *sorted((ROOT / "docs").glob("*.md")), ROOT / "prompts/README.md"]
COMMANDS: dict[str, Any] = typer.main.get_command(app).commands  # type: ignore[attr-defined]
TARGETS = set(re.findall(r"^([a-z][a-z-]*):", (ROOT / "Makefile").read_text(), re.MULTILINE))
OTHERS = {"export", "python3", ".venv/bin/pip", ".venv/bin/prefect", "python", "tail", "ssh"}
"""Commands of others that a console block may have."""


class Block(NamedTuple):
    page: Path
    line: int
    language: str
    text: str

    @property
    def place(self) -> str:
        return f"{self.page.relative_to(ROOT)}:{self.line}"


def blocks(*languages: str) -> list[Block]:
    return [block for page in PAGES for block in _blocks(page) if block.language in languages]


def _blocks(page: Path) -> Iterator[Block]:
    text = page.read_text(encoding="utf-8")
    for match in re.finditer(r"^```(\w*)\n(.*?)^```$", text, re.MULTILINE | re.DOTALL):
        yield Block(page, text[: match.start()].count("\n") + 1, match[1], match[2])


def place(block: Block) -> str:
    return block.place


def slug(heading: str) -> str:
    """A heading's anchor, as GitHub makes it."""
    return re.sub(r"[^\w\- ]", "", heading.strip().lower()).replace(" ", "-")


def test_every_fence_is_closed_and_says_its_language():
    for page in PAGES:
        fences = [line for line in page.read_text().splitlines() if line.startswith("```")]
        assert len(fences) % 2 == 0, page
        assert all(len(fence) > 3 for fence in fences[::2]), f"{page.name} has a block without a language"


def check_zephyr(words: list[str]) -> None:
    """A command line of ours: the command reads it, and the files and fields it names exist."""
    verb, *rest = words
    assert verb in COMMANDS, f"zephyr has no verb {verb!r}"
    COMMANDS[verb].make_context(verb, list(rest))  # raises for an option or a value that it does not take
    for word in rest:
        if word.endswith(".yaml") and not word.startswith("runs/"):
            assert (ROOT / word).exists(), f"{word} does not exist"
    replaced = [value for option, value in pairwise(rest) if option == "--set"]
    if replaced:
        load_recipe(ROOT / rest[0], replaced)


def commands() -> Iterator[list[str]]:
    """Every command line of ours in a console block, each once."""
    lines = [line[2:] for block in blocks("console") for line in block.text.splitlines()]
    for line in dict.fromkeys(lines):
        if line.startswith("zephyr "):
            yield shlex.split(line)[1:]


@pytest.fixture
def checkout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where somebody stands who has done what the pages say: a finished `runs/quickstart`, and no network."""
    for folder in ("recipes", "prompts", "benchmarks"):
        (tmp_path / folder).symlink_to(ROOT / folder)
    made = stored_run(tmp_path / "made", 12)
    (tmp_path / "runs").mkdir()
    made.folder.rename(tmp_path / "runs/quickstart")
    monkeypatch.chdir(tmp_path)
    for name in ("HF_HUB_OFFLINE", "HF_DATASETS_OFFLINE"):
        monkeypatch.setenv(name, "1")
    return tmp_path


def is_cheap(words: list[str]) -> bool:
    """Asks no model and no network, and comes to an end by itself."""
    if words[0] == "plan":
        return words[1] == "recipes/quickstart.yaml" and "--probe" not in words
    return words[0] in ("report", "export") and words[1] == "runs/quickstart" and "--push" not in words


def test_cheap_commands_do_what_the_pages_say(checkout: Path):
    done = [words for words in commands() if is_cheap(words)]
    assert {words[0] for words in done} == {"plan", "export"}
    for words in done:
        found = CliRunner().invoke(app, [*words, "--json"])
        assert found.exit_code == 0, f"zephyr {shlex.join(words)}: {found.output}"
        assert json.loads(found.stdout.splitlines()[-1])["ok"] is True


def test_every_recipe_that_is_named_exists():
    for page in [*PAGES, *sorted((ROOT / "recipes").glob("*.yaml"))]:
        for name in re.findall(r"recipes/[a-z][\w-]*\.yaml", page.read_text(encoding="utf-8")):
            assert (ROOT / name).exists(), f"{page.name} names {name}"


@pytest.mark.parametrize("block", blocks("console"), ids=place)
def test_commands_exist_with_their_options(block: Block):
    lines = [line[2:] for line in block.text.splitlines() if line.startswith("$ ")]
    assert lines, "a console block has lines that begin with `$ `"
    for command in (part for line in lines for part in line.split(" && ")):
        program, *words = shlex.split(command)
        if program in ("zephyr", ".venv/bin/zephyr"):
            check_zephyr(words)
        elif program == "make":
            assert words[0] in TARGETS, f"make has no target {words[0]!r}"
        else:
            assert program in OTHERS or program.startswith("~/"), command


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_commands_in_the_text_exist(page: Path):
    prose = re.sub(r"^```.*?^```$", "", page.read_text(), flags=re.MULTILINE | re.DOTALL)
    for program, verb in re.findall(r"`(zephyr|make) ([a-z-]+)[^`]*`", prose):
        assert verb in (COMMANDS if program == "zephyr" else TARGETS), f"{page.name}: {program} {verb}"


def test_the_readme_lists_every_verb():
    readme = (ROOT / "README.md").read_text()
    assert sorted(re.findall(r"^\| `zephyr ([a-z-]+)", readme, re.MULTILINE)) == sorted(COMMANDS)


def test_the_guide_for_contributors_lists_every_target():
    guide = (ROOT / "CONTRIBUTING.md").read_text()
    assert set(re.findall(r"^\| `make ([a-z-]+)`", guide, re.MULTILINE)) == TARGETS


@pytest.mark.parametrize("block", [b for b in blocks("yaml") if b.text.startswith("# recipe")], ids=place)
def test_recipes_in_the_documentation_load(block: Block, tmp_path: Path):
    path = tmp_path / "recipe.yaml"
    path.write_text(block.text)
    recipe = load_recipe(path)
    assert all(recipe.asked(sampler) for sampler in recipe.samplers)
    assert all(member.asked() for member in recipe.judges)


@pytest.mark.parametrize("block", blocks("python"), ids=place)
def test_python_in_the_documentation_compiles(block: Block):
    compile(block.text, block.place, "exec")


async def test_the_judge_in_the_documentation_judges():
    from records.schema import Completion, Prompt

    (block,) = [b for b in blocks("python") if "class Overlap" in b.text]
    space: dict[str, Any] = {"__name__": "overlap"}
    exec(compile(block.text, block.place, "exec"), space)
    message: Any = {"role": "user", "content": "Explain tea"}
    prompt = Prompt(id="p", messages=(message,), source="test")
    answer = Completion(
        id="c", prompt_id="p", model="m", text="tea is a drink", finish_reason="stop", fingerprint="f"
    )
    settings = space["Overlap"]()
    assert settings.asked()["kind"] == "overlap"
    (verdict,) = await settings.build()(prompt, [answer])
    assert (settings.aspects, settings.scope, settings.asks) == (("overlap",), "completion", None)
    assert (verdict.status, verdict.score, verdict.detail) == ("ok", 0.5, "1 of 2 words")


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_resolve(page: Path):
    text = re.sub(r"^```.*?^```$", "", page.read_text(encoding="utf-8"), flags=re.MULTILINE | re.DOTALL)
    for target in re.findall(r"\]\(([^)\s]+)\)", text):
        if re.match(r"[a-z]+:", target):
            continue
        file, _, anchor = target.partition("#")
        found = (page.parent / file).resolve() if file else page
        assert found.exists(), f"{page.name} links to {target}"
        if anchor:
            headings = re.findall(r"^#+ (.*)$", found.read_text(encoding="utf-8"), re.MULTILINE)
            assert anchor in {slug(heading) for heading in headings}, f"{page.name} links to {target}"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_files_named_in_the_text_exist(page: Path):
    ours = r"(?:flows|judges|pairs|prompts|records|reports|serving|trainers|tests|deploy|recipes|docs)"
    for name in re.findall(rf"`({ours}/[\w./-]*\.\w+)`", page.read_text(encoding="utf-8")):
        made_up = "NAME" in name or name.endswith("overlap.py")
        assert made_up or (ROOT / name).exists(), f"{page.name} names {name}"


def fields() -> ModuleType:
    return load(ROOT / "docs/fields.py")


def test_the_field_tables_are_those_of_the_code():
    page = (ROOT / "docs/recipes.md").read_text(encoding="utf-8")
    assert page == fields().page(page), "the settings have changed; run: .venv/bin/python docs/fields.py"


def named(section: str) -> set[str]:
    """What stands in backticks in the first cell of a table's rows, under a heading of run-folder.md."""
    text = (ROOT / "docs/run-folder.md").read_text(encoding="utf-8")
    body = re.split(r"^#+ ", text.split(f"# {section}\n")[1], flags=re.MULTILINE)[0]
    cells = re.findall(r"^\| (`[^|]*) \|", body, re.MULTILINE)
    return {name for cell in cells for name in re.findall(r"`([^`]+)`", cell)}


@pytest.mark.parametrize(
    ("section", "columns"),
    [("Prompt", PROMPT), ("Completion", COMPLETION), ("Judgement", JUDGEMENT)],
    ids=["prompt", "completion", "judgement"],
)
def test_every_stored_column_is_explained(section: str, columns: Any):
    assert named(section) == {field.name for field in columns}


def test_every_column_and_view_of_the_dataset_is_explained():
    assert named("The dataset") == {*COLUMNS, *VIEWS, "default"}


def test_every_reason_and_status_is_explained():
    assert named("Why a record went no further") == set(get_args(Reason))
    page = (ROOT / "docs/run-folder.md").read_text()
    assert [status for status in get_args(Status) if f"`{status}`" not in page] == []
    assert [field.name for field in DROPPED if f"`{field.name}`" not in page] == []


def test_the_notes_say_nothing_of_the_machine_they_were_written_on():
    for page in PAGES:
        assert not re.findall(r"/(?:work|tmp|root|opt|home)/", page.read_text()), page.name
