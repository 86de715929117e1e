"""Every form in which the oracle writes a verdict: what a reader can tell is read exactly, the rest is no number."""

import math
import random
from typing import Any

import orjson
import pytest

from judges.base import Unread
from judges.critique import parse
from judges.labels import sample_shares, token_shares
from judges.rating import TEXT, Grade, read_written
from judges.reward_model import verdict
from judges.ultrafeedback import read_reply as read_blocks
from oracle import critique, listwise, tokens, written
from oracle.reply import Reply
from oracle.wording import Fields, Unanswerable, block, json_fields
from prompts.load import load_prompt
from serving.chat import Choice
from serving.chat import Reply as Read
from serving.client import read_reply, read_scores

SCORES = (1.0, 1.5, 3.0, 7.5, 9.0, 10.0)
SHARES = {"1": 0.05, "2": 0.1, "3": 0.5, "4": 0.3, "5": 0.05}
RATED = (1.0, 5.0, 3.25, 4.0)


def chance() -> random.Random:
    return random.Random(0)


def over_http(reply: Reply, wanted: int = 1) -> Read:
    """As it comes through the client."""
    data: dict[str, Any] = orjson.loads(orjson.dumps(reply.body("m", 7)))
    return read_reply(data, wanted)


@pytest.mark.parametrize("form", critique.READABLE)
def test_a_critique_is_read_to_its_score(form: str):
    for value in SCORES:
        text = critique.fill(critique.READABLE[form], "Overall score", value, chance(), 1, 10)
        assert parse(Choice(text, "stop")).score == value, text


@pytest.mark.parametrize("form", critique.UNREADABLE)
def test_a_critique_without_a_verdict_has_no_score(form: str):
    for value in SCORES:
        text = critique.fill(critique.UNREADABLE[form], "Overall score", value, chance(), 1, 10)
        with pytest.raises(Unread):
            parse(Choice(text, "stop"))


@pytest.mark.parametrize("form", critique.TRUNCATED)
def test_a_critique_that_was_cut_off_is_truncated(form: str):
    text = critique.fill(critique.TRUNCATED[form], "Overall score", 7, chance(), 1, 10)
    with pytest.raises(Unread) as why:
        parse(Choice(text, "length"))
    assert why.value.status == "truncated"


@pytest.mark.parametrize("form", critique.REFUSED)
def test_a_refusal_is_called_one(form: str):
    with pytest.raises(Unread) as why:
        parse(Choice(critique.REFUSED[form], "stop"))
    assert why.value.status == "refused"


ASPECTS = ("helpfulness", "honesty", "instruction_following", "truthfulness")


def blocks(form: listwise.Form, aspect: str, rated: listwise.Rated = RATED) -> dict[int, float | None]:
    wanted = block(load_prompt(f"judges/ultrafeedback_{aspect}").text)
    text = form(wanted, rated, chance())
    found = read_blocks(Read((Choice(text, "stop"),)), len(rated), aspect)
    return {number: one.rating for number, one in found.items()}


@pytest.mark.parametrize("aspect", ASPECTS)
@pytest.mark.parametrize("form", listwise.READABLE)
def test_ratings_side_by_side_are_read_by_their_numbers(form: str, aspect: str):
    assert blocks(listwise.READABLE[form], aspect) == dict(enumerate(RATED, 1))
    if aspect == "honesty":
        assert blocks(listwise.READABLE[form], aspect, (2.0, None)) == {1: 2.0, 2: None}


@pytest.mark.parametrize("aspect", ASPECTS)
@pytest.mark.parametrize("form", listwise.UNREADABLE)
def test_ratings_that_no_text_can_be_given_are_given_to_none(form: str, aspect: str):
    with pytest.raises(Unread):
        blocks(listwise.UNREADABLE[form], aspect)


@pytest.mark.parametrize("aspect", ASPECTS)
def test_a_rating_that_was_cut_in_its_number_is_no_rating(aspect: str):
    wanted = block(load_prompt(f"judges/ultrafeedback_{aspect}").text)
    seen = set()
    for seed in range(60):
        form, readable, reply = listwise.badly("truncated", wanted, RATED, random.Random(seed))
        seen.add(form)
        choice = over_http(reply)
        if readable:
            assert read_blocks(choice, 4, aspect)[4].rating == RATED[3]
        else:
            with pytest.raises(Unread) as why:
                read_blocks(choice, 4, aspect)
            assert why.value.status == "truncated"
    assert len(seen) == 5


GRADES: tuple[Grade, ...] = ("short", "full")


def fields(grade: Grade) -> Fields:
    return json_fields(load_prompt(f"judges/rating_{grade}").text, 1, 5)


def test_the_score_stands_first_where_a_reason_must_not_sway_it():
    assert fields("short") == Fields(("score", "reason"), "score")
    assert fields("full") == Fields(("reasons", "score"), "score")
    with pytest.raises(Unanswerable, match="no JSON"):
        json_fields(load_prompt("judges/rating").text, 1, 5)


@pytest.mark.parametrize("grade", GRADES)
@pytest.mark.parametrize("form", written.READABLE)
def test_a_written_score_has_the_distribution_at_its_place(form: str, grade: Grade):
    for seed in range(20):
        reply = written._reply(
            written.READABLE[form](fields(grade), random.Random(seed)), SHARES, random.Random(seed)
        )
        found, said = read_written(over_http(reply), TEXT[grade], 0.5)
        assert found.shares == pytest.approx(SHARES), reply.texts
        assert said in written.REASONS


@pytest.mark.parametrize("grade", GRADES)
@pytest.mark.parametrize("form", written.UNREADABLE)
def test_a_written_answer_without_a_score_has_none(form: str, grade: Grade):
    for seed in range(20):
        reply = written._reply(
            written.UNREADABLE[form](fields(grade), random.Random(seed)), SHARES, random.Random(seed)
        )
        with pytest.raises(Unread):
            read_written(over_http(reply), TEXT[grade], 0.5)


@pytest.mark.parametrize("grade", GRADES)
@pytest.mark.parametrize("kind", ["malformed", "truncated", "refused"])
def test_a_written_answer_that_is_bad_is_read_where_it_can_be(kind: str, grade: Grade):
    seen = set()
    for seed in range(200):
        form, readable, as_written, reply = written.badly(
            kind, fields(grade), SHARES, 0.5, random.Random(seed)
        )
        seen.add(form)
        if readable:
            found, _ = read_written(over_http(reply), TEXT[grade], 0.5)
            assert found.shares == ({"3": 1.0} if as_written else pytest.approx(SHARES)), form
            continue
        with pytest.raises(Unread) as why:
            read_written(over_http(reply), TEXT[grade], 0.5)
        if kind != "malformed":
            assert why.value.status == kind, form
    wanted = {"truncated": set(written.CUT), "malformed": {*written.SPREAD, *written.READABLE}}
    assert seen >= wanted.get(kind, set())


FORMS = (*tokens.MALFORMED, *tokens.TRUNCATED, *tokens.REFUSED)


@pytest.mark.parametrize("form", FORMS, ids=lambda form: form.name)
def test_a_token_s_shares_are_read_or_there_are_none(form: tokens.Form):
    (choice,) = over_http(form.write(SHARES, chance())).choices
    if form.readable and form.on_labels >= 0.5:
        assert token_shares(choice, list(SHARES), 0.5).shares == pytest.approx(SHARES)
    else:
        with pytest.raises(Unread) as why:
            token_shares(choice, list(SHARES), 0.5)
        expected = {tokens.TRUNCATED: "truncated", tokens.REFUSED: "refused"}
        for group, status in expected.items():
            if form in group and form.name not in ("cut while thinking", "refused in words"):
                assert why.value.status == status


@pytest.mark.parametrize("text", tokens.DRESSED)
def test_a_label_with_something_around_it_is_the_label(text: str):
    found = sample_shares(over_http(Reply([text.replace("{v}", "4")])), list(SHARES))
    assert found.shares["4"] == 1.0


@pytest.mark.parametrize("text", tokens.NO_LABEL)
def test_what_is_no_single_label_counts_as_none(text: str):
    said = text.replace("{v}", "4").replace("{w}", "2")
    with pytest.raises(Unread):
        sample_shares(over_http(Reply([said])), list(SHARES))


def test_the_same_token_listed_twice_counts_once_and_two_that_read_alike_are_added():
    rows = [{"token": t, "logprob": math.log(p)} for t, p in (("4", 0.5), ("4", 0.5), ("3", 0.3), ("3", 0.1))]
    body = Reply(["4"], logprobs={"content": [rows[0] | {"top_logprobs": rows}]}).body("m", 7)
    found = read_reply(body, 1).choices[0].tokens[0].alternatives
    assert {token: math.exp(value) for token, value in found.items()} == pytest.approx({"4": 0.5, "3": 0.4})


@pytest.mark.parametrize("scores", [[], [None], ["high"], [0.1, 0.9], [None, 1.0]])
def test_a_classifier_that_gives_no_single_number_gives_no_reward(scores: list[Any]):
    found = verdict(read_scores(Reply(scores=scores).body("m", 7)).scores)
    assert (found.status, found.score) == ("parse_error", None)
