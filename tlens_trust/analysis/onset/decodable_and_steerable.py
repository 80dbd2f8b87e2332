"""Readable, writable, expressed: three things a model may come to, at three times.

A concept is *readable* at a checkpoint when a probe tells its two sides apart; *writable* when a
direction taken there steers the model there; *expressed* when the model by itself prefers the
trustworthy side. Neither follows from another: a probe may read what the model makes no use of.
"""

import os
import tempfile
from collections.abc import Sequence

import numpy as np
import xarray as xr
from jaxtyping import Bool, Int

from tlens_trust.activations.positions import Position
from tlens_trust.analysis.onset import find_onset
from tlens_trust.analysis.onset.kinds import (
    Located,
    check_quantities,
    label_kinds,
    locate_expressed,
    locate_moved,
    locate_writable,
    read_located,
)
from tlens_trust.checkpoints import Checkpoint, CheckpointSeries
from tlens_trust.concepts import Concept
from tlens_trust.steering.battery import Manner
from tlens_trust.steering.choices import ForcedChoice
from tlens_trust.steering.evaluation import polarised
from tlens_trust.steering.extraction import Store, extract_steering_vector
from tlens_trust.steering.methods import Method
from tlens_trust.steering.positions import Positions
from tlens_trust.steering.quantities import Quantity
from tlens_trust.steering.splits import rows_to_try, training_rows
from tlens_trust.steering.targets import TargetResult, Trial, try_on_target
from tlens_trust.tracing.probing import probe_checkpoints
from tlens_trust.tracing.sweep_arguments import checked_checkpoints


def compare_onsets(
    series: CheckpointSeries | Sequence[Checkpoint],
    concept: Concept,
    *,
    site: str | int,
    effect: str = "log_odds",
    expression: str = "mc1",
    target_kl: float = 0.1,
    run_folder: str | os.PathLike[str] | None = None,
    method: str | Method = "mean_difference",
    rows: Sequence[int] | Int[np.ndarray, " row"] | Bool[np.ndarray, " example"] | None = None,
    position: Position = "last",
    bos: bool | None = None,
    mode: str = "add",
    positions: Positions = "all",
    choices: Sequence[ForcedChoice] = (),
    neutral: Sequence[str] | None = None,
    draws: int = 100,
    chat: bool | None = None,
    floor: bool = True,
    margin: float = 0.15,
    margin_nats: float = 0.5,
    confidence: float = 0.95,
    resamples: int = 2000,
    seed: int = 0,
    store: Store = "default",
    progress: bool = True,
) -> xr.Dataset:
    """Since when a concept is readable, writable and expressed, on one axis.

    *Readable*: `find_onset` at the site, of a run folder or of a sweep made for it. *Writable*: the
    first checkpoint at which a vector taken there, of one half of the groups, moves the `effect` of
    the other half to the trustworthy side, more than random directions do at the same dose: by
    bounds over groups of the change minus the mean of theirs, and by a p-value, the share of random
    directions that change as much in either sense. *Expressed*: the first at which, of fresh
    groups, the unsteered model's own likelihoods favour the trustworthy side: `expression` lies
    above one half where it is a fraction, else above 0.

    Each is a set of neighbouring checkpoints that ends with the onset, as `find_onset` has it: many
    looks are corrected for, by bounds that hold for all checkpoints at once and p-values corrected
    over them, or by every checkpoint from there to the last. It begins with the last checkpoint
    up to which there is shown to be no more than a margin.

    Args:
        series: Checkpoints of one run.
        concept: What to look for.
        site: Where it is read and steered.
        effect: Which quantity of `evaluate_steering` a vector has to move: `"log_odds"`,
            `"likelihood_gap"`, or of one of the choices, as `"follow_up_log_odds"`.
        expression: Which quantity tells of the unsteered model: `"mc1"`, `"likelihood_gap"`, or of
            one of the choices, as `"follow_up_accuracy"`.
        target_kl: The dose, in nats a token.
        run_folder: The `out=` of a sweep of this series over this concept, with the site among its
            own. None: the series is swept at the site for this.
        method: How vectors are made, as `steering_matrix` takes it, and so are the following.
        rows: Statements to make vectors of.
        position: Which token of a statement is read.
        bos: Whether a beginning-of-sequence token stands before it.
        mode: What steering does.
        positions: Which tokens are steered.
        choices: Forced choices.
        neutral: Texts for the dose.
        draws: How many random directions at each checkpoint. A p-value cannot be smaller than
            `1 / (1 + draws)`.
        chat: Whether choices are turns of a chat.
        floor: Whether a concept has to be read above its text floor too.
        margin: What is to be excluded before a set, where quantities are fractions.
        margin_nats: The same, where they are nats.
        confidence: Of the sets.
        resamples: How many bootstrap resamples of groups.
        seed: Deals groups, draws directions and resamples.
        store: Where activations are kept.
        progress: Whether to show a bar.

    Returns:
        Along `kind` (`"readable"`, `"writable"`, `"expressed"`): `onset_checkpoint` ("" for never),
        `onset_step` and `onset_tokens` with the ends of their sets (`…_ci`), `lasting_checkpoint`,
        `lasting_step` and `lasting_tokens`; along `checkpoint` too `onset_set`, and `value` with
        `value_ci`, what was looked at, in the `units` of each kind. `writable_p` along
        `checkpoint`.

    Raises:
        ValueError: There is no such quantity, the random directions are too few for any onset to be
            claimed at this confidence, or whatever reading and steering find wrong.

    Examples:
        >>> found = compare_onsets(series, concept, site=2)  # doctest: +SKIP
        >>> found.onset_step.sel(kind="writable")  # doctest: +SKIP
    """
    from tqdm.auto import tqdm

    checkpoints = checked_checkpoints(series)
    polarised(concept)
    level = (1 - confidence) / 2
    _check_draws(draws, level)
    chosen = training_rows(concept, seed=seed) if rows is None else np.asarray(rows)
    read = _readable(
        checkpoints,
        concept,
        run_folder,
        site=site,
        position=position,
        bos=bos,
        store=store,
        floor=floor,
        confidence=confidence,
        margin=margin,
        seed=seed,
    )
    results: list[TargetResult] = []
    total = len(checkpoints) * (2 + draws)
    with tqdm(total=total, desc="steering", unit="pass", disable=not progress) as bar:
        for checkpoint in checkpoints:
            vector = extract_steering_vector(
                checkpoint,
                concept,
                site=site,
                method=method,
                rows=chosen,
                seed=seed,
                position=position,
                bos=bos,
                store=store,
            )
            trial = Trial(
                concept=concept.take(rows_to_try(vector, concept)),
                manner=Manner(mode, positions),
                target_kl=target_kl,
                choices=choices,
                neutral=neutral,
                everyday=False,
                draws=draws,
                chat=chat,
                seed=seed,
            )
            results.append(try_on_target(checkpoint, [vector], trial, advance=bar.update))
            check_quantities(results[0], effect, expression)
    margins = [
        margin if "fraction" in results[0].unsteered[name].units else margin_nats
        for name in (effect, expression)
    ]
    written, p = locate_writable(
        results, effect, margin=margins[0], level=level, resamples=resamples, seed=seed
    )
    expressed = locate_expressed(
        results, expression, margin=margins[1], level=level, resamples=resamples, seed=seed
    )
    steps, tokens = (
        np.array([np.nan if count is None else float(count) for count in counts])
        for counts in zip(*((each.step, each.tokens) for each in checkpoints), strict=True)
    )
    located = {"readable": read, "writable": written, "expressed": expressed}
    names = [checkpoint.name for checkpoint in checkpoints]
    return label_kinds(located, names, steps, tokens, p).assign_attrs(
        concept=concept.name,
        effect=effect,
        expression=expression,
        target_kl=target_kl,
        draws=draws,
        margin=margin,
        margin_nats=margin_nats,
        confidence=confidence,
        resamples=resamples,
        seed=seed,
    )


def find_steering_onset(
    matrix: xr.Dataset,
    effect: str = "log_odds",
    *,
    target: str | int = -1,
    margin: float = 0.5,
    confidence: float = 0.95,
    resamples: int = 2000,
    seed: int = 0,
) -> xr.Dataset:
    """Since which source a vector works on one target: how early its direction is already there.

    The first source whose vector moves the target's `effect` to the trustworthy side, more than
    random directions do at the same dose, as `compare_onsets` has it of a checkpoint's own vector;
    with the same correction for many looks, and the same kind of set.

    Args:
        matrix: What `steering_matrix` gives, with at least 79 draws for the usual confidence.
        effect: A quantity kept by example: `"log_odds"`, `"likelihood_gap"`, or of a choice.
        target: Name or number of the target.
        margin: What counts as hardly any change, in the effect's own units.
        confidence: Of the set.
        resamples: How many bootstrap resamples.
        seed: Draws them.

    Returns:
        As `compare_onsets`, of the one kind `"writable"`, along the sources as `checkpoint`.

    Raises:
        ValueError: There is no such effect or target, or the random directions are too few.

    Examples:
        >>> found = find_steering_onset(matrix, "follow_up_log_odds")  # doctest: +SKIP
        >>> found.onset_step_ci  # doctest: +SKIP
    """
    kept = [str(name).removesuffix("_of_example") for name in matrix]
    kept = [name for name in kept if f"{name}_p" in matrix and f"{name}_group" in matrix]
    if effect not in kept:
        raise ValueError(
            f"{effect!r} is not kept by example here. Choose one of {', '.join(kept) or 'none'}."
        )
    names = [str(name) for name in matrix["target"].values]
    if isinstance(target, int) and -len(names) <= target < len(names):
        target = names[target]
    if target not in names:
        raise ValueError(f"There is no target {target!r} here. Choose one of {', '.join(names)}.")
    level = (1 - confidence) / 2
    _check_draws(matrix.sizes["draw"], level)
    here = matrix.sel(target=target)
    axis = f"{effect}_example"
    changes = here[f"{effect}_of_example"] - here[f"{effect}_random_of_example"].mean("draw")
    told = str(here[f"{effect}_change"].attrs.get("long_name", effect))
    quantity = Quantity(
        effect,
        here[f"{effect}_unsteered_of_example"].values,
        tuple(map(str, matrix[f"{effect}_group"].values)),
        str(here[f"{effect}_change"].attrs.get("units", "")),
        told,
    )
    p = here[f"{effect}_p"].values
    located = locate_moved(
        changes.transpose("source", axis).values,
        p,
        quantity,
        told=f"{told}, less what random directions change",
        margin=margin,
        level=level,
        resamples=resamples,
        seed=seed,
    )
    return label_kinds(
        {"writable": located},
        [str(name) for name in matrix["source"].values],
        matrix["source_step"].values.astype(float),
        matrix["source_tokens"].values.astype(float),
        p,
    ).assign_attrs(
        concept=matrix.attrs.get("concept", ""),
        effect=effect,
        target=str(target),
        margin=margin,
        confidence=confidence,
        resamples=resamples,
        seed=seed,
    )


def _check_draws(draws: int, level: float) -> None:
    """Refuse p-values that could not come down far enough whatever is steered."""
    needed = int(np.ceil(2 / level - 1e-9)) - 1
    if draws < needed:
        raise ValueError(
            f"With {draws} random directions no p-value lies below {1 / (1 + draws):.3g}, and at "
            f"this confidence it takes {level / 2:.3g}. Take at least {needed} `draws`, or less "
            "`confidence`."
        )


def _readable(
    checkpoints: Sequence[Checkpoint],
    concept: Concept,
    run_folder: str | os.PathLike[str] | None,
    *,
    site: str | int,
    position: Position,
    bos: bool | None,
    store: Store,
    floor: bool,
    confidence: float,
    margin: float,
    seed: int,
) -> Located:
    names = [checkpoint.name for checkpoint in checkpoints]
    with tempfile.TemporaryDirectory() as folder:
        run = run_folder
        if run is None:
            run = folder
            probe_checkpoints(
                checkpoints,
                concept,
                sites=[site],
                position=position,
                bos=bos,
                out=folder,
                store=store,
                seed=seed,
                untrained=None,
                progress=False,
            )
        found = find_onset(
            run,
            concepts=concept.name,
            checkpoints=names,
            margin=margin,
            floor=floor,
            confidence=confidence,
            seed=seed,
        ).isel(concept=0)
    return read_located(found, site, names)
