"""Run by test_release_3_9.py with TransformerLens 3.9 ahead on the path.

Prints one JSON object: for each case what was loaded, and how far its residual stream and logits
are from Hugging Face's.
"""

import json
import sys
from pathlib import Path

import torch

LAYERS = 3
KINDS = ("hook_resid_pre", "hook_attn_out", "hook_mlp_out", "hook_resid_post")


def relative_error(mine, theirs):
    return float((mine - theirs).norm() / theirs.norm())


def compare(model, folder):
    """Largest relative error of any site and of the logits, and what the model is."""
    from transformers import AutoModelForCausalLM

    from tlens_trust.checkpoints.hooked_model import HookedModel, own_bos, own_tokenizer
    from tlens_trust.checkpoints.plain_model import PlainModel

    published = AutoModelForCausalLM.from_pretrained(folder).eval()
    plain = PlainModel(published)
    names = [f"blocks.{layer}.{kind}" for layer in range(LAYERS) for kind in KINDS]
    names = [name for name in names if name in plain.hook_dict]
    mine, theirs = {}, {}
    tokens = torch.arange(60).reshape(2, 30)

    def into(seen, name):
        def read(tensor, hook):
            seen[name] = tensor.detach().clone()

        return name, read

    with torch.no_grad():
        with plain.hooks([into(theirs, name) for name in names]):
            logits = published(tokens).logits
        with model.hooks(fwd_hooks=[into(mine, name) for name in names]):
            own_logits = model(tokens)
    return {
        "class": type(model).__name__,
        "protocol": isinstance(model, HookedModel),
        "error": max(relative_error(mine[name], theirs[name]) for name in names),
        "sites": len(names),
        "logits": relative_error(own_logits, logits),
        "own_tokens": own_tokenizer(model)("w1 w2").input_ids,
        "own_bos": own_bos(model),
        "name": model.cfg.model_name,
        "training": model.training,
    }


def attempt(function):
    try:
        return function()
    except Exception as error:
        return {"error_type": type(error).__name__, "said": str(error)}


def main() -> None:
    from importlib.metadata import version

    from tlens_trust.checkpoints import Checkpoint

    folders, hub_model, hub_revision = map(str, sys.argv[1:])
    answers = {"version": version("transformer-lens")}
    for folder in sorted(Path(folders).iterdir()):
        checkpoint = Checkpoint.from_directory(folder)
        answers[f"{folder.name}/resolved"] = checkpoint.resolve_backend()
        for backend in ("auto", "hooked_transformer", "bridge"):
            answers[f"{folder.name}/{backend}"] = attempt(
                lambda c=checkpoint, b=backend, f=folder: compare(
                    c.loaded_with(device="cpu", backend=b).load(), f
                )
            )
    single = Checkpoint.from_directory(Path(folders) / "gpt2")
    answers["device_map"] = attempt(
        lambda: single.loaded_with(backend="hooked_transformer", device_map="auto").load()
    )
    half = single.loaded_with(
        device="cpu", dtype=torch.bfloat16, backend="hooked_transformer"
    ).load()
    answers["dtypes"] = sorted({str(weight.dtype) for weight in half.parameters()})
    with single.loaded_with(device="cpu", backend="hooked_transformer").loaded() as model:
        held = sum(weight.numel() for weight in model.parameters())
    answers["released"] = [held, sum(weight.numel() for weight in model.parameters())]
    known = Checkpoint.from_hub(hub_model, revision=hub_revision)
    folder = known.snapshot.fetch(hub_revision)
    answers["known_name"] = attempt(
        lambda: compare(
            known.loaded_with(device="cpu", backend="hooked_transformer").load(), folder
        )
    )
    sys.stdout.write("\nANSWERS " + json.dumps(answers))


if __name__ == "__main__":
    main()
