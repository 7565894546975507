"""Other routes are not there, and a body that is too large is refused, whether it says its length or not."""

import asyncio

import httpx
import pytest
from fastapi import FastAPI, Request

from llava_aurora.serving.request_limit import MIB, SMALL, RequestLimitMiddleware

UPLOAD = 3 * MIB
app = FastAPI()


@app.api_route("/{path:path}", methods=["GET", "POST"])
async def everything(path: str, request: Request):
    return {"path": path, "length": len(await request.body())}


def ask(method, path, **options):
    async def run():
        transport = httpx.ASGITransport(app=RequestLimitMiddleware(app, max_upload=UPLOAD))
        async with httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1") as client:
            return await client.request(method, path, **options)

    return asyncio.run(run())


async def chunked(size):
    for _ in range(size // 2**16):
        yield b"\0" * 2**16


@pytest.mark.parametrize(
    "path",
    [
        *("/", "/config", "/theme.css", "/assets/index.js", "/static/img/logo.svg", "/gradio_api/info"),
        *("/gradio_api/upload", "/gradio_api/upload_progress", "/gradio_api/queue/join", "/gradio_api/queue/data"),
        *("/gradio_api/call/ask", "/gradio_api/call/ask/0a1b", "/gradio_api/file=/tmp/x/image.png"),
        *("/gradio_api/heartbeat/abc", "/gradio_api/cancel"),
    ],
)
def test_what_the_page_needs_is_let_through(path):
    assert ask("GET", path).json()["path"] == path[1:]


@pytest.mark.parametrize(
    "path",
    [
        *("/monitoring", "/docs", "/openapi.json", "/login", "/gradio_api/proxy=http://localhost:1/x"),
        *("/gradio_api/file=http://example.com/", "/gradio_api/file=file:///etc/passwd"),
        *("/gradio_api/run/ask", "/gradio_api/api/ask", "/gradio_api/call/choose", "/gradio_api/component_server"),
        *("/gradio_api/process_recording", "/gradio_api/vibe-edit", "/gradio_api/stream/x", "/gradio_api/deep_link"),
        *("/gradio_api/custom_component/a/client/b/c", "/gradio_api/mcp", "/x/gradio_api/info"),
    ],
)
def test_other_routes_are_not_there(path):
    assert ask("GET", path).status_code == 404
    assert ask("POST", path).status_code == 404


@pytest.mark.parametrize("content", [bytes, chunked], ids=["with its length", "in chunks"])
@pytest.mark.parametrize(("path", "limit"), [("/gradio_api/queue/join", SMALL), ("/gradio_api/upload", UPLOAD + SMALL)])
def test_a_body_has_a_limit(content, path, limit):
    assert ask("POST", path, content=content(limit)).json()["length"] == limit
    refused = ask("POST", path, content=content(limit + 2**16))
    assert refused.status_code == 413
    assert f"the limit is {limit // MIB} MiB" in refused.text


def test_a_length_that_is_none_is_refused():
    assert ask("POST", "/config", headers={"content-length": "many"}).status_code == 413
