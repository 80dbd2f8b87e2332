import json
import struct

import numpy as np
import pytest
import torch

from tlens_trust.steering import (
    SteeringVector,
    make_hooks,
    read_gguf,
    read_lm_eval,
    steer,
    write_gguf,
    write_lm_eval,
)

STRENGTH = 2.5


@pytest.fixture
def vector():
    values = torch.randn(2, 32, generator=torch.Generator().manual_seed(0))
    return SteeringVector(
        values,
        ("blocks.1.hook_resid_post", "blocks.2.hook_resid_post"),
        method="logistic",
        concept="toxicity – ü",
        position=(0, None),
        n=7,
        rows=(0, 1, 2, 7, 9, 8, 20),
        fingerprint="f" * 64,
        model="toy",
        checkpoint="toy@step512",
        identity="a" * 64,
        n_layers=3,
        spread=torch.tensor([0.1, float("nan")]),
        rms=torch.tensor([3.0, 1e-7]),
        notes={"heads": "2 of 6"},
    )


def assert_same(one, other):
    for name in SteeringVector.__dataclass_fields__:
        own, others = getattr(one, name), getattr(other, name)
        if isinstance(own, torch.Tensor):
            assert torch.equal(own.nan_to_num(-1.0), others.nan_to_num(-1.0)), name
        else:
            assert own == others, name


def test_safetensors_come_back_to_the_bit_with_all_that_is_known(vector, tmp_path):
    file = vector.save(tmp_path / "v.safetensors")
    assert_same(SteeringVector.load(file), vector)
    bare = SteeringVector.from_direction(torch.ones(3), site=0)
    assert_same(SteeringVector.load(bare.save(tmp_path / "b.safetensors")), bare)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["b.safetensors", "v.safetensors"]


def test_a_torn_or_strange_file_is_refused(vector, tmp_path):
    from safetensors.torch import save_file

    file = vector.save(tmp_path / "v.safetensors")
    file.write_bytes(file.read_bytes()[:-10])
    with pytest.raises(ValueError, match="is no safetensors file, or a torn one"):
        SteeringVector.load(file)
    save_file({"w": torch.ones(2)}, tmp_path / "other.safetensors")
    with pytest.raises(ValueError, match="holds no steering vector of tlens_trust"):
        SteeringVector.load(tmp_path / "other.safetensors")
    with pytest.raises(ValueError, match="No file"):
        SteeringVector.load(tmp_path / "none.safetensors")
    with pytest.raises(ValueError, match="No folder"):
        vector.save(tmp_path / "none" / "v.safetensors")


def test_a_pickle_is_never_opened(tmp_path):
    class Trap:
        def __reduce__(self):
            return (open, (str(tmp_path / "sprung"), "w"))

    torch.save({"layers.1": Trap()}, tmp_path / "trap.pt")
    with pytest.raises(ValueError, match="holds more than tensors"):
        read_lm_eval(tmp_path / "trap.pt")
    with pytest.raises(ValueError, match="is no safetensors file"):
        SteeringVector.load(tmp_path / "trap.pt")
    assert not (tmp_path / "sprung").exists()


def read_as_llama_cpp(path):
    """What llama.cpp's loader does with a control vector, written out from the format.

    It takes one-dimensional float32 tensors named `direction.{layer}`, refuses layer 0, and keeps
    them one after the other from layer 1 on; block `il`, counted from 0, has the `il - 1`th added
    to what it puts out.
    """
    gguf = pytest.importorskip("gguf")
    reader = gguf.GGUFReader(path)
    data, width = {}, None
    for tensor in reader.tensors:
        name, _, layer = tensor.name.partition(".")
        assert name == "direction"
        assert int(layer) > 0
        assert tensor.tensor_type == gguf.GGMLQuantizationType.F32
        assert len(tensor.shape) == 1
        width = int(tensor.shape[0])
        data[int(layer)] = np.array(tensor.data)
    stacked = np.zeros((max(data), width), dtype=np.float32)
    for layer, numbers in data.items():
        stacked[layer - 1] += numbers
    return lambda il: None if il == 0 or il > len(stacked) else stacked[il - 1]


def test_llama_cpp_adds_the_vector_with_its_sign_at_the_block_it_belongs_to(
    vector, tmp_path, plains, edited, bridges, relative_error
):
    file = write_gguf(vector, tmp_path / "v.gguf", model_hint="llama")
    added = read_as_llama_cpp(file)
    model, ids = plains["llama"], torch.tensor([[1, 2, 3, 4]])
    from contextlib import ExitStack

    with torch.no_grad(), ExitStack() as stack:
        for il, block in enumerate(model.base_model.layers):
            if added(il) is not None:
                step = STRENGTH * torch.from_numpy(added(il))
                stack.enter_context(edited(block, lambda x, step=step: x + step))
        expected = model(ids).logits
    with torch.no_grad(), steer(bridges["llama"], vector, strength=STRENGTH, other_model="allow"):
        found = bridges["llama"](ids)
    assert relative_error(found, expected) < 1e-4
    with torch.no_grad(), steer(bridges["llama"], vector, strength=-STRENGTH, other_model="allow"):
        turned = bridges["llama"](ids)
    assert relative_error(turned, expected) > 0.01


def test_a_control_vector_says_what_it_is_and_comes_back(vector, tmp_path):
    gguf = pytest.importorskip("gguf")
    file = write_gguf(vector, tmp_path / "v.gguf", model_hint="gptneox")
    fields = gguf.GGUFReader(file).fields
    assert fields["general.architecture"].contents() == "controlvector"
    assert fields["controlvector.model_hint"].contents() == "gptneox"
    assert fields["controlvector.layer_count"].contents() == 2
    found = read_gguf(file)
    assert torch.equal(found.values, vector.values)
    assert found.sites == vector.sites
    for name in ("method", "concept", "model", "checkpoint", "identity", "fingerprint"):
        assert getattr(found, name) == getattr(vector, name)
    assert torch.equal(found.rms, vector.rms)


def test_anothers_control_vector_is_read(tmp_path):
    """As repeng and llama.cpp's own generator write them: every layer from 1, some of them zero."""
    gguf = pytest.importorskip("gguf")
    writer = gguf.GGUFWriter(tmp_path / "r.gguf", "controlvector")
    writer.add_string("controlvector.model_hint", "mistral")
    writer.add_uint32("controlvector.layer_count", 3)
    for layer in (1, 2, 10):
        numbers = np.full(4, 0.0 if layer == 2 else layer, dtype=np.float32)
        writer.add_tensor(f"direction.{layer}", numbers)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    found = read_gguf(tmp_path / "r.gguf")
    assert found.sites == ("blocks.1.hook_resid_post", "blocks.10.hook_resid_post")
    assert found.values[:, 0].tolist() == [1.0, 10.0]
    assert found.model is None


def test_what_llama_cpp_cannot_steer_is_refused(tmp_path):
    pytest.importorskip("gguf")
    first = SteeringVector.from_direction(torch.ones(4), site=0)
    with pytest.raises(ValueError, match="cannot steer the output of the first block"):
        write_gguf(first, tmp_path / "v.gguf")
    head = SteeringVector.from_direction(torch.ones(4), site="blocks.1.attn.hook_z[0]")
    with pytest.raises(ValueError, match="residual stream after a block"):
        write_gguf(head, tmp_path / "v.gguf")
    (tmp_path / "x.gguf").write_bytes(b"nothing of the kind, nothing of the kind")
    with pytest.raises(ValueError, match="is no GGUF file"):
        read_gguf(tmp_path / "x.gguf")
    assert not (tmp_path / "v.gguf").exists()


def steer_as_the_harness(path, model, edited, ids):
    """What its `steered` model does with a file, written out from its code."""
    config = torch.load(path, weights_only=True)
    from contextlib import ExitStack

    def change(info):
        direction = info["steering_vector"] / info["steering_vector"].norm()

        def add(x):
            return x + info["steering_coefficient"] * info["steering_vector"]

        def clamp(x):
            along = (x * direction).sum(dim=-1, keepdim=True) * direction
            return x - along + direction * info["steering_coefficient"]

        assert info["bias"] is None
        return {"add": add, "clamp": clamp}[info["action"]]

    modules = dict(model.base_model.named_modules())
    with torch.no_grad(), ExitStack() as stack:
        for hookpoint, info in config.items():
            stack.enter_context(edited(modules[hookpoint], change(info)))
        return model(ids).logits


@pytest.mark.parametrize("mode", ["add", "clamp"])
@pytest.mark.parametrize("architecture", ["gpt_neox", "llama"])
def test_the_harness_steers_as_we_do(
    architecture, mode, vector, tmp_path, plains, own_plains, edited, relative_error
):
    ids, one = torch.tensor([[1, 2, 3, 4]]), vector.select(2)
    file = write_lm_eval(one, tmp_path / "v.pt", strength=STRENGTH, mode=mode)
    expected = steer_as_the_harness(file, plains[architecture], edited, ids)
    model = own_plains[architecture]
    with torch.no_grad(), steer(model, one, strength=STRENGTH, mode=mode, other_model="allow"):
        found = model(ids).logits
    assert relative_error(found, expected) < 1e-4
    with torch.no_grad():
        assert relative_error(model(ids).logits, expected) > 0.01


def test_a_file_of_the_harness_comes_back_with_its_coefficient(vector, tmp_path):
    one = vector.select(1)
    found, coefficients = read_lm_eval(
        write_lm_eval(one, tmp_path / "v.pt", strength=STRENGTH, module="h.{layer}")
    )
    assert coefficients == {"h.1": STRENGTH}
    assert found.sites == one.sites
    assert torch.allclose(found.values, STRENGTH * one.values)


def test_what_the_harness_would_get_wrong_is_refused(vector, tmp_path):
    with pytest.raises(ValueError, match="the direction of the last site at all 2"):
        write_lm_eval(vector, tmp_path / "v.pt", strength=1.0)
    one = vector.select(1)
    for settings, message in (
        ({"mode": "rotate"}, "knows the actions 'add' and 'clamp'"),
        ({"module": "layers"}, "`module` says where"),
    ):
        with pytest.raises(ValueError, match=message):
            write_lm_eval(one, tmp_path / "v.pt", strength=1.0, **settings)
    with pytest.raises(ValueError, match="goes by the file's ending"):
        write_lm_eval(one, tmp_path / "v.bin", strength=1.0)
    write_lm_eval(vector, tmp_path / "c.pt", strength=1.0, mode="clamp")
    with pytest.raises(ValueError, match="does not add a vector to the output"):
        read_lm_eval(tmp_path / "c.pt")


@pytest.mark.parametrize("mode", ["add", "ablate", "clamp", "rotate"])
def test_a_hook_list_does_what_steer_does(mode, vector, bridges):
    model, ids = bridges["gpt_neox"], torch.tensor([[1, 2, 3, 4]])
    hooks = make_hooks(vector, strength=1.5, mode=mode)
    with torch.no_grad():
        found = model.run_with_hooks(ids, fwd_hooks=hooks)
        with steer(model, vector, strength=1.5, mode=mode, other_model="allow"):
            expected = model(ids)
        plain = model(ids)
    assert torch.allclose(found, expected, atol=1e-5)
    assert not torch.allclose(plain, expected, atol=1e-2)


def test_a_hook_list_steers_heads(bridges):
    sites = ["blocks.1.attn.hook_z[0]", "blocks.1.attn.hook_z[2]"]
    vector = SteeringVector.from_direction(torch.ones(2, 8), site=sites)
    model, ids = bridges["llama"], torch.tensor([[1, 2, 3, 4]])
    with torch.no_grad():
        found = model.run_with_hooks(ids, fwd_hooks=make_hooks(vector, strength=3.0))
        with steer(model, vector, strength=3.0):
            expected = model(ids)
    assert torch.allclose(found, expected, atol=1e-5)


def test_the_header_of_our_file_is_readable_by_anybody(vector, tmp_path):
    raw = vector.save(tmp_path / "v.safetensors").read_bytes()
    (length,) = struct.unpack("<Q", raw[:8])
    said = json.loads(json.loads(raw[8 : 8 + length])["__metadata__"]["vector"])
    assert said["checkpoint"] == "toy@step512"
    assert said["sites"] == list(vector.sites)
