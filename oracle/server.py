"""The oracle behind HTTP, in this process: an OpenAI-compatible address for every judge, and one for the samplers."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import orjson
from aiohttp import web

from oracle.oracle import Oracle


@asynccontextmanager
async def serving(oracle: Oracle) -> AsyncIterator[str]:
    """Serves while the block runs; gives the address before /write/v1 and /<kind>/<judge>/v1."""

    async def models(request: web.Request) -> web.Response:
        return web.json_response({"object": "list", "data": [{"id": "oracle"}]})

    async def answer(request: web.Request) -> web.Response:
        body = orjson.loads(await request.read())
        kind, judge = request.match_info.get("kind"), request.match_info.get("judge")
        reply = oracle.judge(kind, judge, body) if kind and judge else oracle.write(body)
        words = sum(len(message["content"]) for message in body["messages"]) // 4
        data = orjson.dumps(reply.body(body.get("model", ""), words))
        return web.Response(body=data, status=reply.status, content_type="application/json")

    app = web.Application(client_max_size=2**26)
    app.router.add_post("/write/v1/chat/completions", answer)
    app.router.add_post("/{kind}/{judge}/v1/chat/completions", answer)
    app.router.add_post("/{kind}/{judge}/classify", answer)
    app.router.add_get("/{place:.+}/models", models)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    try:
        site = web.TCPSite(runner, "127.0.0.1", 0, backlog=1024)
        await site.start()
        host, port = runner.addresses[0][:2]
        yield f"http://{host}:{port}"
    finally:
        await runner.cleanup()
