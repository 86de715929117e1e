r"""Chat templates as transformers renders them, without loading transformers.

The same text as a tokenizer's `chat_template` gives the same string. A Zephyr dialogue (`</s>` ends a turn):

    <|system|>
    You are a happy chatbot</s>
    <|user|>
    Hello!</s>
    <|assistant|>
    Bonjour!</s>
"""

from collections.abc import Mapping, Sequence
from difflib import get_close_matches
from functools import lru_cache
from pathlib import Path
from typing import NoReturn

from jinja2 import Template as JinjaTemplate
from jinja2 import TemplateError
from jinja2.sandbox import ImmutableSandboxedEnvironment

from prompts.load import ROOT, PromptError
from records.schema import Message

TEMPLATES = ROOT / "templates"


def chat_template(name: str) -> str:
    """The text of a chat template: a name of prompts/templates, or a path that ends in `.jinja`."""
    path = Path(name) if name.endswith(".jinja") else TEMPLATES / f"{name}.jinja"
    if not path.is_file():
        names = sorted(file.stem for file in TEMPLATES.glob("*.jinja"))
        close = get_close_matches(name, names, n=1)
        hint = f"did you mean {close[0]!r}? " if close else ""
        raise PromptError(f"no chat template {name!r}; {hint}prompts/templates/ holds {', '.join(names)}")
    return path.read_text(encoding="utf-8").removesuffix("\n")


def render_chat(
    messages: Sequence[Message | Mapping[str, str]],
    template: str,
    add_generation_prompt: bool = False,
    eos_token: str = "</s>",
    bos_token: str = "",
    empty_system: bool = False,
) -> str:
    """The dialogue as the model reads it. `template` is Jinja text, as from `chat_template`.

    `empty_system` puts a system turn without text first where the dialogue opens without one: the handbook's
    pipeline did so when Zephyr was trained, and its newer releases do not. Contents are not stripped.

    Raises:
        PromptError: the template cannot be compiled, or refuses the dialogue.
    """
    turns = [dict(m) if isinstance(m, Mapping) else m.model_dump() for m in messages]
    if empty_system and (not turns or turns[0]["role"] != "system"):
        turns.insert(0, {"role": "system", "content": ""})
    try:
        return _compiled(template).render(
            messages=turns,
            add_generation_prompt=add_generation_prompt,
            eos_token=eos_token,
            bos_token=bos_token,
        )
    except TemplateError as error:
        raise PromptError(f"the chat template refuses {[turn['role'] for turn in turns]}: {error}") from error


def alpaca_prompt(instruction: str, input: str = "") -> str:
    """Stanford Alpaca's prompt; the answer and EOS follow `Response:` directly, without a space.

    tatsu-lab/stanford_alpaca train.py, which has one wording with an input and one without.
    """
    turn = {"role": "user", "content": alpaca_turn(instruction, input)}
    return render_chat([turn], chat_template("alpaca"), add_generation_prompt=True)


def alpaca_turn(instruction: str, input: str = "") -> str:
    """An Alpaca record as one user turn, from which the template knows that there is an input: a message has no other
    field, neither in a dataset nor on its way to a server."""
    return f"{instruction}\n\n### Input:\n{input}" if input else instruction


def _refuse(message: str) -> NoReturn:
    raise TemplateError(message)


@lru_cache(maxsize=32)
def _compiled(template: str) -> JinjaTemplate:
    # The options transformers uses. Without the first two, every line of a template leaves a newline.
    environment = ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=["jinja2.ext.loopcontrols"]
    )
    environment.globals["raise_exception"] = _refuse
    return environment.from_string(template)
