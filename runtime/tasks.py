"""Owned asyncio tasks: every task has a name, an owner that ends it, and a crash that is heard once."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

from runtime.logs import get_logger

T = TypeVar("T")
CrashCallback = Callable[[str, BaseException], None]

_log = get_logger("runtime.tasks")


class TaskOwner:
    """Starts tasks and ends them with itself.

    ``on_crash(name, error)`` is called for a task that raised; without it the crash is only logged.
    """

    __slots__ = ("_closed", "_on_crash", "_tasks", "name")

    def __init__(self, name: str, *, on_crash: CrashCallback | None = None) -> None:
        self.name = name
        self._on_crash = on_crash
        self._tasks: set[asyncio.Task[Any]] = set()
        self._closed = False

    def __repr__(self) -> str:
        state = "closed" if self._closed else "open"
        return f"<TaskOwner {self.name} {state}, {len(self._tasks)} running>"

    def __len__(self) -> int:
        return len(self._tasks)

    def start(self, coro: Coroutine[Any, Any, T], name: str) -> asyncio.Task[T]:
        """Start ``coro`` as a task of this owner; RuntimeError once the owner is closed."""
        if self._closed:
            coro.close()
            raise RuntimeError(f"{self.name} is closed and starts no task {name!r}")
        task = asyncio.get_running_loop().create_task(coro, name=f"{self.name}.{name}")
        self._tasks.add(task)
        task.add_done_callback(self._finished)
        return task

    async def close(self, timeout_s: float) -> list[str]:
        """Cancel and await every task; the names of those that did not end in ``timeout_s`` seconds."""
        self._closed = True
        current = asyncio.current_task()
        pending = {task for task in self._tasks if task is not current}
        for task in pending:
            task.cancel()
        if not pending:
            return []
        _, stuck = await asyncio.wait(pending, timeout=timeout_s)
        names = sorted(task.get_name() for task in stuck)
        if names:
            _log.error("tasks did not end", extra={"owner": self.name, "tasks": names})
        return names

    def _finished(self, task: asyncio.Task[Any]) -> None:
        self._tasks.discard(task)
        if task.cancelled():
            return
        error = task.exception()
        if error is None:
            return
        _log.error("task crashed", exc_info=error, extra={"task": task.get_name()})
        if self._on_crash is not None:
            self._on_crash(task.get_name(), error)
