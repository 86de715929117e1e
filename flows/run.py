"""A run's folder: where each stage's shards lie, and the small files beside them.

runs/<name>/recipe.yaml                        as run
            prompts/ completions/ judgements/  sealed shards, see `records.store`
            dataset/                           a Hugging Face dataset folder with pairs
            best-of-n/                         the same without pairs, by `reject-sample`
            benchmark/                         answers and judgements of published suites, see `flows.suites.flow`
            training/                          rows of datasets that exist already, as trainers read them
            models/<stage>/                    trained models
            rounds/round-<i>/                  a run of each round, with `training.rounds`
            reference/                         log-probabilities of DPO's reference, see `trainers.reference`
            servers/                           logs and pid files of managed servers
            dialects.json                      how each judge model is asked, see `flows.readings`
            evaluation.json report.json report.html summary.json
"""

import json
import shutil
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from flows.recipe import Recipe, RecipeError
from flows.subject import check_judge
from judges.jury import Member
from records.lock import exclusive
from records.store import Stage
from serving.purse import Purse
from serving.settings import Sampler

LEAST_FREE = 1e9
"""Bytes that must be free where a run begins; one that fills the disk later stops with all of it kept."""


def free(folder: Path) -> int:
    """Bytes free for a folder that may not be there yet."""
    there = next(path for path in (folder.absolute(), *folder.absolute().parents) if path.exists())
    return shutil.disk_usage(there).free


@dataclass(frozen=True)
class Run:
    """One recipe in one folder."""

    recipe: Recipe
    folder: Path
    store: str
    """Root of the shards: the folder itself, or an fsspec address."""

    @classmethod
    @contextmanager
    def opened(cls, recipe: Recipe, out: Path | None = None, store: str | None = None) -> Iterator["Run"]:
        """The run, held for this process, with its recipe written down; a child run has it from its parent.

        Raises:
            StoreError: another process works in the folder.
            RecipeError: the judge has no card, or one below the recipe's minimum; or the disk is full.
        """
        from prefect.runtime import flow_run

        check_judge(recipe)
        run = cls.at(recipe, out, store)
        if (left := free(run.folder)) < LEAST_FREE:
            raise RecipeError(
                f"{left / 1e9:.2f} GB are free for {run.folder}, wanted {LEAST_FREE / 1e9:.1f}; make room (`zephyr gc` "
                "says what can go) or choose another --out"
            )
        with exclusive(run.folder, flow_run.id or "", lambda: flow_run.parent_flow_run_id):
            text = yaml.safe_dump(
                recipe.model_dump(mode="json"), sort_keys=False, allow_unicode=True, width=110
            )
            run.write("recipe.yaml", text)
            yield run

    @classmethod
    def at(cls, recipe: Recipe, out: Path | None = None, store: str | None = None) -> "Run":
        folder = (out or Path("runs")) / recipe.name
        return cls(recipe, folder, store or str(folder))

    @property
    def servers(self) -> Path:
        return self.folder / "servers"

    def purse(self) -> Purse | None:
        """What is left of the recipe's budget; `spent.json` says what earlier runs spent."""
        return Purse(self.recipe.budget, self.folder / "spent.json") if self.recipe.budget else None

    def model_folder(self, stage: str) -> Path:
        return self.folder / "models" / stage

    def training_data(self, kind: str) -> Path:
        return self.folder / "training" / kind

    def prompts_stage(self, held_out: int | None = None) -> Stage:
        """The recipe's prompts, or so many held-out ones of them for the evaluation."""
        asked: dict[str, Any] = {
            "prompts": [
                source.model_dump(mode="json", exclude={"rows", "license"}) for source in self.recipe.prompts
            ]
        }
        if held_out is not None:
            asked |= {"held_out": held_out, "seed": self.recipe.seed}
        return Stage(self.store, "prompts", asked)

    def completions_stage(self, sampler: Sampler, identity: dict[str, Any] | None = None) -> Stage:
        return Stage(self.store, "completions", self.recipe.asked(sampler, identity))

    def judgements_stage(self, member: Member, of: Collection[str]) -> Stage:
        """One member's judgements of the completions with fingerprints `of`: one, or all it sees side by side."""
        model = self.recipe.models[member.asks].identity if member.asks else None
        one = next(iter(of)) if member.scope == "completion" else sorted(of)
        return Stage(self.store, "judgements", {"judge": member.asked(), "model": model, "of": one})

    def write(self, name: str, content: str) -> Path:
        """A small file, whole or not at all."""
        self.folder.mkdir(parents=True, exist_ok=True)
        path = self.folder / name
        part = path.with_name(f".{name}.part")
        part.write_text(content)
        part.replace(path)
        return path

    def read_json(self, name: str) -> dict[str, Any]:
        path = self.folder / name
        return json.loads(path.read_text()) if path.exists() else {}
