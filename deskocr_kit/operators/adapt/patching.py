"""Patches of attributes that can be undone in any order, also if several replace the same attribute."""

from __future__ import annotations

import threading
from collections.abc import Callable

lock = threading.RLock()
_ABSENT = object()
#: {(id of the owner, attribute): patches in force}; the last one is called.
_open: dict[tuple[int, str], list[Patch]] = {}


class Patch:
    """Sets `owner.name` to `make(below)` until `undo()`; `below` calls the function that it replaced."""

    _own: object  # of the owner itself, before the first patch; _ABSENT if it inherits the function
    _original: Callable

    def __init__(self, owner, name: str, make: Callable[[Callable], Callable]):
        with lock:
            stack = _open.setdefault((id(owner), name), [])
            self.owner, self.name = owner, name
            self._own = stack[0]._own if stack else owner.__dict__.get(name, _ABSENT)
            self._original = stack[0]._original if stack else getattr(owner, name)
            stack.append(self)
            self.function = make(self.below)
            setattr(owner, name, self.function)

    def below(self, *args, **kwargs):
        """Call the patch before this one, if one is still in force, else the original."""
        stack = _open.get((id(self.owner), self.name), [])
        at = stack.index(self) if self in stack else 0
        return (stack[at - 1].function if at else self._original)(*args, **kwargs)

    def undo(self) -> None:
        """Restore the attribute. A second call does nothing."""
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
            if self._own is _ABSENT:
                delattr(self.owner, self.name)
            else:
                setattr(self.owner, self.name, self._own)
