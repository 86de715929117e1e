"""IFEval's instructions -> the constraints of this project. A row of its prompts (shortened):

    {"prompt": "…", "instruction_id_list": ["length_constraints:number_words", "punctuation:no_comma"],
     "kwargs": [{"relation": "at least", "num_words": 300, "keyword": null}, {}]}

The 25 instructions are those of google-research/instruction_following_eval (arXiv:2311.07911), and each constraint
checks what that project's checker checks; where it does not, tests/judges/test_ifeval.py lists the answers.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

Given = Mapping[str, Any]
Made = dict[str, Any]

OPTIONS = ("My answer is yes.", "My answer is no.", "My answer is maybe.")
"""IFEval's only set of answers to choose from."""


def _related(relation: str, n: int) -> Made:
    """IFEval's two relations."""
    if relation not in ("at least", "less than"):
        raise ValueError(f"relation {relation!r}, wanted 'at least' or 'less than'")
    return {"at_least": n} if relation == "at least" else {"at_most": n - 1}


def _bounded(what: str, relation: str, n: int, **more: Any) -> Made:
    """A bound on words or sentences, which have a kind for each side."""
    related = _related(relation, n)
    side = "min" if "at_least" in related else "max"
    return {"kind": f"{side}_{what}", "n": next(iter(related.values()))} | more


INSTRUCTIONS: dict[str, Callable[[Given], Made]] = {
    "keywords:existence": lambda k: {"kind": "contains", "phrases": k["keywords"], "whole_words": False},
    "keywords:frequency": lambda k: (
        {"kind": "phrase_count", "phrase": k["keyword"], "whole_words": False}
        | _related(k["relation"], k["frequency"])
    ),
    "keywords:forbidden_words": lambda k: {"kind": "excludes", "phrases": k["forbidden_words"]},
    "keywords:letter_frequency": lambda k: (
        {"kind": "letter_count", "letter": k["letter"]} | _related(k["let_relation"], k["let_frequency"])
    ),
    "language:response_language": lambda k: {"kind": "language", "language": k["language"]},
    "length_constraints:number_sentences": lambda k: _bounded(
        "sentences", k["relation"], k["num_sentences"], lines=False
    ),
    "length_constraints:number_paragraphs": lambda k: {
        "kind": "paragraphs",
        "n": k["num_paragraphs"],
        "separator": "***",
    },
    "length_constraints:number_words": lambda k: _bounded(
        "words", k["relation"], k["num_words"], split="runs"
    ),
    "length_constraints:nth_paragraph_first_word": lambda k: {
        "kind": "paragraph_starts",
        "word": k["first_word"],
        "paragraph": k["nth_paragraph"],
        "of": k["num_paragraphs"],
    },
    "detectable_content:number_placeholders": lambda k: {
        "kind": "placeholders",
        "at_least": k["num_placeholders"],
    },
    "detectable_content:postscript": lambda k: {"kind": "postscript", "marker": k["postscript_marker"]},
    "detectable_format:number_bullet_lists": lambda k: {"kind": "bullet_list", "n": k["num_bullets"]},
    "detectable_format:constrained_response": lambda k: {
        "kind": "one_of",
        "options": OPTIONS,
        "anywhere": True,
    },
    "detectable_format:number_highlighted_sections": lambda k: {
        "kind": "highlights",
        "at_least": k["num_highlights"],
    },
    "detectable_format:multiple_sections": lambda k: {
        "kind": "sections",
        "name": k["section_spliter"].strip(),
        "at_least": k["num_sections"],
    },
    "detectable_format:json_format": lambda k: {"kind": "json"},
    "detectable_format:title": lambda k: {"kind": "title"},
    "combination:two_responses": lambda k: {"kind": "responses"},
    "combination:repeat_prompt": lambda k: {"kind": "starts_with", "phrase": k["prompt_to_repeat"].strip()},
    "startend:end_checker": lambda k: {"kind": "ends_with", "phrase": k["end_phrase"].strip()},
    "startend:quotation": lambda k: {"kind": "quoted"},
    "change_case:capital_word_frequency": lambda k: (
        {"kind": "capital_words"} | _related(k["capital_relation"], k["capital_frequency"])
    ),
    "change_case:english_capital": lambda k: {"kind": "uppercase", "language": "en"},
    "change_case:english_lowercase": lambda k: {"kind": "lowercase", "language": "en"},
    "punctuation:no_comma": lambda k: {"kind": "excludes", "phrases": [","], "whole_words": False},
}


def constraints_of(instructions: Sequence[str], given: Sequence[Given]) -> list[Made]:
    """One constraint per instruction, in their order. Arguments that are null, as some copies have them, are none.

    Raises:
        ValueError: an instruction that is not known, or an argument it lacks; says which.
    """
    if len(instructions) != len(given):
        raise ValueError(f"{len(instructions)} instructions with {len(given)} kwargs, wanted as many")
    made = []
    for id, arguments in zip(instructions, given, strict=True):
        make = INSTRUCTIONS.get(id.removeprefix("en:"))
        if make is None:
            raise ValueError(f"instruction {id!r} is none of IFEval's: {', '.join(INSTRUCTIONS)}")
        try:
            made.append(
                make({key: _whole(value) for key, value in (arguments or {}).items() if value is not None})
            )
        except KeyError as error:
            raise ValueError(
                f"instruction {id!r} has no {error.args[0]!r} in its kwargs {arguments!r}"
            ) from error
    return made


def _whole(value: Any) -> Any:
    """A column with nulls may have turned 300 into 300.0."""
    return int(value) if isinstance(value, float) and value.is_integer() else value
