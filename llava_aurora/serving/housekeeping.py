"""Memory comes back: Gradio keeps a little of every question for good, and the C library what was freed in pieces."""

import asyncio
import ctypes
import time

import gradio as gr

# Visitors whose page the server remembers: the last pictures each of them saw, some hundred kB.
SESSIONS = 200


def keep_tidy(page: gr.Blocks, *, interval: float = 30.0, age: float = 600.0) -> None:
    """Tidies up every `interval` seconds in the server's own event loop, from its start to its end."""
    tasks = []

    async def tidy() -> None:
        while True:
            await asyncio.sleep(interval)
            forget_finished(page, age=age)
            return_freed_memory()

    async def begin() -> None:
        tasks.append(asyncio.create_task(tidy()))

    page.extra_startup_events.append(begin)


def forget_finished(page: gr.Blocks, *, age: float) -> None:
    """Drops what the queue keeps of questions that came more than `age` seconds ago and have been answered or left.

    Only in the server's event loop, where the queue itself works.
    """
    queue, now = page._queue, time.time()
    queue._asyncio_tasks[:] = [task for task in queue._asyncio_tasks if not task.done()]
    under_way = ("queued", "processing")
    finished = [
        event_id
        for event_id, facts in queue.event_analytics.items()
        if facts["status"] not in under_way and now - float(facts["time"] or 0) > age
    ]
    for event_id in finished:
        session = str(queue.event_analytics.pop(event_id)["session_hash"])
        queue.event_ids_to_events.pop(event_id, None)
        page.app.iterators_to_reset.discard(event_id)
        waiting = queue.pending_event_ids_session.get(session, set())
        waiting.discard(event_id)
        if not waiting:
            queue.pending_event_ids_session.pop(session, None)
            queue.pending_messages_per_session.pop(session, None)
            page.pending_streams.pop(session, None)
            page.pending_diff_streams.pop(session, None)


def return_freed_memory() -> None:
    """Gives the system back what was freed; glibc alone keeps it."""
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(0)
