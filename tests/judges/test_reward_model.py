"""A reward is one finite raw output, comparable within its prompt only."""

import math

import pytest
from pydantic import ValidationError

from judges import Jury, Rating, RewardModel, Rules, panel
from judges.jury import combine_prompt
from judges.reward_model import verdict
from records.schema import Judgement, Message, Prompt
from serving.chat import Reply, Request
from tests.judges.examples import completion, completions


async def score(*scores: float) -> tuple[list[float | None], list[Request]]:
    asked: list[Request] = []
    came = iter(scores)

    async def chat(request: Request) -> Reply:
        asked.append(request)
        return Reply((), scores=(next(came),))

    turns = (
        Message(role="system", content="Be kind."),
        Message(role="user", content="Hello"),
    )
    prompt = Prompt(id="p", messages=turns, source="test")
    judged = [completion(str(i), f"answer {i}") for i in range(len(scores))]
    verdicts = await RewardModel(model="rm").build(chat)(prompt, judged, "reward")
    return [v.score for v in verdicts], asked


async def test_the_conversation_is_sent_as_messages_for_the_server_to_template():
    scores, asked = await score(-3.25, 12.0)
    assert scores == [-3.25, 12.0]
    assert asked[0].score
    assert [turn["role"] for turn in asked[0].messages] == ["system", "user", "assistant"]
    assert asked[1].messages[-1]["content"] == "answer 1"


@pytest.mark.parametrize(
    ("scores", "said"),
    [((0.2, 0.8), "2 outputs"), ((), "0 outputs"), ((math.nan,), "nan"), ((math.inf,), "inf")],
)
def test_anything_but_one_finite_output_is_no_reward(scores: tuple[float, ...], said: str):
    found = verdict(scores)
    assert (found.status, found.score) == ("parse_error", None)
    assert said in found.detail


def judgement(
    judge: str, id: str, score: float, low: float | None = None, high: float | None = None
) -> Judgement:
    return Judgement(
        id=f"{judge}/{id}",
        prompt_id="p",
        completion_id=id,
        judge=judge,
        aspect="a",
        status="ok",
        score=score,
        low=low,
        high=high,
        fingerprint="f",
    )


def test_a_reward_has_no_place_on_a_scale():
    assert judgement("reward_model", "a", 17.5).unit is None
    with pytest.raises(ValidationError, match="standardise: prompt"):
        Jury(members=(Rules(), RewardModel(model="rm")))
    assert panel(RewardModel(model="rm")).standardise == "prompt"
    assert panel(Rating(model="j")).standardise == "none"


def test_standardised_within_the_prompt_rewards_and_ratings_count_alike():
    jury = Jury(members=(Rating(model="j"), RewardModel(model="rm")), standardise="prompt")
    rewards, ratings = {"a": 100.0, "b": 101.0, "c": 102.0}, {"a": 5.0, "b": 3.0, "c": 1.0}
    found = combine_prompt(
        {
            c.id: [
                judgement("reward_model", c.id, rewards[c.id]),
                judgement("rating", c.id, ratings[c.id], 1, 5),
            ]
            for c in completions("a", "b", "c")
        },
        jury,
    )
    assert [found[id].value for id in "abc"] == pytest.approx([0, 0, 0]), "opposite orders cancel out"
