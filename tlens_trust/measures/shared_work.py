"""What several measures need of the same activations, done once.

The margin, the selectivity and the information of a probe all begin with its held-out scores. A
measure stays a pure function: what is kept here is what it would get again.
"""

from collections import OrderedDict
from collections.abc import Callable, Hashable
from typing import TypeVar, cast
from weakref import WeakKeyDictionary

from tlens_trust.activations import Activations

_KEPT = 8
_kept: "WeakKeyDictionary[Activations, OrderedDict[Hashable, object]]" = WeakKeyDictionary()
_T = TypeVar("_T")


def do_once(activations: Activations, key: Hashable, work: Callable[[], _T]) -> _T:
    """The result of some work on activations, from the last time where it was done before.

    Results live as long as the activations do, and the last few of them alone. Activations whose
    values torch has changed in place are others. Where the key cannot be hashed, nothing is kept.

    Args:
        activations: What is worked on.
        key: All else that changes the result.
        work: Does it.

    Examples:
        >>> import torch
        >>> read = Activations(torch.zeros(1, 1, 1), ("blocks.0.hook_resid_post",))
        >>> do_once(read, "sum", lambda: [0]) is do_once(read, "sum", lambda: [0])
        True
    """
    values = activations.values
    if values.is_inference():  # Torch does not count the changes of these.
        return work()
    complete = (values._version, key)
    try:
        hash(complete)
    except TypeError:  # Such is a cross-fitter of the user's own that compares by value.
        return work()
    kept = _kept.setdefault(activations, OrderedDict())
    if complete not in kept:
        kept[complete] = work()
        while len(kept) > _KEPT:
            kept.popitem(last=False)
    kept.move_to_end(complete)
    return cast(_T, kept[complete])
