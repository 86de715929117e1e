"""Golden strings: alignment-handbook tests/test_data.py and tatsu-lab/stanford_alpaca train.py."""

import jinja2
import pytest

from prompts.chat import alpaca_prompt, chat_template, render_chat
from prompts.load import PromptError
from records.schema import Message

ZEPHYR = chat_template("zephyr")
USER = Message(role="user", content="Hello!")
ASSISTANT = Message(role="assistant", content="Bonjour!")
DIALOGUE = [
    {"role": "system", "content": "You are a happy chatbot"},
    {"role": "user", "content": "Hello!"},
    {"role": "assistant", "content": "Bonjour!"},
    {"role": "user", "content": "How are you?"},
]
PROMPT = (
    "<|system|>\nYou are a happy chatbot</s>\n<|user|>\nHello!</s>\n<|assistant|>\nBonjour!</s>\n"
    "<|user|>\nHow are you?</s>\n"
)
ALPACA = (
    "Below is an instruction that describes a task. "
    "Write a response that appropriately completes the request."
    "\n\n### Instruction:\nName a colour.\n\n### Response:"
)


def test_an_empty_system_turn_and_one_exchange():
    text = render_chat([USER, ASSISTANT], ZEPHYR, empty_system=True)
    assert text == "<|system|>\n</s>\n<|user|>\nHello!</s>\n<|assistant|>\nBonjour!</s>\n"


def test_without_the_option_no_system_turn_is_made_up():
    assert render_chat([USER], ZEPHYR) == "<|user|>\nHello!</s>\n"


def test_a_system_turn_that_is_there_is_not_doubled():
    assert render_chat(DIALOGUE, ZEPHYR, empty_system=True) == render_chat(DIALOGUE, ZEPHYR) == PROMPT


def test_the_generation_prompt_ends_with_a_newline():
    text = render_chat([USER], ZEPHYR, add_generation_prompt=True, empty_system=True)
    assert text == "<|system|>\n</s>\n<|user|>\nHello!</s>\n<|assistant|>\n"


def test_a_completion_alone():
    assert render_chat([ASSISTANT], ZEPHYR) == "<|assistant|>\nBonjour!</s>\n"


@pytest.mark.parametrize("answer", ["I am doing well, thanks!", "Not so good tbh"])
def test_sft_text_is_the_dpo_prompt_and_the_completion(answer: str):
    last = {"role": "assistant", "content": answer}
    assert render_chat([last], ZEPHYR) == f"<|assistant|>\n{answer}</s>\n"
    assert render_chat([*DIALOGUE, last], ZEPHYR) == PROMPT + f"<|assistant|>\n{answer}</s>\n"


@pytest.mark.parametrize("name", ["zephyr", "alpaca"])
def test_the_generation_prompt_is_the_start_of_the_training_text(name: str):
    template = chat_template(name)
    asked = render_chat([USER], template, add_generation_prompt=True)
    assert render_chat([USER, ASSISTANT], template) == asked + "Bonjour!</s>" + (
        "\n" if name == "zephyr" else ""
    )


def test_contents_are_not_stripped():
    assert render_chat([{"role": "user", "content": " a\n\n"}], ZEPHYR) == "<|user|>\n a\n\n</s>\n"


def test_without_trim_blocks_stray_newlines_appear():
    """What happens to whoever renders the template with Jinja's own defaults."""
    turns = [{"role": "system", "content": ""}, USER.model_dump()]
    careless = jinja2.Environment().from_string(ZEPHYR).render(messages=turns, eos_token="</s>")
    assert careless.startswith("\n\n<|system|>")
    assert render_chat(turns, ZEPHYR).startswith("<|system|>")


def test_the_template_says_what_the_published_one_says():
    published = (
        "{% for message in messages %}\n{% if message['role'] == 'user' %}\n"
        "{{ '<|user|>\n' + message['content'] + eos_token }}\n"
        "{% elif message['role'] == 'system' %}\n{{ '<|system|>\n' + message['content'] + eos_token }}\n"
        "{% elif message['role'] == 'assistant' %}\n"
        "{{ '<|assistant|>\n'  + message['content'] + eos_token }}\n{% endif %}\n"
        "{% if loop.last and add_generation_prompt %}\n{{ '<|assistant|>' }}\n{% endif %}\n{% endfor %}"
    )
    assert ZEPHYR.replace(r"\n", "\n") == published
    assert render_chat(DIALOGUE, published, True) == render_chat(DIALOGUE, ZEPHYR, True)


@pytest.mark.parametrize("name", ["zephyr", "alpaca"])
@pytest.mark.parametrize("ask", [True, False])
def test_a_tokenizer_renders_the_templates_as_we_do(name: str, ask: bool):
    render = pytest.importorskip("transformers.utils.chat_template_utils").render_jinja_template
    turns = [USER.model_dump(), ASSISTANT.model_dump()][: 1 if ask else 2]
    theirs, _ = render(
        [turns], chat_template=chat_template(name), add_generation_prompt=ask, eos_token="</s>"
    )
    assert theirs == [render_chat(turns, chat_template(name), add_generation_prompt=ask)]


def test_alpaca_without_input_ends_at_the_colon():
    assert alpaca_prompt("Name a colour.") == ALPACA


def test_alpaca_with_input_has_its_own_wording():
    assert alpaca_prompt("Add.", "1 and 2") == (
        "Below is an instruction that describes a task, paired with an input that provides further context. "
        "Write a response that appropriately completes the request."
        "\n\n### Instruction:\nAdd.\n\n### Input:\n1 and 2\n\n### Response:"
    )


def test_an_alpaca_answer_follows_without_a_space_and_ends_with_eos():
    turns = [{"role": "user", "content": "Name a colour."}, {"role": "assistant", "content": "Red"}]
    assert render_chat(turns, chat_template("alpaca")) == ALPACA + "Red</s>"


def test_alpaca_refuses_what_it_cannot_hold():
    with pytest.raises(PromptError, match=r"one user turn and one answer; turn 1 is a system turn"):
        render_chat(DIALOGUE, chat_template("alpaca"))


def test_an_unknown_template_gets_a_close_match():
    with pytest.raises(
        PromptError, match=r"no chat template 'zefyr'; did you mean 'zephyr'\? .* holds alpaca, zephyr"
    ):
        chat_template("zefyr")
