"""One record at every stage: the prompt, every answer, the judge's exact prompt and raw answer, the score, the pair."""

from typing import Any

from flows.answers import stored
from flows.audit import prompts_of
from flows.dataset import Judged, judged_prompts
from flows.inputs import gather_prompts
from flows.recipe import RecipeError
from flows.run import Run
from judges.jury import Member
from pairs.policies import make_pairs
from records.schema import Completion, Dropped


def show(run: Run, wanted: str | None) -> dict[str, Any]:
    """The record of the prompt whose id begins with `wanted`; without one, a prompt that became a pair.

    Raises:
        RecipeError: no prompt, or several, have an id that begins so; or nothing was asked yet.
    """
    recipe = run.recipe
    prompts, _ = gather_prompts(run)
    if wanted is not None:
        found = [prompt for prompt in prompts if prompt.id.startswith(wanted)]
        if len(found) != 1:
            raise RecipeError(
                f"{wanted!r} begins the ids of {len(found)} prompts of this recipe; wanted exactly one"
            )
    cases = judged_prompts(run, prompts, stored(run))
    if not any(case.candidates for case in cases):
        raise RecipeError(f"{run.folder} holds no answers yet; run `zephyr generate` or `zephyr run` first")
    made = {case.prompt.id: make_pairs(case.prompt, case.candidates, recipe.pairs) for case in cases}
    if wanted is not None:
        case = next(case for case in cases if case.prompt.id.startswith(wanted))
    else:
        case = next((case for case in cases if not isinstance(made[case.prompt.id], Dropped)), cases[0])
    pairs = made[case.prompt.id]
    members = {member.name: member for member in recipe.jury.members}
    return {
        "prompt": case.prompt.model_dump(mode="json"),
        "completions": [
            {
                **candidate.completion.model_dump(mode="json"),
                "score": candidate.score,
                "spread": candidate.spread,
                "why": candidate.why,
                "judgements": [
                    {
                        **_asked(members[j.judge], case, candidate.completion, j.aspect),
                        **j.model_dump(mode="json"),
                    }
                    for j in case.judgements[candidate.completion.id]
                ],
            }
            for candidate in case.candidates
        ],
        "pairs": pairs.model_dump()
        if isinstance(pairs, Dropped)
        else [
            {"chosen": p.chosen.id, "rejected": p.rejected.id, "margin": p.margin, "policy": p.policy}
            for p in pairs
        ],
    }


def _asked(member: Member, case: Judged, completion: Completion, aspect: str) -> dict[str, Any]:
    """The judge's exact prompt, or all where it compares; None for a judge that asks no model."""
    asked = prompts_of(member, case, completion, aspect)
    return {"prompt": asked[0] if asked else None, "prompts": asked}


def show_text(record: dict[str, Any]) -> str:
    """The record as people read it."""
    prompt = record["prompt"]
    lines = [f"prompt {prompt['id']}  from {prompt['source']}", *_quoted(prompt["messages"][-1]["content"])]
    if prompt["meta"]:
        lines.append(f"  {prompt['meta']}")
    for completion in record["completions"]:
        score = (
            "unjudged: " + completion["why"]
            if completion["score"] is None
            else f"score {completion['score']:.3f}"
        )
        lines += [
            "",
            f"completion {completion['id']}  by {completion['model']}, {completion['finish_reason']}, {score}",
        ]
        lines += _quoted(completion["text"])
        for judgement in completion["judgements"]:
            value = judgement["status"] if judgement["score"] is None else f"{judgement['score']:.3f}"
            lines.append(f"  {judgement['judge']}/{judgement['aspect']}: {value}  {judgement['detail']}")
            if judgement["prompt"] is not None:
                lines += [
                    "    the judge was asked:",
                    *("    " + line for line in _quoted(judgement["prompt"])),
                ]
                if (more := len(judgement["prompts"]) - 1) > 0:
                    lines.append(f"      | [and {more} more requests like it]")
                lines.append(f"    and answered {judgement['raw']!r}" + _shares(judgement))
    pairs = record["pairs"]
    if isinstance(pairs, dict):
        lines += ["", f"no pair: {pairs['reason']}  {pairs['detail']}"]
    else:
        for pair in pairs:
            lines += [
                "",
                f"pair: chosen {pair['chosen']}, rejected {pair['rejected']}, "
                f"margin {pair['margin']:.3f}, {pair['policy']}",
            ]
    return "\n".join(lines)


def _shares(judgement: dict[str, Any]) -> str:
    shares = judgement["distribution"]
    if not shares:
        return ""
    said = ", ".join(f"{label} {share:.2f}" for label, share in sorted(shares.items()))
    return f": {said}; off the scale {judgement['off_scale'] or 0:.2f}"


def _quoted(text: str) -> list[str]:
    return [f"  | {line}" for line in text.splitlines() or [""]]
