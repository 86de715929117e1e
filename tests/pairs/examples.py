"""Prompts, completions and pairs made by hand."""

from collections.abc import Sequence

from pairs.policies import Candidate
from records.ids import fingerprint, prompt_id
from records.schema import Completion, Message, Pair, Prompt


def prompt(text: str = "Why is the sky blue?", **meta: object) -> Prompt:
    messages = (Message(role="user", content=text),)
    return Prompt(id=prompt_id(messages), messages=messages, source="tests", meta=meta)


def completion(asked: Prompt, model: str, text: str, finish_reason: str = "stop") -> Completion:
    return Completion(
        id=fingerprint(asked.id, model, text),
        prompt_id=asked.id,
        model=model,
        text=text,
        finish_reason=finish_reason,
        fingerprint=fingerprint(model),
    )


def candidates(
    asked: Prompt, scores: Sequence[float | None], cut: Sequence[int] = (), spread: float | None = None
) -> list[Candidate]:
    """Candidate i is model `m<i>` with a text of its own; those in `cut` ran into max_tokens."""
    return [
        Candidate(
            completion(asked, f"m{i}", f"Answer {i} of its own.", "length" if i in cut else "stop"),
            score,
            None if score is None else spread,
            "" if score is not None else "parse_error",
        )
        for i, score in enumerate(scores)
    ]


def pair(
    asked: Prompt,
    chosen: str = "A good and long answer.",
    rejected: str = "Bad.",
    models: tuple[str, str] = ("m0", "m1"),
    scores: tuple[float, float] = (4.0, 2.0),
) -> Pair:
    return Pair(
        prompt=asked,
        chosen=completion(asked, models[0], chosen),
        rejected=completion(asked, models[1], rejected),
        score_chosen=scores[0],
        score_rejected=scores[1],
        margin=scores[0] - scores[1],
        policy="best_vs_random",
    )
