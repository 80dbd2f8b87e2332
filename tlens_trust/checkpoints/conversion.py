"""Converts weights to TransformerLens 3.9's `HookedTransformer`.

TransformerLens 3.9 knows models by their name, but checkpoints are in folders and under revisions.
It guesses the settings of a folder from the folder's name, misses the rotary base of GPT-NeoX, and
does not accept OLMo in a folder. So for four architectures this module takes the settings from
`config.json`. Only the weights are converted by TransformerLens.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from tlens_trust.checkpoints.loading_options import Loading

# The names that transformers and TransformerLens 3.9 both use for the same function.
_ACTIVATIONS = ("gelu", "gelu_new", "gelu_fast", "gelu_pytorch_tanh", "relu", "silu")


def why_not_converted(config: Any, model: str) -> str:
    """Say why a model cannot be converted to a `HookedTransformer`.

    Args:
        config: The model's settings, from transformers.
        model: Its name on the hub, which TransformerLens may know.

    Returns:
        The reason, as the end of a sentence. Empty if the model can be converted.
    """
    architecture = _architecture(config)
    if getattr(config, "quantization_config", None) is not None:
        return "its weights are quantised"
    # The other way in: TransformerLens converts every model that it knows by name.
    if architecture not in _SETTINGS:
        if _known_name(model) is not None:
            return ""
        return (
            f"TransformerLens 3.9 neither knows its name nor is {architecture} among the "
            f"architectures converted from a folder ({', '.join(sorted(_SETTINGS))})"
        )
    if _activation(config) not in _ACTIVATIONS:
        return f"HookedTransformer has no activation {_activation(config)!r}"
    return _OBSTACLES[architecture](config)


def load_hooked_transformer(
    folder: Path,
    config: Any,
    *,
    model: str,
    tokenizer: Any,
    loading: Loading,
    weights: Callable[[Any], Any],
) -> Any:
    """Load a folder of weights as a `HookedTransformer`, unprocessed.

    Args:
        folder: Weights and `config.json`.
        config: The model's settings, from transformers.
        model: Its name on the hub, or what to call it in errors.
        tokenizer: The tokenizer that the `HookedTransformer` keeps.
        loading: Device and number format.
        weights: `WholeWeights` or `RandomWeights`, which wrap one of transformers' auto classes.

    Raises:
        ValueError: A weight of the model is missing after the conversion.
    """
    from transformers import AutoModelForCausalLM

    hf_model: Any = weights(AutoModelForCausalLM).from_pretrained(
        str(folder), dtype=loading.dtype, trust_remote_code=loading.trust_remote_code
    )
    hf_model.requires_grad_(False)
    if _architecture(config) not in _SETTINGS:
        from transformer_lens import HookedTransformer

        # TransformerLens reads the settings again. Without the commit it would take those of the
        # main branch, which may have moved.
        revision = {"revision": folder.name} if folder.parent.name == "snapshots" else {}
        return HookedTransformer.from_pretrained_no_processing(
            _known_name(model),
            hf_model=hf_model,
            tokenizer=tokenizer,
            device=loading.target_device,
            dtype=loading.dtype,
            **revision,
        )
    return _convert(hf_model, config, model=model, tokenizer=tokenizer, loading=loading)


def _convert(
    hf_model: Any,
    config: Any,
    *,
    model: str,
    tokenizer: Any,
    loading: Loading,
) -> Any:
    from transformer_lens import HookedTransformer
    from transformer_lens.config import HookedTransformerConfig
    from transformer_lens.pretrained import weight_conversions

    architecture = _architecture(config)
    settings, converter = _SETTINGS[architecture]
    cfg = HookedTransformerConfig(
        model_name=model,
        original_architecture=architecture,
        d_vocab=config.vocab_size,
        act_fn=_activation(config),
        init_weights=False,
        # A conversion makes zero biases on the device of the settings, and the weights are on the
        # CPU until it is done.
        device="cpu",
        dtype=loading.dtype,
        tie_word_embeddings=bool(config.tie_word_embeddings),
        **settings(config),
    )
    hooked = HookedTransformer(cfg, tokenizer, move_to_device=False)
    hooked.to(loading.dtype)
    weights = getattr(weight_conversions, converter)(hf_model, cfg)
    missing_names = [
        name
        for name, weight in hooked.named_parameters()
        # A parameter that the conversion leaves out keeps its initial value, which is right only
        # for a bias of zeros.
        if name not in weights
        and not (name.rpartition(".")[2].startswith("b") and not weight.any())
    ]
    if missing_names:
        raise ValueError(
            f"TransformerLens' conversion of {model!r} leaves out {len(missing_names)} weights, "
            f'such as {min(missing_names)!r}. backend="bridge" gives the same residual stream.'
        )
    hooked.load_and_process_state_dict(
        weights,
        # All off, so that the weights stay as published: see the module `loading`.
        fold_ln=False,
        center_writing_weights=False,
        center_unembed=False,
        fold_value_biases=False,
        refactor_factored_attn_matrices=False,
    )
    hooked.cfg.device = str(loading.target_device)
    hooked.to(loading.target_device, print_details=False)
    return hooked.eval()


def _gpt2(config: Any) -> dict[str, Any]:
    return {
        "d_model": config.n_embd,
        "n_heads": config.n_head,
        "d_head": config.n_embd // config.n_head,
        # In transformers, None stands for four times the width.
        "d_mlp": config.n_inner or 4 * config.n_embd,
        "n_layers": config.n_layer,
        "n_ctx": config.n_positions,
        "eps": config.layer_norm_epsilon,
        "use_attn_scale": config.scale_attn_weights,
        "scale_attn_by_inverse_layer_idx": config.scale_attn_by_inverse_layer_idx,
        "normalization_type": "LN",
        "positional_embedding_type": "standard",
    }


def _neox(config: Any) -> dict[str, Any]:
    width = config.hidden_size // config.num_attention_heads
    return {
        **_shape(config, width),
        "eps": config.layer_norm_eps,
        "normalization_type": "LN",
        # Some GPT-NeoX models add attention before the MLP reads the stream.
        "parallel_attn_mlp": config.use_parallel_residual,
        # GPT-NeoX models are trained without a BOS token. TransformerLens sets the same.
        "default_prepend_bos": False,
        # Rounded down, as in transformers. TransformerLens rounds to the nearest number.
        "rotary_dim": int(width * _rope(config).get("partial_rotary_factor", 1.0)),
        "rotary_base": _rope(config)["rope_theta"],
    }


def _llama(config: Any) -> dict[str, Any]:
    width = config.head_dim or config.hidden_size // config.num_attention_heads
    # Any number makes TransformerLens use its class for grouped-query attention, which has other
    # parameters. None stands for one pair of keys and values per head.
    grouped = config.num_key_value_heads not in (None, config.num_attention_heads)
    rope = _rope(config)
    scaled = {}
    if rope.get("rope_type") == "llama3":
        scaled = {
            # TransformerLens' names for what transformers calls llama3 scaling.
            "use_NTK_by_parts_rope": True,
            "NTK_original_ctx_len": rope["original_max_position_embeddings"],
            "NTK_by_parts_low_freq_factor": rope["low_freq_factor"],
            "NTK_by_parts_high_freq_factor": rope["high_freq_factor"],
            "NTK_by_parts_factor": rope["factor"],
        }
    return {
        **_shape(config, width),
        "n_key_value_heads": config.num_key_value_heads if grouped else None,
        "eps": config.rms_norm_eps,
        "normalization_type": "RMS",
        "final_rms": True,
        "gated_mlp": True,
        "rotary_dim": width,
        "rotary_base": rope["rope_theta"],
        **scaled,
    }


def _olmo(config: Any) -> dict[str, Any]:
    width = config.hidden_size // config.num_attention_heads
    return {
        **_shape(config, width),
        # OLMo's layer norm has no parameters, and its code fixes this number.
        "eps": 1e-5,
        "normalization_type": "LN",
        "gated_mlp": True,
        "clip_qkv": config.clip_qkv,
        "rotary_dim": width,
        "rotary_base": _rope(config)["rope_theta"],
    }


def _shape(config: Any, width: int) -> dict[str, Any]:
    return {
        "d_model": config.hidden_size,
        "n_heads": config.num_attention_heads,
        "d_head": width,
        "d_mlp": config.intermediate_size,
        "n_layers": config.num_hidden_layers,
        "n_ctx": config.max_position_embeddings,
        "positional_embedding_type": "rotary",
        # These architectures rotate the halves of a head; GPT-J rotates neighbouring pairs.
        "rotary_adjacent_pairs": False,
    }


_SETTINGS: dict[str, tuple[Callable[[Any], dict[str, Any]], str]] = {
    "GPT2LMHeadModel": (_gpt2, "convert_gpt2_weights"),
    "GPTNeoXForCausalLM": (_neox, "convert_neox_weights"),
    "LlamaForCausalLM": (_llama, "convert_llama_weights"),
    "OlmoForCausalLM": (_olmo, "convert_olmo_weights"),
}


def _gpt2_obstacle(config: Any) -> str:
    return "its blocks attend to an encoder" if config.add_cross_attention else ""


def _neox_obstacle(config: Any) -> str:
    if not config.attention_bias:
        return "the conversion of GPT-NeoX expects attention biases, and this model has none"
    return _rope_obstacle(config, ("default",))


def _llama_obstacle(config: Any) -> str:
    if config.attention_bias or config.mlp_bias:
        return "the conversion of Llama leaves out biases, and this model has some"
    return _rope_obstacle(config, ("default", "llama3"))


def _olmo_obstacle(config: Any) -> str:
    if config.num_key_value_heads not in (None, config.num_attention_heads):
        return "the conversion of OLMo does not support grouped-query attention"
    if config.attention_bias:
        return "the conversion of OLMo leaves out biases, and this model has some"
    return _rope_obstacle(config, ("default",))


# Settings that a conversion ignores, so that the residual stream would differ, or fails on.
_OBSTACLES: dict[str, Callable[[Any], str]] = {
    "GPT2LMHeadModel": _gpt2_obstacle,
    "GPTNeoXForCausalLM": _neox_obstacle,
    "LlamaForCausalLM": _llama_obstacle,
    "OlmoForCausalLM": _olmo_obstacle,
}


def _rope_obstacle(config: Any, supported: tuple[str, ...]) -> str:
    kind = _rope(config).get("rope_type", "default")
    return "" if kind in supported else f"its rotary embedding is scaled by {kind!r}"


def _rope(config: Any) -> dict[str, Any]:
    parameters: dict[str, Any] = config.rope_parameters
    return parameters


def _architecture(config: Any) -> str:
    names = getattr(config, "architectures", None) or [type(config).__name__]
    # A folder that was saved without the unembedding names the body's class.
    bodies = {
        "GPT2Model": "GPT2LMHeadModel",
        "GPTNeoXModel": "GPTNeoXForCausalLM",
        "LlamaModel": "LlamaForCausalLM",
        "OlmoModel": "OlmoForCausalLM",
    }
    name = str(names[0])
    return bodies.get(name, name)


def _activation(config: Any) -> str:
    return str(getattr(config, "activation_function", None) or config.hidden_act)


def _known_name(model: str) -> str | None:
    from transformer_lens.loading_from_pretrained import get_official_model_name

    try:
        return str(get_official_model_name(model))
    except ValueError:
        return None
