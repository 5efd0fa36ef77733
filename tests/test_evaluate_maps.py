"""Maps that an evaluation keeps, and maps that others made."""

import numpy as np
import pytest
import torch
from evaluations import CONTROLS, NET, Pictures, evaluate, loader, plain, rows

import xcam
from xcam.models.toy import SmallCNN


class TestMaps:
    def test_of_a_folder_score_as_the_method_that_made_them(self, tmp_path):
        metrics = ["deletion", "sparseness"]
        evaluate(loader(), metrics=metrics, out=tmp_path / "made", save_maps=True)
        folder = tmp_path / "made" / "maps" / "gradcam"
        evaluate(
            loader(batch_size=3), (), metrics, maps=folder, controls=False, out=tmp_path / "read"
        )
        made = [row for row in rows(tmp_path / "made") if row["method"] == "gradcam"]
        read = rows(tmp_path / "read")
        assert plain(read, "index", "method", "metric") == plain(made, "index", "method", "metric")
        for one, other in zip(read, made, strict=True):
            # Half precision lets near neighbours change places, which a curve shows.
            atol = 1e-2 if one["metric"] == "deletion" else 1e-4
            np.testing.assert_allclose(one["values"], other["values"], rtol=0, atol=atol)

    def test_are_kept_at_their_own_resolution(self, tmp_path):
        from safetensors.torch import load_file

        nets = {"one": NET, "two": SmallCNN()}
        evaluate(loader(), ["gradcam", "saliency"], model=nets, out=tmp_path, save_maps=True)
        kept = tmp_path / "maps" / "one"
        assert sorted(path.name for path in kept.iterdir()) == sorted(
            ["gradcam", "saliency", *CONTROLS]
        )
        cam = load_file(kept / "gradcam" / "batch-00000000.safetensors")
        assert (cam["maps"].shape, cam["maps"].dtype) == ((4, 8, 8), torch.float16)
        pixels = load_file(kept / "saliency" / "batch-00000002.safetensors")
        assert pixels["maps"].shape == (3, 16, 16)

    @pytest.mark.parametrize("kind", ["tensor", "array", "channels", "list"])
    def test_of_a_callable(self, tmp_path, kind):
        asked = []

        def mine(images, ids, target):
            asked.append((ids, target.tolist()))
            maps = images.mean(1)
            return {
                "tensor": maps,
                "array": maps.numpy().astype(np.float64),
                "channels": images / 3,
                "list": [one[: 8 * (row % 2) + 8] for row, one in enumerate(maps)],
            }[kind]

        data = Pictures()
        evaluate(loader(data), (), maps=mine, out=tmp_path, controls=False)
        found = rows(tmp_path)
        assert {row["method"] for row in found} == {"maps"}
        assert {row["error"] for row in found} == {None}
        assert asked[0] == (data.ids[:4], NET(data.images).argmax(1)[:4].tolist())
        if kind != "list":
            explanation = xcam.explain(NET, data.images)
            brightness = data.images.mean(1)
            given = type(explanation)(brightness, brightness, None, None, explanation.method)
            expected = xcam.get_metric("sparseness")().score(NET, data.images, given)
            values = [row["values"][0] for row in found]
            np.testing.assert_allclose(values, expected, rtol=1e-5)

    def test_that_lack_an_image_leave_a_row(self, tmp_path):
        data = Pictures(3)
        for name in (data.ids[0], data.ids[2]):
            path = tmp_path / "maps" / f"{name}.npy"
            path.parent.mkdir(parents=True, exist_ok=True)
            np.save(path, np.eye(16, dtype=np.float32))
        evaluate(loader(data), (), maps=tmp_path / "maps", out=tmp_path / "out", controls=False)
        errors = [row["error"] for row in rows(tmp_path / "out")]
        assert errors[0] is errors[2] is None
        assert f"no map of image '{data.ids[1]}'" in errors[1]

    @pytest.mark.parametrize(
        ("made", "sentence"),
        [
            (lambda images: images[:, 0] * torch.nan, "mine gave a map that is not finite"),
            (lambda images: images[:, 0, 0], r"mine must give \(1, h, w\) maps, got \(1, 16\)"),
            (lambda images: "maps", "mine must give a tensor of 1 maps, got str"),
            (lambda images: None, "mine must give a tensor of 1 maps, got NoneType"),
            (lambda images: [None] * len(images), "must give tensors or arrays, got NoneType"),
        ],
    )
    def test_that_are_none_leave_a_row(self, tmp_path, made, sentence):
        mine = {"mine": lambda images, ids, target: made(images)}
        evaluate(loader(Pictures(1)), (), maps=mine, out=tmp_path, controls=False)
        (row,) = rows(tmp_path)
        assert row["values"] is None
        with pytest.raises(ValueError, match=sentence):
            raise ValueError(row["error"])
