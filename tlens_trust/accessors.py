"""How `trace.plot` and `concept.lint` come to exist without their class importing them.

Imports point one way: `views` imports `tracing`, and `concepts.lint` imports `concepts.concept`. A
class that shows or examines an instance of another class registers itself there under a name. The
first use of a `LazyAccessor` imports the module that is known to register it.
"""

from collections.abc import Callable
from importlib import import_module
from typing import Any, Generic, TypeVar, overload

_Accessor = TypeVar("_Accessor")
_Class = TypeVar("_Class", bound=type)

# By the module and name of the class that they belong to, and the name of the attribute.
_REGISTERED: dict[tuple[str, str, str], type] = {}


class LazyAccessor(Generic[_Accessor]):
    """A class attribute that makes the registered accessor of the instance it is read from.

    The type parameter says what instances of the accessor can do, for type checkers.

    Args:
        name: The name of the attribute.
        home: Module whose import registers the accessor; None where it is registered already.
    """

    def __init__(self, name: str, home: str | None = None) -> None:
        self._name = name
        self._home = home

    @overload
    def __get__(self, instance: None, owner: type) -> Any: ...

    @overload
    def __get__(self, instance: object, owner: type) -> _Accessor: ...

    def __get__(self, instance: object | None, owner: type) -> Any:
        # A subclass has the accessors of its base classes, as it has their other attributes.
        keys = [_key(base, self._name) for base in owner.__mro__]
        registered = next((_REGISTERED[key] for key in keys if key in _REGISTERED), None)
        # `Trace.plot` on the class itself imports nothing, so that reading a class stays cheap.
        if instance is None:
            return self if registered is None else registered
        if registered is None and self._home is not None:
            import_module(self._home)
            registered = next(_REGISTERED[key] for key in keys if key in _REGISTERED)
        # Only `register_on` makes an accessor without a home, and it registers the class first.
        assert registered is not None
        return registered(instance)


def register_on(owner: type, name: str) -> Callable[[_Class], _Class]:
    """Make a decorator that registers a class as `owner().name`.

    Raises:
        ValueError: `name` is no public identifier, or is taken. An earlier version of the same
            class is replaced, since a module that is reloaded in a notebook registers it again.
    """
    if not name.isidentifier() or name.startswith("_"):
        raise ValueError(f"An accessor's name must be a public identifier, got {name!r}.")
    # A dataclass field without a default is an annotation and no attribute of the class.
    is_attribute = name in owner.__annotations__ or name in owner.__dict__
    if is_attribute and not isinstance(owner.__dict__.get(name), LazyAccessor):
        raise ValueError(_refusal(owner, name))

    def register(accessor: _Class) -> _Class:
        earlier = _REGISTERED.get(_key(owner, name))
        # A reload makes a new class object, so that the path is compared and not the identity.
        if earlier is not None and _path(earlier) != _path(accessor):
            raise ValueError(_refusal(owner, name))
        _REGISTERED[_key(owner, name)] = accessor
        if not is_attribute:
            setattr(owner, name, LazyAccessor[Any](name))
        return accessor

    return register


def _refusal(owner: type, name: str) -> str:
    return f"{owner.__name__} has a {name!r} already. Register the accessor under another name."


def _key(owner: type, name: str) -> tuple[str, str, str]:
    return *_path(owner), name


def _path(accessor: type) -> tuple[str, str]:
    return accessor.__module__, accessor.__qualname__
