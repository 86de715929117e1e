"""Every constraint, kept and broken; degrees; loose readings; final numbers."""

from fractions import Fraction
from pathlib import Path
from typing import Any, get_args

import pytest
from pydantic import ValidationError

from judges.constraints import (
    CONSTRAINT,
    Constraint,
    NoAnswer,
    count_sentences,
    count_words,
    final_number,
    loosely,
    read_number,
)
from judges.constraints.rule import Rule

KEPT = [
    ({"kind": "max_words", "n": 3}, "Tea is warm."),
    ({"kind": "max_words", "n": 2}, "well-known - tea"),
    ({"kind": "min_words", "n": 2}, "Tea, warm"),
    ({"kind": "max_sentences", "n": 1}, "Dr. Lee paid $3.50 for tea, e.g. oolong."),
    ({"kind": "max_sentences", "n": 2}, "Really?! Yes."),
    ({"kind": "ends_with_punctuation"}, 'She said "stop."\n'),
    ({"kind": "ends_with_punctuation"}, "Why (really)?"),
    ({"kind": "bullet_list", "n": 2}, "Here:\n- a\n* b"),
    ({"kind": "bullet_list", "at_least": 2}, "• a\n• b\n• c"),
    ({"kind": "numbered_list", "n": 2}, "1. a\n2) b"),
    ({"kind": "json_object", "keys": ["a"]}, '{"a": 1, "b": {}}'),
    ({"kind": "json_object", "keys": ["a"]}, '```json\n{"a": 1}\n```'),
    ({"kind": "contains", "phrases": ["tea", "hot water"]}, "Tea needs HOT WATER."),
    ({"kind": "excludes", "phrases": ["tea"]}, "A team plays."),
    ({"kind": "starts_with", "phrase": "Dear"}, " dear Ann,"),
    ({"kind": "lowercase"}, "all small, 3 of them"),
    ({"kind": "uppercase"}, "LOUD!"),
    ({"kind": "one_of", "options": ["yes", "no"]}, "Yes."),
    ({"kind": "single_paragraph"}, "one\ntwo"),
    ({"kind": "max_words", "n": 2, "split": "runs"}, "well-known"),
    ({"kind": "min_sentences", "n": 2}, "1. Tea\n2. Salt"),
    ({"kind": "max_sentences", "n": 1, "lines": False}, "Tea\nis warm."),
    ({"kind": "paragraphs", "n": 2}, "one\nstill one\n \ntwo"),
    ({"kind": "paragraphs", "n": 2, "separator": "***"}, "***\none\n***\ntwo\n***"),
    ({"kind": "paragraph_starts", "word": "salt", "paragraph": 2, "of": 2}, 'Tea.\n\n"Salt," he said.'),
    ({"kind": "contains", "phrases": ["tea"], "whole_words": False}, "A team plays."),
    ({"kind": "excludes", "phrases": [","], "whole_words": False}, "Tea is warm."),
    ({"kind": "phrase_count", "phrase": "tea", "at_least": 2}, "Tea, team, TEA"),
    ({"kind": "phrase_count", "phrase": "tea", "n": 3, "whole_words": False}, "Tea, team, TEA"),
    ({"kind": "phrase_count", "phrase": "tea", "at_most": 0}, "A team plays."),
    ({"kind": "letter_count", "letter": "T", "at_most": 2}, "Tea is hot"),
    ({"kind": "letter_count", "letter": "#", "at_least": 2}, "#tea #hot"),
    ({"kind": "capital_words", "n": 3}, "I read the U.S. E-MAIL of 1999"),
    ({"kind": "language", "language": "de"}, "Der Tee ist heiß und schmeckt nach Gras."),
    ({"kind": "language", "language": "ko"}, "차는 따뜻하고 향이 좋습니다."),
    ({"kind": "uppercase", "language": "en"}, "THE TEA IS WARM AND IT SMELLS OF GRASS."),
    ({"kind": "json"}, "```JSON\n[1, 2]\n```"),
    ({"kind": "title"}, "<<On tea>>\nIt is warm."),
    ({"kind": "highlights", "at_least": 2}, "*Tea* is **very** warm"),
    ({"kind": "sections", "name": "Section", "n": 2}, "Section 1: tea\nSection 2: salt"),
    ({"kind": "placeholders", "at_least": 2}, "Dear [name], come to [address]."),
    ({"kind": "postscript", "marker": "P.S."}, "Bye.\n\np. s. More tea."),
    ({"kind": "postscript", "marker": "P.P.S"}, "P.P.S Even more"),
    ({"kind": "responses"}, "Tea.\n******\nSalt."),
    (
        {"kind": "one_of", "options": ["My answer is yes.", "My answer is no."], "anywhere": True},
        "Well. My answer is no. Sorry.",
    ),
    ({"kind": "one_of", "options": ["My answer is yes."]}, "My answer is yes."),
    ({"kind": "ends_with", "phrase": "Call me."}, 'He said: "call me."\n'),
    ({"kind": "quoted"}, ' "Tea is warm."\n'),
    ({"kind": "number_answer", "value": 18}, "She has 3 and 6, so 3 * 6 = $18."),
    ({"kind": "number_answer", "value": "3/4"}, "It is \\frac{6}{8}"),
]
BROKEN = [
    ({"kind": "max_words", "n": 3}, "Tea is very warm."),
    ({"kind": "min_words", "n": 3}, "Tea - warm"),
    ({"kind": "max_sentences", "n": 1}, "Tea. Warm."),
    ({"kind": "max_sentences", "n": 1}, "Tea\nwarm"),
    ({"kind": "ends_with_punctuation"}, "Tea is"),
    ({"kind": "ends_with_punctuation"}, "Tea is,"),
    ({"kind": "bullet_list", "n": 2}, "- a\n- b\n- c"),
    ({"kind": "bullet_list", "at_least": 2}, "-a\n- b"),
    ({"kind": "numbered_list", "n": 2}, "1. a\n1. b"),
    ({"kind": "json_object", "keys": ["a", "b"]}, '{"a": 1}'),
    ({"kind": "json_object"}, "[1]"),
    ({"kind": "json_object"}, 'Here: {"a": 1}'),
    ({"kind": "json_object"}, "[" * 100_000),
    ({"kind": "contains", "phrases": ["tea"]}, "A team plays."),
    ({"kind": "excludes", "phrases": ["tea"]}, "Tea!"),
    ({"kind": "starts_with", "phrase": "Dear"}, "Hello, dear"),
    ({"kind": "lowercase"}, "Almost"),
    ({"kind": "uppercase"}, "123"),
    ({"kind": "one_of", "options": ["yes", "no"]}, "I know."),
    ({"kind": "single_paragraph"}, "one\n \ntwo"),
    ({"kind": "max_words", "n": 1, "split": "runs"}, "well-known"),
    ({"kind": "min_sentences", "n": 2}, "1. Tea"),
    ({"kind": "min_sentences", "n": 2, "lines": False}, "Tea\nis warm."),
    ({"kind": "paragraphs", "n": 1}, "one\n \ntwo"),
    ({"kind": "paragraphs", "n": 2, "separator": "***"}, "one\n***\n***\ntwo"),
    ({"kind": "paragraph_starts", "word": "salt", "paragraph": 2, "of": 2}, "Salt.\n\nTea."),
    ({"kind": "paragraph_starts", "word": "salt", "paragraph": 2, "of": 2}, "Tea.\n\nSalt.\n\nMore."),
    ({"kind": "paragraph_starts", "word": "salt", "paragraph": 2, "of": 2}, "Salt."),
    ({"kind": "excludes", "phrases": [","], "whole_words": False}, "tea,salt"),
    ({"kind": "phrase_count", "phrase": "tea", "at_least": 2}, "Tea, team"),
    ({"kind": "phrase_count", "phrase": "tea", "at_most": 1}, "tea, tea"),
    ({"kind": "letter_count", "letter": "e", "at_least": 2}, "Tea"),
    ({"kind": "capital_words", "at_most": 1}, "I LIKE tea"),
    ({"kind": "language", "language": "de"}, "The tea is warm and smells of grass."),
    ({"kind": "language", "language": "de"}, "123"),
    ({"kind": "lowercase", "language": "en"}, "der tee ist heiß und schmeckt nach gras."),
    ({"kind": "json"}, "Here: [1]"),
    ({"kind": "title"}, "<< >> <On tea>"),
    ({"kind": "highlights", "at_least": 2}, "*Tea* is warm\n* and\n* hot, ** **"),
    ({"kind": "sections", "name": "Section", "n": 2}, "Section one, Section 2"),
    ({"kind": "placeholders", "at_least": 1}, "Dear [\n]"),
    ({"kind": "postscript", "marker": "P.S."}, "Oops"),
    ({"kind": "responses"}, "Tea.\n******\nTea. "),
    ({"kind": "responses"}, "Tea.\n******\n******\nSalt."),
    ({"kind": "one_of", "options": ["My answer is no."], "anywhere": True}, "So my answer is no."),
    ({"kind": "ends_with", "phrase": "Call me."}, "Call me. Bye."),
    ({"kind": "quoted"}, '"Tea" is "warm'),
    ({"kind": "number_answer", "value": 18}, "It is 18 or 19."),
]


@pytest.mark.parametrize(("constraint", "text"), KEPT)
def test_a_kept_constraint_is_worth_one(constraint: dict, text: str):
    rule: Rule = CONSTRAINT.validate_python(constraint)
    grade = rule.grade(text)
    assert grade.kept and grade.degree == 1.0 and rule.check(text) and rule.describe()


@pytest.mark.parametrize(("constraint", "text"), BROKEN)
def test_a_broken_constraint_is_worth_half_at_most(constraint: dict, text: str):
    rule: Rule = CONSTRAINT.validate_python(constraint)
    grade = rule.grade(text)
    assert not grade.kept and 0 <= grade.degree <= 0.5 and grade.seen and not rule.check(text)


def test_every_kind_is_shown_kept_and_broken():
    union, _ = get_args(Constraint)
    kinds = {get_args(kind.model_fields["kind"].annotation)[0] for kind in get_args(union)}
    assert {c["kind"] for c, _ in KEPT} == {c["kind"] for c, _ in BROKEN} == kinds


def test_every_kind_is_in_the_documentation():
    table = (Path(__file__).parents[2] / "docs" / "constraints.md").read_text(encoding="utf-8")
    assert not [c["kind"] for c, _ in KEPT if f"`{c['kind']}`" not in table]


@pytest.mark.parametrize("constraint", [c for c, _ in KEPT])
@pytest.mark.parametrize("text", ["", " \n"])
def test_an_empty_text_keeps_nothing(constraint: dict, text: str):
    rule: Rule = CONSTRAINT.validate_python(constraint)
    assert not rule.check(text)
    if constraint["kind"] == "number_answer":
        with pytest.raises(NoAnswer):
            rule.grade(text)
    else:
        assert rule.grade(text).degree == 0


@pytest.mark.parametrize("text", ["eighteen", "It is 3/0."])
@pytest.mark.parametrize("read", ["marked", "last"])
def test_a_solution_without_a_number_is_not_a_wrong_one(read: str, text: str):
    rule: Rule = CONSTRAINT.validate_python({"kind": "number_answer", "value": 18, "read": read})
    with pytest.raises(NoAnswer):
        rule.grade(text)
    assert not rule.check(text)


QUOTED = CONSTRAINT.validate_python({"kind": "quoted"})


@pytest.mark.parametrize(
    "text",
    [
        'Sure:\n"Tea."',
        '"Tea."\nGlad to help!',
        'Sure:\n"Tea."\nGlad to help!',
        '*"Tea."*',
        'Sure:\n**"Tea."**',
        '**"Tea."**\nGlad to help!',
        'Sure:\n**"Tea."**\nGlad to help!',
    ],
)
def test_a_loose_reading_sets_aside_what_stands_around_the_answer(text: str):
    assert not QUOTED.grade(text).kept
    assert QUOTED.grade(text, loose=True).kept and QUOTED.grade(text, loose=True).degree == 1.0


def test_a_loose_reading_finds_nothing_where_nothing_is():
    assert not QUOTED.grade("Tea is warm.\nVery.", loose=True).kept
    assert loosely("one") == [] and loosely("one\ntwo") == ["two", "one"]


def test_a_loose_reading_does_not_move_the_final_answer():
    """Without its last line this solution would end on the right number."""
    rule = CONSTRAINT.validate_python({"kind": "number_answer", "value": 18})
    assert not rule.grade("18\nno, 19", loose=True).kept


def test_far_too_long_is_worse_than_slightly_too_long():
    rule = CONSTRAINT.validate_python({"kind": "max_words", "n": 25})
    degrees = [rule.grade("word " * n).degree for n in (25, 26, 40, 100, 1000)]
    assert degrees == [1.0, 0.5 * 25 / 26, 0.5 * 25 / 40, 0.125, 0.0125]


def test_far_too_short_is_worse_than_slightly_too_short():
    rule = CONSTRAINT.validate_python({"kind": "min_words", "n": 10})
    assert rule.grade("word " * 9).degree > rule.grade("word").degree > 0


@pytest.mark.parametrize(
    "constraint",
    [
        {"kind": "max_word", "n": 3},
        {"kind": "max_words"},
        {"kind": "max_words", "n": 0},
        {"kind": "max_words", "n": 3, "m": 1},
        {"kind": "bullet_list"},
        {"kind": "bullet_list", "n": 1, "at_least": 1},
        {"kind": "contains", "phrases": []},
        {"kind": "number_answer", "value": "many"},
        {"kind": "number_answer", "value": True},
        {"kind": "language", "language": "elvish"},
        {"kind": "uppercase", "language": "elvish"},
        {"kind": "letter_count", "letter": "ab", "n": 1},
        {"kind": "phrase_count", "phrase": "tea", "at_most": -1},
        {"n": 3},
    ],
)
def test_a_constraint_that_means_nothing_is_refused(constraint: dict):
    with pytest.raises(ValidationError):
        CONSTRAINT.validate_python(constraint)


@pytest.mark.parametrize(
    ("text", "n"), [("", 0), ("a b", 2), ("don't – well-known", 2), ("… - *", 0), ("3 cats", 2)]
)
def test_words_are_pieces_with_a_letter_or_a_digit(text: str, n: int):
    assert count_words(text) == n


@pytest.mark.parametrize(
    ("text", "n"),
    [
        ("", 0),
        ("No end", 1),
        ("One. Two", 2),
        ("One... two!", 2),
        ('"Go." He went.', 2),
        ("Pi is 3.14.", 1),
        ("a.\n\nb", 2),
        ("1. Tea.\n2) Salt", 2),
    ],
)
def test_sentences_end_at_marks_and_line_ends(text: str, n: int):
    assert count_sentences(text) == n


@pytest.mark.parametrize(
    ("text", "number"),
    [
        ("18", 18),
        ("$1,250.50", Fraction(2501, 2)),
        ("18.", 18),
        ("**7**", 7),
        ("50%", 50),
        ("-3", -3),
        ("−3", -3),
        ("6/8", Fraction(3, 4)),
        ("1 1/2", Fraction(3, 2)),
        (".5", Fraction(1, 2)),
        ("007", 7),
        ("", None),
        ("3/0", None),
        ("10+John's age", None),
        ("-1.8 billion", None),
        ("1 2", None),
        ("1e5", None),
        ("18 apples", 18),
        ("18 km/h", 18),
        ("18cm", 18),
        ("18 square metres.", 18),
        ("€18", 18),
        ("+18", 18),
        ("-$18", -18),
        ("$-18", -18),
        ("18\\%", 18),
        ("\\$18.00", 18),
        ("\\frac{6}{8}", Fraction(3, 4)),
        ("-\\dfrac{6}{8}", Fraction(-3, 4)),
        ("2\\frac{1}{2}", Fraction(5, 2)),
        ("\\frac12", Fraction(1, 2)),
        ("1{,}250", 1250),
        ("1\\,250", 1250),
        ("18\\text{ apples}", 18),
        ("18^\\circ", 18),
        ("18 °C", 18),
        ("18 m²", 18),
        ("18 a", None),
        ("5 million", None),
        ("5 or so", None),
        ("5x", None),
        ("5 out of 18", None),
        ("18 3", None),
        ("3,4", None),
        ("12,34", None),
        ("9" * 5000, None),
    ],
)
def test_numbers_are_read_exactly_or_not_at_all(text: str, number: Fraction | None):
    assert read_number(text) == number


@pytest.mark.parametrize(
    ("text", "marked", "last"),
    [
        ("#### So the answer is 18.", 18, 18),
        ("A: #### 18", 18, 18),
        ("the answer is 7\n#### Text 2", None, 2),
        ("2 + 2\nA: 4", 4, 4),
        ("A: 4\nA: 5 or so", None, 5),
        ("A: 4\nthen 7", 4, 7),
        ("#### 1,000", 1000, 1000),
        ("so \\boxed{12} of 30", 12, 30),
        ("The answer is $12. Not 13.", 12, 13),
        ("the answer is 3, I mean the answer is twelve", None, 3),
        ("16-3", None, 3),
        ("**Answer:** $18", 18, 18),
        ("The final answer is: 18 apples.", 18, 18),
        ("Final Answer:\n\\[\\boxed{\\frac{3}{4}}\\]", Fraction(3, 4), Fraction(3, 4)),
        ("so \\boxed{18\\text{ apples}} of 30", 18, 30),
        ("\\boxed{1\\,250}", 1250, 1250),
        ("The answer is 2 1/2 cups", Fraction(5, 2), Fraction(5, 2)),
        ("The answer is -7", -7, -7),
        ("A: 5 million", None, None),
        ("The answer is 5 million.", None, None),
        ("\\boxed{x = 18}", 18, 18),
        ("A: 4\n\\boxed{\\frac{\\pi}{2}}", None, 2),
        ("it fell to -3 degrees", None, -3),
        ("H2O", None, None),
        ("costs 3,4 and 1,234,567", None, 1234567),
        ("nothing", None, None),
        ("9" * 5000, None, None),
    ],
)
def test_the_final_number_is_after_the_last_mark_or_the_last(text: str, marked: int | None, last: int | None):
    assert (final_number(text, "marked"), final_number(text, "last")) == (marked, last)


@pytest.mark.parametrize("constraint", [c for c, _ in KEPT])
@pytest.mark.parametrize("stuck", [".", "#", " ", "\n", "- ", "1", "1.", "a ", "$"])
@pytest.mark.timeout(5)
def test_an_answer_stuck_on_one_character_is_checked_at_once(constraint: dict, stuck: str):
    rule, text = CONSTRAINT.validate_python(constraint), "x" + stuck * 50_000 + "x"
    try:
        assert 0 <= rule.grade(text, loose=True).degree <= 1
    except NoAnswer:
        assert constraint["kind"] == "number_answer"


@pytest.mark.parametrize("read", ["marked", "last"])
@pytest.mark.parametrize(
    "stuck",
    [
        "A:\n",
        "A: 1 ",
        "\\boxed{",
        "\\boxed{1",
        "{",
        "\\frac{1",
        "\\text{",
        "1/",
        "1,",
        "-",
        "a",
        "km ",
        "answer is ",
    ],
)
@pytest.mark.timeout(5)
def test_a_solution_stuck_on_a_mark_is_read_at_once(read: Any, stuck: str):
    for text in (stuck * 20_000 + "!", "A: 18 " + stuck * 20_000 + "!"):
        final_number(text, read)
