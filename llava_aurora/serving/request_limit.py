"""Middleware in front of Gradio: only the routes that the page needs, and limits on the size of requests.

Gradio limits the size of uploaded files, but not of other requests, and has routes that this page does not use: some
redirect to addresses on the net, start other programs, or read whole files into memory.
"""

import re
from typing import Any

from starlette.datastructures import Headers
from starlette.exceptions import HTTPException
from starlette.responses import PlainTextResponse

MIB = 2**20
# The largest request that is no upload: a question, an image's path, points.
SMALL = MIB
_API = (
    "app_id|call/(v2/)?ask(/[0-9a-f]+)?|cancel|file=(?!\\w+:).*|heartbeat/[^/]+|info/?|login_check/?|queue/data"
    "|queue/join|queue/status|reset/?|startup-events|theme\\.css|upload|upload_progress"
)
_ROUTES = re.compile(
    f"/|/config/?|/theme\\.css|/favicon\\.ico|/manifest\\.json|/robots\\.txt|/assets/.*|/static/.*|/gradio_api/({_API})"
)


class RequestLimitMiddleware:
    """ASGI middleware: 404 for other routes, 413 for a larger body, whether it says its length or not.

    Args: app: what stands behind it; max_upload: bytes of one upload.
    """

    def __init__(self, app: Any, *, max_upload: int) -> None:
        self.app, self.max_upload = app, max_upload

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "lifespan":
            return await self.app(scope, receive, send)
        if scope["type"] != "http" or not _ROUTES.fullmatch(scope["path"]):
            return await PlainTextResponse("There is nothing here.", status_code=404)(scope, receive, send)
        # Around a file stand its name and boundaries; what is a little larger is refused by Gradio, in its own words.
        limit = self.max_upload + SMALL if scope["path"].endswith("/upload") else SMALL
        length = Headers(scope=scope).get("content-length", "0")
        if not length.isdecimal() or int(length) > limit:
            return await PlainTextResponse(_too_large(limit), status_code=413)(scope, receive, send)
        received = 0

        async def limited() -> Any:
            nonlocal received
            message = await receive()
            received += len(message.get("body", b""))
            if received > limit:
                raise HTTPException(413, _too_large(limit))
            return message

        await self.app(scope, limited, send)


def _too_large(limit: int) -> str:
    return f"The request is too large: the limit is {limit // MIB} MiB."
