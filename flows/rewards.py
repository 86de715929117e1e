"""The judge as a reward: training asks at a Unix socket, and the recipe's own judges answer as they do for pairs.

    -> [{"prompt_id": "9b3f…", "answers": [{"text": "Tea is …", "finish_reason": "stop"}, …]}, …]
    <- [[0.8, null], …]

A prompt's answers come together, so that judges that compare them and juries that standardise within a prompt do as
always. Null is an answer without a score. What was judged is journalled beside the model; a run that goes on, and
samples the same answers again, finds them there.
"""

import asyncio
import json
import tempfile
from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from aiohttp import web

from flows.answers import cases_of, judge_one
from flows.gpus import hold
from flows.inputs import gather_prompts
from flows.job import Kind, write_prompts
from flows.progress import display
from flows.recipe import Recipe, RecipeError
from flows.run import Run
from judges.jury import Jury, combine_prompt
from records.ids import fingerprint
from records.schema import Completion, Judgement, Prompt
from serving.engine import Engine
from serving.models import open_models
from serving.settings import Adapter

POLICY = "policy"
"""Name of the model in training, as judges are told."""


def identity(recipe: Recipe, jury: Jury) -> dict[str, Any]:
    """What decides the scores: the judges and the models they ask."""
    asked = {
        member.name: [member.asked(), {aspect: member.question(aspect) for aspect in member.aspects}]
        for member in jury.members
    }
    models = {m.name: recipe.models[m.asks].identity for m in jury.members if m.asks}
    return {"jury": jury.model_dump(mode="json", exclude={"members"}), "judges": asked, "models": models}


class Rewards:
    """Scores of answers by a jury."""

    def __init__(
        self, recipe: Recipe, jury: Jury, prompts: Iterable[Prompt], engine: Engine, journal: Path
    ) -> None:
        self._jury, self._journal = jury, journal
        self._prompts = {prompt.id: prompt for prompt in prompts}
        self._judges = {m.name: m.build(engine.chat(m.asks) if m.asks else None) for m in jury.members}
        self.failure: Exception | None = None
        """What the judges raised first."""
        self._asked = fingerprint(identity(recipe, jury))
        self._known = {
            line["key"]: line["scores"] for line in _lines(journal) if line["asked"] == self._asked
        }

    async def of(self, prompt_id: str, answers: Sequence[Mapping[str, str]]) -> list[float | None]:
        """One prompt's answers; None where the judges failed or none applies."""
        key = fingerprint(prompt_id, [[answer["text"], answer["finish_reason"]] for answer in answers])
        if key not in self._known:
            scores, why = await self._judge(self._prompts[prompt_id], answers)
            line = {"asked": self._asked, "key": key, "prompt_id": prompt_id, "scores": scores, "why": why}
            with self._journal.open("a") as file:
                texts = [answer["text"] for answer in answers]
                file.write(json.dumps(line | {"texts": texts}, ensure_ascii=False) + "\n")
            self._known[key] = scores
        return self._known[key]

    async def _judge(
        self, prompt: Prompt, answers: Sequence[Mapping[str, str]]
    ) -> tuple[list[float | None], list[str]]:
        completions = [
            Completion(
                id=fingerprint(prompt.id, i, answer["text"]),
                prompt_id=prompt.id,
                model=POLICY,
                sample=i,
                text=answer["text"].strip(),
                finish_reason=answer["finish_reason"],
                fingerprint=self._asked,
            )
            for i, answer in enumerate(answers)
        ]
        rows = await asyncio.gather(
            *(
                judge_one(key, case, self._judges[member.name], member.name, self._asked)
                for member in self._jury.members
                for key, case in cases_of(member, [prompt], [completions]).items()
            )
        )
        judgements: dict[str, list[Judgement]] = {completion.id: [] for completion in completions}
        for row in rows:
            for answer in row.answers:
                judgement = Judgement.model_validate(answer)
                judgements[judgement.completion_id].append(judgement)
        found = combine_prompt(judgements, self._jury)
        every = [found[completion.id] for completion in completions]
        return [score.value for score in every], [score.why for score in every]

    async def answer(self, request: web.Request) -> web.Response:
        asked = await request.json()
        try:
            found = await asyncio.gather(*(self.of(each["prompt_id"], each["answers"]) for each in asked))
        except Exception as error:  # training must hear of it: it would wait for an answer
            self.failure = self.failure or error
            return web.Response(status=500, text=f"{type(error).__name__}: {error}")
        return web.json_response(found)


@asynccontextmanager
async def judging(run: Run, stage: str = "rlhf") -> AsyncIterator[tuple[Path, dict[str, Any]]]:
    """The socket where the recipe's judges score, and what decides their scores; their models are served meanwhile.

    What they said is kept in the journal of `stage`.

    Raises:
        ServingError: what the judges raised, where that is why training ended.
    """
    recipe, jury = run.recipe, run.recipe.jury
    used = {member.asks for member in jury.members if member.asks}
    used |= {m.served_by for name in used if isinstance(m := recipe.models[name], Adapter)}
    models = {name: recipe.models[name] for name in used}
    prompts, _ = gather_prompts(run)
    journal = run.folder / "models" / f"{stage}.rewards.jsonl"
    async with open_models(
        models, run.servers, display().say, recipe.machine, run.purse(), hold=hold
    ) as engine:
        rewards = Rewards(recipe, jury, prompts, engine, journal)
        async with listening(rewards) as socket:
            try:
                yield socket, identity(recipe, jury)
            except Exception as error:
                if rewards.failure is not None:
                    raise rewards.failure from error
                raise


@asynccontextmanager
async def looked_on(run: Run, kind: Kind, stage: str) -> AsyncIterator[dict[str, Any]]:
    """The fields of a job that a judge looks on to, served while the block runs; none where the recipe has no
    `win_rate`.

    Raises:
        RecipeError: too few prompts are held out.
    """
    settings = getattr(getattr(run.recipe.training, kind, None), "win_rate", None)
    if settings is None:
        yield {}
        return
    prompts = write_prompts(run, held_out_beside_evaluation(run, settings.prompts, kind), stage)
    async with judging(run, stage) as (socket, who):
        yield {"socket": socket, "judges": who, "prompts": {"files": [prompts]}}


def held_out_beside_evaluation(run: Run, count: int, kind: Kind) -> list[Prompt]:
    """Prompts of the test split that `zephyr evaluate` does not ask: its figures must not be those of prompts that a
    model was chosen by."""
    from flows.evaluate import held_out  # which imports this module

    recipe, every = run.recipe, gather_prompts(run)[0]
    test = [prompt for prompt in every if prompt.meta["split"] == "test"]
    evaluated = recipe.evaluation.prompts if recipe.evaluation else 0
    taken = {prompt.id for prompt in held_out(every, evaluated, recipe.seed)}
    rest = held_out([prompt for prompt in test if prompt.id not in taken], count, recipe.seed)
    if len(rest) < count:
        raise RecipeError(
            f"training.{kind}.win_rate.prompts={count}: of {len(test)} held-out prompts evaluation takes {len(taken)}, "
            f"so {len(rest)} are left; lower evaluation.prompts or win_rate.prompts, or hold out more"
        )
    return rest


@asynccontextmanager
async def listening(rewards: Rewards) -> AsyncIterator[Path]:
    """The socket where `rewards` are given while the block runs; in a folder of its own, as its path must be short."""
    app = web.Application(client_max_size=2**30)
    app.router.add_post("/score", rewards.answer)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    try:
        with tempfile.TemporaryDirectory(prefix="zephyr-") as folder:
            socket = Path(folder) / "rewards"
            await web.UnixSite(runner, str(socket)).start()
            yield socket
    finally:
        await runner.cleanup()


def _lines(journal: Path) -> list[dict[str, Any]]:
    try:
        text = journal.read_text()
    except FileNotFoundError:
        return []
    return [json.loads(line) for line in text.splitlines(keepends=True) if line.endswith("\n")]
