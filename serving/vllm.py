"""vLLM as a managed server: found, started with every flag that bulk work needs, watched, ended.

vLLM pins its web and torch versions tightly, so it usually lives in an environment of its own; nothing of it
is imported here.
"""

import functools
import logging
import os
import shutil
import subprocess
from collections.abc import Mapping
from pathlib import Path

import aiohttp

from serving.errors import WrongModel
from serving.gpus import Place
from serving.process import ServerProcess
from serving.settings import Vllm
from serving.weights import resolve_transformers

log = logging.getLogger(__name__)

Flags = dict[str, str | int | float | bool]

ENV = {
    "VLLM_HTTP_TIMEOUT_KEEP_ALIVE": "120",  # 5 s by default, less than clients keep one: resets under load
    "VLLM_NO_USAGE_STATS": "1",
    "DO_NOT_TRACK": "1",
}
OURS = ("host", "port", "served-model-name", "model", "generation-config", "lora-modules", "enable-lora")


class VllmServer(ServerProcess):
    """vLLM on a model that `serving.weights` finds, as a managed server that knows it as `name`.

    `adapters`: LoRA folders served beside the base model, by the name requests give. `place`: its share of each GPU's
    memory and its environment, from `serving.gpus`. The weights are fetched here, so this may take minutes: call it off
    the event loop.
    """

    def __init__(
        self,
        name: str,
        settings: Vllm,
        folder: Path,
        adapters: Mapping[str, Path] | None = None,
        place: Place | None = None,
    ) -> None:
        launcher = find_vllm(settings.python)
        weights = resolve_transformers(settings.model, settings.revision)
        flags, env = arguments(name, settings, dict(adapters or {}), on_cpu=not (place or has_gpu()))
        if place is not None:
            flags |= {"gpu-memory-utilization": place.share}
            env = place.env | env
        self.sleeps = flags.get("enable-sleep-mode") is True
        if self.sleeps:
            env = {"VLLM_SERVER_DEV_MODE": "1"} | env  # else there is no route to sleep by; loopback only
        if knows(tuple(launcher), "disable_uvicorn_access_log"):
            flags = {"disable-uvicorn-access-log": True, **flags}

        def command(port: int) -> list[str]:
            model = [str(weights)] if launcher[-1] == "serve" else ["--model", str(weights)]
            return [
                *launcher,
                *model,
                "--host",
                "127.0.0.1",
                "--port",
                str(port),
                *spell(flags, adapters or {}),
            ]

        pooling = settings.args.get("runner") == "pooling"  # a reward model does not chat
        timeout = settings.start_timeout
        super().__init__(name, name, command, folder, env=env, start_timeout=timeout, canary=not pooling)

    async def sleep(self) -> bool:
        """Level 1: the weights go to the host's memory, the cache is dropped. False: it cannot, stop it instead.

        Level 2 drops the weights too and answers nonsense without a word unless all of them are loaded again in the
        right order (vllm#29341, #16564): a restart costs little more and cannot go wrong silently.
        """
        # the default mode aborts what runs
        return self.sleeps and await self._post("/sleep?level=1&mode=wait")

    async def wake(self) -> bool:
        """False: it did not wake; start it anew."""
        return await self._post("/wake_up") and await self._post("/reset_prefix_cache")

    async def _post(self, route: str) -> bool:
        try:
            timeout = aiohttp.ClientTimeout(total=self.start_timeout)
            async with (
                aiohttp.ClientSession(f"http://127.0.0.1:{self.port}", timeout=timeout) as http,
                http.post(route) as reply,
            ):
                return reply.status == 200
        except (aiohttp.ClientError, OSError, TimeoutError):
            return False


def find_vllm(python: str | None) -> list[str]:
    """The command up to the model: of `python`, else of $ZEPHYR_VLLM_PYTHON, else of `vllm` on PATH."""
    named = python or os.environ.get("ZEPHYR_VLLM_PYTHON")
    if named:
        if not (found := shutil.which(str(Path(named).expanduser()))):
            raise WrongModel(f"no interpreter at {named!r}; `python` or ZEPHYR_VLLM_PYTHON names it for vLLM")
        package = _package(found)
        # not the `vllm` script: it looks up its own package, which has another name in CPU builds
        if (package / "entrypoints/openai/api_server.py").exists():
            return [found, "-m", "vllm.entrypoints.openai.api_server"]
        return [found, "-m", "vllm.entrypoints.cli.main", "serve"]
    if script := shutil.which("vllm"):
        return [script, "serve"]
    raise WrongModel(
        "vLLM is not found: neither the model's `python` nor ZEPHYR_VLLM_PYTHON is set, and no `vllm` is "
        "on PATH. Install it in an environment of its own (python -m venv ENV && ENV/bin/pip install "
        "'vllm==0.32.*') and set ZEPHYR_VLLM_PYTHON=ENV/bin/python"
    )


def arguments(
    name: str, settings: Vllm, adapters: dict[str, Path], on_cpu: bool
) -> tuple[Flags, dict[str, str]]:
    """Flags and environment. Settings beat what a CPU needs; what the client relies on beats both."""
    if clash := [flag for flag in settings.args if flag.lstrip("-").replace("_", "-") in OURS]:
        raise WrongModel(f"models.{name}.args has {clash}, which this project sets itself; remove them")
    own: Flags = {flag.lstrip("-").replace("_", "-"): value for flag, value in settings.args.items()}
    flags: Flags = {"dtype": settings.dtype}
    env = dict(ENV)
    if on_cpu:
        extra = _cpu_flags(own, settings.dtype)
        extra_env = {key: value for key, value in _cpu_env().items() if key not in os.environ | settings.env}
        said = " ".join([*spell(extra, {}), *(f"{key}={value}" for key, value in extra_env.items())])
        log.info("%s: no GPU here; added for vLLM on a CPU: %s", name, said)
        flags |= extra
        env |= extra_env
    flags |= own
    flags |= {
        "served-model-name": name,
        # else the model's generation_config.json overrides sampling fields without a word
        "generation-config": "vllm",
        "enable-prompt-tokens-details": True,  # cached_tokens in usage, the only proof of a prefix hit
    }
    if settings.template_file is not None:
        flags["chat-template"] = str(settings.template_file.resolve())
    if adapters:
        flags["enable-lora"] = True
    return flags, env | settings.env


def _cpu_flags(own: Flags, dtype: str) -> Flags:
    longest = own.get("max-model-len", 0)
    flags: Flags = {
        "enforce-eager": True,  # compiling takes minutes
        # a seeded request whose prompt is cut in chunks ends the CPU engine (0.32), so no prompt may be cut
        "enable-chunked-prefill": False,
        "max-num-batched-tokens": max(8192, longest if isinstance(longest, int) else 0),
    }
    if dtype == "auto":
        flags["dtype"] = "float32"
    return {flag: value for flag, value in flags.items() if flag not in own}


def _cpu_env() -> dict[str, str]:
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return {
        "VLLM_CPU_KVCACHE_SPACE": "2",  # GiB; by default nearly all memory, and it fails if that is not free
        "VLLM_CPU_OMP_THREADS_BIND": "nobind",  # "auto" leaves one core of two idle
        "OMP_NUM_THREADS": str(cores),
    }


def spell(flags: Flags, adapters: Mapping[str, Path]) -> list[str]:
    """As on the command line: true is `--flag`, false `--no-flag`."""
    words: list[str] = []
    for flag, value in flags.items():
        if isinstance(value, bool):
            words.append(f"--{flag}" if value else f"--no-{flag}")
        else:
            words += [f"--{flag}", str(value)]
    if adapters:
        words += ["--lora-modules", *(f"{name}={Path(path).resolve()}" for name, path in adapters.items())]
    return words


def has_gpu() -> bool:
    """Whether a card of NVIDIA or AMD is there for vLLM."""
    return (
        Path("/dev/nvidia0").exists() or Path("/dev/kfd").exists() or shutil.which("nvidia-smi") is not None
    )


@functools.cache
def knows(launcher: tuple[str, ...], option: str) -> bool:
    """Whether this vLLM has an option, read from its source: asking it with --help takes half a minute."""
    interpreter = launcher[0]
    if launcher[-1] == "serve" and len(launcher) == 2:
        first = Path(interpreter).read_bytes().splitlines()[0].decode(errors="replace")
        interpreter = first.removeprefix("#!").strip()
    try:
        sources = (_package(interpreter) / "entrypoints").rglob("cli_args.py")
        return any(option in source.read_text() for source in sources)
    except (WrongModel, OSError):
        return False


@functools.cache
def _package(interpreter: str) -> Path:
    code = "import importlib.util as u; s = u.find_spec('vllm'); print(s.origin if s else '')"
    done = subprocess.run([interpreter, "-P", "-c", code], capture_output=True, text=True)
    if done.returncode or not done.stdout.strip():
        reason = done.stderr.strip().splitlines()[-1:] or ["it has no package vllm"]
        raise WrongModel(
            f"{interpreter} cannot run vLLM: {reason[0]}; install vllm there or name another one"
        )
    return Path(done.stdout.strip()).parent
