"""One job from base model to model folder. Start at `train`; `trainers.run` is its command line."""

import json
import os
import time
from pathlib import Path
from typing import Any

import torch
from accelerate import PartialState
from peft import get_peft_model
from transformers import PrinterCallback

from trainers.alarms import alarms, by_model
from trainers.arguments import adapter, compute, load_model, load_scorer, load_tokenizer, sharded
from trainers.checkpoints import Watch, history, open_work, step_of
from trainers.dpo import dpo_trainer
from trainers.folder import write_folder
from trainers.guards import check_base, check_length, check_reference
from trainers.job import DPOJob, Job, SFTJob, base_digest, seed_of
from trainers.online import online_trainer
from trainers.precision import finish
from trainers.processes import check_alike, from_first, ready_to_train, whole
from trainers.quantized import held, load_trained
from trainers.reference import References
from trainers.reward import reward_trainer
from trainers.rewards import asked_at, ends_of, given_by
from trainers.rows import read
from trainers.sft import sft_trainer
from trainers.tokens import tokens_of
from trainers.win_rate import Looks


def train(job: Job, key: str) -> Path:
    """Train, evaluate, merge and save; the folder appears at `job.out` at once and whole.

    A run of the same job that was killed goes on from its last complete checkpoint.
    """
    start = time.monotonic()
    state = PartialState(cpu=not torch.cuda.is_available())
    here = int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
    torch.set_num_threads(job.threads or max(1, len(os.sched_getaffinity(0)) // here))
    settings, work = job.settings, job.partial
    check_length(settings, check_base(job.base))
    tokenizer = load_tokenizer(job.base, settings, chats=job.kind != "pretrain")
    rows = tokens_of(job, tokenizer, job.train)
    held_out = tokens_of(job, tokenizer, job.eval) if job.eval else None

    checkpoint: Path | None = from_first(lambda: open_work(work, key))
    trainer = _trainer(job, tokenizer, rows.tokens, held_out.tokens if held_out else None)
    trainer.remove_callback(PrinterCallback)
    if settings.epochs is not None and settings.max_steps is not None:
        trainer.args.max_steps = settings.steps(len(trainer.train_dataset))

    before = {}
    if held_out and not sharded():  # shards are made once, for training
        before = _once(work / "before.json", lambda: _evaluate(trainer), state)
        ready_to_train(trainer)
    check_reference(settings, before)
    looks = _looks(job, trainer, tokenizer)
    prepared = time.monotonic()
    if checkpoint and looks and looks.over:  # killed after its last step
        trainer._load_from_checkpoint(str(checkpoint))
        trainer.state.global_step = step_of(checkpoint)
    else:
        trainer.train(resume_from_checkpoint=str(checkpoint) if checkpoint else None)
    kept = looks.keep_best() if looks else None
    trained = time.monotonic()
    if not sharded():
        check_alike(trainer)
    after = _evaluate(trainer) if held_out else {}

    moved = finish(trainer)
    steps, counts = trainer.state.global_step, _counts(trainer)
    metrics = {
        "steps": steps,
        "resumed_from_step": int(checkpoint.name.rpartition("-")[2]) if checkpoint else None,
        "train": history(work),
        "eval_before": before,
        "eval_after": after,
        "rows": {"train": rows.counts, "eval": held_out.counts if held_out else None},
        "trained_parameters": sum(p.numel() for p in trainer.model.parameters() if p.requires_grad),
        "tokens_seen": int(getattr(trainer, "_total_train_tokens", 0) or trainer.state.num_input_tokens_seen),
        "moved": moved,
        "compute": compute(settings),
        "threads": torch.get_num_threads(),
        "lean_head": getattr(trainer, "lean_head", None),
        "not_shared": getattr(trainer, "not_shared", None),
        "attention": getattr(trainer, "attention", None),
        "fused": getattr(trainer, "fused", None),
        "reference": getattr(trainer, "reference", None),
        "by_model": by_model(after, counts),
        "win_rates": looks.found if looks else [],
        "kept_step": kept or steps,
        "alarms": alarms(settings, history(work), after, counts),
        "speed": trainer.run_figures(),
        "seconds": {
            "prepare": round(prepared - start, 2),
            "train": round(trained - prepared, 2),
            "evaluate": round(time.monotonic() - trained, 2),
        },
    }
    model = trainer.accelerator.unwrap_model(trainer.model)
    if sharded():
        model = whole(trainer, lambda: _base(job))
    if state.is_main_process:
        write_folder(job, key, model, tokenizer, metrics)
    state.wait_for_everyone()
    return job.out


def _trainer(job: Job, tokenizer: Any, train: Any, held_out: Any) -> Any:
    work, seed = job.partial, seed_of(job)
    rest = (tokenizer, train, held_out, work, seed, [Watch(work)])
    match job.kind:
        case "reward":
            return reward_trainer(job.settings, load_scorer(job.base, job.settings, seed), *rest)
        case "dpo":
            store = job.references or work / "reference"
            references = References(store, base_digest(job), held(job.settings), compute(job.settings))
            return dpo_trainer(job.settings, load_trained(job.base, job.settings), *rest, references)
        case "rlhf":
            model = load_model(job.base, job.settings)
            reward: Any = given_by(job.reward_model, job.settings.micro_batch) if job.reward_model else None
            if job.socket is not None:
                reward = asked_at(job.socket, ends_of(model, tokenizer))
            return online_trainer(job.settings, model, tokenizer, train, *rest[3:], reward)
        case "sft" | "pretrain":
            return sft_trainer(job.settings, load_trained(job.base, job.settings), *rest)


def _looks(job: Job, trainer: Any, tokenizer: Any) -> Looks | None:
    """The judge that looks on, where the job has one; what the model says before its first step is asked here."""
    settings = getattr(job.settings, "win_rate", None)
    if settings is None or not isinstance(job, SFTJob | DPOJob):
        return None
    assert job.socket is not None and job.prompts is not None
    ends = ends_of(trainer.accelerator.unwrap_model(trainer.model), tokenizer)
    rows = read(job.prompts).to_list()
    judge = asked_at(job.socket, ends)
    looks = Looks(settings, rows, judge, sorted(ends), tokenizer, job.settings.micro_batch, job.partial)
    looks.begin(trainer)
    return looks


def _counts(trainer: Any) -> dict[str, int]:
    """Held-out pairs behind the figures of the last evaluation."""
    tallies = getattr(trainer, "tallies", None)
    return tallies["eval"].counts if tallies else {}


def _base(job: Job) -> Any:
    """What was trained, as it was at first, for the weights that came out of it."""
    scores = job.kind == "reward"
    settings, base = job.settings, job.base
    model = load_scorer(base, settings, seed_of(job)) if scores else load_model(base, settings)
    config = adapter(
        job.settings, model.config.num_hidden_layers, whole="score" if scores else None, scores=scores
    )
    return get_peft_model(model, config) if config else model


def _evaluate(trainer: Any) -> dict[str, float]:
    """The held-out rows' `loss` and the trainer's metrics, without its prefixes and timings."""
    found = trainer.evaluate()
    timing = (
        "eval_runtime",
        "eval_model_preparation_time",
        "eval_samples_per_second",
        "eval_steps_per_second",
        "eval_num_tokens",
        "epoch",
    )
    return {k.removeprefix("eval_"): round(float(v), 6) for k, v in found.items() if k not in timing}


def _once(file: Path, measure: Any, state: PartialState) -> dict[str, float]:
    """What `measure` gives, kept in `file` for a run that goes on later. All processes measure or none does."""
    known = from_first(lambda: json.loads(file.read_text()) if file.is_file() else None)
    if known is not None:
        return known
    found = measure()
    if state.is_main_process:
        part = file.with_suffix(".part")
        part.write_text(json.dumps(found))
        part.rename(file)
    return found
