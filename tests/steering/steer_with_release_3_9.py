"""Run by test_release_3_9.py with TransformerLens 3.9 ahead on the path."""

import json
import sys
from pathlib import Path

from safetensors.torch import load_file, save_file

NEW = 6
SETTINGS = {"max_new_tokens": NEW, "do_sample": False, "verbose": False, "prepend_bos": False}


def main() -> None:
    from importlib.metadata import version

    import torch
    from transformer_lens import HookedTransformer
    from transformer_lens.model_bridge import TransformerBridge

    from tlens_trust.checkpoints import Checkpoint
    from tlens_trust.measures import LinearProbe
    from tlens_trust.steering import ProbeFires, SteeringVector, steer

    assert version("transformer-lens").startswith("3.9"), version("transformer-lens")
    out = Path(sys.argv[1])
    asked = json.loads((out / "asked.json").read_text())
    direction = load_file(out / "direction.safetensors")["direction"]
    vector = SteeringVector.from_direction(direction, site=1)
    prompts, strength = asked["prompts"], asked["strength"]
    texts = [" ".join(f"w{i}" for i in prompt) for prompt in prompts]
    tensors, answers = {}, {}
    for name, folder in asked["folders"].items():
        hooked = (
            Checkpoint.from_directory(folder)
            .loaded_with(device="cpu", backend="hooked_transformer")
            .load()
        )
        assert isinstance(hooked, HookedTransformer)
        bridge = TransformerBridge.boot_transformers(folder, device="cpu", dtype=torch.float32)
        for kind, model in (("hooked_transformer", hooked), ("bridge", bridge)):
            ways = {}
            for policy, given in asked["policies"].items():
                positions = set(given["set"]) if "set" in given else given["is"]
                positions = tuple(positions) if isinstance(positions, list) else positions
                ways[policy] = ("add", positions)
            ways |= {mode: (mode, (-1, None)) for mode in asked["modes"]}
            for way, (mode, positions) in ways.items():
                for cache in (True, False):
                    with steer(model, vector, strength=strength, mode=mode, positions=positions):
                        written = model.generate(
                            texts,
                            use_past_kv_cache=cache,
                            stop_at_eos=False,
                            output_logits=True,
                            return_dict_in_generate=True,
                            **SETTINGS,
                        )
                    key = f"{name}/{kind}/{way}/{cache}"
                    tensors[f"{key}/ids"] = written.sequences[:, -NEW:].contiguous()
                    tensors[f"{key}/logits"] = torch.stack(written.logits, dim=1).contiguous()
        ids = torch.tensor([prompts[0]])
        hook_count = sum(len(point.fwd_hooks) for point in hooked.hook_dict.values())
        plain = hooked(ids)
        probe = LinearProbe(torch.ones(len(direction)), 0.0)
        fired = ProbeFires(probe, site=0, above=-1e9)
        with steer(hooked, vector, strength=strength):
            tensors[f"{name}/forward"] = hooked(ids).detach()
            with steer(hooked, vector, strength=-strength):
                back = hooked(ids)
            again = hooked(ids)
        with steer(hooked, vector, strength=strength, when=fired):
            fires = hooked(ids)
        with steer(hooked, vector, strength=strength, positions="last"):
            right = hooked(texts, prepend_bos=False, padding_side="right").detach()
        with steer(hooked, vector, strength=strength, positions="generated"):
            stream = {}
            for cache in (True, False):
                parts = list(
                    hooked.generate_stream(
                        ids, stop_at_eos=False, use_past_kv_cache=cache, **SETTINGS
                    )
                )
                stream[cache] = torch.cat(parts, dim=1)[0, -NEW:].tolist()
            whole = hooked.generate(ids, stop_at_eos=False, **SETTINGS)[0, -NEW:].tolist()
        tensors[f"{name}/right"] = right
        at_zero = {}
        for mode in ("add", "ablate", "rotate"):
            with steer(hooked, vector, strength=0.0, mode=mode, positions="last"):
                at_zero[mode] = float((hooked(ids) - plain).abs().max())
        try:
            with steer(hooked, vector, strength=strength):
                raise RuntimeError("on purpose")
        except RuntimeError:
            pass
        wide = SteeringVector.from_direction(torch.ones(7), site=1)
        try:
            with steer(hooked, wide, strength=1.0):
                refused = ""
        except ValueError as error:
            refused = str(error)
        answers[name] = {
            "at 0": at_zero,
            "identity": float((back - plain).abs().max()),
            "nested": torch.equal(again, tensors[f"{name}/forward"]),
            "condition": float((fires - again).abs().max()),
            "untouched": torch.equal(hooked(ids), plain),
            "hooks": [
                hook_count,
                sum(len(point.fwd_hooks) for point in hooked.hook_dict.values()),
                sum(len(part._forward_pre_hooks) for part in hooked.modules()),
            ],
            "stream": [stream[True], stream[False], whole],
            "refused": refused,
        }
    save_file(tensors, out / "tensors.safetensors")
    (out / "answers.json").write_text(json.dumps(answers))


if __name__ == "__main__":
    main()
