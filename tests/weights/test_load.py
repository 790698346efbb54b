"""Our own format, changes to trained weights, the hub, and sources that are broken or lie."""

import json
import subprocess
import sys
from pathlib import Path

import huggingface_hub
import msgpack
import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file
from scipy.ndimage import zoom

from tests.conftest import VARIANTS, randomise, tiny_config, tiny_model, video_for
from vivit_zoo import ViViT
from vivit_zoo.weights import WeightsError, hub, init_from_image, save
from vivit_zoo.weights.flax import read_msgpack
from vivit_zoo.weights.resize import inflate_kernel, resize_kernel, resize_positions

variants = pytest.mark.parametrize("variant", VARIANTS)


@variants
@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"num_classes": {"noun": 3, "verb": 2}, "representation_size": 7},
        {"pos_embed": "sincos_1d", "act": "gelu", "qkv_bias": False, "num_classes": 0},
        {"sampled_frames": 3, "num_frames": 8, "tubelet_size": (1, 4, 4), "reg_tokens": 2, "pre_norm": True},
        {"temporal_depth": 0, "global_pool": "max", "order": "time_space"},
    ],
)
def test_what_is_saved_is_what_is_loaded(variant, changes, tmp_path):
    model = tiny_model(variant=variant, **changes).float()
    model.save_pretrained(tmp_path)
    for source in (tmp_path, str(tmp_path), tmp_path / "model.safetensors", tmp_path / "config.json"):
        again = ViViT.from_pretrained(source)
        assert again.config == model.config
        assert not again.training
        assert again.load_report.copied.keys() == model.state_dict().keys()
    for name, tensor in model.state_dict().items():
        assert torch.equal(again.state_dict()[name], tensor)


@variants
def test_changes(variant, tmp_path):
    model = randomise(ViViT(tiny_config(variant=variant)))
    model.save_pretrained(tmp_path)
    same = ViViT.from_pretrained(tmp_path, num_frames=6, image_size=[8, 12], num_classes=5, variant=variant, dim=24)
    assert all(torch.equal(tensor, model.state_dict()[name]) for name, tensor in same.state_dict().items())
    assert not same.load_report.derived

    longer = ViViT.from_pretrained(tmp_path, num_frames=10, image_size=(16, 12), num_classes=7, drop_path=0.1)
    assert longer(video_for(longer.config, dtype=torch.float32)).shape == (2, 7)
    assert longer.load_report.new.keys() == {"head.weight", "head.bias"}
    assert longer.load_report.left.keys() == {"head.weight", "head.bias"}
    assert all(name.endswith("pos_embed.table") for name in longer.load_report.derived)
    spatial = longer.encoder.spatial if variant == "factorised_encoder" else longer.encoder
    before = (model.encoder.spatial if variant == "factorised_encoder" else model.encoder).pos_embed.table
    corners = torch.tensor([0, 2, -3, -1])  # of a plane 3 wide
    torch.testing.assert_close(spatial.pos_embed.table[..., corners, :][[0, -1]], before[..., corners, :][[0, -1]])

    heads = ViViT.from_pretrained(tmp_path, num_classes={"noun": 3, "verb": 2})
    out, whole = (x(video_for(model.config, dtype=torch.float32)) for x in (heads, model.eval()))
    torch.testing.assert_close(torch.cat([out["noun"], out["verb"]], dim=1), whole)
    assert "rows 3 to 4" in heads.load_report.derived["head.verb.bias"]

    for changes, message in [
        ({"dim": 48}, "has dim 24; trained weights can be given another num_frames"),
        ({"tubelet_size": (2, 4, 12)}, "only the length of its tubelets can change"),
        ({"num_heads": 2}, "has num_heads 4"),
        ({"num_frame": 2}, "did you mean 'num_frames'"),
        ({"num_frames": 7}, "7 frames are not divisible"),
    ]:
        with pytest.raises(ValueError, match=message):
            ViViT.from_pretrained(tmp_path, **changes)


@pytest.mark.parametrize("format", ["vivit_zoo", "transformers"])
def test_class_names_travel_with_the_head(format, tmp_path):
    model = tiny_model(num_classes=3).float()
    model.class_names = ["run", "jump", "stand still"]
    model.save_pretrained(tmp_path, format=format)
    assert ViViT.from_pretrained(tmp_path).class_names == ["run", "jump", "stand still"]
    assert ViViT.from_pretrained(tmp_path, num_classes=7).class_names is None
    model.class_names = None
    model.save_pretrained(tmp_path, format=format)
    assert ViViT.from_pretrained(tmp_path).class_names is None  # not LABEL_0, LABEL_1, ...


def test_class_names_by_head(tmp_path):
    model = tiny_model(num_classes={"verb": 2, "noun": 1}).float()
    model.class_names = {"verb": ["take", "put"], "noun": ["cup"]}
    model.save_pretrained(tmp_path)
    assert ViViT.from_pretrained(tmp_path).class_names == model.class_names


@pytest.mark.parametrize("names", [["run"], "abcde", [1, 2, 3, 4, 5], {"verb": ["run"] * 5}])
def test_class_names_that_do_not_fit_are_refused(saved, names):
    edit_config(saved, class_names=names)
    with pytest.raises(WeightsError, match=r"class_names in config\.json are not one name for each of"):
        ViViT.from_pretrained(saved)


@pytest.mark.parametrize("t", [1, 3, 6])
def test_another_tubelet_length_sees_a_still_clip_alike(t, tmp_path):
    model = tiny_model().float()
    model.save_pretrained(tmp_path)
    changed = ViViT.from_pretrained(tmp_path, tubelet_size=(t, 4, 4), num_frames=3 * t)
    still = torch.randn(2, 3, 1, 8, 12)
    tokens = [m.tubelet_embed(still.expand(-1, -1, m.config.num_frames, -1, -1)) for m in (model, changed)]
    torch.testing.assert_close(*tokens)
    assert "shared out from 2 frames" in str(changed.load_report)


def test_resized_positions_equal_the_originals(parity):
    vectors = np.load(parity / "functions.npz")
    grid = torch.from_numpy(vectors["posemb_grid_in"])
    for side in (3, 5, 6, 7, 14):
        ours = resize_positions(grid.unflatten(0, (4, 4)), (side, side)).flatten(0, 1)
        np.testing.assert_allclose(ours, vectors[f"posemb_resize_{side * side}"][0], rtol=0, atol=5e-7)
    for length in (5, 8, 17, 32, 64):
        np.testing.assert_allclose(
            resize_positions(grid, (length,)), vectors[f"posemb_1d_{length}"][0], rtol=0, atol=5e-7
        )
    np.testing.assert_allclose(grid.repeat(3, 1), vectors["posemb_tile_48"][0], rtol=0, atol=0)


sides = st.integers(2, 7)


@given(old=st.tuples(sides, sides, sides), new=st.tuples(sides, sides, sides))
def test_resize_is_linear_along_each_axis(old, new):
    table = torch.randn(*old, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    ours = resize_positions(table, new)
    assert old != new or ours is table
    scipys = zoom(table.numpy(), [n / o for o, n in zip(old, new, strict=True)] + [1], order=1)
    np.testing.assert_allclose(ours, scipys, rtol=0, atol=1e-12)


@given(old=st.integers(1, 8), new=st.integers(1, 8))
def test_kernel_lengths(old, new):
    kernel = torch.randn(5, 3 * old * 4, dtype=torch.float64)
    resized = resize_kernel(kernel, (old, 2, 2), new)
    torch.testing.assert_close(
        resized.unflatten(1, (3, new, 4)).sum(2), kernel.unflatten(1, (3, old, 4)).sum(2), rtol=0, atol=1e-12
    )
    if new % old == 0:
        parts = kernel.unflatten(1, (3, old, 4)).repeat_interleave(new // old, 2) * old / new
        torch.testing.assert_close(resized, parts.flatten(1), rtol=0, atol=1e-12)
    image = torch.randn(5, 3, 2, 2)
    for rule in ("central_frame", "filter_inflation"):
        torch.testing.assert_close(inflate_kernel(image, new, rule).sum(2), image)


def test_arp_shares():
    shares = inflate_kernel(torch.ones(1, 1, 1, 1), 4, "arp").flatten()
    torch.testing.assert_close(shares, torch.tensor([-0.6042, 0.1458, 0.2708, 0.1875]), rtol=0, atol=5e-5)


# Bad sources.


def edit_config(folder, **changes):
    file = folder / "config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | changes))


def edit_tensors(folder, edit):
    tensors = load_file(folder / "model.safetensors")
    edit(tensors)
    save_file(tensors, folder / "model.safetensors")


@pytest.mark.parametrize("broken", ["save_file", "replace"])
def test_a_failed_save_leaves_what_was_there(broken, saved, monkeypatch):
    before = {file.name: file.read_bytes() for file in saved.iterdir()}

    def full(*args, **kwargs):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(*((save, "save_file") if broken == "save_file" else (Path, "replace")), full)
    with pytest.raises(WeightsError, match=r"model was not written: .*No space left"):
        ViViT(tiny_config(num_classes=9)).save_pretrained(saved)
    assert {file.name: file.read_bytes() for file in saved.iterdir()} == before
    with pytest.raises(WeightsError, match=r"config.json was not written: .*exists"):
        ViViT(tiny_config()).save_pretrained(saved / "config.json")


def test_numpy_numbers_are_refused_in_words(saved):
    for name in ("num_frames", "image_size"):
        with pytest.raises(ValueError, match=f"{name} takes .*, got"):
            ViViT.from_pretrained(saved, **{name: np.int64(8)})


def test_the_report_prints_every_part():
    source = randomise(ViViT(tiny_config()))
    report = str(init_from_image(ViViT(tiny_config(variant="factorised_self_attention")), source))
    for title in ("copied: ", "derived: ", "new in the model: ", "left in the source: "):
        assert title in report
    assert "encoder.blocks.{0-1}.norm_time.weight: kept" in report
    assert "  encoder.cls_token.token: the model has no class token" in report


def test_a_tensor_that_goes_to_two_places_is_reported_with_both():
    model = ViViT(tiny_config(variant="factorised_self_attention"))
    report = init_from_image(model, ViViT(tiny_config()), temporal="copy")
    assert report.used["encoder.blocks.0.attn.qkv.weight"].split(", ") == [
        "encoder.blocks.0.attn.qkv.weight", "encoder.blocks.0.attn_time.qkv.weight",
    ]  # fmt: skip


def test_positions_of_one_place_come_from_the_middle():
    table = torch.arange(5.0)[:, None]
    assert resize_positions(table, (1,)).item() == 2
    assert resize_positions(table[1:], (1,)).item() == 2.5
    assert torch.equal(resize_positions(table[3:4], (3,)), table[3:4].expand(3, 1))


def test_chunks_are_joined_by_number():
    def array(values):
        return msgpack.ExtType(1, msgpack.packb(([len(values)], "uint8", bytes(values))))

    chunks = {str(i): array([i]) for i in reversed(range(12))}
    tree = {"a": {"__msgpack_chunked_array__": True, "shape": {"0": 3, "1": 4}, "chunks": chunks}}
    assert torch.equal(read_msgpack(msgpack.packb(tree))["a"], torch.arange(12, dtype=torch.uint8).view(3, 4))


def test_wrong_shapes_missing_and_foreign_tensors(saved):
    edit_tensors(saved, lambda tensors: tensors.update({"encoder.norm.bias": torch.zeros(25)}))
    with pytest.raises(WeightsError, match=r"wrong shapes: encoder.norm.bias is \(25,\), the model takes \(24,\)"):
        ViViT.from_pretrained(saved)
    edit_tensors(saved, lambda tensors: tensors.pop("encoder.norm.bias"))
    with pytest.raises(WeightsError, match=r"has nothing for encoder.norm.bias"):
        ViViT.from_pretrained(saved)
    edit_tensors(saved, lambda tensors: tensors.update({"encoder.norm.bias": torch.zeros(24), "ema": torch.zeros(2)}))
    with pytest.raises(WeightsError, match="tensors that the model has no place for: ema"):
        ViViT.from_pretrained(saved)


def test_nan_is_warned_of(saved):
    edit_tensors(saved, lambda tensors: tensors["encoder.norm.bias"].fill_(torch.nan))
    with pytest.warns(UserWarning, match="NaN or infinite values in encoder.norm.bias"):
        ViViT.from_pretrained(saved)


def test_other_folders(saved, tmp_path):
    with pytest.raises(WeightsError, match=r"neither config.json nor checkpoint; it holds model"):
        ViViT.from_pretrained(tmp_path)
    (tmp_path / "empty").mkdir()
    with pytest.raises(WeightsError, match="it holds nothing"):
        ViViT.from_pretrained(tmp_path / "empty")
    edit_config(saved, model_type="hiera")
    with pytest.raises(WeightsError, match="model_type 'hiera'; known are vivit_zoo, vivit, videomae, "):
        ViViT.from_pretrained(saved)
    edit_config(saved, model_type=None, architecture="vit_base_patch16_224")
    with pytest.raises(WeightsError, match="a timm image model; start a ViViT from it with init_from_image"):
        ViViT.from_pretrained(saved)
    edit_config(saved, model_type="vivit_zoo", depth=10**6)
    with pytest.raises(WeightsError, match=r"config\.json"):
        ViViT.from_pretrained(saved)
    (saved / "config.json").write_text("{")
    with pytest.raises(WeightsError, match="is no JSON"):
        ViViT.from_pretrained(saved)
    (saved / "config.json").unlink()
    with pytest.raises(WeightsError, match=r"needs a config.json beside it"):
        ViViT.from_pretrained(saved / "model.safetensors")


def test_unknown_ids(monkeypatch, tmp_path):
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(WeightsError, match=r"somebody/vivit is no file or folder here, and .* could not be fetched"):
        ViViT.from_pretrained("somebody/vivit")
    for source in ("./not/here", "a/b/c", "/nowhere", "what is this", "nosuchfolder", "model/last.pt"):
        with pytest.raises(WeightsError, match="neither a file nor a folder here"):
            ViViT.from_pretrained(source)


def test_the_hub_gets_revision_and_token(monkeypatch, saved):
    asked = []

    def download(repo, name, revision, token):
        asked.append((repo, name, revision, token))
        if not (saved / name).exists():
            raise huggingface_hub.errors.EntryNotFoundError("404")
        return str(saved / name)

    monkeypatch.setattr(hub, "hub_error", lambda: None)
    monkeypatch.setattr(huggingface_hub, "hf_hub_download", download)
    ViViT.from_pretrained("some/body", revision="v1", token="secret")
    assert asked == [("some/body", name, "v1", "secret") for name in ("config.json", "model.safetensors")]


def test_push_to_hub_uploads_model_and_card(monkeypatch, tmp_path):
    seen = {}

    class Api:
        def __init__(self, token):
            seen["token"] = token

        def create_repo(self, repo_id, private, exist_ok):
            seen["private"] = private
            return type("Url", (), {"repo_id": repo_id})

        def upload_folder(self, repo_id, folder_path, revision, commit_message):
            model = ViViT.from_pretrained(folder_path)
            seen.update(revision=revision, files=sorted(file.name for file in Path(folder_path).iterdir()))
            seen.update(repo_id=repo_id, model=model, card=(Path(folder_path) / "README.md").read_text())
            return type("Commit", (), {"commit_url": "https://somewhere"})

    monkeypatch.setattr(huggingface_hub, "HfApi", Api)
    model = tiny_model().float()
    assert model.push_to_hub("some/body", token="t") == "https://somewhere"
    assert seen["model"].config == model.config
    assert '\nlibrary_name: "vivit_zoo"\npipeline_tag: "video-classification"\n' in seen["card"]
    assert 'ViViT.from_pretrained("some/body")' in seen["card"]
    model.push_to_hub("some/body", format="transformers", private=True, revision="v1")
    assert (seen["private"], seen["revision"]) == (True, "v1")
    assert seen["files"] == ["README.md", "config.json", "model.safetensors", "preprocessor_config.json"]
    assert '\nlibrary_name: "transformers"\n' in seen["card"]


@pytest.mark.parametrize(
    ("case", "changes", "message"),
    [
        ("joint_gap", {"variant": None}, "does not say its variant; pass variant=joint or factorised_dot_product"),
        ("joint_token", {"variant": "factorised_dot_product"}, "is no factorised_dot_product; it can be variant=joint"),
        ("joint_token", {"num_frames": None}, "does not say its num_frames"),
        (
            "joint_token",
            {"num_frames": 8},
            r"has 48 positions in .*, but 8 frames of 16x16 in tubelets of 2x4x4 make 64",
        ),
        ("fsa_space_time", {"variant": "joint"}, "is no joint; it can be variant=factorised_self_attention"),
        ("joint_token", {"global_pool": "avg"}, None),
        ("joint_gap", {"global_pool": "token"}, "has global_pool avg, not token"),
    ],
)
def test_arguments_that_contradict_an_original_checkpoint(parity, case, changes, message):
    given = {"variant": "joint", "num_frames": 6, "image_size": (16, 16)} | changes
    given = {name: value for name, value in given.items() if value is not None}
    with pytest.raises(WeightsError, match=message):
        ViViT.from_pretrained(parity / "forward" / case / "checkpoint", **given)


def test_bfloat16_scalars_and_bare_trees(tmp_path):
    def array(tensor, name):
        return msgpack.ExtType(1, msgpack.packb((list(tensor.shape), name, tensor.view(torch.uint8).numpy().tobytes())))

    values = torch.randn(3, 4).bfloat16()
    tree = {"a": {"b": array(values, "bfloat16")}, "n": 3, "none": None, "z": msgpack.ExtType(2, msgpack.packb((1, 2)))}
    read = read_msgpack(msgpack.packb(tree))
    assert torch.equal(read["a"]["b"], values)
    assert (read["n"], read["none"], read["z"]) == (3, None, 1 + 2j)
    for bad in (
        msgpack.packb({"a": msgpack.ExtType(1, msgpack.packb(([3, 5], "bfloat16", b"12")))}),
        msgpack.packb({"a": msgpack.ExtType(1, msgpack.packb(([-1], "float32", b"")))}),
        msgpack.packb({"a": msgpack.ExtType(1, msgpack.packb(([1], "object", b"1234")))}),
        msgpack.packb({"a": msgpack.ExtType(9, b"")}),
        msgpack.packb([1, 2]),
        msgpack.packb({"a": {"__msgpack_chunked_array__": True, "shape": {"0": 3}, "chunks": {}}}),
    ):
        with pytest.raises(WeightsError, match="is no flax checkpoint, or is cut short"):
            read_msgpack(bad)


def test_importing_the_package_loads_nothing_of_this():
    heavy = "timm", "safetensors", "huggingface_hub", "msgpack", "numpy.ma", "vivit_zoo.weights"
    program = f"import sys, vivit_zoo; print([name for name in {heavy} if name in sys.modules])"
    out = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert out.stdout.strip() == "[]"


@pytest.mark.parametrize("read", [ViViT.from_pretrained, lambda source: init_from_image(ViViT(tiny_config()), source)])
def test_sources_that_are_no_names(read, saved, monkeypatch):
    monkeypatch.chdir(saved)  # which the empty string must not mean
    with pytest.raises(WeightsError, match=r"the source is an empty string; give .* \('\.' for this folder\)"):
        read("")
    for source in (None, 3, b"model"):
        with pytest.raises(TypeError, match=f"the source {source!r} is no name; give a hub id, a folder or a file"):
            read(source)
    for source in ("a" * 5000, "~nobody_of_this_name/model"):
        with pytest.raises(WeightsError, match="cannot be looked up"):
            read(source)


def test_positions_over_time_and_on_frames_that_are_not_square(tmp_path):
    model = randomise(ViViT(tiny_config(variant="factorised_encoder")))
    model.save_pretrained(tmp_path)
    larger = ViViT.from_pretrained(tmp_path, num_frames=10, image_size=(16, 12)).encoder
    torch.testing.assert_close(larger.temporal.pos_embed.table[[0, 2, 4]], model.encoder.temporal.pos_embed.table)
    before, after = (x.spatial.pos_embed.table.unflatten(0, (-1, 3)) for x in (model.encoder, larger))
    torch.testing.assert_close(after[[0, -1]], before)
