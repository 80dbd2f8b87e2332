import subprocess
import sys

import pytest

from tlens_trust import accessors
from tlens_trust.tracing import Trace
from tlens_trust.tracing.trace import register_trace_accessor


def test_plot_is_there_for_one_who_imports_nothing_but_the_trace():
    code = (
        "import sys\n"
        "from tlens_trust.tracing import Trace\n"
        "assert 'tlens_trust.views' not in sys.modules and 'plotly' not in sys.modules\n"
        "print(type(object.__new__(Trace)).__dict__['plot'].__class__.__name__)\n"
        "import xarray as xr\n"
        "data = xr.Dataset({'x': (('concept', 'checkpoint', 'site'), [[[1.0]]],"
        " {'units': '1', 'long_name': 'x'})}, coords={'concept': ['c'], 'checkpoint': ['k'],"
        " 'site': ['s'], 'step': ('checkpoint', [1]), 'layer': ('site', [0])})\n"
        "print(len(Trace(data).plot.heatmap('x').data))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["LazyAccessor", "1"]


@pytest.fixture
def registered():
    """Accessors that a test registered are gone after it."""
    yield
    accessors._REGISTERED.pop(("tlens_trust.tracing.trace", "Trace", "sizes_of"), None)
    if "sizes_of" in Trace.__dict__:
        del Trace.sizes_of


@pytest.mark.usefixtures("registered")
def test_a_registered_class_is_made_with_the_trace_it_is_read_from(trace):
    @register_trace_accessor("sizes_of")
    class Sizes:
        def __init__(self, trace):
            self.trace = trace

    assert trace.sizes_of.trace is trace
    assert Trace.sizes_of is Sizes


@pytest.mark.usefixtures("registered")
def test_a_reloaded_module_may_register_its_class_again_and_no_other_may(trace):
    def reload(name):
        return register_trace_accessor("sizes_of")(type(name, (), {"__init__": lambda s, t: None}))

    reload("Sizes")
    again = reload("Sizes")
    assert type(trace.sizes_of) is again
    with pytest.raises(ValueError, match="has a 'sizes_of' already"):
        reload("OtherSizes")


@pytest.mark.parametrize("name", ["sel", "data", "plot", "_hidden", "two words"])
def test_an_accessor_takes_no_name_that_is_taken_or_private(name):
    import tlens_trust.views  # noqa: F401  (which registers `plot`)

    with pytest.raises(ValueError, match=r"has a|public identifier"):
        register_trace_accessor(name)(object)
