"""The command `zephyr`. Thin: options in, one flow, one answer out.

Every verb takes --json: then the last line of stdout is one JSON object. Logs and progress are on stderr.
Exit 0 done, 1 the run failed, 2 the input was wrong.
"""

import asyncio
import json
import logging
import os
import signal
import sys
import threading
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import Annotated, Any, NoReturn

import typer

app = typer.Typer(
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=False,
    help="AI-feedback preference training: prompts, completions, judgements, pairs, SFT, DPO, evaluation.",
)

RecipePath = Annotated[Path, typer.Argument(metavar="RECIPE", help="A recipe file, as in recipes/.")]
Set = Annotated[
    list[str] | None, typer.Option("--set", metavar="A.B=C", help="Replace a field of the recipe.")
]
Out = Annotated[Path | None, typer.Option("--out", metavar="DIR", help="Folder for runs; default: runs/.")]
Store = Annotated[
    str | None,
    typer.Option("--store", metavar="ADDRESS", help="Where shards go instead: any fsspec address."),
]
Json = Annotated[bool, typer.Option("--json", help="End with one JSON object on stdout.")]


def main() -> None:
    """The console script."""
    app()


def answer(work: Callable[[], dict[str, Any]], as_json: bool, text: Callable[[dict[str, Any]], str]) -> None:
    """Run a verb, print what it came to, and leave with the right code."""
    os.environ.setdefault("PREFECT_LOGGING_LEVEL", "CRITICAL")
    os.environ.setdefault("PREFECT_SERVER_ANALYTICS_ENABLED", "false")
    os.environ.setdefault("PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS", "180")
    os.environ.setdefault("DO_NOT_TRACK", "1")
    os.environ.setdefault("HF_DATASETS_DISABLE_PROGRESS_BARS", "1")
    logging.basicConfig(
        stream=sys.stderr, level=logging.WARNING, format="%(levelname)s %(name)s: %(message)s"
    )
    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGTERM, signal.default_int_handler)  # both mean: stop, and keep what is there
    try:
        result = work()
    except BaseException as error:
        # within a flow Prefect turns SIGTERM into an exception of its own
        if (
            isinstance(error, KeyboardInterrupt | asyncio.CancelledError)
            or type(error).__name__ == "TerminationSignal"
        ):
            _fail("stopped; what was answered is kept, the same command goes on from here", 130, as_json)
        code = exit_code(error)
        if code is None:
            raise
        _fail(str(error), code, as_json)
    if as_json:
        print(json.dumps({"ok": True, **result}, ensure_ascii=False, default=str))
    else:
        print(text(result))
    if result.get("ok") is False:
        sys.stdout.flush()
        raise typer.Exit(1)


def exit_code(error: BaseException) -> int | None:
    """2 where the input was wrong, 1 where the run failed, None for what nobody foresaw: that wants a traceback."""
    from flows.recipe import RecipeError
    from judges.gold import GoldError
    from prompts.load import PromptError
    from records.store import StoreError
    from serving.errors import ServingError, WrongModel

    if isinstance(error, RecipeError | GoldError | PromptError | WrongModel):
        return 2
    failures = {
        "DatasetError",
        "StageFailed",
        "TrainingFailed",
    }  # their modules import Prefect; not needed for a name
    if isinstance(error, StoreError | ServingError) or type(error).__name__ in failures:
        return 1
    return None


def _fail(message: str, code: int, as_json: bool) -> NoReturn:
    print(f"zephyr: {message}", file=sys.stderr)
    if as_json:
        print(json.dumps({"ok": False, "error": message, "exit": code}, ensure_ascii=False))
    sys.stdout.flush()
    raise typer.Exit(code)


def _recipe(path: Path, overrides: list[str] | None) -> Any:
    from flows.recipe import load_recipe

    return load_recipe(path, overrides or ())


def _flow(start: Callable[[], Any]) -> dict[str, Any]:
    """Run a flow to its end with progress on stderr."""
    from flows.progress import shown
    from flows.server import guard_temporary_server

    guard_temporary_server()
    with shown():
        return asyncio.run(start())


def _conduct(
    module: str, flow: str, recipe: Path, overrides: list[str] | None, as_json: bool, *options: Any
) -> None:
    """One flow as a verb. Imported after the recipe is read: a mistake in it should not wait for Prefect."""

    def work() -> dict[str, Any]:
        settings = _recipe(recipe, overrides)
        start = getattr(import_module(module), flow)
        return _flow(lambda: start(settings, *options))

    answer(work, as_json, _summary)


def _summary(result: dict[str, Any]) -> str:
    from flows.artifacts import summary_text

    return summary_text(result)


@app.command()
def run(
    recipe: RecipePath, set: Set = None, out: Out = None, store: Store = None, json: Json = False
) -> None:
    """Everything: completions, judgements, pairs, SFT, DPO, evaluation, report. Goes on where it was stopped."""
    _conduct("flows.zephyr", "zephyr", recipe, set, json, out, store)


@app.command()
def plan(
    recipe: RecipePath,
    set: Set = None,
    out: Out = None,
    store: Store = None,
    json: Json = False,
    probe: Annotated[
        bool,
        typer.Option(
            "--probe",
            help="Measure the speed of endpoints that are up: some seventy requests each, a minute at most.",
        ),
    ] = False,
) -> None:
    """Calls, tokens, money, GPU-hours and time before anything is spent, and what is there already."""

    def work() -> dict[str, Any]:
        settings = _recipe(recipe, set)
        from flows.plan import plan as count
        from flows.plan import plan_text
        from flows.run import Run
        from flows.speeds import speeds

        found = Run.at(settings, out, store)
        counted = count(found, asyncio.run(speeds(found)) if probe else None)
        return counted.content() | {"text": plan_text(found, counted)}

    answer(work, json, lambda result: result["text"])


@app.command()
def generate(
    recipe: RecipePath, set: Set = None, out: Out = None, store: Store = None, json: Json = False
) -> None:
    """Every sampler's answers to every prompt."""
    _conduct("flows.preferences", "generate_responses", recipe, set, json, out, store)


@app.command()
def judge(
    recipe: RecipePath,
    retry_failed: Annotated[
        bool, typer.Option("--retry-failed", help="Ask again where a judge's answer was no verdict.")
    ] = False,
    reparse: Annotated[
        bool, typer.Option("--reparse", help="Read stored answers of judges again; asks nothing.")
    ] = False,
    set: Set = None,
    out: Out = None,
    store: Store = None,
    json: Json = False,
) -> None:
    """Every judge's verdict on every completion."""

    def work() -> dict[str, Any]:
        settings = _recipe(recipe, set)
        if reparse:
            from flows.recipe import RecipeError
            from flows.reparse import reparse as read_again

            if retry_failed:
                raise RecipeError("--reparse asks nothing and --retry-failed asks again; give one of them")
            return _flow(lambda: read_again(settings, out, store))
        from flows.preferences import judge_responses

        return _flow(lambda: judge_responses(settings, out, store, retry_failed))

    def text(result: dict[str, Any]) -> str:
        if not reparse:
            return _summary(result)
        return "\n".join(
            f"{name:<12}{count['read']:>7} read again  {count['changed']:>7} changed"
            for name, count in result["reparsed"].items()
        )

    answer(work, json, text)


@app.command()
def pairs(
    recipe: RecipePath, set: Set = None, out: Out = None, store: Store = None, json: Json = False
) -> None:
    """The preference dataset, from completions and judgements; asks only for those that are missing."""
    _conduct("flows.preferences", "build_preferences", recipe, set, json, out, store)


@app.command("reject-sample")
def reject_sample(
    recipe: RecipePath,
    check_with: Annotated[
        Path | None,
        typer.Option(
            "--check-with",
            metavar="OTHER",
            help="A recipe or judge file: does its judge find the best better?",
        ),
    ] = None,
    set: Set = None,
    out: Out = None,
    store: Store = None,
    json: Json = False,
) -> None:
    """Best-of-n: the judge's best answer of each prompt as a row for SFT."""

    def work() -> dict[str, Any]:
        settings = _recipe(recipe, set)
        from flows.subject import load_subject

        other = load_subject(check_with) if check_with else None
        from flows.preferences import reject_sampling

        return _flow(lambda: reject_sampling(settings, out, store, other))

    answer(work, json, _summary)


@app.command()
def pretrain(recipe: RecipePath, set: Set = None, out: Out = None, json: Json = False) -> None:
    """Goes on pretraining the base on plain text."""
    _conduct("flows.train", "pretrain", recipe, set, json, out)


@app.command()
def sft(recipe: RecipePath, set: Set = None, out: Out = None, json: Json = False) -> None:
    """Fine-tune on the best answers."""
    _conduct("flows.train", "train_sft", recipe, set, json, out)


@app.command()
def reward(recipe: RecipePath, set: Set = None, out: Out = None, json: Json = False) -> None:
    """A reward model, trained on the pairs, from the SFT model where the recipe has one."""
    _conduct("flows.train", "train_reward", recipe, set, json, out)


@app.command()
def dpo(
    recipe: RecipePath,
    sweep: Annotated[
        list[str] | None,
        typer.Option(metavar="FIELD=A,B,C", help="Train a model for each value; given twice, for each pair."),
    ] = None,
    set: Set = None,
    out: Out = None,
    json: Json = False,
) -> None:
    """Train on the pairs, from the SFT model where the recipe has one."""
    if not sweep:
        return _conduct("flows.train", "train_dpo", recipe, set, json, out)

    def work() -> dict[str, Any]:
        settings = _recipe(recipe, set)
        from flows.sweep import settings_of, sweep_dpo

        settings_of(settings, sweep)
        return _flow(lambda: sweep_dpo(settings, sweep, out))

    def text(result: dict[str, Any]) -> str:
        from flows.sweep import table_text

        return table_text(result["sweep"])

    answer(work, json, text)


@app.command()
def rlhf(recipe: RecipePath, set: Set = None, out: Out = None, json: Json = False) -> None:
    """Reinforcement learning on the run's prompts; the recipe's judge, or its reward model, scores the answers."""
    _conduct("flows.train", "train_rlhf", recipe, set, json, out)


@app.command()
def evaluate(
    recipe: RecipePath, set: Set = None, out: Out = None, store: Store = None, json: Json = False
) -> None:
    """Held-out prompts before and after training, scored by the recipe's judge, with intervals."""
    _conduct("flows.evaluate", "evaluate", recipe, set, json, out, store)


@app.command("judge-card")
def judge_card(
    judge: Annotated[
        Path,
        typer.Argument(metavar="RECIPE|JUDGE", help="A recipe, or a file with only `models` and `judge`."),
    ],
    gold: Annotated[Path, typer.Option("--gold", metavar="FILE", help="Answers that people have compared.")],
    layout: Annotated[
        str, typer.Option(help="Of the file: gold, pandalm, hhh, judgebench, llmbar, autoj; auto looks.")
    ] = "auto",
    limit: Annotated[
        int | None, typer.Option(min=1, help="Rows of the file, at most; drawn by chance.")
    ] = None,
    margin: Annotated[
        float, typer.Option(min=0, max=1, help="Scores nearer than this are a tie; on the scale 0 to 1.")
    ] = 0.0,
    canaries: Annotated[
        int, typer.Option(min=0, help="Items whose better answer is put against bad ones that must lose.")
    ] = 50,
    set: Set = None,
    out: Out = None,
    json: Json = False,
) -> None:
    """How good a judge is on labels of people: agreement, biases, calibration, failures, cost."""

    def work() -> dict[str, Any]:
        from flows.subject import load_subject
        from judges.gold import layout_named, load_gold

        subject, known = load_subject(judge, set or ()), layout_named(layout)
        load_gold(gold, known)
        from flows.judge_card import judge_card as flow

        return _flow(lambda: flow(subject, gold, known, limit, margin, canaries, out))

    def text(card: dict[str, Any]) -> str:
        from flows.card_text import card_text

        return card_text(card)

    answer(work, json, text)


@app.command()
def selftest(
    recipe: Annotated[
        Path | None,
        typer.Argument(
            metavar="[RECIPE]", help="Its judge, pairs and samplers; without one, every kind of judge."
        ),
    ] = None,
    prompts: Annotated[int, typer.Option(min=1, help="Prompts asked.")] = 500,
    answers: Annotated[
        int | None,
        typer.Option(min=2, max=16, help="Answers to each; 4. A recipe's samplers decide themselves."),
    ] = None,
    kinds: Annotated[
        str, typer.Option(metavar="A,B", help="Kinds of judges, or single ones as pairwise/ties; all.")
    ] = "",
    seed: Annotated[int, typer.Option(min=0, help="Of all chance.")] = 0,
    bias: Annotated[
        float, typer.Option(min=0, max=0.4, help="The oracle's liking for the first place.")
    ] = 0.2,
    noise: Annotated[
        float, typer.Option(min=0, max=0.5, help="Of its verdicts, as a share of the scale.")
    ] = 0.05,
    malformed: Annotated[float, typer.Option(min=0, max=1, help="Share of its replies.")] = 0.05,
    truncated: Annotated[float, typer.Option(min=0, max=1, help="Share of its replies.")] = 0.02,
    refused: Annotated[float, typer.Option(min=0, max=1, help="Share of its replies.")] = 0.02,
    set: Set = None,
    out: Annotated[Path | None, typer.Option("--out", metavar="DIR", help="Keep the run there.")] = None,
    json: Json = False,
) -> None:
    """Prove the labels: a run whose truth is known; none may be wrong, and each that can be told is recovered."""

    def work() -> dict[str, Any]:
        from flows.recipe import RecipeError

        settings = _recipe(recipe, set) if recipe else None
        wanted = [kind.strip() for kind in kinds.split(",") if kind.strip()]
        if recipe and (answers or wanted):
            raise RecipeError("a recipe has its own samplers and judge; leave out --answers and --kinds")
        if set and not recipe:
            raise RecipeError("--set replaces fields of a recipe; name one")
        rates = {
            "bias": bias,
            "noise": noise,
            "malformed": malformed,
            "truncated": truncated,
            "refused": refused,
        }
        if malformed + truncated + refused > 1:
            raise RecipeError("--malformed, --truncated and --refused are shares and sum to more than 1")
        from flows.selftest import chosen_cases
        from flows.selftest import selftest as flow

        chosen_cases(wanted, answers or 4)
        return _flow(lambda: flow(settings, wanted, prompts, answers or 4, rates, seed, out))

    def text(result: dict[str, Any]) -> str:
        from flows.selftest_text import selftest_text

        return selftest_text(result)

    answer(work, json, text)


@app.command()
def show(
    recipe: RecipePath,
    prompt_id: Annotated[
        str | None, typer.Argument(help="The beginning of a prompt's id; without it, one that became a pair.")
    ] = None,
    set: Set = None,
    out: Out = None,
    store: Store = None,
    json: Json = False,
) -> None:
    """One record at every stage, with the judge's exact prompt and raw answer."""

    def work() -> dict[str, Any]:
        settings = _recipe(recipe, set)
        from flows.run import Run
        from flows.show import show as find

        return find(Run.at(settings, out, store), prompt_id)

    def text(record: dict[str, Any]) -> str:
        from flows.show import show_text

        return show_text(record)

    answer(work, json, text)


DATASET = "A .jsonl or .parquet file, a folder of them, or a dataset of the Hugging Face Hub."
Dataset = Annotated[str, typer.Argument(metavar="DATASET", help=DATASET)]
Revision = Annotated[
    str | None, typer.Option(metavar="COMMIT", help="Of a dataset of the Hub; default: the newest.")
]


@app.command("import")
def import_(
    dataset: Dataset,
    name: Annotated[str, typer.Option("--as", metavar="NAME", help="Names the run that it becomes.")],
    revision: Revision = None,
    out: Out = None,
    json: Json = False,
) -> None:
    """A published preference dataset as a run, to pair it anew, judge more of it or add answers. Asks no model."""

    def work() -> dict[str, Any]:
        from flows.imports import import_dataset

        return import_dataset(dataset, name, out, revision)

    def text(found: dict[str, Any]) -> str:
        from flows.imports import import_text

        return import_text(found)

    answer(work, json, text)


@app.command()
def doctor(recipe: RecipePath, set: Set = None, out: Out = None, json: Json = False) -> None:
    """What training would do wrong, its memory and its time, before weights are loaded. Exit code 1 for an error."""

    def work() -> dict[str, Any]:
        settings = _recipe(recipe, set)
        from flows.doctor import doctor as examine
        from flows.run import Run

        return examine(Run.at(settings, out))

    def text(result: dict[str, Any]) -> str:
        from flows.doctor import doctor_text

        return doctor_text(result)

    answer(work, json, text)


@app.command()
def audit(
    dataset: Annotated[
        str, typer.Argument(metavar="DATASET", help=f"{DATASET} Or a run's folder, as runs/quickstart.")
    ],
    benchmark: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME[=FILE]",
            help="Whose prompts must not be in it: mt_bench, ifeval, truthful_qa, humaneval, or any as a file.",
        ),
    ] = None,
    near: Annotated[
        float,
        typer.Option(
            min=0, max=1, help="Share of runs of three words that makes two prompts near; 0: do not look."
        ),
    ] = 0.7,
    html: Annotated[Path | None, typer.Option(metavar="FILE", help="Write the report there, too.")] = None,
    revision: Revision = None,
    json: Json = False,
) -> None:
    """What is wrong in a published preference dataset, with ids, and what pairing it anew would change."""

    def work() -> dict[str, Any]:
        from flows.audit_published import audit_published

        return audit_published(dataset, benchmark or (), near, html, revision)

    def text(found: dict[str, Any]) -> str:
        from flows.audit_published import audit_text

        return audit_text(found)

    answer(work, json, text)


@app.command()
def translate(
    files: Annotated[
        list[Path],
        typer.Argument(metavar="FILE…", help="A training YAML, or one of SFT and one of DPO."),
    ],
    gpus: Annotated[int, typer.Option(min=1, help="GPUs that the file's batch sizes were meant for.")] = 1,
    json: Json = False,
) -> None:
    """A training YAML of the alignment handbook, TRL or Axolotl as a recipe, with every key left out named."""

    def work() -> dict[str, Any]:
        from flows.translate import translate as read

        found = read(files, gpus)
        told = {"renamed": found.renamed, "dropped": found.dropped, "notes": found.notes}
        return {"recipe": found.fields, **told, "text": found.text()}

    answer(work, json, lambda result: result["text"])


RunPath = Annotated[Path, typer.Argument(metavar="RUN", help="A run's folder, as runs/quickstart.")]


@app.command()
def report(run: RunPath, json: Json = False) -> None:
    """Write the run's report.html again and say where it is."""

    def work() -> dict[str, Any]:
        from flows.report import write

        return {"report": str(write(run))}

    answer(work, json, lambda result: result["report"])


@app.command()
def export(
    run: RunPath,
    to: Annotated[
        Path | None, typer.Argument(metavar="[DIR]", help="Where the dataset and the models go.")
    ] = None,
    push: Annotated[
        str | None,
        typer.Option("--push", metavar="OWNER/NAME", help="Publish them on the Hugging Face Hub instead."),
    ] = None,
    public: Annotated[
        bool, typer.Option("--public", help="Make new repositories public; default: private.")
    ] = False,
    json: Json = False,
) -> None:
    """Copy or publish what a run made, dataset and models with their cards, without its working files."""

    def work() -> dict[str, Any]:
        from flows import export
        from flows.recipe import RecipeError

        if (to is None) == (push is None):
            raise RecipeError("give a folder to copy to, or --push OWNER/NAME")
        return export.push(run, push, public) if push is not None else export.export(run, Path(to or ""))

    answer(work, json, lambda result: "\n".join(result.get("written", result.get("pushed", []))))


if __name__ == "__main__":
    main()
