"""Who answers, and where. `Sampler` is what is asked; the rest is where it is asked.

Every field of a `Sampler`, and a model's `identity`, changes the text and is in every fingerprint. No other field of a
model does: addresses, slots, timeouts and limits can change between two halves of one run.
"""

import os
import re
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import Field, field_validator, model_validator

from records.base import Strict

Name = Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9._-]*$", max_length=60)]


class Sampler(Strict):
    """One way of asking one model. Two samplers of one model are two columns in the dataset."""

    name: Name
    """Stands for the sampler in the dataset, the card and the report."""
    model: str
    """A name from the recipe's `models`."""
    temperature: float = Field(default=1.0, ge=0, le=5)
    """UltraFeedback: 1.0 (src/comparison_data_generation/main.py)."""
    top_p: float = Field(default=1.0, gt=0, le=1)
    """UltraFeedback: 1.0."""
    max_tokens: int = Field(default=1024, ge=1)
    """Longest answer, in tokens. UltraFeedback: 1024."""
    n: int = Field(default=1, ge=1, le=256)
    """Answers per prompt, from one request."""
    seed: int = Field(default=0, ge=0)
    """Each request's seed is drawn from this and the prompt's id."""
    principle: str | dict[str, float] | None = None
    """System prompt: a file of prompts/principles, or several with their odds, drawn by prompt id. ultrafeedback/readme
    and ultrafeedback/code: UltraFeedback's odds for each source of its prompts."""
    stop: tuple[str, ...] = ()
    """Texts that end an answer; they are not part of it."""


class Throughput(Strict):
    """How fast a model is when it is kept busy; for the plan and its ETA alone."""

    prefill: float = Field(gt=0)
    """Prompt tokens per second that are not in the prefix cache, all requests together."""
    decode: float = Field(gt=0)
    """Answer tokens per second, all requests together."""
    start: float = Field(default=0, ge=0)
    """Seconds from its start until it answers."""


class Serving(Strict):
    """What all kinds share."""

    model: str
    """A folder, a file, a Hugging Face id, or the name the endpoint knows the model by."""
    revision: str | None = None
    """Commit of the Hugging Face repository; None takes the newest and records it."""
    weights: str | None = None
    """Digest of the weights in a folder of ours, as its model.json has it: says in fingerprints what they are, whatever
    the folder is called."""
    license: str | None = None
    """Of the model, as its makers state it; for the dataset's card."""
    max_in_flight: int = Field(default=64, ge=1)
    """Requests at the model at one time, at most."""
    timeout: float = Field(default=600, gt=0)
    """Seconds for one request, all its tokens included."""
    throughput: Throughput | None = None
    """What the plan counts with; None estimates it from the model's size, see docs/recipes.md."""

    @property
    def identity(self) -> dict[str, Any]:
        """What changes the text: part of every fingerprint."""
        return {"model": f"weights:{self.weights}" if self.weights else self.model, "revision": self.revision}


class Templated(Serving):
    """What kinds share whose server we start."""

    template: str | None = None
    """Chat template: a name of prompts/templates, as zephyr, or a path that ends in `.jinja`. None: the model's own; a
    base model has none, and llama.cpp then takes ChatML."""

    @property
    def template_file(self) -> Path | None:
        if self.template is None or self.template.endswith(".jinja"):
            return None if self.template is None else Path(self.template)
        return Path(__file__).parents[1] / "prompts/templates" / f"{self.template}.jinja"

    @property
    def identity(self) -> dict[str, Any]:
        """Of a field's default nothing is said, so that what was asked before there was the field holds."""
        file = self.template_file
        return super().identity | ({"template": file.read_text(encoding="utf-8")} if file else {})


def usable_cores() -> int:
    """Cores this process may run on; a container may have fewer than the machine."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


class LlamaCpp(Templated):
    """The embedded server: llama.cpp in a process of its own, GGUF weights, any CPU."""

    kind: Literal["llamacpp"] = "llamacpp"
    max_in_flight: int = Field(default=16, ge=1)
    """Requests at the model at one time, at most."""
    slots: int = Field(default=8, ge=1)
    """Sequences decoded together."""
    context: int = Field(default=1024, ge=64)
    """Tokens of prompt and answer for one sequence."""
    threads: int = Field(default_factory=usable_cores, ge=1)
    """More threads than free cores is many times slower, not faster."""
    start_timeout: float = Field(default=120, gt=0)
    """Seconds until the server must answer."""


class Vllm(Templated):
    """A vLLM server this project starts, watches and stops. Loopback only, prefix caching on."""

    kind: Literal["vllm"] = "vllm"
    max_in_flight: int = Field(default=2048, ge=1)
    """Requests at the model at one time, at most; below it, the length of vLLM's own queue decides."""
    python: str | None = None
    """Interpreter of vLLM's own environment; else $ZEPHYR_VLLM_PYTHON, else `vllm` on PATH."""
    args: dict[str, str | int | float | bool] = Field(default_factory=dict)
    """Further flags of `vllm serve`: {max-model-len: 4096, enforce-eager: true}; false writes --no-…."""
    env: dict[str, str] = Field(default_factory=dict)
    """Environment of the server, above this process's own."""
    dtype: str = "auto"
    """Of the weights, as vLLM names it; auto takes the checkpoint's."""
    start_timeout: float = Field(default=1200, gt=0)
    """Seconds until the server must answer; a large model loads for minutes."""
    gpu_memory: float | None = Field(default=None, gt=0)
    """GiB it may take of each of its GPUs, weights and cache; None: `gpu-memory-utilization` of `args` says, else it is
    vLLM's 0.92 of the GPU. Models that fit beside each other are served at one time."""

    @property
    def identity(self) -> dict[str, Any]:
        return super().identity | {"dtype": self.dtype, "quantization": self.args.get("quantization")}

    def arg(self, *names: str) -> str | int | float | bool | None:
        """A flag of `args`, under any of its names, however it is spelled."""
        given = {name.lstrip("-").replace("_", "-"): value for name, value in self.args.items()}
        return next((given[name] for name in names if name in given), None)

    @field_validator("env", mode="after")
    @classmethod
    def _no_secrets(cls, given: dict[str, str]) -> dict[str, str]:
        if named := [name for name in given if re.search(r"(KEY|TOKEN|SECRET|PASSWORD)S?$", name.upper())]:
            raise ValueError(
                f"{', '.join(named)} would be kept with the recipe; set it where the run is started, and its servers "
                "have it from there"
            )
        return given

    @model_validator(mode="after")
    def _one_word_on_memory(self) -> Self:
        if self.gpu_memory is not None and self.arg("gpu-memory-utilization") is not None:
            raise ValueError("gpu_memory and args.gpu-memory-utilization say the same; give one of them")
        return self


class Adapter(Serving):
    """A LoRA this project trained, on a vLLM that serves its base. `model` is the adapter's folder."""

    kind: Literal["adapter"] = "adapter"
    served_by: str
    """The `vllm` model of the recipe that serves the base."""


class Endpoint(Serving):
    """An address that already exists: vLLM, OpenAI, any compatible server. Never started or stopped by us."""

    kind: Literal["endpoint"] = "endpoint"
    base_url: str | tuple[str, ...]
    """Up to and including /v1. A list: servers of one and the same model. What is asked about one prompt goes to one of
    them, so that its cache is used; one that fails is left out until it answers again."""
    max_in_flight: int = Field(default=64, ge=1)
    """Requests at each address at one time, at most."""
    key_env: str | None = None
    """Name of the environment variable that holds the key; the key itself is never in a recipe."""
    client: Literal["plain", "openai"] = "plain"
    """`plain`: aiohttp, cheapest. `openai`: the OpenAI client, for hosted providers."""
    dialect: Literal["auto", "vllm", "llamacpp", "openai", "plain"] = "auto"
    """In whose words restricted answers, label probabilities and answers with a given beginning are asked for. `auto`
    asks the server, and once, with two tiny requests, what a judge can read there; the others are taken at their word.
    `plain` is for servers that refuse what is not in OpenAI's oldest protocol."""
    requests_per_minute: float | None = Field(default=None, gt=0)
    """Within any minute, all addresses together. None: as fast as it answers, less where it refuses."""
    tokens_per_minute: float | None = Field(default=None, gt=0)
    """The same of tokens: prompt and max_tokens when a request is sent, what it used when it is answered."""
    price_in: float = Field(default=0, ge=0)
    """Per million prompt tokens."""
    price_out: float = Field(default=0, ge=0)
    """Per million answer tokens."""

    @property
    def addresses(self) -> tuple[str, ...]:
        return (self.base_url,) if isinstance(self.base_url, str) else self.base_url

    @field_validator("base_url", mode="after")
    @classmethod
    def _addresses(cls, base_url: str | tuple[str, ...]) -> str | tuple[str, ...]:
        each = [base_url] if isinstance(base_url, str) else base_url
        if not each or len(set(each)) < len(each):
            raise ValueError(f"wanted one address or more, each once; got {list(each)}")
        if wrong := [one for one in each if not re.match(r"https?://", one)]:
            raise ValueError(f"wanted addresses that match ^https?://; got {wrong[0]!r}")
        if any(re.match(r"https?://[^/]*@", one) for one in each):
            raise ValueError(
                "an address with a name and password in it would be kept with the recipe; use key_env"
            )
        return base_url


class Classifier(Serving):
    """A reward model in this process, through transformers: for small ones, and for machines without vLLM."""

    kind: Literal["classifier"] = "classifier"
    max_in_flight: int = Field(default=2, ge=1)
    """Requests at the model at one time, at most; they are scored one by one."""
    device: str = "auto"
    """As torch names it; auto takes a GPU where there is one."""
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = "auto"
    """Of the weights; auto takes the checkpoint's."""

    @property
    def identity(self) -> dict[str, Any]:
        return super().identity | {"dtype": self.dtype}


class Imported(Serving):
    """Answers of a published dataset, brought in by `zephyr import`. Nothing can be asked; `model` is the dataset."""

    kind: Literal["imported"] = "imported"
    digest: str
    """SHA-256 of the dataset's files, or of its name and revision on the Hub."""

    @property
    def identity(self) -> dict[str, Any]:
        return {"imported": self.digest}


Model = Annotated[LlamaCpp | Vllm | Adapter | Endpoint | Classifier | Imported, Field(discriminator="kind")]
