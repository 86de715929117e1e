"""When two texts are the same: up to white space, or up to case and punctuation too."""

import re
from collections.abc import Sequence

from records.schema import Message, Prompt

WORD = re.compile(r"\w+")


def squeezed(text: str) -> str:
    """`text` with every run of white space as one space and none at the ends."""
    return " ".join(text.split())


def words(text: str) -> list[str]:
    """Lower-case runs of letters, digits and underscores; punctuation and white space are gone."""
    return WORD.findall(text.casefold())


def normalised(text: str) -> str:
    """The words of `text`; text without any (only symbols) stays as it is, squeezed."""
    return " ".join(words(text)) or squeezed(text)


def asked(prompt: Prompt) -> str:
    """All turns of a prompt but the system's: two dialogues that end alike are not the same prompt."""
    return "\n".join(message.content for message in prompt.messages if message.role != "system")


def dicts(messages: Sequence[Message]) -> list[dict[str, str]]:
    """Messages as chat templates and dataset rows hold them."""
    return [{"role": message.role, "content": message.content} for message in messages]
