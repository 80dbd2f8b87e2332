import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from tlens_trust.activations.positions import checked_position, read_span, span_of


@given(st.integers(1, 30), st.integers(-30, 29))
def test_an_index_stands_for_what_python_would_take(n, index):
    tokens = list(range(n))
    if -n <= index < n:
        start, stop = span_of(index, n)
        assert tokens[start:stop] == [tokens[index]]
    else:
        with pytest.raises(ValueError, match="is no token of a statement"):
            span_of(index, n)


@given(st.integers(1, 12), st.integers(-12, 12), st.none() | st.integers(-12, 12))
def test_a_span_is_a_slice_that_is_never_clipped(n, start, stop):
    tokens = list(range(n))
    clipped = start < -n or (stop is not None and not -n <= stop <= n)
    if not clipped and tokens[start:stop]:
        first, last = span_of((start, stop), n)
        assert list(range(first, last)) == tokens[start:stop]
    else:
        with pytest.raises(ValueError, match="leave the short statements out"):
            span_of((start, stop), n)


def test_last_and_mean_cover_the_last_token_and_all():
    assert span_of("last", 5) == span_of(-1, 5) == (4, 5)
    assert span_of("mean", 5) == span_of((0, None), 5) == (0, 5)


@pytest.mark.parametrize("wrong", ["first", 1.5, True, (1,), (1, 2, 3), ("a", 2), None, (True, 2)])
def test_what_is_no_position_is_refused_with_what_is(wrong):
    with pytest.raises(ValueError, match="Allowed are 'last', 'mean'"):
        checked_position(wrong)


def test_positions_are_normalised_to_plain_python():
    assert checked_position(torch.tensor(3).item()) == 3
    assert checked_position([1, None]) == (1, None)
    assert isinstance(checked_position(torch.tensor(3)), int)


def test_a_single_position_is_copied_bit_for_bit_and_alone():
    x = torch.randn(4, 6, 8, dtype=torch.bfloat16)
    starts = torch.tensor([0, 5, 2, 3])
    read = read_span(x, starts, starts + 1, single=True)
    assert torch.equal(read, torch.stack([x[i, starts[i]] for i in range(4)]))
    assert read.untyped_storage().nbytes() == 4 * 8 * 2


@pytest.mark.parametrize("width", [(8,), (3, 4)])
def test_a_span_is_the_mean_of_its_tokens_whatever_stands_outside(width):
    x = torch.randn(3, 6, *width)
    starts, stops = torch.tensor([0, 2, 5]), torch.tensor([6, 4, 6])
    expected = torch.stack([x[i, starts[i] : stops[i]].mean(dim=0) for i in range(3)])
    x[1, 4:] = torch.nan
    x[2, :5] = torch.inf
    read = read_span(x, starts, stops, single=False)
    torch.testing.assert_close(read, expected)
    # The control: inside the span, it does show.
    x[1, 3] = torch.nan
    assert read_span(x, starts, stops, single=False)[1].isnan().all()
