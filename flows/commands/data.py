"""What others have published, looked into and made ours, and what a run made, for others."""

from pathlib import Path
from typing import Annotated, Any

import typer

from flows.commands.console import Answer, Commands, Out, RunPath

data = Commands("Datasets and publishing")

DATASET = "A .jsonl or .parquet file, a folder of them, or a dataset of the Hugging Face Hub."
Dataset = Annotated[str, typer.Argument(metavar="DATASET", help=DATASET)]
Revision = Annotated[
    str | None, typer.Option(metavar="COMMIT", help="Of a dataset of the Hub; default: the newest.")
]


@data.command("import")
def import_(
    dataset: Dataset,
    name: Annotated[str, typer.Option("--as", metavar="NAME", help="Names the run that it becomes.")],
    revision: Revision = None,
    out: Out = None,
) -> Answer:
    """A published preference dataset as a run, to pair it anew, judge more of it or add answers. Asks no model."""
    from flows.imports import import_dataset, import_text

    return import_dataset(dataset, name, out, revision), import_text


@data.command()
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
) -> Answer:
    """What is wrong in a published preference dataset, with ids, and what pairing it anew would change."""
    from flows.audit_published import audit_published, audit_text

    return audit_published(dataset, benchmark or (), near, html, revision), audit_text


@data.command()
def translate(
    files: Annotated[
        list[Path],
        typer.Argument(metavar="FILE…", help="A training YAML, or one of SFT and one of DPO."),
    ],
    gpus: Annotated[int, typer.Option(min=1, help="GPUs that the file's batch sizes were meant for.")] = 1,
) -> Answer:
    """A training YAML of the alignment handbook, TRL or Axolotl as a recipe, with every key left out named."""
    from flows.translate import translate as read

    found = read(files, gpus)
    told = {"renamed": found.renamed, "dropped": found.dropped, "notes": found.notes}
    return {"recipe": found.fields, **told, "text": found.text()}, lambda result: result["text"]


@data.command()
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
) -> Answer:
    """Copy or publish what a run made, dataset and models with their cards, without its working files."""
    from flows import export
    from flows.recipe import RecipeError

    if (to is None) == (push is None):
        raise RecipeError("give a folder to copy to, or --push OWNER/NAME")
    found = export.push(run, push, public) if push is not None else export.export(run, Path(to or ""))
    return found, _places


def _places(exported: dict[str, Any]) -> str:
    return "\n".join(exported.get("written", exported.get("pushed", [])))
