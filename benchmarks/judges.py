"""The quickstart's model as a judge, on labels of people, through the embedded server: python -m benchmarks.judges

Needs PandaLM's and HHH's files (docs/judge-card.md says where from) under --data. Prints a table per file and ends with
one JSON object; --write also keeps the cards in benchmarks/results/.
"""

import argparse
import asyncio
import json
import os
import sys
from pathlib import Path
from typing import Any

from benchmarks.report import finish, machine
from flows.card_text import card_markdown, card_text

HERE = Path(__file__).parent
JUDGES = (HERE / "judge-smollm2.yaml", HERE / "judge-smollm2-pairwise.yaml")
SETS = {"pandalm": "pandalm/testset-v1.json", "hhh": "hhh-alignment/hhh_alignment_eval.json"}


def quiet() -> None:
    os.environ.setdefault("PREFECT_LOGGING_LEVEL", "CRITICAL")
    os.environ.setdefault("PREFECT_SERVER_ANALYTICS_ENABLED", "false")
    os.environ.setdefault("PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS", "180")
    os.environ.setdefault("DO_NOT_TRACK", "1")


def measure(judge: Path, file: Path, limit: int | None, canaries: int, out: Path) -> dict[str, Any]:
    """One card. A second run asks nothing."""
    from flows.judge_card import judge_card
    from flows.progress import shown
    from flows.subject import load_subject

    with shown():
        return asyncio.run(judge_card(load_subject(judge), file, limit=limit, canary_items=canaries, out=out))


def headline(card: dict[str, Any]) -> dict[str, Any]:
    """A card's figures for machines."""
    agreement, cost = card["agreement"], card["cost"]
    return {
        "pairs": card["gold"]["pairs"],
        "right_winner": agreement["decided"],
        "kappa": agreement["kappa_decided"],
        "three_classes": agreement["accuracy"],
        "longer_wins": card["baselines"]["longer wins"]["decided"],
        "against_longer_wins": card["against"]["longer wins"],
        "orders_agree": card["orders"]["consistent"] if card["orders"] else None,
        "longer_excess": card["longer"]["excess"],
        "failures": card["failures"],
        "ece": card["calibration"]["ece"] if card["calibration"] else None,
        "canaries_below": {one["name"]: one["below"] for one in card["canaries"]},
        "seconds_per_judgement": cost["seconds"] / max(1, cost["judgements"]),
    }


def keep(cards: dict[str, dict[str, Any]], results: Path = HERE / "results") -> None:
    """Each card as JSON in benchmarks/results/, and all that lie there as one page."""
    here = machine()
    results.mkdir(exist_ok=True)
    where = f"{here['cores']} cores of {here['cpu']}, load {here['load'][0]} at the end"
    for name, card in cards.items():
        kept = {key: value for key, value in card.items() if key not in ("card", "page")} | {"where": where}
        path = results / f"judge-{card['name']}-{name}.json"
        path.write_text(json.dumps(kept, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    page = (
        "# SmolLM2-135M-Instruct as a judge\n\n`make bench-judges`: one rating each, and two side by side.\n"
    )
    for path in sorted(results.glob("judge-*.json"), reverse=True):
        card = json.loads(path.read_text(encoding="utf-8"))
        page += f"\n## {card['name']} on {path.stem.rpartition('-')[2]}\n\n{card['date']}, {card['where']}. "
        page += card_markdown(card)
    (results / "judges.md").write_text(page, encoding="utf-8")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--data", type=Path, default=Path("../shared/data"), help="Folder of the labelled files."
    )
    parser.add_argument("--judge", type=Path, nargs="*", default=list(JUDGES), help="Judges or recipes.")
    parser.add_argument("--limit", type=int, default=221, help="Prompts with their answers, per file.")
    parser.add_argument("--canaries", type=int, default=30, help="Items put against canaries, per file.")
    parser.add_argument("--out", type=Path, default=Path("runs"), help="Folder for runs.")
    parser.add_argument("--write", action="store_true", help="Keep the cards in benchmarks/results/.")
    given = parser.parse_args()
    files = {name: given.data / path for name, path in SETS.items() if (given.data / path).exists()}
    if not files:
        sys.exit(f"none of {', '.join(SETS.values())} is under {given.data}; give --data")
    quiet()
    figures: dict[str, Any] = {}
    for judge in given.judge:
        cards = {}
        for name, file in files.items():
            cards[name] = measure(judge, file, given.limit, given.canaries, given.out)
            print(card_text(cards[name]), end="\n\n")
            figures.setdefault(cards[name]["name"], {})[name] = headline(cards[name])
        if given.write:
            keep(cards)
    finish("judges", figures)


if __name__ == "__main__":
    main()
