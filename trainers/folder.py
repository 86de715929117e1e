"""The folder of a finished model: weights, tokenizer, adapter, and where all of it came from.

model.safetensors config.json tokenizer.json chat_template.jinja   the model, adapters merged
adapter/                                                           the LoRA alone, and what it was trained on
model.gguf                                                         for llama.cpp, where asked for
model.json metrics.json receipts.json recipe.yaml README.md        what it is, how it went, what from
"""

import json
import shutil
from importlib.metadata import version
from pathlib import Path
from typing import Any

from safetensors.torch import load_file, save_file

from trainers.export import to_gguf
from trainers.job import Job, RLHFJob, base_digest, digest_of_weights, seed_of, sha256
from trainers.quantized import merged

METHODS = {
    "pretrain": "pretraining on text",
    "sft": "supervised fine-tuning",
    "dpo": "direct preference optimization (arXiv 2305.18290)",
    "reward": "training as a reward model (arXiv 2203.02155)",
    "rlhf": "reinforcement learning from a reward",
}
EXAMPLE = [
    "from transformers import pipeline",
    "",
    'chat = pipeline("text-generation", "path/to/this/folder")',
    'chat([{"role": "user", "content": "Hello!"}])',
]
EXAMPLES = {
    "pretrain": [
        "from transformers import pipeline",
        "",
        'pipeline("text-generation", "path/to/this/folder")("Tea is")',
    ],
    "reward": [
        "from transformers import AutoModelForSequenceClassification, AutoTokenizer",
        "",
        'tokenizer = AutoTokenizer.from_pretrained("path/to/this/folder")',
        'model = AutoModelForSequenceClassification.from_pretrained("path/to/this/folder")',
        'chat = [{"role": "user", "content": "Hello!"}, {"role": "assistant", "content": "Hi."}]',
        'model(**tokenizer.apply_chat_template(chat, return_dict=True, return_tensors="pt")).logits  # no sigmoid',
    ],
}
"""How the model is used, by the job's kind."""

LIBRARIES = ("torch", "transformers", "trl", "peft", "datasets")


def write_folder(job: Job, key: str, model: Any, tokenizer: Any, metrics: dict[str, Any]) -> Path:
    """Write everything beside the work in progress, then put it at `job.out` by renaming."""
    made = job.partial / "model"
    shutil.rmtree(made, ignore_errors=True)
    made.mkdir()
    if hasattr(model, "merge_and_unload"):
        model.save_pretrained(made / "adapter")
        _name_the_base(made / "adapter" / "adapter_config.json", job)
        _leave_out_values(made / "adapter")
        model = merged(model, job.base, made / "adapter", job.settings)
    if hasattr(model, "value_head"):
        del model.value_head  # PPO's, of no use to who asks the model
    model.config.use_cache = True
    vars(model).pop("forward", None)  # the trainer's, not the model's own
    model.save_pretrained(made)
    tokenizer.save_pretrained(made)
    if job.gguf:
        to_gguf(made, job.gguf, made / "model.gguf", job.gguf_type, job.name, tokenizer.chat_template)

    base = {**job.base_receipt, "digest": base_digest(job)}
    versions = {name: version(name) for name in LIBRARIES}
    _dump(made / "metrics.json", metrics)
    _dump(made / "receipts.json", {"base": base, "data": list(job.data_receipts)})
    (made / "recipe.yaml").write_text(job.recipe)
    (made / "README.md").write_text(card(job, base, metrics, versions))
    weights = digest_of_weights(made)
    if (made / "adapter").is_dir():
        own = {"name": str(base.get("name") or job.base.name), "weights": digest_of_weights(job.base)}
        _dump(made / "adapter" / "base.json", own | {"merged": weights})
    _dump(
        made / "model.json",
        {
            "name": job.name,
            "kind": job.kind,
            "key": key,
            "base": base,
            "settings": job.settings.model_dump(mode="json"),
            "seed": seed_of(job),
            "licenses": licences(job),
            "weights": weights,
            "gguf": sha256(made / "model.gguf") if job.gguf else None,
            "versions": versions,
            "files": {
                str(path.relative_to(made)): path.stat().st_size
                for path in sorted(made.rglob("*"))
                if path.is_file()
            },
        },
    )
    return _put(made, job)


def _put(made: Path, job: Job) -> Path:
    old = job.out.with_name(job.out.name + ".old")
    shutil.rmtree(old, ignore_errors=True)
    if job.out.exists():
        job.out.rename(old)
    made.rename(job.out)
    shutil.rmtree(old, ignore_errors=True)
    shutil.rmtree(job.partial, ignore_errors=True)
    return job.out


def _name_the_base(config: Path, job: Job) -> None:
    """An adapter is only right on the weights it was trained on; a path of this machine does not name them."""
    known = json.loads(config.read_text())
    known["base_model_name_or_path"] = str(job.base_receipt.get("name") or job.base)
    known["revision"] = job.base_receipt.get("revision") or known.get("revision")
    _dump(config, known)


def _leave_out_values(adapter: Path) -> None:
    """PPO's value head is no part of the model, and no model has a place for it."""
    config = json.loads((adapter / "adapter_config.json").read_text())
    if "value_head" not in (config["modules_to_save"] or ()):
        return
    weights = adapter / "adapter_model.safetensors"
    kept = {name: tensor for name, tensor in load_file(weights).items() if "value_head" not in name}
    save_file(kept, weights, metadata={"format": "pt"})
    _dump(adapter / "adapter_config.json", config | {"modules_to_save": None})


def _dump(file: Path, value: Any) -> None:
    file.write_text(json.dumps(value, indent=2, ensure_ascii=False) + "\n")


def card(job: Job, base: dict[str, Any], metrics: dict[str, Any], versions: dict[str, str]) -> str:
    """The model card."""
    name = str(base.get("name") or job.base.name)
    license_ = base.get("license")
    head = ["---", "library_name: transformers", f"tags: [trl, {job.kind}]"]
    terms = licences(job)
    one = license_ if license_ and set(terms.values()) == {license_} else "other" if license_ else None
    head += [f"base_model: {name}"] * ("/" in name) + [f"license: {one}"] * bool(one) + ["---", ""]
    loss = [line["loss"] for line in metrics["train"] if line["loss"] is not None]
    before, after = metrics["eval_before"], metrics["eval_after"]
    results = [f"| {k} | {before[k]:.4g} | {after[k]:.4g} |" for k in after if k in before]
    counts = [
        f"| {split} | {c['rows']} | {c['kept']} | {_listed(c['dropped'])} | {_listed(c['changed'])} |"
        for split, c in metrics["rows"].items()
        if c
    ]
    settings = job.settings.model_dump(mode="json", exclude={"template"})
    lines = [
        f"# {job.name}",
        "",
        f"{name} after {METHODS[job.kind]}: {metrics['steps']} steps, "
        + (f"training loss {loss[0]:.4f} to {loss[-1]:.4f}." if loss else "no loss was logged."),
        f"Base: digest `{base['digest']}`.",
        "",
        "```python",
        *EXAMPLES.get(job.kind, EXAMPLE),
        "```",
        "",
        "## Data",
        "",
        "| split | rows | used | dropped | cut |",
        "| --- | --- | --- | --- | --- |",
        *counts,
        "",
        *(
            ["## Held-out rows", "", "| | before | after |", "| --- | --- | --- |", *results, ""]
            if results
            else []
        ),
        *_lineage(job),
        "## Licences",
        "",
        "| the model comes from | licence |",
        "| --- | --- |",
        *(
            f"| {what} | {stated or 'not stated; look it up before publishing'} |"
            for what, stated in terms.items()
        ),
        "",
        "## Settings",
        "",
        "```json",
        json.dumps({**settings, "seed": seed_of(job)}, indent=2),
        "```",
        "",
        "Made with " + ", ".join(f"{name} {number}" for name, number in versions.items()) + ".",
        "",
    ]
    return "\n".join(head + lines)


def _lineage(job: Job) -> list[str]:
    """What the rows were made from, and who said which answer is better."""
    said: list[str] = []
    for receipt in job.data_receipts:
        for name, value in receipt.items():
            if value and name not in ("license", "licenses"):
                each = value if isinstance(value, list) else [value]
                said.append(f"- {name.replace('_', ' ')}: " + "; ".join(map(str, each)))
    if isinstance(job, RLHFJob):
        said += [f"- reward: `{json.dumps(job.reward, ensure_ascii=False, sort_keys=True)}`"]
    return ["## Where its data come from", "", *said, ""] if said else []


def licences(job: Job) -> dict[str, str | None]:
    """Whatever has gone into the model, in this stage and before -> its licence as stated; None: nobody said."""
    base = job.base_receipt
    found = dict(base.get("licenses") or {str(base.get("name") or job.base.name): base.get("license")})
    for receipt in job.data_receipts:
        if "source" in receipt:
            found[f"rows of {receipt['source']}"] = receipt.get("license")
        found |= receipt.get("licenses", {})
    return found


def _listed(counts: dict[str, int]) -> str:
    return ", ".join(f"{count} {reason}" for reason, count in counts.items()) or "none"
