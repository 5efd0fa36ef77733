"""Maps in `.npy` files: where their channels are, and what bytes are."""

import numpy as np
import pytest
import torch

import xcam
from xcam.explanations.folder import StoredMaps

CHANNELS = np.random.default_rng(0).random((3, 5, 7)).astype(np.float32)
BYTES = np.random.default_rng(1).integers(0, 256, (2, 5, 7), np.uint8)

LAYOUTS = {
    "plain": lambda single: single,
    "one first": lambda single: single[None],
    "one last": lambda single: single[..., None],
    "three first": lambda single: np.stack([single] * 3),
    "three last": lambda single: np.stack([single] * 3, -1),
    "four last": lambda single: np.stack([single] * 4, -1),
}


def stored(folder, **arrays):
    """A folder of arrays by name."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, values in arrays.items():
        np.save(folder / f"{name}.npy", values)
    return folder


class TestChannels:
    @pytest.mark.parametrize("values", [CHANNELS, np.moveaxis(CHANNELS, 0, -1)])
    def test_channels_are_summed_first_or_last(self, tmp_path, values):
        found = StoredMaps(stored(tmp_path, x=values)).load("x")
        np.testing.assert_allclose(found, CHANNELS.sum(0), rtol=1e-6)

    def test_may_be_any_number_of_features(self, tmp_path):
        features = np.random.default_rng(2).random((64, 5, 7)).astype(np.float32)
        found = StoredMaps(stored(tmp_path, x=features)).load("x")
        np.testing.assert_allclose(found, features.sum(0), rtol=1e-5)

    @pytest.mark.parametrize("side", [1, 3, 4])
    def test_axis_of_length_1_is_the_channels(self, tmp_path, side):
        single = np.arange(side**2, dtype=np.float32).reshape(side, side)
        maps = StoredMaps(stored(tmp_path, first=single[None], last=single[..., None]))
        assert np.array_equal(maps.load("first"), single)
        assert np.array_equal(maps.load("last"), single)

    @pytest.mark.parametrize(
        "shape", [(3, 5, 3), (4, 5, 3), (3, 4, 4), (3, 3, 3), (7, 3, 3), (64, 4, 4), (9, 3, 4)]
    )
    @pytest.mark.parametrize("kind", [np.float32, np.uint8])
    def test_ambiguous_channels_are_refused(self, tmp_path, shape, kind):
        maps = StoredMaps(stored(tmp_path, x=np.ones(shape, kind)))
        sentence = r"x.npy' must hold \(h, w\) or \(C, h, w\), got \(.*\), whose channels may be f"
        with pytest.raises(ValueError, match=sentence):
            maps.load("x")

    @pytest.mark.parametrize("shape", [(0, 5), (0, 5, 7), (5,), (1, 1, 5, 7)])
    def test_other_shapes_are_refused(self, tmp_path, shape):
        maps = StoredMaps(stored(tmp_path, x=np.ones(shape)))
        with pytest.raises(ValueError, match=rf"got \({shape[0]},"):
            maps.load("x")

    @pytest.mark.parametrize("layout", LAYOUTS)
    @pytest.mark.parametrize("kind", ["floats", "bytes"])
    def test_do_not_change_how_far_two_models_agree(self, tmp_path, layout, kind):
        a, b = {"floats": CHANNELS[:2], "bytes": BYTES // 2}[kind]
        expected = xcam.stability_iou(torch.from_numpy(a)[None], torch.from_numpy(b)[None])
        assert 0 < float(expected) < 1
        folders = [
            stored(tmp_path / name, x=LAYOUTS[layout](single))
            for name, single in (("a", a), ("b", b))
        ]
        assert torch.equal(xcam.stability_iou(*folders), expected)


class TestBytes:
    @pytest.mark.parametrize("layout", LAYOUTS)
    def test_stay_bytes(self, tmp_path, layout):
        found = StoredMaps(stored(tmp_path, x=LAYOUTS[layout](BYTES[0]))).load("x")
        assert found.dtype == torch.uint8
        assert np.array_equal(found, BYTES[0])

    @pytest.mark.parametrize("layout", ["three first", "three last", "four last"])
    def test_bytes_of_several_colors_are_refused(self, tmp_path, layout):
        picture = LAYOUTS[layout](BYTES[0])
        picture[-1, -1, -1] ^= 1
        folder = stored(tmp_path, x=picture)
        sentence = r"x.npy' must hold .* bytes of several colours, a picture and no map; store the"
        with pytest.raises(ValueError, match=sentence):
            xcam.stability_iou(folder, folder)

    @pytest.mark.parametrize("kind", [np.int64, np.int8, np.uint16])
    @pytest.mark.parametrize("layout", ["plain", "one first", "three last"])
    def test_other_integers_are_no_bytes(self, tmp_path, kind, layout):
        """Of 0 to 255 or of their own range? Scores, which know no such scale, take them."""
        single = BYTES[0] // 2
        folder = stored(tmp_path, x=LAYOUTS[layout](single).astype(kind))
        with pytest.raises(TypeError, match=r"image 'x': .* got torch.int64; give bytes, 0 to 255"):
            xcam.stability_iou(folder, folder)
        (found,) = StoredMaps(folder)(torch.zeros(1, 3, 8, 8), ["x"], torch.tensor([0]))
        times = 3 if layout == "three last" else 1
        assert found.dtype == torch.float32
        assert np.array_equal(found, times * single.astype(np.float32))

    def test_boolean_masks_become_floats(self, tmp_path):
        """A mask is a map of 0 and 1, stretched as any."""
        mask = BYTES[0] > 100
        found = StoredMaps(stored(tmp_path, x=mask)).load("x")
        assert torch.equal(found, torch.from_numpy(mask).float())
