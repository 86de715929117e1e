"""The shipped prompts: enough of them, held-out topics held out, limits as the text states them."""

import re
from collections import Counter

from prompts.sources import PromptSource, load_prompts

PROMPTS, DROPPED = load_prompts(
    PromptSource(file="prompts/quickstart/prompts.jsonl", name="quickstart", meta={"topic": "topic"})
)
BRIEF = [prompt for prompt in PROMPTS if prompt.meta["kind"] == "brief"]


def test_there_are_enough_prompts_of_every_kind_in_both_splits():
    count = Counter((p.meta["kind"], p.meta["split"]) for p in PROMPTS)
    assert len(PROMPTS) >= 240 and not DROPPED
    assert count["brief", "train"] >= 110 and count["brief", "test"] >= 56
    for kind in ("writing", "question", "rewriting", "list", "maths", "format"):
        assert count[kind, "train"] >= 8 and count[kind, "test"] >= 1


def test_no_topic_is_in_both_splits_or_asked_about_twice():
    topics = [re.sub(r"^(a|an|the|your) ", "", p.meta["topic"]).casefold() for p in BRIEF]
    assert len(set(topics)) == len(topics)


def test_both_splits_ask_in_the_same_ways():
    ways = {split: set() for split in ("train", "test")}
    for prompt in BRIEF:
        assert prompt.text.count(prompt.meta["topic"]) == 1
        ways[prompt.meta["split"]].add(prompt.text.replace(prompt.meta["topic"], "…"))
    assert ways["train"] == ways["test"] and len(ways["train"]) >= 10


def test_every_brief_prompt_states_the_limit_it_is_checked_by():
    for prompt in BRIEF:
        stated = re.findall(r"\d+", prompt.text) or ["18"]  # "one short sentence" is 18 words at most
        limit, least, _ = prompt.meta["constraints"]
        assert [str(limit["n"])] == stated, prompt.text
        assert least == {"kind": "min_words", "n": 4}
