"""The embedded server: llama.cpp in a process of its own.

    python -m serving.llamacpp --gguf FILE --port PORT --slots 8 --context 1024 --threads 2 --alias NAME

Needs no GPU and no account: `xllamacpp` is a prebuilt wheel and is up in about two seconds.
"""

import argparse
import os
import signal
import sys
from pathlib import Path

from serving.process import ServerProcess
from serving.settings import LlamaCpp
from serving.weights import Weights


class LlamaCppServer(ServerProcess):
    """llama.cpp on a GGUF file, as a managed server that knows the model as `name`."""

    def __init__(self, name: str, settings: LlamaCpp, weights: Weights, folder: Path) -> None:
        def command(port: int) -> list[str]:
            options = {
                "--gguf": weights.path.resolve(),
                "--port": port,
                "--slots": settings.slots,
                "--context": settings.context,
                "--threads": settings.threads,
                "--connections": settings.max_in_flight + 4,
                "--alias": name,
            }
            if settings.template_file is not None:
                options["--template"] = settings.template_file.resolve()
            pairs = [str(part) for option in options.items() for part in option]
            return [sys.executable, "-m", "serving.llamacpp", *pairs]

        here = str(Path(__file__).parents[1])
        env = {
            "PYTHONPATH": os.pathsep.join(filter(None, [here, os.environ.get("PYTHONPATH")])),
            # Threads wait for one another after every small matrix. By sleeping, a third of both cores is lost
            # (84 tokens/s, not 141); by long spinning, a thread takes the core of the one it waits for.
            "OMP_WAIT_POLICY": os.environ.get("OMP_WAIT_POLICY", "active"),
            "GOMP_SPINCOUNT": os.environ.get("GOMP_SPINCOUNT", "3000"),
        }
        super().__init__(name, name, command, folder, env=env, start_timeout=settings.start_timeout)


def serve(
    gguf: Path,
    port: int,
    slots: int,
    context: int,
    threads: int,
    connections: int,
    alias: str,
    template: Path | None = None,
) -> None:
    """Serve until SIGTERM or SIGINT. `context` is tokens of one slot; `template` is used instead of the file's own."""
    # before any thread is there, so that all of them leave the signals to `sigwait` below
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM, signal.SIGINT})

    from xllamacpp.xllamacpp import CommonParams, Server

    params = CommonParams()
    params.model.path = str(gguf)
    params.model_alias = {alias}
    params.hostnames = ["127.0.0.1"]
    params.port = port
    params.reuse_port = True  # our parent holds the port for us
    params.n_parallel = slots
    params.n_ctx = context * slots  # llama.cpp counts all slots together
    params.cpuparams.n_threads = threads
    params.cpuparams_batch.n_threads = threads
    params.n_threads_http = connections  # one each, or /health and /metrics wait behind the requests
    params.endpoint_metrics = True
    params.ui = False
    if template is not None:
        params.chat_template = template.read_text(encoding="utf-8")
    server = Server(params)
    print(f"serving {gguf.name} as {alias!r} at {server.listening_address}", flush=True)
    signal.sigwait({signal.SIGTERM, signal.SIGINT})
    sys.stdout.flush()
    os._exit(0)  # llama.cpp would first finish the requests in flight


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m serving.llamacpp", description="Serve a GGUF file.")
    parser.add_argument("--gguf", type=Path, required=True)
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--slots", type=int, default=8, help="sequences decoded together")
    parser.add_argument("--context", type=int, default=1024, help="tokens of prompt and answer for one slot")
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--connections", type=int, default=32, help="requests taken at a time")
    parser.add_argument("--alias", required=True, help="the name requests give the model")
    parser.add_argument("--template", type=Path, help="a chat template instead of the file's own")
    given = parser.parse_args()
    if not given.gguf.is_file():
        sys.exit(f"no such file: {given.gguf}")
    serve(
        given.gguf,
        given.port,
        given.slots,
        given.context,
        given.threads,
        given.connections,
        given.alias,
        given.template,
    )


if __name__ == "__main__":
    main()
