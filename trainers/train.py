"""One job from base model to model folder. Start at `train`; `trainers.run` is its command line."""

import json
import os
import time
from pathlib import Path
from typing import Any

import torch
from transformers import PrinterCallback

from trainers.arguments import compute, load_model, load_scorer, load_tokenizer
from trainers.checkpoints import Watch, history, open_work
from trainers.dpo import dpo_trainer
from trainers.folder import write_folder
from trainers.guards import check_base, check_length, check_reference
from trainers.job import Job, base_digest, seed_of
from trainers.online import online_trainer
from trainers.reference import References
from trainers.reward import reward_trainer
from trainers.rewards import asked_at, ends_of, given_by
from trainers.sft import sft_trainer
from trainers.tokens import tokens_of


def train(job: Job, key: str) -> Path:
    """Train, evaluate, merge and save; the folder appears at `job.out` at once and whole.

    A run of the same job that was killed goes on from its last complete checkpoint.
    """
    start = time.monotonic()
    torch.set_num_threads(job.threads or len(os.sched_getaffinity(0)))
    settings, work = job.settings, job.partial
    check_length(settings, check_base(job.base))
    tokenizer = load_tokenizer(job.base, settings, chats=job.kind != "pretrain")
    rows = tokens_of(job, tokenizer, job.train)
    held_out = tokens_of(job, tokenizer, job.eval) if job.eval else None

    checkpoint = open_work(work, key)
    trainer = _trainer(job, tokenizer, rows.tokens, held_out.tokens if held_out else None)
    trainer.remove_callback(PrinterCallback)
    if settings.epochs is not None and settings.max_steps is not None:
        trainer.args.max_steps = settings.steps(len(trainer.train_dataset))

    before = _once(work / "before.json", lambda: _evaluate(trainer) if held_out else {})
    check_reference(settings, before)
    prepared = time.monotonic()
    trainer.train(resume_from_checkpoint=str(checkpoint) if checkpoint else None)
    trained = time.monotonic()
    after = _evaluate(trainer) if held_out else {}

    steps = trainer.state.global_step
    metrics = {
        "steps": steps,
        "resumed_from_step": int(checkpoint.name.rpartition("-")[2]) if checkpoint else None,
        "train": history(work),
        "eval_before": before,
        "eval_after": after,
        "rows": {"train": rows.counts, "eval": held_out.counts if held_out else None},
        "trained_parameters": sum(p.numel() for p in trainer.model.parameters() if p.requires_grad),
        "tokens_seen": int(getattr(trainer, "_total_train_tokens", 0) or trainer.state.num_input_tokens_seen),
        "compute": compute(settings),
        "threads": torch.get_num_threads(),
        "lean_head": getattr(trainer, "lean_head", None),
        "not_shared": getattr(trainer, "not_shared", None),
        "reference": getattr(trainer, "reference", None),
        "seconds": {
            "prepare": round(prepared - start, 2),
            "train": round(trained - prepared, 2),
            "evaluate": round(time.monotonic() - trained, 2),
        },
    }
    return write_folder(job, key, trainer.accelerator.unwrap_model(trainer.model), tokenizer, metrics)


def _trainer(job: Job, tokenizer: Any, train: Any, held_out: Any) -> Any:
    work, seed = job.partial, seed_of(job)
    rest = (tokenizer, train, held_out, work, seed, [Watch(work)])
    match job.kind:
        case "reward":
            return reward_trainer(job.settings, load_scorer(job.base, job.settings, seed), *rest)
        case "dpo":
            store = job.references or work / "reference"
            references = References(store, base_digest(job), job.settings.dtype, compute(job.settings))
            return dpo_trainer(job.settings, load_model(job.base, job.settings), *rest, references)
        case "rlhf":
            model = load_model(job.base, job.settings)
            reward: Any = given_by(job.reward_model, job.settings.micro_batch) if job.reward_model else None
            if job.socket is not None:
                reward = asked_at(job.socket, ends_of(model, tokenizer))
            return online_trainer(job.settings, model, tokenizer, train, *rest[3:], reward)
        case "sft" | "pretrain":
            return sft_trainer(job.settings, load_model(job.base, job.settings), *rest)


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


def _once(file: Path, measure: Any) -> dict[str, float]:
    """What `measure` gives, kept in `file` for a run that goes on later."""
    if not file.is_file():
        part = file.with_suffix(".part")
        part.write_text(json.dumps(measure()))
        part.rename(file)
    return json.loads(file.read_text())
