"""Raw scores of conversations, from vLLM over HTTP and from a classifier in this process."""

import os
import shutil
from pathlib import Path
from typing import Any

import pytest

from serving.chat import Request
from serving.classifier import ClassifierTransport, check_bos
from serving.client import PlainTransport
from serving.errors import RequestFailed, WrongModel
from serving.models import open_models
from serving.settings import Classifier, Vllm
from tests.fake_model import Body, Fake, Scores, fake_model

HAVE_VLLM = bool(os.environ.get("ZEPHYR_VLLM_PYTHON") or shutil.which("vllm"))
TEMPLATE = (
    "{{ bos_token }}{% for m in messages %}"
    "{{ m['role'] + ' ' + m['content'] + ' ' + eos_token + ' ' }}{% endfor %}"
)


def conversation(answer: str, score: bool = True) -> Request:
    turns = ({"role": "user", "content": "hello"}, {"role": "assistant", "content": answer})
    return Request(turns, 0.0, 1.0, 0, score=score)


def transport(fake: Fake, dialect: Any = "vllm") -> PlainTransport:
    return PlainTransport(fake.url, "rm", dialect, None, 20, 4)


@pytest.fixture(scope="session")
def classifier(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a random Llama of one output; its tokenizer pads with EOS, as many do."""
    import torch
    from tokenizers import Tokenizer, models, pre_tokenizers, processors
    from transformers import LlamaConfig, LlamaForSequenceClassification, PreTrainedTokenizerFast

    words = ["<unk>", "<s>", "</s>", "user", "assistant", "hello", "good", "bad"]
    level = Tokenizer(models.WordLevel({word: i for i, word in enumerate(words)}, unk_token="<unk>"))
    level.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    level.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 1)])
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=level, unk_token="<unk>", bos_token="<s>", eos_token="</s>", pad_token="</s>"
    )
    tokenizer.chat_template = TEMPLATE
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=8,
        hidden_size=64,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=2,
        max_position_embeddings=64,
        bos_token_id=1,
        eos_token_id=2,
        pad_token_id=2,
    )
    config.num_labels = 1
    model = LlamaForSequenceClassification(config)
    torch.nn.init.normal_(model.score.weight, std=1.0)
    folder = tmp_path_factory.mktemp("reward") / "rm"
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


async def test_messages_are_sent_with_activations_off_and_no_special_tokens_added():
    with fake_model(lambda _: Scores([-2.5])) as fake:
        plain = transport(fake)
        reply = await plain.ask(conversation("good"))
        await plain.close()
    assert reply.scores == (-2.5,)
    assert (reply.usage.prompt_tokens, reply.usage.requests) == (7, 1)
    (body,) = fake.asked
    assert fake.paths == ["/classify"]
    assert body["messages"][-1] == {"role": "assistant", "content": "good"}
    assert (body["use_activation"], body["add_special_tokens"], body["add_generation_prompt"]) == (False,) * 3


@pytest.mark.parametrize("dialect", ["openai", "llamacpp"])
async def test_a_server_without_a_classifier_is_not_asked(dialect: str):
    with fake_model(lambda _: Scores([1.0])) as fake:
        plain = transport(fake, dialect)
        with pytest.raises(RequestFailed, match="scores nothing"):
            await plain.ask(conversation("good"))
        await plain.close()
    assert not fake.asked


async def test_a_torn_answer_is_asked_again():
    def answer(_: Body) -> Scores | str:
        return "not scores" if len(fake.asked) == 1 else Scores([1.5])

    from serving.engine import Lane

    async def connect() -> PlainTransport:
        return transport(fake)

    with fake_model(answer) as fake:
        lane = Lane("rm", connect, 2, pause=0.01)
        assert (await lane.ask(conversation("good"))).scores == (1.5,)
        await lane.close()
    assert lane.stats.retries == {"malformed": 1}


def by_hand(folder: Path, answer: str) -> float:
    """The last token's logit, computed without our code."""
    import torch
    from transformers import AutoModelForSequenceClassification

    model = AutoModelForSequenceClassification.from_pretrained(folder).eval()
    ids = torch.tensor([[1, 3, 5, 2, 4, {"good": 6, "bad": 7}[answer], 2]])
    with torch.inference_mode():
        hidden = model.model(input_ids=ids).last_hidden_state[0, -1]
        return float(model.score(hidden))


async def test_the_score_is_read_at_the_last_token_though_the_tokenizer_pads_with_it(
    tmp_path: Path, classifier: Path
):
    async with open_models({"rm": Classifier(model=str(classifier), device="cpu")}, tmp_path) as engine:
        chat = engine.chat("rm")
        scores = [(await chat(conversation(answer))).scores for answer in ("good", "bad")]
    assert [score for (score,) in scores] == pytest.approx(
        [by_hand(classifier, "good"), by_hand(classifier, "bad")], abs=1e-5
    )
    assert scores[0] != scores[1]


async def test_a_conversation_has_one_bos(classifier: Path):
    own = ClassifierTransport("rm", Classifier(model=str(classifier), device="cpu"))
    reply = await own.ask(conversation("good"))
    assert reply.usage.prompt_tokens == 7
    own._tokenizer.chat_template = "<s>" + TEMPLATE
    with pytest.raises(WrongModel, match="two BOS tokens"):
        await own.ask(conversation("good"))
    own._tokenizer.chat_template = TEMPLATE.removeprefix("{{ bos_token }}")
    with pytest.raises(WrongModel, match="begins with BOS and its chat template does not"):
        await own.ask(conversation("good"))


def test_a_template_may_open_every_turn_with_the_token_that_is_bos_too():
    check_bos([1, 5, 2, 1, 6, 2], 1, [5], "rm")
    check_bos([5, 6], None, [5], "rm")


async def test_a_classifier_says_what_it_cannot_do(tmp_path: Path, classifier: Path):
    own = ClassifierTransport("rm", Classifier(model=str(classifier), device="cpu"))
    with pytest.raises(RequestFailed, match="it scores, it does not write"):
        await own.ask(conversation("good", score=False))
    with pytest.raises(RequestFailed, match=r"\d+ tokens, models\.rm reads 64") as why:
        await own.ask(conversation("good " * 70))
    assert why.value.reason == "too_long"
    gone = ClassifierTransport("rm", Classifier(model=str(tmp_path / "gone")))
    with pytest.raises(WrongModel, match="gone"):
        await gone.ask(conversation("good"))


@pytest.mark.vllm
@pytest.mark.skipif(not HAVE_VLLM, reason="no vLLM here")
@pytest.mark.timeout(600)
async def test_vllm_and_this_process_give_the_same_raw_scores(tmp_path: Path, classifier: Path):
    models = {
        "served": Vllm(model=str(classifier), args={"runner": "pooling"}, dtype="float32"),
        "here": Classifier(model=str(classifier), device="cpu", dtype="float32"),
    }
    async with open_models(models, tmp_path) as engine:  # type: ignore[arg-type]
        for answer in ("good", "bad", "good bad good"):
            served = await engine.chat("served")(conversation(answer))
            here = await engine.chat("here")(conversation(answer))
            assert served.scores == pytest.approx(here.scores, abs=1e-3)
            assert served.usage.prompt_tokens == here.usage.prompt_tokens
