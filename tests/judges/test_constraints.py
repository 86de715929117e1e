"""Every constraint, kept and broken; degrees; final numbers."""

from fractions import Fraction

import pytest
from pydantic import ValidationError

from judges.constraints import CONSTRAINT, count_sentences, count_words, final_number, read_number

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
    ({"kind": "number_answer", "value": 18}, "It is 18 or 19."),
    ({"kind": "number_answer", "value": 18}, "eighteen"),
]


@pytest.mark.parametrize(("constraint", "text"), KEPT)
def test_a_kept_constraint_is_worth_one(constraint: dict, text: str):
    rule = CONSTRAINT.validate_python(constraint)
    assert rule.check(text) and rule.degree(text) == 1.0 and rule.describe()


@pytest.mark.parametrize(("constraint", "text"), BROKEN)
def test_a_broken_constraint_is_worth_half_at_most(constraint: dict, text: str):
    rule = CONSTRAINT.validate_python(constraint)
    assert not rule.check(text) and 0 <= rule.degree(text) <= 0.5 and rule.find(text)[2]


@pytest.mark.parametrize("constraint", [c for c, _ in KEPT])
@pytest.mark.parametrize("text", ["", " \n"])
def test_an_empty_text_keeps_nothing(constraint: dict, text: str):
    rule = CONSTRAINT.validate_python(constraint)
    assert not rule.check(text) and rule.degree(text) == 0


def test_far_too_long_is_worse_than_slightly_too_long():
    rule = CONSTRAINT.validate_python({"kind": "max_words", "n": 25})
    degrees = [rule.degree("word " * n) for n in (25, 26, 40, 100, 1000)]
    assert degrees == [1.0, 0.5 * 25 / 26, 0.5 * 25 / 40, 0.125, 0.0125]


def test_far_too_short_is_worse_than_slightly_too_short():
    rule = CONSTRAINT.validate_python({"kind": "min_words", "n": 10})
    assert rule.degree("word " * 9) > rule.degree("word") > 0


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
        ("9" * 5000, None),
    ],
)
def test_numbers_are_read_exactly_or_not_at_all(text: str, number: Fraction | None):
    assert read_number(text) == number


@pytest.mark.parametrize(
    ("text", "marked", "last"),
    [
        ("2 + 2\nA: 4", 4, 4),
        ("A: 4\nA: 5 or so", None, 5),
        ("A: 4\nthen 7", 4, 7),
        ("#### 1,000", 1000, 1000),
        ("so \\boxed{12} of 30", 12, 30),
        ("The answer is $12. Not 13.", 12, 13),
        ("the answer is 3, I mean the answer is twelve", None, 3),
        ("16-3", None, 3),
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
    assert 0 <= CONSTRAINT.validate_python(constraint).degree("x" + stuck * 50_000 + "x") <= 1
