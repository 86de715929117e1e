"""A managed server that one prompt ends: python mortal_server.py PORT dies|hangs|"engine dies" FILE

`engine dies`: as vLLM's engine does, every request in flight gets a 500 and the process ends a little later.
"""

import json
import os
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

port, how, starts = int(sys.argv[1]), sys.argv[2], sys.argv[3]
broken = threading.Event()


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        if self.path == "/v1/models":
            self.reply(200, {"data": [{"id": "mortal"}]})
        else:
            self.reply(200 if self.path == "/health" else 404, {})

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["content-length"])))
        text = body["messages"][-1]["content"]
        if text.startswith("poison"):
            time.sleep(0.1)
            if how == "dies":
                os._exit(9)
            broken.set()
            if how == "hangs":
                time.sleep(1000)
            threading.Timer(0.3, os._exit, (1,)).start()
        if broken.wait(0.3 if text.startswith("slow") else 0.02):
            if how == "hangs":
                time.sleep(1000)
            self.reply(500, {"error": {"message": "EngineDeadError"}})
            return
        message = {"role": "assistant", "content": "yes"}
        self.reply(200, {"choices": [{"message": message, "finish_reason": "stop"}], "usage": {}})

    def reply(self, status: int, content: object) -> None:
        data = json.dumps(content).encode()
        self.send_response(status)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, format: str, *args: object) -> None:
        pass


class Server(ThreadingHTTPServer):
    allow_reuse_port = True
    request_queue_size = 256


with open(starts, "a") as file:
    file.write("start\n")
Server(("127.0.0.1", port), Handler).serve_forever()
