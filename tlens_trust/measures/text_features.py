"""What the statements say, as numbers that no checkpoint changes."""

from collections import OrderedDict
from collections.abc import Sequence

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from tlens_trust.arguments import checked_count
from tlens_trust.concepts.concept import statements_fingerprint

_COMPONENTS = 100
_KEPT = 16
_kept: OrderedDict[tuple[str, int], Float[Tensor, "example component"]] = OrderedDict()


def represent_text(
    statements: Sequence[str], *, components: int = _COMPONENTS
) -> Float[Tensor, "example component"]:
    """Statements by their words and characters alone: latent semantic analysis of TF-IDF.

    Two readings, as in `text_floor`: words, single and in twos, in lower case; runs of one to
    five characters, case and blanks kept. Each is weighed by `1 + ln tf` times
    `ln((1 + n) / (1 + df)) + 1` over the n-grams that occur in at least two statements, its rows
    scaled to length 1, so that both weigh alike; and both together are projected on their leading
    singular vectors. It serves as an `X` that stays the same along a series, unlike the first
    block's output.

    Projected, since most pairs of short texts share next to no n-grams: their distances are all
    nearly √2, and a Gaussian kernel on them sees duplicates and nothing else. The leading singular
    vectors hold what many statements share.

    Args:
        statements: The texts.
        components: How many singular vectors; fewer where the texts have fewer.

    Returns:
        Coordinates along the singular vectors, in float64. The last few results are kept, since
        they are the same at every checkpoint.

    Raises:
        ValueError: `components` is less than 1.

    Source:
        Deerwester et al. (1990), Journal of the American Society for Information Science 41.

    Examples:
        >>> texts = ["The cat sat.", "A cat sat.", "The sum is off.", "A sum is off."]
        >>> x = represent_text(texts, components=2)
        >>> bool((x[0] - x[1]).norm() < (x[0] - x[2]).norm())
        True
    """
    components = checked_count("components", components)
    key = statements_fingerprint(statements), components
    if key not in _kept:
        _kept[key] = _represent(statements, components)
        while len(_kept) > _KEPT:
            _kept.popitem(last=False)
    _kept.move_to_end(key)
    return _kept[key].clone()


def _represent(statements: Sequence[str], components: int) -> Float[Tensor, "example component"]:
    from scipy.sparse import hstack
    from sklearn.feature_extraction.text import TfidfVectorizer
    from sklearn.utils.extmath import randomized_svd

    readings = []
    for options in (
        {"analyzer": "word", "ngram_range": (1, 2), "token_pattern": r"(?u)\b\w+\b"},
        {"analyzer": "char", "ngram_range": (1, 5), "lowercase": False},
    ):
        vectoriser = TfidfVectorizer(min_df=2, sublinear_tf=True, dtype=np.float64, **options)
        try:
            readings.append(vectoriser.fit_transform(statements))
        except ValueError:  # no n-gram occurs twice
            continue
    if not readings:
        return torch.zeros(len(statements), 1, dtype=torch.float64)
    features = hstack(readings).tocsr()
    count = min(components, min(features.shape) - 1)
    if count < 1:
        return torch.from_numpy(features.toarray())
    left, lengths, _ = randomized_svd(features, count, n_iter=7, random_state=0)
    return torch.from_numpy(np.ascontiguousarray(left * lengths))
