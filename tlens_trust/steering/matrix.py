"""Whether a direction taken at one checkpoint steers another: every source on every target."""

import warnings
from collections.abc import Iterable, Sequence

import numpy as np
import xarray as xr
from jaxtyping import Bool, Int

from tlens_trust.activations.model_source import is_stored
from tlens_trust.activations.positions import Position
from tlens_trust.activations.reading_options import DEFAULT_BATCH_TOKENS as READ_TOKENS
from tlens_trust.activations.reading_options import ReadingOptions
from tlens_trust.activations.sites import site_layer
from tlens_trust.checkpoints import Checkpoint
from tlens_trust.checkpoints.hooked_model import HookedModel
from tlens_trust.checkpoints.loading_options import Loading
from tlens_trust.checkpoints.model_cache import ModelCache, same_model
from tlens_trust.concepts import Concept
from tlens_trust.measures.probe import LinearProbe
from tlens_trust.steering.battery import Manner
from tlens_trust.steering.choices import ForcedChoice
from tlens_trust.steering.compatibility import check_fits, check_other_model
from tlens_trust.steering.conditions import ProbeFires
from tlens_trust.steering.controls import DRAWS_FOR_A_CLAIM, check_draws
from tlens_trust.steering.evaluation import polarised, told_of_draws
from tlens_trust.steering.extraction import Store, extract_steering_vector
from tlens_trust.steering.likelihood import DEFAULT_BATCH_TOKENS
from tlens_trust.steering.matrix_data import label_matrix
from tlens_trust.steering.methods import Method
from tlens_trust.steering.positions import Positions
from tlens_trust.steering.splits import rows_to_try, training_rows
from tlens_trust.steering.targets import TargetResult, Trial, try_on_model
from tlens_trust.steering.vector import SteeringVector

Rows = Sequence[int] | Int[np.ndarray, " row"] | Bool[np.ndarray, " example"]


def steering_matrix(
    sources: Checkpoint | Iterable[Checkpoint],
    targets: Checkpoint | Iterable[Checkpoint],
    concept: Concept,
    *,
    site: str | int,
    target_kl: float,
    method: str | Method = "mean_difference",
    rows: Rows | None = None,
    position: Position = "last",
    bos: bool | None = None,
    mode: str = "add",
    positions: Positions = "all",
    when: ProbeFires | LinearProbe | None = None,
    choices: Sequence[ForcedChoice] = (),
    neutral: Sequence[str] | None = None,
    everyday: bool = True,
    draws: int = DRAWS_FOR_A_CLAIM,
    opposite: bool = False,
    chat: bool | None = None,
    store: Store = "default",
    confidence: float = 0.95,
    resamples: int = 2000,
    seed: int = 0,
    batch_tokens: int = DEFAULT_BATCH_TOKENS,
    loaded_at_once: int | None = None,
    other_model: str = "warn",
    progress: bool = True,
) -> xr.Dataset:
    """Steer each target by a vector of each source, all at one dose, on statements none has seen.

    Each vector is used as strongly as moves the target's own predictions on neutral text by
    `target_kl`, and beside them stand random directions at that dose. A vector that steers another
    checkpoint than its own says that the direction was there and meant the same; one that does not
    may lie elsewhere or mean nothing.

    Each target is read once as it is, and once for each source (twice with `opposite`) and random
    direction. Not among the controls, since each would double the passes: random directions of
    equal norm, and, but for `opposite`, the other sign.

    Each target is loaded once for all its sources, and a source only if the store lacks its
    activations. What is both is then loaded once if it fits into memory until all sources have been
    read: of `n` checkpoints that are sources and targets alike, and of which nothing is stored,
    there are `2n - k` loads where `k` may be loaded at one time, from `n` where all may to `2n - 1`
    where only one may.

    Args:
        sources: Where vectors are taken.
        targets: Whom they are tried on; a fine-tuned model of the same width may be among them.
        concept: Whole: half of its groups make the vectors, the others are tried.
        site: Where vectors are taken and act: a site, or the layer whose output it is.
        target_kl: The dose, in nats a token.
        method: How a vector is made, as `extract_steering_vector` has it.
        rows: Statements to make the vectors of; None for half of the groups, drawn by the seed
            (`training_rows`). None of their groups is tried.
        position: Which token of a statement is read.
        bos: Whether a beginning-of-sequence token stands before it.
        mode: As `evaluate_steering` takes it, and so are the following.
        positions: Which tokens are steered.
        when: Steer only where a probe fires.
        choices: Forced choices.
        neutral: Texts for dose and damage.
        everyday: Whether to ask everyday questions.
        draws: How many random directions for each target: 50 for a claim, a few for a look.
        opposite: Whether to steer the other way too.
        chat: Whether choices and questions are turns of a chat.
        store: Where activations of sources are kept.
        confidence: Of the intervals.
        resamples: How many bootstrap resamples.
        seed: Deals groups, and draws directions and resamples.
        batch_tokens: Tokens read at once.
        loaded_at_once: How many checkpoints may be loaded at one time. None: as many as a quarter
            of the memory holds that is free where they are loaded, and one in any case.
        other_model: What to do where a source is known to be of another run than a target, as
            `steer` takes it: `"warn"`, once for each target, `"allow"` or `"refuse"`. Say
            `"allow"` for a target that was tuned from the run.
        progress: Whether to show a bar.

    Returns:
        For each quantity `q` that `evaluate_steering` lists, along `source` and `target`:
        `q_change` with `q_change_ci`, and along `target` `q_unsteered`. Of effects also
        `q_wrong_way`, `q_p` and `q_over_random` with `q_over_random_ci`, and `q_random`, the change
        by each random direction (along `target` and `draw`); with `opposite`, `q_opposite`. Of
        log-odds, example by example, `q_of_example`, `q_random_of_example` and
        `q_unsteered_of_example`. `strength` and the `kl_change` that it came to; `norm` of each
        source's vector, and the `cosine` between those of any two (`source`, `other_source`).

        Intervals are those of single cells; nothing is corrected for the number of cells.

    Raises:
        ValueError: As `evaluate_steering`; or two checkpoints of one axis have one name, or a
            target is of another width.

    Warns:
        UserWarning: Vectors come from another run than a target.

    Source:
        Qian et al. (2024), arXiv:2402.19465.

    Examples:
        >>> matrix = steering_matrix(
        ...     series, [series[-1]], concept, site=2, target_kl=0.1
        ... )  # doctest: +SKIP
        >>> matrix.log_odds_over_random.isel(target=0)  # doctest: +SKIP
    """
    from tqdm.auto import tqdm

    check_draws(draws)
    check_other_model(other_model)
    polarised(concept)
    givers, takers = _listed(sources, "sources"), _listed(targets, "targets")
    chosen = training_rows(concept, seed=seed) if rows is None else np.asarray(rows)
    reading = ReadingOptions(
        sites=site, position=position, bos=bos, batch_tokens=READ_TOKENS, store=store
    )
    loading = next(
        (each.loading for each in (*givers, *takers) if each.in_memory is None), Loading()
    )
    passes = len(takers) * (1 + len(givers) + draws)

    def extract(source: Checkpoint | HookedModel, checkpoint: Checkpoint) -> SteeringVector:
        return extract_steering_vector(
            source,
            concept,
            site=site,
            method=method,
            rows=chosen,
            seed=seed,
            position=position,
            bos=bos,
            checkpoint=checkpoint,
            store=reading.activation_store,
            batch_tokens=READ_TOKENS,
        )

    def vector_of(source: Checkpoint, *, again: bool) -> SteeringVector:
        if source.in_memory is not None or is_stored(source, concept, reading):
            return extract(source, source)
        with models.open_model(source, keep=again) as model:
            return extract(model, source)

    with (
        ModelCache(loading, loaded_at_once) as models,
        tqdm(total=len(givers) + passes, desc="steering", unit="pass", disable=not progress) as bar,
    ):
        taken: dict[int, SteeringVector] = {}
        wanted = [any(same_model(source, target) for target in takers) for source in givers]
        # First what is not wanted again, while nothing has been kept that it could displace.
        for number in sorted(range(len(givers)), key=wanted.__getitem__):
            taken[number] = vector_of(givers[number], again=wanted[number])
            bar.update()
        vectors = [taken[number] for number in range(len(givers))]
        trial = Trial(
            concept=concept.take(rows_to_try(vectors[0], concept)),
            manner=Manner(mode, positions, when),
            target_kl=float(target_kl),
            choices=choices,
            neutral=neutral,
            everyday=everyday,
            draws=draws,
            opposite=opposite,
            chat=chat,
            seed=seed,
            batch_tokens=batch_tokens,
        )
        found: dict[int, TargetResult] = {}
        for number in models.order_loaded_first(takers):
            with models.open_model(takers[number]) as model:
                others = [check_fits(each, model, other_model=other_model) for each in vectors]
                warning = next((each for each in others if each is not None), None)
                if warning is not None:
                    warnings.warn(warning, stacklevel=2)
                found[number] = try_on_model(model, vectors, trial, advance=bar.update)
        results = [found[number] for number in range(len(takers))]
    data = label_matrix(
        results, vectors, givers, takers, confidence=confidence, resamples=resamples, seed=seed
    )
    return data.assign_coords(
        site=", ".join(vectors[0].sites), layer=site_layer(vectors[0].sites[0])
    ).assign_attrs(
        concept=concept.name,
        method=vectors[0].method,
        mode=mode,
        positions=str(positions),
        target_kl=float(target_kl),
        draws=draws,
        random=told_of_draws(draws),
        confidence=confidence,
        resamples=resamples,
        seed=seed,
        statements=len(trial.concept),
    )


def _listed(checkpoints: Checkpoint | Iterable[Checkpoint], what: str) -> tuple[Checkpoint, ...]:
    found = (checkpoints,) if isinstance(checkpoints, Checkpoint) else tuple(checkpoints)
    strange = [each for each in found if not isinstance(each, Checkpoint)]
    if strange or not found:
        got = f"a {type(strange[0]).__name__}" if strange else "none"
        raise ValueError(
            f"`{what}` holds at least one Checkpoint, and nothing else, got {got}. A series is one "
            "such list, `[series[-1]]` another."
        )
    names = [each.name for each in found]
    twice = [name for name in names if names.count(name) > 1]
    if twice:
        raise ValueError(f"`{what}` holds two checkpoints named {twice[0]!r}. Take each once.")
    return found
