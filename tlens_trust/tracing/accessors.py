"""How `trace.plot` comes to exist without this package knowing of figures.

Imports point one way, from `views` to `tracing`. A class that shows a `Trace` registers itself
under a name; the first use of a name that `views` is known to register imports `views`.
"""

from collections.abc import Callable
from importlib import import_module
from typing import Any, TypeVar

_T = TypeVar("_T", bound=type)

_REGISTERED: dict[str, type] = {}


class LazyAccessor:
    """A class attribute that makes the registered accessor of the instance it is read from.

    Args:
        name: What the accessor is registered as.
        home: Module whose import registers it; None where it is registered already.
    """

    def __init__(self, name: str, home: str | None = None) -> None:
        self._name = name
        self._home = home

    def __get__(self, instance: object | None, owner: type) -> Any:
        if instance is None:
            return _REGISTERED.get(self._name, self)
        if self._name not in _REGISTERED and self._home is not None:
            import_module(self._home)
        return _REGISTERED[self._name](instance)


def register_on(owner: type, name: str) -> Callable[[_T], _T]:
    """Make a decorator that registers a class as `owner().name`.

    Raises:
        ValueError: `name` is no public identifier, or is taken by anything but an earlier version
            of the same class (a module that is reloaded in a notebook registers its own again).
    """
    if not name.isidentifier() or name.startswith("_"):
        raise ValueError(f"An accessor's name must be a public identifier, got {name!r}.")
    own = name in owner.__annotations__ or name in owner.__dict__
    if own and not isinstance(owner.__dict__.get(name), LazyAccessor):
        raise ValueError(_taken(owner, name))

    def register(accessor: _T) -> _T:
        there = _REGISTERED.get(name)
        if there is not None and _path(there) != _path(accessor):
            raise ValueError(_taken(owner, name))
        _REGISTERED[name] = accessor
        if not own:
            setattr(owner, name, LazyAccessor(name))
        return accessor

    return register


def _taken(owner: type, name: str) -> str:
    return f"{owner.__name__} has a {name!r} already. Register the accessor under another name."


def _path(accessor: type) -> tuple[str, str]:
    return accessor.__module__, accessor.__qualname__
