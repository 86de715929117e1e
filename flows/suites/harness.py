"""Academic sets by EleutherAI's lm-evaluation-harness: a program of its own, run against the served model.

It is neither imported nor installed with this project: `python -m venv ENV && ENV/bin/pip install "lm-eval[api]"`. What
it finds is read from the results file it writes, and kept; the same tasks are not run twice on the same model.
"""

import asyncio
import json
import os
import shutil
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from flows.failures import StageFailed
from flows.progress import display
from flows.recipe import RecipeError
from flows.run import Run
from flows.suites.result import Result
from flows.suites.settings import Harness
from records.ids import fingerprint
from records.stats import Estimate, Z
from serving.endpoints import key_of
from serving.engine import Engine
from serving.settings import Endpoint, LlamaCpp

if TYPE_CHECKING:
    from flows.evaluate import Contender

BEST_FIRST = ("acc_norm", "exact_match", "acc", "mc2", "f1", "em", "pass@1")
"""Which of a task's metrics stands for it: the one the Open LLM Leaderboard takes, where it has one."""


def find(suite: Harness) -> list[str]:
    """The harness's command.

    Raises:
        RecipeError: it is not there.
    """
    if named := suite.python or os.environ.get("ZEPHYR_LM_EVAL_PYTHON"):
        if found := shutil.which(str(Path(named).expanduser())):
            return [found, "-m", "lm_eval"]
        raise RecipeError(
            f"no interpreter at {named!r}; `python` or ZEPHYR_LM_EVAL_PYTHON names it for lm-eval"
        )
    if script := shutil.which("lm_eval"):
        return [script]
    raise RecipeError(
        "lm-evaluation-harness is not found: neither the suite's `python` nor ZEPHYR_LM_EVAL_PYTHON is set, and no "
        "`lm_eval` is on PATH. Install it in an environment of its own (python -m venv ENV && ENV/bin/pip install "
        '"lm-eval[api]") and set ZEPHYR_LM_EVAL_PYTHON=ENV/bin/python'
    )


def command(
    suite: Harness, url: str, model: str, tokenizer: str | None, at_a_time: int, out: Path
) -> list[str]:
    """The whole command line. `url`: up to and including /v1; `model`: as the server knows it."""
    chat = suite.api == "chat"
    arguments: dict[str, Any] = {
        "model": model,
        "base_url": f"{url}/{'chat/completions' if chat else 'completions'}",
        "num_concurrent": at_a_time,
        "max_retries": 5,
        "tokenized_requests": False,
    }
    if tokenizer and not chat:
        arguments["tokenizer"] = tokenizer
    else:
        arguments["tokenizer_backend"] = "None"
    words = [
        *find(suite),
        *("--model", "local-chat-completions" if chat else "local-completions"),
        *("--model_args", ",".join(f"{key}={value}" for key, value in arguments.items())),
        *("--tasks", ",".join(suite.tasks)),
        *("--output_path", str(out)),
    ]
    if chat:
        words.append("--apply_chat_template")
    if suite.shots is not None:
        words += ["--num_fewshot", str(suite.shots)]
    if suite.limit is not None:
        words += ["--limit", str(suite.limit)]
    if suite.include is not None:
        words += ["--include_path", str(Path(suite.include).resolve())]
    return words


async def run(
    name: str,
    suite: Harness,
    who: "Contender",
    of: Run,
    engine: Engine,
    checked: Callable[[], Awaitable[None]] | None = None,
) -> dict[str, Any]:
    """What the harness finds of one model, from an earlier run's file where it is there. `checked`: before it is asked
    to chat.

    Raises:
        StageFailed: it ended without results; says its last words.
    """
    asked = suite.model_dump(mode="json", exclude={"python", "timeout"})
    folder = of.folder / "benchmark" / "harness" / fingerprint(asked, who.identity)
    if (found := results(folder)) is None:
        step = display().add(f"answer {name}-{who.name}", 1, who.name)
        folder.mkdir(parents=True, exist_ok=True)
        if checked and suite.api == "chat":
            await checked()
        url = await engine.address(who.name)
        model = who.model
        known = model.model if isinstance(model, Endpoint) else who.name
        tokenizer = suite.tokenizer or (None if isinstance(model, LlamaCpp | Endpoint) else model.model)
        at_a_time = min(model.max_in_flight, model.slots if isinstance(model, LlamaCpp) else 128)
        words = command(suite, url, known, tokenizer, at_a_time, folder)
        environment = dict(os.environ)
        if isinstance(model, Endpoint) and (key := key_of(who.name, model)):
            environment["OPENAI_API_KEY"] = key
        await start(words, environment, folder / "log.txt", suite.timeout)
        if (found := results(folder)) is None:
            raise StageFailed(
                f"{name}: lm-evaluation-harness wrote no results for {who.name}; see {folder}/log.txt"
            )
        step()
    return found


async def start(words: list[str], environment: Mapping[str, str], log: Path, timeout: float) -> None:
    """Run the harness to its end; its words go to `log`.

    Raises:
        StageFailed: it failed, or took longer.
    """
    with log.open("wb") as file:
        process = await asyncio.create_subprocess_exec(
            *words, stdin=asyncio.subprocess.DEVNULL, stdout=file, stderr=file, env=dict(environment)
        )
        try:
            code = await asyncio.wait_for(process.wait(), timeout)
        except TimeoutError as error:
            raise StageFailed(f"{words[0]}: no end after {timeout:.0f} s; see {log}") from error
        finally:
            if process.returncode is None:
                process.kill()
                await process.wait()
    if code:
        said = log.read_text(errors="replace").strip().splitlines()[-5:]
        raise StageFailed(f"lm-evaluation-harness ended with {code}; see {log}:\n" + "\n".join(said))


def results(folder: Path) -> dict[str, Any] | None:
    """The newest results file in a folder; None where there is none."""
    files = sorted(folder.rglob("results*.json"), key=lambda path: path.stat().st_mtime)
    return json.loads(files[-1].read_text(encoding="utf-8")) if files else None


def figures(found: Mapping[str, Any]) -> dict[str, Estimate]:
    """Task and metric -> its value, with an interval from the harness's own standard error."""
    values: dict[str, Estimate] = {}
    for task, own in found["results"].items():
        # a metric has its filter after a comma; beside them stand sample_len and the like
        metrics = [key for key in own if "," in key]
        known = {name: key for key in metrics if not (name := key.split(",")[0]).endswith("_stderr")}
        order = sorted(known, key=lambda m: BEST_FIRST.index(m) if m in BEST_FIRST else len(BEST_FIRST))
        for metric in order:
            value = own[known[metric]]
            if isinstance(value, bool) or not isinstance(value, int | float):
                continue
            name, _, kind = known[metric].partition(",")
            error = own.get(f"{name}_stderr,{kind}")
            half = Z * error if isinstance(error, int | float) else 0.0
            n = (found.get("n-samples") or {}).get(task) or {}
            count = int(n.get("effective") or own.get("sample_len") or 0)
            label = task if metric == order[0] else f"{task} {metric}"
            values[label] = Estimate(value=value, low=value - half, high=value + half, n=count)
    return values


def result(found: Mapping[str, Mapping[str, Any]]) -> Result:
    """Every model's figures by task."""
    each = {model: figures(own) for model, own in found.items()}
    labels = list(dict.fromkeys(label for own in each.values() for label in own))
    metrics = {label: {model: own.get(label) for model, own in each.items()} for label in labels}
    count = max((one.n for own in each.values() for one in own.values()), default=0)
    versions = {str(own.get("lm_eval_version") or "") for own in found.values()} - {""}
    return Result(
        kind="harness",
        scale="share",
        questions=count,
        metrics=metrics,
        notes=tuple(f"lm-evaluation-harness {version}" for version in sorted(versions)),
    )
