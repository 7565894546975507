"""Deletes old uploads, and what Gradio keeps of finished questions."""

import asyncio
import ctypes
import time
from contextlib import suppress
from pathlib import Path

import gradio as gr


def keep_tidy(page: gr.Blocks, folder: Path, *, kept: set[str], interval: float = 60.0, age: float = 3600.0) -> None:
    """Every `interval` seconds deletes files older than `age` seconds, and forgets questions older than a sixth of it.

    Gradio's own `delete_cache` ends for good at the first upload named "." or "..".
    """
    tasks = []

    async def tidy() -> None:
        while True:
            await asyncio.sleep(interval)
            cached = kept.union(*(getattr(block, "keep_in_cache", ()) for block in page.blocks.values()))
            await asyncio.to_thread(delete_old_files, folder, age=age, kept=cached)
            forget_finished(page, age=age / 6)
            if trim := getattr(ctypes.CDLL(None), "malloc_trim", None):  # glibc keeps what was freed in pieces
                trim(0)

    async def begin() -> None:
        tasks.append(asyncio.create_task(tidy()))

    page.extra_startup_events.append(begin)


def delete_old_files(folder: Path, *, age: float, kept: set[str]) -> None:
    """Deletes all files and empty folders in a folder that are older than `age` seconds, but those to be kept."""
    for path in sorted(folder.rglob("*"), reverse=True):  # what is in a folder comes before it
        with suppress(OSError):  # not empty, or deleted meanwhile
            if time.time() - path.lstat().st_mtime > age and str(path) not in kept:
                path.rmdir() if path.is_dir() else path.unlink()


def forget_finished(page: gr.Blocks, *, age: float) -> None:
    """Drops what the queue keeps of questions that came more than `age` seconds ago and are finished.

    Only in the server's event loop, where the queue itself works.
    """
    queue, now = page._queue, time.time()
    for task in [task for task in queue._asyncio_tasks if task.done()]:
        queue._asyncio_tasks.remove(task)  # of a list, or of a set in newer releases
    for event_id, facts in list(queue.event_analytics.items()):
        if facts["status"] in ("queued", "processing") or now - float(facts["time"] or 0) <= age:
            continue
        session = str(queue.event_analytics.pop(event_id)["session_hash"])
        queue.event_ids_to_events.pop(event_id, None)
        page.app.iterators_to_reset.discard(event_id)
        waiting = queue.pending_event_ids_session.get(session, set())
        waiting.discard(event_id)
        if not waiting:
            for kept in (
                *(queue.pending_event_ids_session, queue.pending_messages_per_session),
                *(page.pending_streams, page.pending_diff_streams),
            ):
                kept.pop(session, None)
