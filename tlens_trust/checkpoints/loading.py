"""Loads a folder of weights as a hooked model, and frees its memory again.

Weights are used as they were published. Nothing is folded or centred, since folding would change
the space of probes and vectors from checkpoint to checkpoint. Only safetensors, or pickles that are
restricted to tensors, are ever loaded.
"""

import contextlib
import copy
import gc
import importlib.util
import io
import logging
import pickle
import tempfile
import warnings
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import nn

from tlens_trust.checkpoints.hooked_model import HookedModel
from tlens_trust.checkpoints.loading_options import Loading
from tlens_trust.checkpoints.weights import check_folder, weight_names


def load_hooked_model(
    folder: Path,
    *,
    model: str,
    tokenizer: Any,
    loading: Loading,
    random_seed: int | None = None,
) -> HookedModel:
    """Load a folder of weights as a hooked model.

    Args:
        folder: The folder of `config.json` and the weights.
        model: The model's name on the hub, or its name in errors.
        tokenizer: The model's own tokenizer. The hooked model keeps it beside the one that
            TransformerLens makes from it; see `own_tokenizer`.
        loading: Device, number format and backend.
        random_seed: Seed of random weights, which are used in place of those in the folder; None
            for the folder's weights.

    Raises:
        ValueError: The backend cannot load this model, weights are missing, a pickle holds
            anything but tensors, or `device_map` is given for random weights.
    """
    if random_seed is None:
        check_folder(folder)
    elif loading.device_map is not None:
        raise ValueError(
            "Random weights are drawn on one device, and `device_map` spreads them over several, "
            f"got {loading.device_map!r}. Leave it out."
        )
    weights = WholeWeights if random_seed is None else partial(RandomWeights, seed=random_seed)
    config = load_config(folder, trust_remote_code=loading.trust_remote_code)
    backend = choose_backend(config, model=model, loading=loading)
    with quietly(), _copied(tokenizer) as tokenizer_copy:
        if backend == "hooked_transformer":
            from tlens_trust.checkpoints.conversion import load_hooked_transformer

            hooked = load_hooked_transformer(
                folder,
                config,
                model=model,
                tokenizer=tokenizer_copy,
                loading=loading,
                weights=weights,
            )
        else:
            hooked = _boot_bridge(
                folder,
                config,
                tokenizer=tokenizer_copy,
                loading=loading,
                weights=weights,
            )
    # A bridge names itself after the folder, which in the cache is a commit's hash.
    hooked.cfg.model_name = model
    hooked.own_tokenizer = tokenizer
    loaded: HookedModel = hooked
    return loaded


def choose_backend(config: Any, *, model: str, loading: Loading) -> str:
    """Choose the backend that loads a model.

    Args:
        config: The model's settings, from transformers.
        model: The model's name on the hub, or its name in errors.
        loading: The backend that the user chose, and the `device_map`, which only the bridge
            supports.

    Returns:
        `"hooked_transformer"` or `"bridge"`.

    Raises:
        ValueError: `loading` asks for the `HookedTransformer`, which cannot load this model.
    """
    if loading.backend == "bridge":
        return "bridge"
    if not has_hooked_transformer():
        obstacle = (
            "the installed TransformerLens has no HookedTransformer, which release 4.0 removed. "
            "TransformerLens 3.9 has it (pip install 'transformer-lens==3.9.0')"
        )
    elif loading.device_map is not None:
        obstacle = "a HookedTransformer cannot be spread over devices by a `device_map`"
    else:
        from tlens_trust.checkpoints.conversion import why_not_converted

        with quietly():
            obstacle = why_not_converted(config, model)
    if not obstacle:
        return "hooked_transformer"
    if loading.backend == "hooked_transformer":
        raise ValueError(
            f'{model!r} cannot be loaded as a HookedTransformer: {obstacle}. backend="bridge" '
            "gives the same residual stream."
        )
    return "bridge"


def has_hooked_transformer() -> bool:
    """Whether the installed TransformerLens has `HookedTransformer` (3.x), without importing it."""
    spec = importlib.util.find_spec("transformer_lens")
    if spec is None or spec.origin is None:
        return False
    return (Path(spec.origin).parent / "HookedTransformer.py").is_file()


def load_config(folder: Path, *, trust_remote_code: bool = False) -> Any:
    """Load a model's settings from `config.json`."""
    from transformers import AutoConfig

    with quietly():
        return AutoConfig.from_pretrained(folder, trust_remote_code=trust_remote_code)


def load_tokenizer(source: str | Path, *, trust_remote_code: bool = False) -> Any:
    """Load a tokenizer as it was published, with its own setting for special tokens."""
    from transformers import AutoTokenizer

    with quietly():
        return AutoTokenizer.from_pretrained(source, trust_remote_code=trust_remote_code)


class WholeWeights:
    """Wraps one of transformers' auto classes, and refuses a model with missing weights.

    transformers draws missing weights at random and at most warns. Results must come from the
    published weights alone.
    """

    def __init__(self, auto_class: Any) -> None:
        self._auto_class = auto_class

    def from_pretrained(self, folder: str, **settings: Any) -> nn.Module:
        """Load weights, restricted to tensors, with the settings that transformers takes.

        Raises:
            ValueError: Weights below the unembedding are missing, or a pickle holds more than
                tensors.
        """
        names = weight_names(path.name for path in Path(folder).iterdir())
        try:
            model, report = self._auto_class.from_pretrained(
                folder,
                **settings,
                # The files that the checkpoint's identity is computed from, and no others.
                use_safetensors=names[0].endswith(".safetensors"),
                weights_only=True,
                output_loading_info=True,
            )
        except pickle.UnpicklingError as error:
            raise ValueError(
                f"{', '.join(names)} in {folder!r} holds more than tensors, and unpickling it "
                "could run any code, so it was refused. If you trust it, convert it to safetensors."
            ) from error
        # The unembedding may be missing, as activations are collected below it.
        prefix = getattr(model, "base_model_prefix", "")
        body = f"{prefix}." if prefix else ""
        missing_names = sorted(key for key in report["missing_keys"] if key.startswith(body))
        if missing_names:
            raise ValueError(
                f"{len(missing_names)} weights are missing in {folder!r}, such as "
                f"{missing_names[0]!r}, and would be drawn at random. Its config.json describes a "
                f"{type(model).__name__}: check that it belongs to these weights."
            )
        loaded: nn.Module = model
        return loaded


class RandomWeights:
    """Wraps one of transformers' auto classes, and draws weights instead of loading them.

    Args:
        auto_class: The class to wrap.
        seed: Seed of the weights. They are drawn on the CPU, so they are the same on every device.
    """

    def __init__(self, auto_class: Any, *, seed: int) -> None:
        self._auto_class = auto_class
        self._seed = seed

    def from_pretrained(self, folder: str, *, config: Any = None, **settings: Any) -> nn.Module:
        """Make a model of the folder's architecture, with the settings that transformers takes."""
        trust_remote_code = bool(settings.get("trust_remote_code"))
        from_config_settings = {
            name: settings[name]
            for name in ("attn_implementation", "trust_remote_code")
            if settings.get(name) is not None
        }
        # A class of one architecture has only the private method.
        make = getattr(self._auto_class, "from_config", None) or self._auto_class._from_config
        if config is None:
            config = load_config(Path(folder), trust_remote_code=trust_remote_code)
        return draw_weights(
            lambda: make(
                config,
                # TransformerLens passes the older of transformers' two names.
                dtype=settings.get("dtype", settings.get("torch_dtype")),
                **from_config_settings,
            ),
            seed=self._seed,
        )


def draw_weights(make: Callable[[], nn.Module], *, seed: int) -> nn.Module:
    """Make a model with random weights, without changing the state of torch's random numbers."""
    # Weights are drawn on the CPU, so only the state of its generator has to be restored.
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return make().eval().requires_grad_(False)


def _boot_bridge(
    folder: Path,
    config: Any,
    *,
    tokenizer: Any,
    loading: Loading,
    weights: Callable[[Any], Any],
) -> Any:
    from transformer_lens.model_bridge import TransformerBridge
    from transformer_lens.model_bridge.sources.transformers import (
        determine_architecture_from_hf_config,
        get_hf_model_class_for_architecture,
    )

    architecture = determine_architecture_from_hf_config(config)
    return TransformerBridge.boot_transformers(
        str(folder),
        device=loading.target_device,
        dtype=loading.dtype,
        tokenizer=tokenizer,
        model_class=weights(get_hf_model_class_for_architecture(architecture)),
        device_map=loading.device_map,
        trust_remote_code=loading.trust_remote_code,
    )


@contextlib.contextmanager
def _copied(tokenizer: Any) -> Iterator[Any]:
    """Copy a tokenizer for TransformerLens, which changes it and loads it again from its folder.

    A tokenizer that has no folder, or only a name on the hub, is saved to a temporary folder for
    the length of the `with`.
    """
    # TransformerLens loads a tokenizer again by this name, and a name would be asked of the hub.
    source = tokenizer.init_kwargs.get("name_or_path")
    if source and Path(source).is_dir():
        yield copy.deepcopy(tokenizer)
        return
    with tempfile.TemporaryDirectory() as folder:
        tokenizer.save_pretrained(folder)
        yield load_tokenizer(folder)


def release(model: HookedModel) -> None:
    """Free a loaded model's memory, even if variables still refer to the model.

    A bridge and the model inside it refer to each other, and the variable of a `with` or a loop
    outlives its block. Without this function, the next checkpoint would be loaded while the last
    one is still in memory. The model cannot be used afterwards.
    """
    module: Any = model
    for tensor in (*module.parameters(), *module.buffers()):
        # Whoever still refers to the parameter then holds an empty tensor.
        tensor.data = torch.empty(0, dtype=tensor.dtype, device=tensor.device)
        tensor.grad = None
    # A bridge is a cycle of references, which only the collector frees.
    gc.collect()
    if torch.cuda.is_initialized():  # type: ignore[no-untyped-call]
        torch.cuda.empty_cache()


@contextlib.contextmanager
def quietly() -> Iterator[None]:
    """Suppress the progress bars, warnings and prints of loading."""
    from transformers.utils import logging as transformers_logging

    verbosity = transformers_logging.get_verbosity()
    bar = transformers_logging.is_progress_bar_enabled()
    disabled = logging.root.manager.disable
    # TransformerLens prints; transformers logs, warns and draws bars.
    with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
        warnings.simplefilter("ignore")
        transformers_logging.set_verbosity_error()  # type: ignore[no-untyped-call]
        transformers_logging.disable_progress_bar()  # type: ignore[no-untyped-call]
        logging.disable(logging.WARNING)
        try:
            yield
        finally:
            logging.disable(disabled)
            transformers_logging.set_verbosity(verbosity)
            # Turned on again only if the user had not turned it off.
            if bar:
                transformers_logging.enable_progress_bar()  # type: ignore[no-untyped-call]
