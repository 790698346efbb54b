"""The files of features."""

import numpy as np
from safetensors.torch import load_file

from vivit_zoo.evaluation.feature_files import FeatureWriter


def test_files_are_safetensors(tmp_path):
    """Read by the format's own library, with tensors of several dtypes, some of odd sizes."""
    arrays = {"a": ((3, 5), "float16"), "b": ((3,), "int64"), "c": ((3, 0), "float32"), "d": ((3, 7), "float64")}
    writer = FeatureWriter(tmp_path / "x.safetensors", arrays, {"video": "ü"})
    generator, expected = np.random.default_rng(0), {}
    for name, (shape, dtype) in arrays.items():
        expected[name] = (generator.random(shape) * 100).astype(dtype)
        for row in range(3):
            writer.arrays[name][row] = expected[name][row]
    assert not (tmp_path / "x.safetensors").exists()
    writer.finish()
    assert [file.name for file in tmp_path.iterdir()] == ["x.safetensors"]
    for name, tensor in load_file(tmp_path / "x.safetensors").items():
        np.testing.assert_array_equal(tensor.numpy(), expected.pop(name))
    assert not expected
