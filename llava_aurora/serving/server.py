"""The server behind the page: its folder, its limits, its start and its end."""

import os
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from ipaddress import ip_address
from pathlib import Path
from typing import TYPE_CHECKING

from starlette.middleware import Middleware
from starlette.middleware.trustedhost import TrustedHostMiddleware

from llava_aurora.errors import AuroraError
from llava_aurora.serving.examples import folder_examples, scene_examples
from llava_aurora.serving.request_limit import MIB, RequestLimitMiddleware
from llava_aurora.serving.view import STYLE

if TYPE_CHECKING:
    from llava_aurora.generation.aurora import Aurora
    from llava_aurora.generation.predictor import Decoding

LOCAL_HOSTS = ("127.0.0.1", "localhost", "[::1]")
# The one setting of Gradio's that is left to its user: the path behind a reverse proxy.
_KEPT = ("GRADIO_ROOT_PATH",)


@dataclass(frozen=True, kw_only=True)
class ServerSettings:
    """How a page is served.

    Args:
        host: address to listen on; 127.0.0.1 is reached from this machine alone.
        port: 0 takes a free one.
        max_upload_mb: MiB of one image file.
        queue: questions that may wait; more are told that the page is busy.
        concurrency: questions answered at the same time.
        decoding: as for `Aurora.stream`.
        examples: folder of images to offer; rendered scenes if left out.
        interval: seconds between two pictures of a map that is being written.
    """

    host: str = "127.0.0.1"
    port: int = 7860
    max_upload_mb: int = 20
    queue: int = 20
    concurrency: int = 1
    decoding: "Decoding" = "greedy"
    examples: Path | None = None
    interval: float = 0.2

    @property
    def local(self) -> bool:
        """Whether only this machine can reach it."""
        if self.host == "localhost":
            return True
        try:
            return ip_address(self.host).is_loopback
        except ValueError:
            return False


@contextmanager
def running(aurora: "Aurora", settings: ServerSettings, *, name: str) -> Iterator[str]:
    """Serves the page while the block runs; its files are gone after that.

    Args:
        aurora: the model.
        settings: of the server.
        name: of the model, for the heading.

    Yields:
        the page's address.

    Raises:
        AuroraError: if the address or the port cannot be taken, or the folder of examples has no images.
    """
    with tempfile.TemporaryDirectory(prefix="llava-aurora-", ignore_cleanup_errors=True) as made:
        folder = Path(made).resolve()
        with _gradio_environment(folder):
            # Only now: Gradio's components remember the folder that they find when they are made.
            from llava_aurora.serving.events import PageEvents
            from llava_aurora.serving.housekeeping import SESSIONS, keep_tidy
            from llava_aurora.serving.page import build_page, theme

            examples = folder_examples(settings.examples) if settings.examples else scene_examples(folder)
            events = PageEvents(
                aurora, folder=folder, examples=examples, decoding=settings.decoding, interval=settings.interval
            )
            page = build_page(events, name=name, concurrency=settings.concurrency)
            page.queue(max_size=settings.queue, api_open=False)
            keep_tidy(page)
            hosts = list(LOCAL_HOSTS) if settings.local else ["*"]
            gates = [
                # A page elsewhere that gives its own name this machine's address is not let in.
                Middleware(TrustedHostMiddleware, allowed_hosts=hosts),
                Middleware(RequestLimitMiddleware, max_upload=settings.max_upload_mb * MIB),
            ]
            try:
                _, address, _ = page.launch(
                    server_name=settings.host,
                    server_port=settings.port or None,
                    share=False,
                    quiet=True,
                    inbrowser=False,
                    prevent_thread_lock=True,
                    show_error=False,
                    footer_links=[],
                    enable_monitoring=False,
                    ssr_mode=False,
                    mcp_server=False,
                    pwa=False,
                    max_file_size=settings.max_upload_mb * MIB,
                    app_kwargs={"middleware": gates, "docs_url": None, "redoc_url": None, "openapi_url": None},
                    state_session_capacity=SESSIONS,
                    theme=theme(),
                    css=STYLE,
                )
            except OSError as error:
                raise AuroraError(
                    f"{settings.host}:{settings.port} cannot be served on: {error}; try another --port"
                ) from error
            try:
                yield address
            finally:
                page.close(verbose=False)


def serve(aurora: "Aurora", settings: ServerSettings, *, name: str) -> None:
    """Serves the page until the process is interrupted or terminated. Raises as `running`."""
    with running(aurora, settings, name=name) as address:
        print(f"{address} (Ctrl-C ends it)", flush=True)
        if not settings.local:
            print(f"Anyone who reaches {settings.host} can ask: there is no password.", flush=True)
        threading.Event().wait()


@contextmanager
def _gradio_environment(folder: Path) -> Iterator[None]:
    """Gradio's files go into `folder`, it tells nobody, and variables that would open more of it are put aside."""
    aside = {name: value for name, value in os.environ.items() if name.startswith("GRADIO_") and name not in _KEPT}
    unproxied = ",".join(
        filter(None, [os.environ.get("no_proxy") or os.environ.get("NO_PROXY"), "localhost", "127.0.0.1"])
    )
    ours = {
        "GRADIO_TEMP_DIR": str(folder),
        "GRADIO_EXAMPLES_CACHE": str(folder / "examples"),
        "GRADIO_ANALYTICS_ENABLED": "False",
        "GRADIO_ANALYTICS_CACHE_FREQUENCY": str(10**9),  # of a table over all requests so far
        "HF_HUB_DISABLE_TELEMETRY": "1",
        "NO_PROXY": unproxied,  # Gradio asks itself whether it has started
        "no_proxy": unproxied,
    }
    before = {name: os.environ.get(name) for name in {*aside, *ours}}
    for name in aside:
        del os.environ[name]
    os.environ.update(ours)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value
