"""A training run as data: everything `python -m trainers.run` needs, and the key that names its result."""

import hashlib
import json
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import Field, model_validator

from records.base import Strict
from records.ids import fingerprint
from trainers.online_settings import RLHFSettings
from trainers.settings import DPOSettings, PretrainSettings, RewardSettings, SFTSettings

FORMAT = 1
"""Raised when the same job would give another model."""


class Data(Strict):
    """Rows to train or evaluate on: files, or a split of a dataset folder."""

    files: tuple[Path, ...] = ()
    """Parquet or JSON lines; a .txt file is one row with its `text`."""
    folder: Path | None = None
    """Of a Hugging Face dataset: Parquet files and, with several configs, a README.md that names them."""
    config: str | None = None
    split: str | None = None

    @model_validator(mode="after")
    def _one_place(self) -> Self:
        if bool(self.files) == bool(self.folder) or bool(self.folder) != bool(self.split):
            raise ValueError(
                f"files={[str(f) for f in self.files]}, folder={self.folder and str(self.folder)!r}, "
                f"split={self.split!r}: give either files, or a folder and its split"
            )
        return self

    def paths(self) -> list[Path]:
        """The files behind it, for their digests."""
        if self.folder is None:
            return list(self.files)
        every = sorted(self.folder.rglob("*.parquet"))
        split = [
            path for path in every if self.split in {path.stem, path.stem.split("-")[0], path.parent.name}
        ]
        return split or every


class _Job(Strict):
    name: str = Field(min_length=1)
    """Of the model, for its card."""
    base: Path
    """Folder of the model training starts from: config, safetensors, tokenizer."""
    base_receipt: dict[str, Any] = Field(default={})
    """What the base is; `digest`, `name`, `license` and `revision` are used where present, and `licenses` of all that
    went into it."""
    train: Data
    eval: Data | None = None
    """Held-out rows, scored before and after."""
    data_receipts: tuple[dict[str, Any], ...] = ()
    """Of the shards the rows were made from; kept with the model."""
    out: Path
    """The model folder. Work in progress is beside it, in `<out>.partial`."""
    seed: int | None = None
    """In place of the settings' seed."""
    recipe: str = ""
    """Text of the recipe, kept with the model."""
    threads: int | None = Field(default=None, ge=1)
    """CPU threads; None takes all cores this process may use."""
    gguf: Path | None = None
    """GGUF file of the base; its metadata goes into a GGUF of the result. None: no GGUF."""
    gguf_type: Literal["f16", "q8_0"] = "f16"

    @property
    def partial(self) -> Path:
        return self.out.with_name(self.out.name + ".partial")


class _Watched(_Job):
    """A job that a judge may look on to: who asks it, and which prompts, are three fields or none."""

    socket: Path | None = None
    """Where the judge listens."""
    prompts: Data | None = None
    """Held-out ones, `prompt` and `prompt_id`."""
    judges: dict[str, Any] | None = None
    """What decides the scores. Part of the key."""

    @model_validator(mode="after")
    def _watched_or_not(self) -> Self:
        settings: Any = getattr(self, "settings", None)
        given = [part is not None for part in (self.socket, self.prompts, self.judges)]
        if any(given) != all(given) or any(given) != (getattr(settings, "win_rate", None) is not None):
            raise ValueError(
                "settings.win_rate wants socket, prompts and judges, and they want it; give all or none"
            )
        return self


class SFTJob(_Watched):
    kind: Literal["sft"]
    settings: SFTSettings


class DPOJob(_Watched):
    kind: Literal["dpo"]
    settings: DPOSettings
    references: Path | None = None
    """Folder where the reference's log-probabilities are kept for other runs on the same base; None: for this one."""


class PretrainJob(_Job):
    kind: Literal["pretrain"]
    settings: PretrainSettings


class RewardJob(_Job):
    kind: Literal["reward"]
    settings: RewardSettings


class RLHFJob(_Job):
    """Its rows are prompts. The reward is one of two: a judge at a socket, or a reward model's folder."""

    kind: Literal["rlhf"]
    settings: RLHFSettings
    socket: Path | None = None
    reward_model: Path | None = None
    reward: dict[str, Any]
    """What decides the scores: the judges and their models, or the reward model's digest. Part of the key."""

    @model_validator(mode="after")
    def _one_reward(self) -> Self:
        if (self.socket is None) == (self.reward_model is None):
            raise ValueError(f"socket={self.socket}, reward_model={self.reward_model}: give one of them")
        if self.eval is not None:
            raise ValueError(
                "eval: answers to held-out prompts are scored by `zephyr evaluate`; leave it out"
            )
        return self


Job = Annotated[SFTJob | DPOJob | PretrainJob | RewardJob | RLHFJob, Field(discriminator="kind")]

COSMETIC = {"save_every", "logging_every", "report_to"}
"""Settings that do not change the weights."""


def key_of(job: Job) -> str:
    """Names the model this job gives: settings, base, data and seed; no path, machine or time."""
    return fingerprint(
        FORMAT,
        job.kind,
        job.settings.model_dump(mode="json", exclude=COSMETIC | {"seed"}),
        seed_of(job),
        base_digest(job),
        [sha256(path) for path in job.train.paths()],
        [sha256(path) for path in job.eval.paths()] if job.eval else None,
        job.gguf_type if job.gguf else None,
        *([job.reward] if isinstance(job, RLHFJob) else []),
        *_looks(job),
    )


def _looks(job: Job) -> list[Any]:
    """What a look rests on, where there are any: they may end training, and choose the weights."""
    if not isinstance(job, _Watched) or job.prompts is None:
        return []
    return [job.judges, [sha256(path) for path in job.prompts.paths()]]


def seed_of(job: Job) -> int:
    return job.settings.seed if job.seed is None else job.seed


def base_digest(job: Job) -> str:
    """The receipt's digest, else one over the base's weights, config, tokenizer and template."""
    if digest := job.base_receipt.get("digest"):
        return str(digest)
    kinds = {".safetensors", ".json", ".jinja", ".model"}
    files = sorted(path for path in job.base.iterdir() if path.suffix in kinds and path.name != "model.json")
    return fingerprint([[path.name, sha256(path)] for path in files])


def digest_of_weights(folder: Path) -> str:
    """Of a model's safetensors alone; as a model of ours says it, else read."""
    if (folder / "model.json").is_file() and (
        known := json.loads((folder / "model.json").read_text()).get("weights")
    ):
        return str(known)
    files = sorted(folder.glob("*.safetensors"))
    return sha256(files[0]) if len(files) == 1 else fingerprint([sha256(file) for file in files])


def sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def finished(out: Path, key: str) -> dict[str, Any] | None:
    """The model.json of a model that this key already gave, with all its files there."""
    try:
        made = json.loads((out / "model.json").read_text())
    except (FileNotFoundError, NotADirectoryError, json.JSONDecodeError):
        return None
    files = made.get("files", {})
    whole = all(
        (out / name).is_file() and (out / name).stat().st_size == size for name, size in files.items()
    )
    return made if made.get("key") == key and files and whole else None
