"""What a model predicts on neutral text, and how far steering moves its predictions."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from tlens_trust.activations.batches import pad_batch, plan_batches
from tlens_trust.activations.forward_pass import evaluation_mode, input_device, without_idle_norms
from tlens_trust.activations.tokens import tokenise_statements
from tlens_trust.checkpoints.hooked_model import HookedModel, own_bos, own_tokenizer
from tlens_trust.checkpoints.plain_model import PlainModel, is_plain_model
from tlens_trust.steering.hooks import intervene
from tlens_trust.steering.intervention import Intervention
from tlens_trust.steering.likelihood import compute_logits
from tlens_trust.steering.neutral_text import neutral_text
from tlens_trust.steering.quantities import Quantity
from tlens_trust.steering.vector import SteeringVector


@dataclass(frozen=True, eq=False)
class NeutralEffect:
    """How far steering moved next-token distributions, text by text.

    Attributes:
        kl: Sum of `KL(unsteered ‖ steered)` over a text's predictions, in nats.
        predictions: How many predictions of each text that sums.
        loss: Sum of the surprise at the text's own tokens under steering, in nats.
        unsteered_loss: The same without steering.
        tokens: How many tokens of each text that sums.
    """

    kl: Float[Tensor, " text"]
    predictions: Int[Tensor, " text"]
    loss: Float[Tensor, " text"]
    unsteered_loss: Float[Tensor, " text"]
    tokens: Int[Tensor, " text"]

    @property
    def mean_kl(self) -> float:
        """Mean divergence over all predictions, in nats per token."""
        return float(self.kl.sum() / self.predictions.sum())

    @property
    def perplexity(self) -> float:
        """Exponential of the mean surprise at the texts' tokens, under steering."""
        return float((self.loss.sum() / self.tokens.sum()).exp())

    @property
    def unsteered_perplexity(self) -> float:
        """The same without steering."""
        return float((self.unsteered_loss.sum() / self.tokens.sum()).exp())

    def quantities(self) -> list[Quantity]:
        """`neutral_loss` and `kl`, text by text.

        `neutral_loss`: mean surprise at the texts' own tokens, in nats per token. Its exponential
        is the perplexity. `kl`: mean over next-token predictions of `Σ_w p(w) log (p(w) / q(w))`,
        with `p` the model's own distribution and `q` the steered one.
        """
        groups = tuple(str(number) for number in range(len(self.kl)))

        def quantity(name: str, sums: object, counts: object, long_name: str) -> Quantity:
            weights = np.asarray(counts, dtype=float)
            # A text of two tokens has one prediction, and no token whose surprise could be counted.
            values = np.asarray(sums, dtype=float) / np.maximum(weights, 1)
            return Quantity(
                name, values, groups, "nats per token", long_name, effect=False, weights=weights
            )

        return [
            quantity("neutral_loss", self.loss, self.tokens, "loss on neutral text"),
            quantity(
                "kl",
                self.kl,
                self.predictions,
                "KL divergence from the unsteered model on neutral text",
            ),
        ]


@dataclass(frozen=True, eq=False)
class _Batch:
    rows: tuple[int, ...]
    tokens: Int[Tensor, "batch pos"]
    is_token: Tensor
    prompts: Int[Tensor, " batch"]
    # Of every prediction from the last token of the prompt on, in order.
    log_probabilities: Float[Tensor, "prediction d_vocab"]
    predicts: Tensor


class NeutralPredictions:
    """Next-token distributions of an unsteered model on neutral text.

    Steering is compared with them. The first half of each text is its prompt, and the rest stands
    for generated text. Predictions are compared from the last token of the prompt on, whatever
    positions are steered. So interventions on the prompt, on what follows it, or on both can be
    compared at an equal dose.

    The unsteered model is run once, and any number of vectors is compared with it.

    Args:
        model: A hooked model, or a plain Hugging Face model.
        text: Texts of at least two tokens. None for the embedded ones.
        tokenizer: A tokenizer. None for the model's own.
        bos: Whether a beginning-of-sequence token stands before each text. None follows the
            tokenizer's own setting.
        batch_tokens: Tokens in one batch.

    Attributes:
        model: The hooked model.
        n_texts: The number of texts.

    Raises:
        ValueError: There is no text, or one is too short or too long.
    """

    def __init__(
        self,
        model: HookedModel | nn.Module,
        text: Sequence[str] | None = None,
        *,
        tokenizer: Any = None,
        bos: bool | None = None,
        batch_tokens: int = 2048,
    ) -> None:
        plain_or_hooked: Any = model
        self.model: Any = (
            PlainModel(plain_or_hooked, tokenizer) if is_plain_model(model) else plain_or_hooked
        )
        text_tokenizer = own_tokenizer(self.model) if tokenizer is None else tokenizer
        if text_tokenizer is None:
            raise ValueError(
                "The model has no tokenizer. Pass the one it was trained with as `tokenizer=`."
            )
        if isinstance(text, str):
            raise ValueError("`text` is a sequence of texts, got one. Put it in a list.")
        texts = neutral_text(text_tokenizer) if text is None else tuple(text)
        if not texts:
            raise ValueError("`text` is empty. Pass at least one, or None for the embedded ones.")
        cfg = self.model.cfg
        if bos is None and tokenizer is None:
            bos = own_bos(self.model)
        ids = [
            statement.ids
            for statement in tokenise_statements(
                text_tokenizer,
                texts,
                bos=bos,
                n_ctx=getattr(cfg, "n_ctx", None),
                d_vocab=getattr(cfg, "d_vocab", None),
            )
        ]
        too_short = [row for row, tokens in enumerate(ids) if len(tokens) < 2]
        if too_short:
            row = too_short[0]
            raise ValueError(
                f"Text {row}, {texts[row]!r}, is one token, and half of each text is predicted. "
                "Pass longer texts."
            )
        self.n_texts = len(ids)
        self._batches = [
            self._make_batch(ids, rows) for rows in plan_batches(list(map(len, ids)), batch_tokens)
        ]

    def effect_of(
        self, vector: SteeringVector, intervention: Intervention, *, other_model: str = "warn"
    ) -> NeutralEffect:
        """Run the steered model on the same text, and compare its predictions.

        Args:
            vector: The steering vector.
            intervention: How it is used, with a strength.
            other_model: What to do if the vector comes from another run, as for `steer`.

        Raises:
            ValueError: As `steer`, or the steered model's predictions are not finite.
        """
        sums = torch.zeros(3, self.n_texts, dtype=torch.float64)
        counts = torch.zeros(2, self.n_texts, dtype=torch.int64)
        with intervene(self.model, vector, intervention, other_model=other_model) as steering:
            for batch in self._batches:
                with steering.prompt(batch.prompts):
                    steered = self._predictions(batch.tokens, batch.is_token, batch.predicts)
                unsteered = batch.log_probabilities
                # Rounding can make a divergence close to 0 slightly negative.
                kl = (unsteered.exp() * (unsteered - steered)).sum(dim=1).double().clamp(min=0)
                if not bool(torch.isfinite(kl).all()):
                    raise ValueError(
                        f"The predictions of the model steered with strength "
                        f"{intervention.strength} are not finite. Steer less, or load the model "
                        "in float32."
                    )
                row, column = batch.predicts.nonzero(as_tuple=True)
                text = torch.tensor(batch.rows, device=row.device)[row]
                # No token follows the last one of a text, so its surprise cannot be counted.
                is_last = column + 1 == batch.is_token.sum(dim=1)[row]
                # Past the last column any token will do, since its surprise is left out below.
                next_token = batch.tokens[row, (column + 1).clamp(max=batch.tokens.shape[1] - 1)]
                losses = [
                    -log_p.gather(1, next_token[:, None])
                    .squeeze(1)
                    .double()
                    .masked_fill(is_last, 0.0)
                    for log_p in (steered, unsteered)
                ]
                for k, numbers in enumerate((kl, *losses)):
                    # On the CPU, where the order of the sums is fixed, and the results do not vary.
                    sums[k].index_add_(0, text.cpu(), numbers.cpu())
                for k, marks in enumerate((torch.ones_like(is_last), ~is_last)):
                    counts[k].index_add_(0, text.cpu(), marks.long().cpu())
        return NeutralEffect(sums[0], counts[0], sums[1], sums[2], counts[1])

    def _make_batch(self, ids: Sequence[tuple[int, ...]], rows: list[int]) -> _Batch:
        tokens, is_token = pad_batch([ids[row] for row in rows], padding_side="right")
        device = input_device(self.model)
        tokens, is_token = tokens.to(device), is_token.to(device)
        prompts = (is_token.sum(dim=1) + 1) // 2
        column = torch.arange(tokens.shape[1], device=device)
        predicts = is_token & (column >= prompts[:, None] - 1)
        return _Batch(
            tuple(rows),
            tokens,
            is_token,
            prompts,
            self._predictions(tokens, is_token, predicts),
            predicts,
        )

    def _predictions(
        self, tokens: Tensor, is_token: Tensor, predicts: Tensor
    ) -> Float[Tensor, "prediction d_vocab"]:
        with evaluation_mode(self.model), without_idle_norms(self.model):
            logits = compute_logits(self.model, tokens, is_token)
        return torch.log_softmax(logits[predicts.to(logits.device)].float(), dim=-1)
