"""A model over real HTTP that answers with a plain function, for load, faults and known answers.

    with fake_model(lambda body: "yes") as fake:
        fake.url, fake.asked   # http://127.0.0.1:PORT/v1, every body it was sent

The function gets the request's JSON and returns the answer's text, an `Answer`, `Scores` of a classifier, or a `Fault`.
"""

import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


@dataclass
class Answer:
    text: str
    finish_reason: str = "stop"
    logprobs: dict[str, float] | None = None
    """Alternatives of the first token."""
    refusal: str | None = None


@dataclass
class Fault:
    status: int = 500
    body: str = '{"error": {"message": "planted"}}'
    headers: dict[str, str] = field(default_factory=dict)
    close: bool = False
    """Drop the connection instead of answering."""


@dataclass
class Scores:
    """What vLLM's /classify answers."""

    scores: list[float]


Reply = str | list[str] | Answer | Scores | Fault
"""A list: one text for each of the n answers."""
Body = dict[str, Any]


@dataclass
class Fake:
    url: str
    asked: list[Body]
    paths: list[str]
    """Of the same requests."""


@contextmanager
def fake_model(
    answer: Callable[[Body], Reply],
    owner: str = "someone",
    tokenize: Callable[[Body], list[int]] | None = None,
    *,
    honours_n: bool = True,
    template: Callable[[Body], str] | None = None,
) -> Iterator[Fake]:
    """`owner`: what the list of models says, `vllm` or `llamacpp`. `tokenize`: vLLM's /tokenize. `honours_n=False`: of
    a list there are as many choices as it has texts. `template`: what llama.cpp's /apply-template makes of messages."""
    asked: list[Body] = []
    paths: list[str] = []
    lock = threading.Lock()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            self._send(200, {"data": [{"id": "fake", "owned_by": owner, "max_model_len": 4096}]})

        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["content-length"])))
            if self.path == "/tokenize":
                found = tokenize(body) if tokenize else None
                self._send(200, {"tokens": found}) if found is not None else self._send(404, {})
                return
            if self.path == "/apply-template":
                self._send(200, {"prompt": template(body)}) if template else self._send(404, {})
                return
            with lock:
                asked.append(body)
                paths.append(self.path)
            reply = answer(body)
            if isinstance(reply, Fault):
                if reply.close:
                    self.close_connection = True
                    self.connection.shutdown(2)
                    return
                self._send(reply.status, reply.body, reply.headers)
                return
            if isinstance(reply, Scores):
                row = {"index": 0, "label": None, "probs": reply.scores, "num_classes": len(reply.scores)}
                self._send(200, {"data": [row], "usage": {"prompt_tokens": 7}})
                return
            texts = reply if isinstance(reply, list) else None
            reply = (
                Answer(reply if isinstance(reply, str) else "") if not isinstance(reply, Answer) else reply
            )
            choice: dict[str, Any] = {
                "message": {"role": "assistant", "content": reply.text, "refusal": reply.refusal},
                "finish_reason": reply.finish_reason,
            }
            if reply.logprobs is not None:
                top = [{"token": token, "logprob": value} for token, value in reply.logprobs.items()]
                choice["logprobs"] = {"content": [{"token": reply.text, "logprob": 0.0, "top_logprobs": top}]}
            words = sum(len(message["content"].split()) for message in body["messages"])
            count = body.get("n", 1) if honours_n or texts is None else len(texts)
            choices = [dict(choice, index=i) for i in range(count)]
            for one, text in zip(choices, texts or (), strict=False):
                one["message"] = {"role": "assistant", "content": text}
            self._send(
                200,
                {
                    "choices": choices,
                    "usage": {"prompt_tokens": words, "completion_tokens": len(reply.text.split())},
                },
            )

        def _send(self, status: int, data: Any, headers: dict[str, str] | None = None) -> None:
            content = (data if isinstance(data, str) else json.dumps(data)).encode()
            self.send_response(status)
            for name, value in (headers or {}).items():
                self.send_header(name, value)
            self.send_header("content-type", "application/json")
            self.send_header("content-length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, format: str, *args: Any) -> None:
            pass

    class Server(ThreadingHTTPServer):
        request_queue_size = 256
        daemon_threads = True

        def handle_error(self, request: Any, client_address: Any) -> None:
            pass

    server = Server(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True)
    thread.start()
    try:
        yield Fake(f"http://127.0.0.1:{server.server_port}/v1", asked, paths)
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
