"""What a model says to neutral text, and how far steering moves that."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from tlens_trust.activations.batches import pad_batch, plan_batches
from tlens_trust.activations.forward_pass import evaluation_mode, input_device, without_idle_norms
from tlens_trust.activations.tokens import tokenise_statements
from tlens_trust.checkpoints.hooked_model import HookedModel, own_bos, own_tokenizer
from tlens_trust.checkpoints.plain_model import PlainModel, is_plain_model
from tlens_trust.measures.probe import LinearProbe
from tlens_trust.steering.conditions import ProbeFires
from tlens_trust.steering.hooks import steer
from tlens_trust.steering.logits import read_logits
from tlens_trust.steering.neutral_text import neutral_text
from tlens_trust.steering.positions import Positions
from tlens_trust.steering.vector import SteeringVector


@dataclass(frozen=True, eq=False)
class NeutralEffect:
    """How far steering moved next-token distributions, text by text.

    Attributes:
        kl: Sum over a text's predictions of the divergence `KL(unsteered ‖ steered)`, in nats.
        predictions: How many predictions of a text that is summed over.
        loss: Sum of the surprise at the text's own tokens, steered, in nats.
        unsteered_loss: The same, unsteered.
        tokens: How many tokens of a text those are.
    """

    kl: Float[Tensor, " text"]
    predictions: Int[Tensor, " text"]
    loss: Float[Tensor, " text"]
    unsteered_loss: Float[Tensor, " text"]
    tokens: Int[Tensor, " text"]

    @property
    def mean_kl(self) -> float:
        """Mean divergence over all predictions, in nats a token."""
        return float(self.kl.sum() / self.predictions.sum())

    @property
    def perplexity(self) -> float:
        """Exponential of the mean surprise at the texts' tokens, steered."""
        return float((self.loss.sum() / self.tokens.sum()).exp())

    @property
    def unsteered_perplexity(self) -> float:
        """The same, unsteered."""
        return float((self.unsteered_loss.sum() / self.tokens.sum()).exp())


@dataclass(frozen=True, eq=False)
class _Batch:
    rows: tuple[int, ...]
    tokens: Int[Tensor, "batch pos"]
    kept: Tensor
    prompts: Int[Tensor, " batch"]
    # Of every prediction from the last token of the prompt on, in order.
    log_probabilities: Float[Tensor, "prediction d_vocab"]
    predicts: Tensor


class NeutralReading:
    """Next-token distributions of one model on neutral text, unsteered, to hold steering against.

    The first half of each text stands for a prompt, the rest for what the model goes on to write,
    under every position policy; what is compared is each prediction from the last token of the
    prompt on. So policies too are compared at an equal dose, whether they act on the prompt, on
    what comes after it, or on both.

    It is read once for a model and serves any number of vectors.

    Args:
        model: A hooked model, or a plain Hugging Face model.
        text: Texts of at least two tokens; None for the embedded ones.
        tokenizer: A tokenizer; None for the model's own.
        bos: Whether a beginning-of-sequence token stands before each text; None follows the
            tokenizer's own setting.
        batch_tokens: Tokens read at once.

    Attributes:
        model: The hooked model.
        n_texts: How many texts were read.

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
        given: Any = model
        self.model: Any = PlainModel(given, tokenizer) if is_plain_model(model) else given
        own = own_tokenizer(self.model)
        known = own if tokenizer is None else tokenizer
        if known is None:
            raise ValueError(
                "The model has no tokenizer. Pass the one it was trained with as `tokenizer=`."
            )
        if isinstance(text, str):
            raise ValueError("`text` is a sequence of texts, got one. Put it in a list.")
        texts = neutral_text(known) if text is None else tuple(text)
        if not texts:
            raise ValueError("`text` is empty. Pass at least one, or None for the embedded ones.")
        cfg = self.model.cfg
        if bos is None and tokenizer is None:
            bos = own_bos(self.model)
        ids = [
            each.ids
            for each in tokenise_statements(
                known,
                texts,
                bos=bos,
                n_ctx=getattr(cfg, "n_ctx", None),
                d_vocab=getattr(cfg, "d_vocab", None),
            )
        ]
        short = [row for row, tokens in enumerate(ids) if len(tokens) < 2]
        if short:
            raise ValueError(
                f"Text {short[0]}, {texts[short[0]]!r}, is one token, and half of it is to be "
                "predicted. Pass longer texts."
            )
        self.n_texts = len(ids)
        self._batches = [
            self._read_batch(ids, rows) for rows in plan_batches(list(map(len, ids)), batch_tokens)
        ]

    def steered(
        self,
        vector: SteeringVector,
        *,
        strength: float | int,
        mode: str = "add",
        positions: Positions = "all",
        when: ProbeFires | LinearProbe | None = None,
        units: str = "vector",
        other_model: str = "warn",
    ) -> NeutralEffect:
        """Read the same text under steering.

        Args:
            vector: What to steer by.
            strength: This and what follows: as for `steer`.
            mode: What steering does.
            positions: Which tokens are steered; the first half of a text is its prompt.
            when: Where to steer.
            units: What strength counts in.
            other_model: What to do where the vector comes from another run.

        Raises:
            ValueError: As `steer`; or the steered model gives no finite numbers.
        """
        sums = torch.zeros(3, self.n_texts, dtype=torch.float64)
        counts = torch.zeros(2, self.n_texts, dtype=torch.int64)
        with steer(
            self.model,
            vector,
            strength=strength,
            mode=mode,
            positions=positions,
            when=when,
            units=units,
            other_model=other_model,
        ) as steering:
            for batch in self._batches:
                with steering.prompt(batch.prompts):
                    steered = self._predictions(batch.tokens, batch.kept, batch.predicts)
                unsteered = batch.log_probabilities
                kl = (unsteered.exp() * (unsteered - steered)).sum(dim=1).double().clamp(min=0)
                if not bool(torch.isfinite(kl).all()):
                    raise ValueError(
                        f"The model steered with strength {strength} gives numbers that are not "
                        "finite. Steer less, or load it in float32."
                    )
                row, column = batch.predicts.nonzero(as_tuple=True)
                own = torch.tensor(batch.rows, device=row.device)[row]
                # The last token of a text is followed by none whose surprise could be counted.
                last = column + 1 == batch.kept.sum(dim=1)[row]
                after = batch.tokens[row, (column + 1).clamp(max=batch.tokens.shape[1] - 1)]
                losses = [
                    -found.gather(1, after[:, None]).squeeze(1).double().masked_fill(last, 0.0)
                    for found in (steered, unsteered)
                ]
                for k, numbers in enumerate((kl, *losses)):
                    sums[k].index_add_(0, own.cpu(), numbers.cpu())
                for k, marks in enumerate((torch.ones_like(last), ~last)):
                    counts[k].index_add_(0, own.cpu(), marks.long().cpu())
        return NeutralEffect(sums[0], counts[0], sums[1], sums[2], counts[1])

    def _read_batch(self, ids: Sequence[tuple[int, ...]], rows: list[int]) -> _Batch:
        tokens, kept = pad_batch([ids[row] for row in rows], padding_side="right")
        device = input_device(self.model)
        tokens, kept = tokens.to(device), kept.to(device)
        prompts = (kept.sum(dim=1) + 1) // 2
        column = torch.arange(tokens.shape[1], device=device)
        predicts = kept & (column >= prompts[:, None] - 1)
        return _Batch(
            tuple(rows), tokens, kept, prompts, self._predictions(tokens, kept, predicts), predicts
        )

    def _predictions(
        self, tokens: Tensor, kept: Tensor, predicts: Tensor
    ) -> Float[Tensor, "prediction d_vocab"]:
        with evaluation_mode(self.model), without_idle_norms(self.model):
            logits = read_logits(self.model, tokens, kept)
        return torch.log_softmax(logits[predicts.to(logits.device)].float(), dim=-1)
