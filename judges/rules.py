"""Score an answer by the constraints its prompt carries: 0 (none kept) to 1 (all kept). Asks no model.

The score is the mean over the constraints of how far each is kept (`judges/constraints/`); it is 1 only
when every check holds. `reference` adds the check that an answer's final number is the prompt's reference,
for maths sets: a reference of GSM8K ends in `#### 18`. An answer without a final number has status `no_answer`
and no score: that it is wrong is not known.
"""

from collections.abc import Sequence
from typing import Any, Literal, Self, get_args

from pydantic import ValidationError, model_validator

from judges.base import Settings, Verdict
from judges.constraints import CONSTRAINT, Constraint, NoAnswer, NumberAnswer, final_number
from judges.constraints.answer import Read
from records.schema import Completion, Prompt
from serving.chat import Chat

ASPECT = "constraints"
VERSION = 2
"""Raised when the same answer would get another verdict."""


KINDS = frozenset(
    kind
    for constraint in get_args(get_args(Constraint)[0])
    for kind in get_args(constraint.model_fields["kind"].annotation)
)


class RuleError(ValueError):
    """A prompt's constraint cannot be read; its completions get status `rule_error` and no score."""


class Rules(Settings):
    kind: Literal["rules"] = "rules"
    name: str = "rules"
    reference: Literal["ignore"] | Read = "ignore"
    """Whether a prompt's `reference` must be the answer's final number, and where that stands: after the last
    mark (`A:`, `####`, `answer is`, a box) or as the last number in the text. An answer without one is unjudged."""
    only: tuple[str, ...] | None = None
    """Kinds of constraints that are looked at: [max_words]; None: all. Judges that look at different ones can check
    one another."""
    loose: bool = False
    """Whether a constraint is also kept when the answer keeps it without its first line, its last line or both, or
    without asterisks: IFEval's loose reading."""

    @model_validator(mode="after")
    def _only_what_there_is(self) -> Self:
        if unknown := sorted(set(self.only or ()) - KINDS):
            raise ValueError(
                f"only: {unknown} are no kinds of constraints; there are {', '.join(sorted(KINDS))}"
            )
        return self

    def asked(self) -> dict[str, Any]:
        """Everything that decides this judge's verdicts: part of the fingerprint."""
        fields = self.model_dump(mode="json")
        if self.only is None:
            del fields["only"]
        return fields | {"version": VERSION}

    @property
    def aspects(self) -> tuple[str, ...]:
        return (ASPECT,)

    def context(self, prompt: Prompt, aspect: str) -> object:
        """What is checked comes with the prompt."""
        reference = prompt.meta.get("reference") if self.reference != "ignore" else None
        return [prompt.meta.get("constraints"), reference]

    def build(self, chat: Chat | None = None) -> "RulesJudge":
        return RulesJudge(self)


class RulesJudge:
    def __init__(self, settings: Rules) -> None:
        self.settings = settings

    async def __call__(
        self, prompt: Prompt, completions: Sequence[Completion], aspect: str = ASPECT
    ) -> list[Verdict]:
        try:
            every = read_constraints(prompt, self.settings.reference)
            only = self.settings.only
            constraints = every if only is None else [c for c in every if c.kind in only]
        except RuleError as error:
            return [Verdict(aspect, "rule_error", 0, 1, detail=str(error)) for _ in completions]
        if not constraints:
            none = "the prompt has no constraints a machine can check"
            return [Verdict(aspect, "not_applicable", 0, 1, detail=none) for _ in completions]
        return [judge_text(c.text, constraints, self.settings.loose) for c in completions]


def judge_text(text: str, constraints: Sequence[Constraint], loose: bool = False) -> Verdict:
    """The verdict on one answer; `detail` lists what was kept and what was broken."""
    try:
        grades = [constraint.grade(text, loose) for constraint in constraints]
    except NoAnswer as error:
        return Verdict(ASPECT, "no_answer", 0, 1, detail=str(error))
    if not text.strip():
        return Verdict(ASPECT, "ok", 0, 1, score=0.0, detail="the answer is empty")
    graded = list(zip(constraints, grades, strict=True))
    kept = [c.describe() for c, grade in graded if grade.kept]
    broken = [f"{c.describe()} ({grade.seen})" for c, grade in graded if not grade.kept]
    lists = [f"{title}: {', '.join(rules)}" for title, rules in (("kept", kept), ("broken", broken)) if rules]
    score = sum(grade.degree for grade in grades) / len(grades)
    return Verdict(ASPECT, "ok", 0, 1, score=score, detail="; ".join(lists))


def all_kept(prompt: Prompt, completion: Completion) -> bool | None:
    """Whether the answer keeps every constraint of its prompt; None for a prompt without any.

    Raises:
        RuleError: a constraint cannot be read.
    """
    constraints = read_constraints(prompt)
    return all(c.check(completion.text) for c in constraints) if constraints else None


def read_constraints(prompt: Prompt, reference: Literal["ignore"] | Read = "ignore") -> list[Constraint]:
    """The constraints in a prompt's `meta`, and with `reference` its known answer.

    Raises:
        RuleError: one cannot be read; names the prompt, the constraint, the field and what was wanted.
    """
    raw = prompt.meta.get("constraints") or []
    if not isinstance(raw, list | tuple):
        raise RuleError(f"prompt {prompt.id[:12]} has constraints={raw!r}, wanted a list of {{kind: …}}")
    constraints = [
        _read(item, f"prompt {prompt.id[:12]}, constraint {i}") for i, item in enumerate(raw, start=1)
    ]
    if reference != "ignore" and (known := prompt.meta.get("reference")) is not None:
        value = (
            final_number(str(known), "marked") if "####" in str(known) else final_number(str(known), "last")
        )
        if value is None:
            raise RuleError(
                f"prompt {prompt.id[:12]} has reference={known!r}, wanted one that ends in a number"
            )
        constraints.append(NumberAnswer(kind="number_answer", value=str(value), read=reference))
    return constraints


def _read(item: Any, where: str) -> Constraint:
    # A column of structs gives every constraint every field, empty where it has none.
    fields = {k: v for k, v in item.items() if v is not None} if isinstance(item, dict) else item
    try:
        return CONSTRAINT.validate_python(fields)
    except ValidationError as error:
        first = error.errors()[0]
        field = ".".join(str(part) for part in first["loc"][1:]) or "kind"
        raise RuleError(f"{where}: {item!r}: {field}: {first['msg']}") from error
