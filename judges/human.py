"""What people say of two answers, as judgements of the same form as every other judge's.

One choice gives one judgement for each of the two: 1 for the better, 0 for the other, on a scale from 0 to 1. A tie has
the status `tie`, and one who cannot tell makes the judgement `not_applicable`; neither has a score.
"""

from collections.abc import Sequence
from typing import Any, Literal, get_args

from judges.layouts import Label
from records.ids import chance, fingerprint
from records.schema import Completion, Judgement, Prompt

ASPECT = "preference"
QUESTION = "Which answer would you rather have been given?"
"""What people are asked; part of what names their judgements."""

Choice = Literal["first", "second", "tie", "unsure"]
"""Of the two answers as they were shown."""
CHOICES: tuple[Choice, ...] = get_args(Choice)


def asked(annotator: str) -> dict[str, Any]:
    """Everything that decides a person's judgements; names the folder of them."""
    return {
        "judge": {"kind": "human", "annotator": annotator, "question": QUESTION},
        "model": None,
        "of": "pairs",
    }


def pair_key(prompt: Prompt, two: Sequence[Completion]) -> str:
    """Stands for these two answers with these texts, in either order."""
    return fingerprint(prompt.id, sorted((one.id, one.text) for one in two))


def shown(key: str, two: Sequence[Completion], seed: int) -> tuple[Completion, Completion]:
    """The two in the order a person sees them: drawn, so that neither place, model nor score decides it."""
    first, second = sorted(two, key=lambda one: one.id)
    return (first, second) if chance(seed, "shown", key).random() < 0.5 else (second, first)


def judgements_of(
    annotator: str, key: str, two: tuple[Completion, Completion], choice: Choice, picked_from: str
) -> list[Judgement]:
    """One choice between two answers as they were shown. `picked_from`: how the two came to be asked about."""
    folder = fingerprint("judgements", asked(annotator))
    found = []
    for place, completion in enumerate(two):
        won = choice == ("first", "second")[place]
        found.append(
            Judgement(
                id=fingerprint(folder, key, completion.id),
                prompt_id=completion.prompt_id,
                completion_id=completion.id,
                judge=annotator,
                aspect=ASPECT,
                status="tie" if choice == "tie" else "not_applicable" if choice == "unsure" else "ok",
                score=float(won) if choice in ("first", "second") else None,
                low=0.0,
                high=1.0,
                raw=choice,
                detail=picked_from,
                position=place,
                fingerprint=folder,
            )
        )
    return found


def label_of(answers: Sequence[Judgement]) -> Label | None:
    """The place of the better of two judged answers, a tie, or None where the person could not tell."""
    first, second = answers
    if first.status == "tie":
        return "tie"
    if first.score is None or second.score is None:
        return None
    return 0 if first.score > second.score else 1
