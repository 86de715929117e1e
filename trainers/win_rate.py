"""How often the judge prefers the model in training to the one it started from, looked at every so many steps.

Held-out prompts are answered greedily, so a look draws no chance and changes no weight. Both answers to a prompt go to
the judge together, as a pair's would; a prompt whose answer is the same as before is a tie and is not asked.

    <out>.partial/start_answers.json   what the model said before its first step
    <out>.partial/looks.jsonl          {"step": 50, "win_rate": 0.61, "low": 0.48, "high": 0.74, "judged": 32, …}
    <out>.partial/best-50.safetensors  the trained weights of the best look, where they are to be kept
"""

import asyncio
import json
import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from safetensors.torch import load_file, save_file
from transformers import TrainerCallback

from trainers.checkpoints import TrainingFailed
from trainers.precision import put, trained
from trainers.settings import WinRate

Messages = list[dict[str, str]]


class Answer(NamedTuple):
    text: str
    ids: list[int]
    """Its last token says whether it came to its end."""


@torch.no_grad()
def answers(
    model: Any, tokenizer: Any, prompts: Sequence[Messages], ends: Sequence[int], max_tokens: int, batch: int
) -> list[Answer]:
    """The likeliest answer to each prompt. `batch`: prompts at a time."""
    found: list[Answer] = []
    was_training = model.training
    model.eval()
    for start in range(0, len(prompts), batch):
        texts = [
            tokenizer.apply_chat_template(prompt, tokenize=False, add_generation_prompt=True)
            for prompt in prompts[start : start + batch]
        ]
        rows = tokenizer(
            texts, add_special_tokens=False, padding=True, padding_side="left", return_tensors="pt"
        )
        rows = rows.to(model.device)
        out = model.generate(
            input_ids=rows["input_ids"],
            attention_mask=rows["attention_mask"],
            max_new_tokens=max_tokens,
            do_sample=False,
            use_cache=True,
            eos_token_id=list(ends),
            pad_token_id=tokenizer.pad_token_id,
        )
        for said in out[:, rows["input_ids"].shape[1] :].tolist():
            end = next((i + 1 for i, token in enumerate(said) if token in ends), len(said))
            found.append(Answer(tokenizer.decode(said[:end], skip_special_tokens=True), said[:end]))
    model.train(was_training)
    return found


def compared(before: Sequence[float | None], now: Sequence[float | None]) -> dict[str, Any]:
    """Wins plus half the ties over the prompts of which both answers have a score, with a 95 % interval."""
    wins = [
        0.5 + 0.5 * ((b - a > 1e-9) - (a - b > 1e-9))
        for a, b in zip(before, now, strict=True)
        if a is not None and b is not None
    ]
    if not wins:
        raise TrainingFailed(f"none of {len(now)} held-out prompts could be judged; the judge's log says why")
    rate = sum(wins) / len(wins)
    spread = math.sqrt(sum((win - rate) ** 2 for win in wins) / max(1, len(wins) - 1) / len(wins))
    return {
        "win_rate": round(rate, 6),
        "low": round(max(0.0, rate - 1.96 * spread), 6),
        "high": round(min(1.0, rate + 1.96 * spread), 6),
        "judged": len(wins),
        "unjudged": len(now) - len(wins),
    }


class Looks(TrainerCallback):
    """Looks while a trainer trains; ends training and keeps the best where the settings say so."""

    def __init__(
        self,
        settings: WinRate,
        rows: Sequence[dict[str, Any]],
        judge: Callable[..., Any],
        ends: Sequence[int],
        tokenizer: Any,
        batch: int,
        work: Path,
    ) -> None:
        """`rows`: `prompt` and `prompt_id`. `judge`: as `trainers.rewards.asked_at` gives it. `ends`: tokens that end
        an answer."""
        self.settings, self.rows, self.judge, self.ends = settings, list(rows), judge, list(ends)
        self.tokenizer, self.batch, self.work = tokenizer, batch, work
        self.trainer: Any = None
        self._at_saves: list[int] = []

    @property
    def found(self) -> list[dict[str, Any]]:
        file = self.work / "looks.jsonl"
        return [json.loads(line) for line in file.read_text().splitlines()] if file.is_file() else []

    @property
    def best(self) -> dict[str, Any] | None:
        """The look with the highest rate, the first of equals."""
        return max(self.found, key=lambda look: (look["win_rate"], -look["step"]), default=None)

    @property
    def over(self) -> bool:
        """Whether nothing better was seen for as many looks as training has patience for."""
        best, patience = self.best, self.settings.patience
        if best is None or patience is None:
            return False
        return sum(look["step"] > best["step"] for look in self.found) >= patience

    def begin(self, trainer: Any) -> None:
        """Before the first step, and when a run goes on: what the model says as it comes."""
        self.trainer = trainer
        trainer.add_callback(self)
        file = self.work / "start_answers.json"
        if not file.is_file():
            part = file.with_suffix(".part")
            part.write_text(json.dumps(self._answer()))
            part.rename(file)
        self.start = [Answer(*each) for each in json.loads(file.read_text())]

    def _answer(self) -> list[Answer]:
        trainer = self.trainer
        model = trainer.accelerator.unwrap_model(trainer.model)
        prompts = [row["prompt"] for row in self.rows]
        with trainer.accelerator.autocast():
            return answers(model, self.tokenizer, prompts, self.ends, self.settings.max_tokens, self.batch)

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if state.global_step % self.settings.every and state.global_step < state.max_steps:
            return
        with self.trainer.clock.phase("judging"):
            look = {"step": state.global_step} | self._look()
        before = self.best
        with (self.work / "looks.jsonl").open("a") as file:
            file.write(json.dumps(look) + "\n")
        self.trainer.notes["win_rate"] = look["win_rate"]
        better = before is None or look["win_rate"] > before["win_rate"]
        if better and self.settings.keep_best:
            part = self.work / "best.part"
            save_file(self._trained(), part)
            part.rename(self._weights(state.global_step))
        control.should_training_stop = control.should_training_stop or self.over

    def _look(self) -> dict[str, Any]:
        now = self._answer()
        asked = [
            i
            for i, (a, b) in enumerate(zip(self.start, now, strict=True))
            if a.text.strip() != b.text.strip()
        ]
        before: list[float | None] = [0.0] * len(now)
        after: list[float | None] = [0.0] * len(now)
        if asked:
            both = [(i, said[i]) for said in (self.start, now) for i in asked]
            scores = asyncio.run(
                self.judge(
                    prompts=[self.rows[i]["prompt"] for i, _ in both],
                    completions=[[{"role": "assistant", "content": answer.text}] for _, answer in both],
                    completion_ids=[answer.ids for _, answer in both],
                    prompt_id=[self.rows[i]["prompt_id"] for i, _ in both],
                )
            )
            for i, a, b in zip(asked, scores[: len(asked)], scores[len(asked) :], strict=True):
                before[i], after[i] = a, b
        return compared(before, after)

    def _trained(self) -> dict[str, torch.Tensor]:
        return {name: weights.cpu().contiguous() for name, weights in trained(self.trainer).items()}

    def _weights(self, step: int) -> Path:
        return self.work / f"best-{step}.safetensors"

    def on_save(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """What was best two checkpoints ago is needed no more: a killed run goes on from one of the last two."""
        if self.settings.keep_best and (best := self.best) is not None:
            self._at_saves.append(best["step"])
            for step in {look["step"] for look in self.found} if len(self._at_saves) > 1 else ():
                if step < self._at_saves[-2]:
                    self._weights(step).unlink(missing_ok=True)

    def keep_best(self) -> int | None:
        """Give the model the weights of the best look, and say its step; None: it keeps its last."""
        best = self.best
        if not self.settings.keep_best or best is None or not self._weights(best["step"]).is_file():
            return None
        put(self.trainer, load_file(self._weights(best["step"])))
        return best["step"]
