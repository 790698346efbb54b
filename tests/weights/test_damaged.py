"""Damaged checkpoints give our own error or a model, and no code in them runs."""

import contextlib
import json
import pickle
import struct
import zipfile

import msgpack
import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.conftest import tiny_config
from vivit_zoo import ViViT, ViViTConfig
from vivit_zoo.weights import WeightsError

leaves = (
    st.none() | st.booleans() | st.integers(-(2**40), 2**60) | st.floats() | st.text(max_size=5) | st.binary(max_size=9)
)
extensions = st.builds(
    lambda code, shape, name, content: msgpack.ExtType(code, msgpack.packb((shape, name, content))),
    st.integers(0, 5),
    st.lists(st.integers(-1, 3), max_size=3) | st.integers(),
    st.sampled_from(["float32", "bfloat16", "object", "uint8"]),
    st.binary(max_size=16),
)
keys = st.sampled_from(
    ["params", "optimizer", "target", "embedding", "kernel", "shape", "chunks", "0", "__msgpack_chunked_array__"]
) | st.integers(0, 3)
trees = st.recursive(leaves | extensions, lambda inner: st.dictionaries(keys, inner, max_size=4), max_leaves=12)
values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=4),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=2),
    max_leaves=4,
)


class RunsCode:
    def __reduce__(self):
        return (open, ("ran", "w"))


@pytest.mark.parametrize("keep", [0, 4, 9, 50, 5000, -1])
def test_truncated_safetensors(saved, keep):
    file = saved / "model.safetensors"
    file.write_bytes(file.read_bytes()[:keep])
    with pytest.raises(WeightsError, match=r"is empty|cut short"):
        ViViT.from_pretrained(saved)


@pytest.mark.parametrize("keep", [0, 1, 50, 5000, -1])
def test_truncated_msgpack(parity, tmp_path, keep):
    data = (parity / "forward" / "joint_token" / "checkpoint").read_bytes()
    file = tmp_path / "checkpoint"
    file.write_bytes(data[:keep])
    with pytest.raises(WeightsError, match=r"is empty|cut short"):
        ViViT.from_pretrained(file, variant="joint", num_frames=6, image_size=16)


@pytest.mark.parametrize("write", [torch.save, lambda x, file: file.write_bytes(pickle.dumps(x, protocol=2))])
def test_a_pickle_that_runs_code_does_not_run(tmp_path, monkeypatch, write):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "config.json").write_text('{"model_type": "vivit"}')
    write({"weight": RunsCode()}, tmp_path / "pytorch_model.bin")
    with pytest.raises(WeightsError, match="only tensors are read, so that no code in it runs"):
        ViViT.from_pretrained(tmp_path)
    assert not (tmp_path / "ran").exists()


def test_other_bad_bins(tmp_path):
    (tmp_path / "config.json").write_text('{"model_type": "vivit"}')
    for content in ([torch.zeros(2)], {"epoch": 3}):
        torch.save(content, tmp_path / "pytorch_model.bin")
        with pytest.raises(WeightsError, match="holds no dictionary of tensors"):
            ViViT.from_pretrained(tmp_path)
    with zipfile.ZipFile(tmp_path / "pytorch_model.bin", "w") as archive:
        archive.writestr("x", "y")
    with pytest.raises(WeightsError, match="was not loaded"):
        ViViT.from_pretrained(tmp_path)
    np.savez(tmp_path / "image.npz", x=np.zeros(2))
    with pytest.raises(WeightsError, match="start it with init_from_image"):
        ViViT.from_pretrained(tmp_path / "image.npz")


@pytest.mark.filterwarnings("ignore:Validating sparse tensor")  # torch's own
@pytest.mark.parametrize(
    "value",
    [torch.zeros(24, dtype=torch.complex64), torch.zeros(24, device="meta"), torch.zeros(24).to_sparse()],
)
def test_tensors_that_are_no_plain_arrays_are_refused(value, saved):
    (saved / "model.safetensors").unlink()
    torch.save({"encoder.norm.bias": value}, saved / "pytorch_model.bin")
    with pytest.raises(WeightsError, match=r"encoder.norm.bias is no plain array of real numbers but .*; save it as"):
        ViViT.from_pretrained(saved)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=80)
@given(data=st.binary(max_size=60) | trees.map(lambda tree: msgpack.packb(tree, use_bin_type=True)))
def test_fuzzed_msgpack_gives_our_error_only(tmp_path, data):
    file = tmp_path / "checkpoint"
    file.write_bytes(data)
    with pytest.raises(WeightsError):
        ViViT.from_pretrained(file, variant="joint", num_frames=6, image_size=16)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=30)
@given(at=st.integers(0, 40_000), byte=st.integers(0, 255))
def test_flipped_bytes_of_a_real_msgpack_give_our_error_or_a_model(parity, tmp_path, at, byte):
    data = bytearray((parity / "forward" / "joint_token" / "checkpoint").read_bytes())
    data[at] = byte
    (tmp_path / "checkpoint").write_bytes(data)
    with contextlib.suppress(WeightsError, UserWarning):
        ViViT.from_pretrained(tmp_path / "checkpoint", variant="joint", num_frames=6, image_size=16)


OURS = list(ViViTConfig.__dataclass_fields__)


THEIRS = ["image_size", "num_frames", "tubelet_size", "num_channels", "hidden_size", "num_hidden_layers",
          "num_attention_heads", "intermediate_size", "hidden_act", "layer_norm_eps", "qkv_bias",
          "model_type"]  # fmt: skip


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=80)
@given(data=st.data(), transformers=st.booleans())
def test_fuzzed_configs_give_our_error_or_a_model(tmp_path, data, transformers):
    folder = tmp_path / str(transformers)
    if not folder.exists():
        ViViT(tiny_config()).save_pretrained(folder, format="transformers" if transformers else "vivit_zoo")
        (folder / "right.json").write_bytes((folder / "config.json").read_bytes())
    changes = data.draw(
        st.dictionaries(st.sampled_from(THEIRS if transformers else OURS), values, min_size=1, max_size=2)
    )
    right = json.loads((folder / "right.json").read_text())
    (folder / "config.json").write_text(json.dumps(right | changes))
    with contextlib.suppress(WeightsError):
        ViViT.from_pretrained(folder)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=30)
@given(at=st.integers(0, 2000), byte=st.integers(0, 255), protocol=st.sampled_from([2, 4]))
def test_flipped_bytes_of_a_pickle_give_our_error_only(tmp_path, at, byte, protocol):
    data = bytearray(pickle.dumps({f"weight{i}": float(i) for i in range(99)}, protocol))
    data[at % len(data)] = byte
    data[0] = 0x80
    (tmp_path / "config.json").write_text('{"model_type": "vivit"}')
    (tmp_path / "pytorch_model.bin").write_bytes(data)
    with pytest.raises(WeightsError):
        ViViT.from_pretrained(tmp_path)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=40)
@given(content=st.binary(max_size=40) | values.map(lambda x: json.dumps(x).encode()), length=st.integers(0, 100))
def test_fuzzed_safetensors_give_our_error_only(tmp_path, content, length):
    (tmp_path / "config.json").write_text('{"model_type": "vivit"}')
    (tmp_path / "model.safetensors").write_bytes(struct.pack("<Q", length) + content)
    with pytest.raises(WeightsError):
        ViViT.from_pretrained(tmp_path)
