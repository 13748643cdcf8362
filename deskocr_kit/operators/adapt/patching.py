"""An attribute exchanged for a while, and given back: by any number of owners of the change, in any order."""

from __future__ import annotations

import threading
from collections.abc import Callable

lock = threading.RLock()
_NOTHING = object()
_open: dict[tuple[int, str], list[Exchange]] = {}  # what is exchanged now; the last one is in force


class Exchange:
    """`owner.name` is what `make(below)` gave until `undo()`; `below` calls what was there before."""

    def __init__(self, owner, name: str, make: Callable[[Callable], Callable]):
        with lock:
            stack = _open.setdefault((id(owner), name), [])
            self.owner, self.name = owner, name
            self._own = stack[0]._own if stack else owner.__dict__.get(name, _NOTHING)
            self._original = stack[0]._original if stack else getattr(owner, name)
            stack.append(self)
            self.function = make(self.below)
            setattr(owner, name, self.function)

    def below(self, *args, **kwargs):
        """Call what this stands on: an earlier exchange that is still open, else the original."""
        stack = _open.get((id(self.owner), self.name), [])
        at = stack.index(self) if self in stack else 0
        return (stack[at - 1].function if at else self._original)(*args, **kwargs)

    def undo(self) -> None:
        """Give the attribute back; a second call does nothing."""
        with lock:
            key = (id(self.owner), self.name)
            stack = _open.get(key, [])
            if self not in stack:
                return
            stack.remove(self)
            if stack:
                setattr(self.owner, self.name, stack[-1].function)
                return
            del _open[key]
            if self._own is _NOTHING:
                delattr(self.owner, self.name)
            else:
                setattr(self.owner, self.name, self._own)
