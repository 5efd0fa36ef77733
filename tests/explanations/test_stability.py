"""Two models' maps: hand-made masks, folders by name, LFI-CAM's rows."""

import numpy as np
import pytest
import torch
from commands import refused, run
from evaluations import Pictures, evaluate, loader

import xcam
from xcam.errors import FileFormatError, XcamWarning
from xcam.models.toy import SmallCNN


def square(top, size=224, side=40, left=60):
    """A map that is 1 on a square and 0 elsewhere."""
    single = torch.zeros(size, size)
    single[top : top + side, left : left + side] = 1
    return single


PAIR = square(50)[None], square(60)[None]  # 30 of 50 rows in common


def dump(folder, maps, suffix=""):
    """Maps as .npy by image name."""
    for index, single in enumerate(maps):
        path = folder / f"n{index % 2}" / f"image{index}{suffix}.npy"
        path.parent.mkdir(parents=True, exist_ok=True)
        np.save(path, single.numpy())
    return folder


def smooth(seed, count=4):
    generator = torch.Generator().manual_seed(seed)
    coarse = torch.randn(count, 1, 5, 5, generator=generator)
    return torch.nn.functional.interpolate(coarse, (20, 24), mode="bilinear")[:, 0]


class TestIoU:
    def test_offset_squares_have_their_known_iou(self):
        assert xcam.stability_iou(*PAIR).tolist() == pytest.approx([0.6])

    def test_empty_rows_count_as_1_in_row_mode(self):
        # 174 of 224 rows hold neither square, 30 both, 20 one of the two.
        rows = xcam.stability_iou(*PAIR, mode="row")
        assert rows.tolist() == pytest.approx([(174 + 30) / 224])
        assert round(float(rows), 3) == 0.911

    def test_iou_is_per_image(self):
        a = torch.stack([square(50), square(50), square(0)])
        b = torch.stack([square(60), square(50), square(100)])
        assert xcam.stability_iou(a, b).tolist() == pytest.approx([0.6, 1, 0])

    def test_threshold_is_of_the_range_of_each_map(self):
        steps = torch.tensor([[0.0, 99.0, 100.0, 101.0, 255.0]])[None]
        other = torch.tensor([[0.0, 255.0, 255.0, 255.0, 255.0]])[None]
        for scale, offset in ((1, 0), (1e-3, -7), (40, 5)):
            shifted = steps.double() * scale + offset
            for threshold, high in ((98, 4), (99.5, 3), (100.5, 2), (110, 1)):
                found = xcam.stability_iou(shifted, other, threshold)
                assert found.tolist() == pytest.approx([high / 4])

    def test_bytes_are_taken_as_they_are_and_strictly(self):
        steps = torch.tensor([[[90, 100, 101, 120]]], dtype=torch.uint8)
        other = torch.tensor([[[120, 120, 120, 121]]], dtype=torch.uint8)
        assert xcam.stability_iou(steps, other).tolist() == [0.5]
        assert xcam.stability_iou(steps, other, 110).tolist() == [0.25]

    @pytest.mark.parametrize("mode", ["pixel", "row"])
    def test_two_maps_of_nothing_agree(self, mode):
        flat = torch.full((1, 6, 6), 3.0)
        with pytest.warns(XcamWarning, match="1 of 1 images count as 1 with nothing above the th"):
            assert xcam.stability_iou(flat, 2 * flat, mode=mode).tolist() == [1]
        with pytest.warns(XcamWarning, match="1 of 1 maps of maps_a are flat, they point nowhere$"):
            assert float(xcam.stability_iou(flat, square(1, 6, 2, 1)[None], mode=mode)) < 1

    def test_counts_the_maps_that_are_flat(self):
        live = smooth(0, 3)
        dead = live.clone()
        dead[1:] = 7 / 3
        flat = "of 3 maps of {} are flat, they point nowhere"
        both = f"2 {flat.format('maps_a')}; 2 {flat.format('maps_b')}"
        ones = "2 of 3 images count as 1 with nothing above the threshold"
        for a, b, size, said in (
            (live, dead, None, f"2 {flat.format('maps_b')}"),
            (dead, live, None, f"2 {flat.format('maps_a')}"),
            (dead, dead, None, f"{both}; {ones}"),
            (dead, live, 33, f"2 {flat.format('maps_a')}"),  # a resize rounds
        ):
            with pytest.warns(XcamWarning) as record:
                xcam.stability_iou(a, b, size=size)
            assert [str(one.message) for one in record] == [said]
            assert record[0].filename == __file__

    def test_counts_the_images_without_any_high_pixel(self):
        """Bytes may be low everywhere without being flat."""
        low = torch.tensor([[[0, 90]], [[0, 200]]], dtype=torch.uint8)
        with pytest.warns(XcamWarning, match="^1 of 2 images count as 1 with nothing above the"):
            assert xcam.stability_iou(low, low).tolist() == [1, 1]
        assert xcam.stability_iou(low, low, 1).tolist() == [1, 1]  # the lowest that is no share

    @pytest.mark.parametrize("mode", ["pixel", "row"])
    def test_iou_is_symmetric_and_1_of_a_map_with_itself(self, mode):
        a, b = smooth(0), smooth(1)
        assert torch.equal(xcam.stability_iou(a, b, mode=mode), xcam.stability_iou(b, a, mode=mode))
        assert xcam.stability_iou(a, a, mode=mode).tolist() == pytest.approx([1] * 4)

    def test_rows_as_the_published_code_counts_them(self):
        """Arrays (H, W, 3) of bytes, sums over columns and colours."""
        a, b = ((255 * xcam.imaging.normalize(smooth(seed))).byte() for seed in (0, 1))
        for one, other, found in zip(a, b, xcam.stability_iou(a, b, mode="row"), strict=True):
            high_a, high_b = (np.stack([m.numpy()] * 3, -1) > 100 for m in (one, other))
            both = (high_a & high_b).sum((1, 2)) + 1e-6
            either = (high_a | high_b).sum((1, 2)) + 1e-6
            assert float(found) == pytest.approx((both / either).mean(), abs=1e-5)

    def test_maps_are_resized_before_they_are_stretched(self):
        """A peak of 1 of which the resize leaves 0.625, twice, is the highest all the same."""
        a, b = torch.tensor([[[0.0, 1.0, 0.0]]]), torch.tensor([[[1.0, 1.0, 1.0, 0.0]]])
        for threshold in (0, 100, 200, 254):  # 0.625 of 255 would be 159
            found = xcam.stability_iou(a, b, threshold, size=(1, 4))
            assert found.tolist() == pytest.approx([2 / 3])
            assert torch.equal(found, xcam.stability_iou(b, a, threshold, size=(1, 4)))

    def test_bytes_that_are_resized_are_not_stretched(self):
        steps = torch.tensor([[[50, 150]]], dtype=torch.uint8)  # 50, 75, 125, 150 at 4
        whole = torch.tensor([[[255, 255, 255, 254]]], dtype=torch.uint8)
        for threshold, high in ((49, 4), (74, 3), (100, 2), (126, 1)):
            assert xcam.stability_iou(steps, whole, threshold, size=(1, 4)).tolist() == [high / 4]

    def test_maps_of_different_sizes_agree_at_that_of_the_images(self):
        """As LFI-CAM compares its maps with ABN's: like those that `explain` gives."""
        a, b = smooth(0), smooth(1)[:, ::3, ::3]
        expected = xcam.stability_iou(a, xcam.imaging.resize(b, (20, 24)))
        assert torch.equal(xcam.stability_iou(a, b, size=(20, 24)), expected)
        at_both = [xcam.imaging.resize(maps, (32, 32)) for maps in (a, b)]
        assert torch.equal(xcam.stability_iou(a, b, size=32), xcam.stability_iou(*at_both))

    @pytest.mark.parametrize(
        ("a", "b", "named", "error", "sentence"),
        [
            (*PAIR, {"mode": "rows"}, ValueError, "must be 'pixel' or 'row', got 'rows'"),
            (*PAIR, {"threshold": 255}, ValueError, r"0 or in \[1, 255\), as of bytes, got 255"),
            (*PAIR, {"threshold": -1}, ValueError, r"0 or in \[1, 255\), as of bytes, got -1"),
            (
                *PAIR,
                {"threshold": 100 / 255},
                ValueError,
                r"bytes, 0 to 255, got 0\.392\d+; for that share of the range give 100$",
            ),
            (PAIR[0], PAIR[1][:, 1:], {}, ValueError, r"\(1, 224, 224\) and \(1, 223, 224\); give"),
            (PAIR[0], PAIR[1][:, 1:], {}, ValueError, "such as size=224 or --size 224, to compare"),
            (PAIR[0], smooth(0), {"size": 9}, ValueError, r"of the same images, got \(1, .* \(4, "),
            (*PAIR, {"size": 0}, ValueError, r"size must be a positive int, or two, .* got 0"),
            (
                *PAIR,
                {"size": True},
                ValueError,
                r"size must be a positive int, or two, .* got True",
            ),
            (PAIR[0][0], PAIR[1][0], {}, ValueError, r"must be \(N, h, w\)"),
            (PAIR[0].long(), PAIR[1], {}, TypeError, "or uint8, got torch.int64; give bytes, 0 to"),
            (PAIR[0] / 0, PAIR[1], {}, ValueError, "must be finite"),
            (PAIR[0], "folder", {}, TypeError, "two tensors or two folders, got Tensor and str"),
        ],
    )
    def test_refuses(self, a, b, named, error, sentence):
        with pytest.raises(error, match=sentence):
            xcam.stability_iou(a, b, **named)


class TestFolders:
    def test_folders_are_matched_by_image_name(self, tmp_path):
        a, b = smooth(0), smooth(1)
        folders = dump(tmp_path / "a", a), dump(tmp_path / "b", b)
        found = xcam.stability_iou(*folders)
        order = [0, 2, 1, 3]  # n0/image0, n0/image2, n1/image1, n1/image3
        assert torch.equal(found, xcam.stability_iou(a, b)[order])

    def test_error_names_images_of_one_folder_only(self, tmp_path):
        a, b = dump(tmp_path / "a", smooth(0)), dump(tmp_path / "b", smooth(1, 3))
        for one, other in ((a, b), (b, a)):
            with pytest.raises(ValueError, match=r"b' has no maps of n1/image3, which .*a' has"):
                xcam.stability_iou(one, other)

    def test_error_names_the_image_whose_maps_differ_in_size(self, tmp_path):
        a, b = dump(tmp_path / "a", smooth(0)), dump(tmp_path / "b", smooth(1)[:, 1:])
        with pytest.raises(ValueError, match=r"image 'n0/image0': .* \(1, 19, 24\); give the im"):
            xcam.stability_iou(a, b)
        expected = xcam.stability_iou(smooth(0), smooth(1)[:, 1:], size=24)[[0, 2, 1, 3]]
        assert torch.equal(xcam.stability_iou(a, b, size=24), expected)

    def test_hold_what_the_published_code_writes(self, tmp_path):
        """Three equal colours, the highest pixel wrapped to 0."""
        maps = [xcam.imaging.normalize(smooth(seed)) for seed in (0, 1)]
        wrapped = [(256 * m.double()).long().remainder(256).byte() for m in maps]
        assert all(int(m.flatten(1).amax(1).max()) < 256 for m in wrapped)
        gray = [m[..., None].expand(-1, -1, -1, 3).contiguous() for m in wrapped]
        folders = [dump(tmp_path / name, m) for name, m in zip("ab", gray, strict=True)]
        for mode in ("pixel", "row"):
            found = xcam.stability_iou(*folders, mode=mode)
            assert torch.equal(found, xcam.stability_iou(*wrapped, mode=mode)[[0, 2, 1, 3]])
        assert not torch.equal(xcam.stability_iou(*wrapped), xcam.stability_iou(*maps))

    def test_may_be_those_of_evaluations(self, tmp_path):
        nets = {"one": SmallCNN(seed=0), "two": SmallCNN(seed=1)}
        data = Pictures(5, truth=False)
        evaluate(loader(data), model=nets, out=tmp_path, save_maps=True, controls=False)
        found = xcam.stability_iou(*(tmp_path / "maps" / name / "gradcam" for name in nets))
        maps = [xcam.explain(one, data.images, method="gradcam").raw for one in nets.values()]
        order = sorted(range(5), key=data.ids.__getitem__)
        expected = xcam.stability_iou(*maps)[order]
        assert found.tolist() == pytest.approx(expected.tolist(), abs=0.01)  # half precision

    def test_damaged_files_are_named(self, tmp_path):
        a, b = dump(tmp_path / "a", smooth(0)), dump(tmp_path / "b", smooth(1))
        (b / "n1" / "image3.npy").write_bytes(b"nothing")
        with pytest.raises(FileFormatError, match=r"image3.npy' is damaged"):
            xcam.stability_iou(a, b)

    def test_two_classes_of_an_image_are_refused(self, tmp_path):
        from xcam.explanations.folder import write_maps

        write_maps(tmp_path / "a" / "x.safetensors", smooth(0, 2), ["one", "one"], [3, 4])
        with pytest.raises(ValueError, match="maps of image 'one' for the classes 3, 4"):
            xcam.stability_iou(tmp_path / "a", tmp_path / "a")


class TestCommand:
    def test_prints_the_mean_and_its_interval(self, tmp_path):
        a, b = dump(tmp_path / "a", smooth(0, 8)), dump(tmp_path / "b", smooth(1, 8))
        done = run("stability", a, b, "--threshold", "120")
        assert (done.exit_code, done.stderr) == (0, "")
        mean = float(xcam.stability_iou(a, b, 120).mean())
        assert done.stdout.startswith(f"IoU {mean:.4f}, 95 % interval 0.")
        assert done.stdout.endswith("of 8 images, above 120 of 255\n")

    def test_default_threshold_is_the_published_one(self, tmp_path):
        a, b = dump(tmp_path / "a", smooth(0)), dump(tmp_path / "b", smooth(1))
        assert run("stability", a, b).stdout == run("stability", a, b, "--threshold", 100).stdout

    def test_says_what_rows_are(self, tmp_path):
        folders = [dump(tmp_path / name, m) for name, m in zip("ab", PAIR, strict=True)]
        done = run("stability", *folders, "--mode", "row")
        assert done.stdout == "IoU 0.9107, no interval, of 1 image, above 100 of 255\n"
        assert "compare this with LFI-CAM's own numbers only" in done.stderr

    def test_says_which_maps_are_flat(self, tmp_path):
        dead = torch.full((3, 6, 6), 0.5)
        a, b = dump(tmp_path / "a", dead), dump(tmp_path / "b", dead)
        done = run("stability", a, b)
        assert done.stdout.startswith("IoU 1.0000, ")
        assert done.stderr == (
            f"xcam: 3 of 3 maps of {str(a)!r} are flat, they point nowhere; 3 of 3 maps of "
            f"{str(b)!r} are flat, they point nowhere; 3 of 3 images count as 1 with nothing above "
            "the threshold\n"
        )

    def test_threshold_between_0_and_1_is_refused(self, tmp_path):
        a = dump(tmp_path / "a", smooth(0))
        said = refused("stability", a, a, "--threshold", "0.4")
        assert "got 0.4; for that share of the range give 102" in said
        assert "0 to 255" in run("stability", "--help").stdout

    def test_compares_at_the_size_of_the_images(self, tmp_path):
        """What evaluations store of an attention at 5×6 and another at 10×12."""
        from xcam.explanations.folder import write_maps

        names = [f"{number}.png" for number in range(4)]
        for name, maps in (("a", smooth(0)[:, ::4, ::4]), ("b", smooth(1)[:, ::2, ::2])):
            write_maps(tmp_path / name / "0.safetensors", maps, names, [0] * 4)
        folders = tmp_path / "a", tmp_path / "b"
        said = refused("stability", *folders)
        assert "got (1, 5, 6) and (1, 10, 12); give the images' size, such as size=224" in said
        done = run("stability", *folders, "--size", "24")
        assert done.exit_code == 0, done.output
        mean = float(xcam.stability_iou(*folders, size=24).mean())
        assert done.stdout.startswith(f"IoU {mean:.4f}, ")

    def test_mistakes_are_one_sentence(self, tmp_path):
        a = dump(tmp_path / "a", smooth(0))
        assert "no folder of maps at" in refused("stability", a, tmp_path / "b")
        assert "has no maps of" in refused("stability", a, dump(tmp_path / "b", smooth(0, 2)))

    def test_reads_what_explain_dumps(self, net, picture, tmp_path):
        folder = tmp_path / "new" / "maps"
        done = run("explain", picture, "--npy", folder, "--out", tmp_path)
        assert done.exit_code == 0, done.output
        assert done.stdout.endswith(f"maps -> {folder}\n")
        (written,) = folder.iterdir()
        assert written.name == "photo.npy"
        expected = xcam.explain(net, xcam.read_image(picture, (16, 24))[None]).maps[0]
        assert np.array_equal(np.load(written), expected.numpy())
        assert run("stability", folder, folder).stdout.startswith("IoU 1.0000")
