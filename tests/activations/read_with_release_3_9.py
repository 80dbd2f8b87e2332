"""Run by test_residual_stream.py with TransformerLens 3.9 ahead on the path."""

import sys
from pathlib import Path

from safetensors.torch import save_file


def main() -> None:
    from importlib.metadata import version

    import torch
    from transformer_lens.model_bridge import TransformerBridge
    from transformers import AutoTokenizer

    from tlens_trust.activations import collect_activations
    from tlens_trust.checkpoints import Checkpoint

    assert version("transformer-lens").startswith("3.9"), version("transformer-lens")
    out, *folders = map(Path, sys.argv[1:])
    statements = (out / "statements.txt").read_text().split("\n")
    read = {}
    for folder in folders:
        tokenizer = AutoTokenizer.from_pretrained(folder)
        models = {
            "bridge": TransformerBridge.boot_transformers(
                str(folder), device="cpu", dtype=torch.float32
            )
        }
        if folder.name != "olmo2":
            models["hooked_transformer"] = (
                Checkpoint.from_directory(folder)
                .loaded_with(device="cpu", backend="hooked_transformer")
                .load()
            )
        for kind, model in models.items():
            for sites, side in (("resid_post", "left"), ("resid_post", "right"), ("z", "right")):
                activations = collect_activations(
                    model,
                    statements,
                    sites=sites,
                    tokenizer=tokenizer,
                    batch_tokens=40,
                    padding_side=side,
                )
                name = f"{folder.name}/{kind}/{sites}/{side}"
                read[name] = activations.values.contiguous()
    save_file(read, out / "read.safetensors")


if __name__ == "__main__":
    main()
