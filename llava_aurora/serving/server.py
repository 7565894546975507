"""The server of the page: settings, limits, temporary folder, start and end."""

import os
import socket
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

if TYPE_CHECKING:
    from llava_aurora.generation.aurora import Aurora
    from llava_aurora.generation.predictor import Decoding

LOCAL_HOSTS = ("127.0.0.1", "localhost", "[::1]")
SESSIONS = 200  # visitors whose values the server remembers


@dataclass(frozen=True, kw_only=True)
class ServerSettings:
    """How a page is served."""

    host: str = "127.0.0.1"  # address to listen on; 127.0.0.1 is reached from this machine alone
    port: int = 7860  # 0 takes a free one
    max_upload_mb: int = 20  # MiB of one image file
    queue: int = 20  # questions that may wait; more are refused as long as the queue is full
    concurrency: int = 1  # questions answered at the same time
    decoding: "Decoding" = "greedy"  # for `Aurora.stream`
    examples: Path | None = None  # folder of images to offer; rendered scenes if left out
    interval: float = 0.2  # seconds between two pictures of a map that is being written

    @property
    def local(self) -> bool:
        """Whether only this machine can reach it."""
        try:
            return self.host == "localhost" or ip_address(self.host).is_loopback
        except ValueError:
            return False

    def check(self) -> None:
        """Raises AuroraError if the address or port cannot be listened on, or the folder of examples has no images."""
        try:
            family, *_, address = socket.getaddrinfo(self.host, self.port, type=socket.SOCK_STREAM)[0]
            socket.create_server(address[:2], family=family).close()
        except OSError as error:
            raise AuroraError(
                f"cannot listen on {self.host}:{self.port}: {error.strerror}; choose another --port or --host"
            ) from error
        if self.examples is not None:
            folder_examples(self.examples)


@contextmanager
def running(aurora: "Aurora", settings: ServerSettings, *, name: str) -> Iterator[str]:
    """Serves the page while the block runs; its files are deleted after that.

    Yields the page's address.
    Raises AuroraError as `ServerSettings.check`.
    """
    settings.check()
    with (
        tempfile.TemporaryDirectory(prefix="llava-aurora-", ignore_cleanup_errors=True) as made,
        _gradio_environment(folder := Path(made).resolve()),
    ):
        # Only now: Gradio's components remember the folder that they find when they are made.
        from llava_aurora.serving.events import PageEvents
        from llava_aurora.serving.housekeeping import keep_tidy
        from llava_aurora.serving.page import build_page, theme

        kinds = aurora.model.perception.kinds if aurora.model.perception is not None else ()
        offered = folder_examples(settings.examples) if settings.examples else scene_examples(folder, kinds=kinds)
        events = PageEvents(
            aurora, folder=folder, examples=offered, decoding=settings.decoding, interval=settings.interval
        )
        page = build_page(events, name=name, concurrency=settings.concurrency)
        page.queue(max_size=settings.queue, api_open=False)
        keep_tidy(page, folder, kept={example.path for example in offered})
        middleware = [
            # A page elsewhere that gives its own name this machine's address is not let in.
            Middleware(TrustedHostMiddleware, allowed_hosts=list(LOCAL_HOSTS) if settings.local else ["*"]),
            Middleware(RequestLimitMiddleware, max_upload=settings.max_upload_mb * MIB),
        ]
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
            app_kwargs={"middleware": middleware, "docs_url": None, "redoc_url": None, "openapi_url": None},
            state_session_capacity=SESSIONS,
            theme=theme(),
            css_paths=Path(__file__).parent / "page.css",
        )
        try:
            yield address
        finally:
            page.close(verbose=False)


def serve(aurora: "Aurora", settings: ServerSettings, *, name: str) -> None:
    """Serves the page until the process is interrupted or terminated. Raises as `running`."""
    with running(aurora, settings, name=name) as address:
        print(f"{address} (Ctrl-C stops it)", flush=True)
        if not settings.local:
            print(f"Anyone who can reach {settings.host} can ask: there is no password.", flush=True)
        threading.Event().wait()


@contextmanager
def _gradio_environment(folder: Path) -> Iterator[None]:
    """All temporary files, broken-off uploads too, go into `folder`; settings that would open more are put aside."""
    before, temporary = dict(os.environ), tempfile.tempdir
    unproxied = ",".join(filter(None, [before.get("no_proxy") or before.get("NO_PROXY"), "localhost", "127.0.0.1"]))
    for name in before:
        if name.startswith("GRADIO_") and name != "GRADIO_ROOT_PATH":  # the path behind a reverse proxy
            del os.environ[name]
    os.environ.update(
        GRADIO_TEMP_DIR=str(folder),
        GRADIO_EXAMPLES_CACHE=str(folder / "examples"),
        GRADIO_ANALYTICS_ENABLED="False",
        GRADIO_ANALYTICS_CACHE_FREQUENCY=str(10**9),  # of a table over all requests so far
        HF_HUB_DISABLE_TELEMETRY="1",
        NO_PROXY=unproxied,  # Gradio asks itself whether it has started
        no_proxy=unproxied,
    )
    tempfile.tempdir = str(folder)
    try:
        yield
    finally:
        tempfile.tempdir = temporary
        os.environ.clear()
        os.environ.update(before)
