"""Reading files in threads while the caller works on those before; decoders of pictures let other threads run."""

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

from llava_aurora.errors import AuroraError

Item = TypeVar("Item")
Value = TypeVar("Value")


def read_ahead(
    items: Iterable[Item], read: Callable[[Item], Value], *, workers: int, ahead: int
) -> Iterator[tuple[Item, Value | AuroraError]]:
    """Each item with what `read` makes of it, in order; an AuroraError that it raises comes in place of the value.

    Args:
        workers: threads; 0 reads in the caller's own.
        ahead: at most so many values are held at once, at least one for each worker.
    """

    def attempt(item: Item) -> Value | AuroraError:
        try:
            return read(item)
        except AuroraError as error:
            return error

    if workers < 1:
        yield from ((item, attempt(item)) for item in items)
        return
    waiting: deque[tuple[Item, Future[Value | AuroraError]]] = deque()
    with ThreadPoolExecutor(workers) as pool:
        try:
            for item in items:
                waiting.append((item, pool.submit(attempt, item)))
                if len(waiting) >= max(ahead, workers):
                    first, future = waiting.popleft()
                    yield first, future.result()
            while waiting:
                first, future = waiting.popleft()
                yield first, future.result()
        finally:
            pool.shutdown(cancel_futures=True)
