"""Resizing, blurring, normalising, colouring and reading pictures."""

import matplotlib as mpl
import numpy as np
import pytest
import torch
from PIL import Image
from scipy import ndimage
from torch.testing import assert_close

from xcam import imaging


def noise(*shape, seed=0):
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed))


class TestResize:
    def test_resize_aligns_pixel_centers(self):
        maps = torch.tensor([[[0.0, 4.0]]])
        got = imaging.resize(maps, (1, 8))[0, 0]
        centres = (torch.arange(8) + 0.5) / 4 - 0.5  # in cells of the map
        assert_close(got, 4 * centres.clamp(0, 1))

    def test_same_size_is_the_same(self):
        maps = noise(2, 5, 7)
        assert imaging.resize(maps, (5, 7)) is maps


class TestNormalize:
    def test_range(self):
        maps = noise(3, 4, 4) * 1e-3 - 5e-4
        got = imaging.normalize(maps)
        assert_close(got.amin((1, 2)), torch.zeros(3))
        assert_close(got.amax((1, 2)), torch.ones(3))
        assert_close(imaging.normalize(maps * 1e6), got)

    def test_flat_beside_another(self):
        maps = torch.stack([torch.full((4, 4), 3.0), noise(4, 4)])
        got = imaging.normalize(maps)
        assert torch.equal(got[0], torch.zeros(4, 4))
        assert got[1].max() == 1
        assert got.isfinite().all()


class TestBlur:
    @pytest.mark.parametrize("sigma", [0.5, 1.0, 3.0, 9.0])
    def test_blur_matches_scipy(self, sigma):
        images = noise(2, 3, 12, 17).double()
        expected = ndimage.gaussian_filter(
            images.numpy(), (0, 0, sigma, sigma), mode="nearest", radius=max(1, round(4 * sigma))
        )
        assert_close(imaging.blur(images, sigma), torch.from_numpy(expected))

    def test_no_blur(self):
        images = noise(1, 3, 4, 4)
        assert imaging.blur(images, 0) is images


class TestStretch:
    def test_image_by_image(self):
        images = torch.stack([noise(3, 4, 4), noise(3, 4, 4) * 4 - 2, torch.full((3, 4, 4), 7.0)])
        got = imaging.stretch(images)
        assert torch.equal(got[0], images[0])
        assert got[1].min() == 0
        assert got[1].max() == 1
        assert got.isfinite().all()


class TestColour:
    def test_colorize_matches_matplotlib(self):
        maps = torch.linspace(0, 1, 256).reshape(1, 16, 16)
        expected = mpl.colormaps["viridis"](maps[0].numpy().astype(float))[..., :3]
        got = imaging.colorize(maps, "viridis")[0].movedim(0, -1)
        assert_close(got, torch.from_numpy(expected).float(), atol=0.02, rtol=0)

    def test_overlay_at_full_opacity_is_the_colored_map(self):
        images, maps = noise(1, 1, 4, 4), torch.ones(1, 4, 4)
        assert_close(imaging.overlay(images, maps, alpha=1), imaging.colorize(maps))


class TestReadImage:
    @pytest.fixture
    def pixels(self):
        return (noise(20, 30, 3) * 255).byte().numpy()

    def test_png(self, tmp_path, pixels):
        Image.fromarray(pixels).save(tmp_path / "a.png")
        got = imaging.read_image(tmp_path / "a.png")
        assert got.dtype == torch.float32
        assert_close(got, torch.from_numpy(pixels).movedim(-1, 0) / 255)

    @pytest.mark.parametrize("mode", ["L", "RGBA", "P", "LA", "1"])
    def test_kinds_of_png(self, tmp_path, pixels, mode):
        picture = Image.fromarray(pixels).convert(mode)
        picture.save(tmp_path / "a.png")
        got = imaging.read_image(tmp_path / "a.png")
        expected = np.asarray(picture.convert("RGBA").convert("RGB"))
        assert_close(got, torch.from_numpy(expected.copy()).movedim(-1, 0) / 255)

    def test_sixteen_bits(self, tmp_path):
        values = (np.arange(600).reshape(20, 30) * 100).astype(np.uint16)
        Image.fromarray(values).save(tmp_path / "a.png")
        with pytest.raises(ValueError, match="more than 8 bits a channel"):
            imaging.read_image(tmp_path / "a.png")

    def test_jpeg_upright_by_its_tag(self, tmp_path):
        picture = Image.new("RGB", (32, 16), "white")
        picture.paste("black", (0, 0, 16, 16))
        tag = Image.Exif()
        tag[0x0112] = 6  # turned by 90°: what is left is to be on top
        picture.save(tmp_path / "a.jpg", exif=tag, quality=95)
        got = imaging.read_image(tmp_path / "a.jpg")
        assert got.shape == (3, 32, 16)
        assert got[:, :14].max() < 0.1
        assert got[:, 18:].min() > 0.9

    @pytest.mark.parametrize("suffix", ["gif", "webp"])
    def test_other_formats(self, tmp_path, pixels, suffix):
        Image.fromarray(pixels).save(tmp_path / f"a.{suffix}")
        assert imaging.read_image(tmp_path / f"a.{suffix}").shape == (3, 20, 30)

    def test_first_frame_of_an_animation(self, tmp_path, pixels):
        frames = [Image.fromarray(pixels), Image.new("RGB", (30, 20))]
        frames[0].save(tmp_path / "a.gif", save_all=True, append_images=frames[1:])
        got = imaging.read_image(tmp_path / "a.gif")
        assert got.shape == (3, 20, 30)
        assert got.max() > 0.5

    @pytest.mark.parametrize(
        ("size", "shape"), [(16, (16, 16)), ((16, 24), (16, 24)), ((40, 8), (40, 8))]
    )
    def test_read_image_covers_the_size_and_crops_the_center(self, tmp_path, size, shape):
        picture = np.zeros((20, 30, 3), np.uint8)
        picture[8:12, 13:17] = 255  # in the centre
        Image.fromarray(picture).save(tmp_path / "a.png")
        got = imaging.read_image(tmp_path / "a.png", size)
        assert got.shape == (3, *shape)
        assert got.min() >= 0
        assert got.max() <= 1
        centre = torch.stack([axis.float().mean() for axis in torch.where(got[0] > 0.5)]).tolist()
        middle = [(side - 1) / 2 for side in shape]
        assert centre == pytest.approx(middle, abs=1)

    def test_no_such_file(self, tmp_path):
        with pytest.raises(FileNotFoundError, match=r"no picture at '.*nothing.png'"):
            imaging.read_image(tmp_path / "nothing.png")

    @pytest.mark.parametrize("content", [b"", b"no picture", b"\x89PNG\r\n\x1a\n broken"])
    def test_no_picture(self, tmp_path, content):
        path = tmp_path / "a.png"
        path.write_bytes(content)
        with pytest.raises(ValueError, match=r"a.png' is not a picture that can be read"):
            imaging.read_image(path)

    @pytest.mark.parametrize("size", [0, -3, (16, 0), (16,), "16", 7.5])
    def test_bad_size(self, tmp_path, pixels, size):
        Image.fromarray(pixels).save(tmp_path / "a.png")
        with pytest.raises(ValueError, match=r"size must be a positive int, or two, \(H, W\), got"):
            imaging.read_image(tmp_path / "a.png", size)
