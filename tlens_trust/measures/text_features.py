"""Features of the text of statements, which are the same at every checkpoint."""

from collections import OrderedDict
from collections.abc import Sequence

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from tlens_trust.arguments import checked_count
from tlens_trust.concepts.concept import statements_fingerprint

_COMPONENTS = 100
# Results by statements and number of components, and how many of them are cached.
_cache: OrderedDict[tuple[str, int], Float[Tensor, "example component"]] = OrderedDict()
_CACHED = 16


def represent_text(
    statements: Sequence[str], *, components: int = _COMPONENTS
) -> Float[Tensor, "example component"]:
    """Represent statements by words and characters: latent semantic analysis of TF-IDF.

    There are two sets of features, as in `text_floor`. One is of words and pairs of words, in lower
    case. The other is of runs of one to five characters, with case and spaces. Both use the n-grams
    that occur in at least two statements. The weight of an n-gram is `1 + ln tf` times
    `ln((1 + n) / (1 + df)) + 1`. The rows of each set are scaled to length 1, so that both count
    alike. Both together are projected on their leading singular vectors. The result serves as an
    `X` that stays the same along a series, unlike the output of the first block.

    The projection is needed because most pairs of short texts share almost no n-grams. Their
    distances are all nearly √2, so a Gaussian kernel would only detect duplicates. The leading
    singular vectors represent what many statements share.

    Args:
        statements: The texts.
        components: The number of singular vectors. The result has fewer if the texts have fewer.

    Returns:
        Coordinates along the singular vectors, in float64. The last few results are cached.

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
    if key not in _cache:
        _cache[key] = _represent(statements, components)
        while len(_cache) > _CACHED:
            _cache.popitem(last=False)
    _cache.move_to_end(key)
    # A copy, so that a caller who changes it in place leaves the cache intact.
    return _cache[key].clone()


def _represent(statements: Sequence[str], components: int) -> Float[Tensor, "example component"]:
    from scipy.sparse import hstack
    from sklearn.feature_extraction.text import TfidfVectorizer
    from sklearn.utils.extmath import randomized_svd

    feature_sets = []
    for options in (
        {"analyzer": "word", "ngram_range": (1, 2), "token_pattern": r"(?u)\b\w+\b"},
        {"analyzer": "char", "ngram_range": (1, 5), "lowercase": False},
    ):
        vectoriser = TfidfVectorizer(min_df=2, sublinear_tf=True, dtype=np.float64, **options)
        try:
            feature_sets.append(vectoriser.fit_transform(statements))
        except ValueError:  # no n-gram occurs twice
            continue
    if not feature_sets:
        return torch.zeros(len(statements), 1, dtype=torch.float64)
    features = hstack(feature_sets).tocsr()
    count = min(components, min(features.shape) - 1)
    if count < 1:
        return torch.from_numpy(features.toarray())
    left, lengths, _ = randomized_svd(features, count, n_iter=7, random_state=0)
    return torch.from_numpy(np.ascontiguousarray(left * lengths))
