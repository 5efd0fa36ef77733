"""Mask files of every mode of Pillow and of lossy formats: which pixels are the object."""

import numpy as np
import pytest
import torch
from PIL import Image, ImageDraw
from torchvision.transforms import v2

from xcam.data import listed

SAME = v2.ToDtype(torch.float32, scale=True)
VOC = [0, 0, 0, 128, 0, 0, 0, 128, 0, 128, 128, 0] + 252 * [9, 99, 200]


def draw(value, dtype="uint8"):
    """A square of a value on 0: rows 20 to 40, columns 30 to 50."""
    pixels = np.zeros((64, 80), dtype)
    pixels[20:40, 30:50] = value
    return pixels


SQUARE = torch.from_numpy(draw(1))


@pytest.fixture
def read(tmp_path):
    """Read an image as a mask, after saving it."""

    def read(picture, name="mask.png", ignore=None, **options):
        picture.save(tmp_path / name, **options)
        Image.new("RGB", picture.size).save(tmp_path / "image.png")
        (tmp_path / "list.txt").write_text(f"image.png,0,{name}\n")
        return listed(tmp_path / "list.txt", transform=SAME, ignore=ignore)[0][2]

    return read


def make_palette(numbers, palette):
    picture = Image.fromarray(numbers)
    picture = Image.frombytes("P", picture.size, picture.tobytes())
    picture.putpalette(palette)
    return picture


def make_cutout(color_inside, color_outside, alpha):
    colors = np.empty((64, 80, 3), "uint8")
    colors[:] = color_outside
    colors[20:40, 30:50] = color_inside
    return Image.fromarray(np.dstack([colors, draw(alpha)]))


class TestGray:
    @pytest.mark.parametrize("value", [1, 7, 255])
    @pytest.mark.parametrize("mode", ["L", "RGB", "LA", "RGBA", "P", "1"])
    def test_all_but_black_is_the_object(self, read, mode, value):
        if mode != "1" or value == 255:
            assert torch.equal(read(Image.fromarray(draw(value)).convert(mode)), SQUARE)

    @pytest.mark.parametrize(
        ("pixels", "name"),
        [
            (draw(1, "uint16"), "mask.png"),
            (draw(24001, "uint16"), "mask.png"),
            (draw(65535, "uint16"), "mask.png"),
            (draw(24001, ">u2"), "mask.tif"),
            (draw(3, "int32"), "mask.tif"),
            (draw(2.0, "float32"), "mask.tif"),
            (draw(0.7, "float32"), "mask.tif"),
        ],
    )
    def test_deep_grays(self, read, pixels, name):
        assert torch.equal(read(Image.fromarray(pixels), name), SQUARE)

    @pytest.mark.parametrize("value", [0, 1, 255])
    def test_mask_of_one_value(self, read, value):
        mask = read(Image.fromarray(np.full((64, 80), value, "uint8")))
        assert mask.unique().tolist() == [int(value > 0)]

    def test_many_instances_are_all_the_object(self, read):
        numbers = np.repeat(np.repeat(np.arange(256).reshape(16, 16), 4, 0), 5, 1).astype("uint8")
        assert torch.equal(read(Image.fromarray(numbers)), torch.from_numpy(numbers > 0).byte())

    def test_edges_of_a_smoothed_mask_are_cut_at_one_half(self, read):
        large = Image.new("L", (800, 640))
        ImageDraw.Draw(large).ellipse((210, 150, 630, 520), fill=255)
        smooth = large.resize((80, 64), Image.Resampling.BOX)
        expected = torch.from_numpy(np.array(smooth) >= 128).byte()
        for mode in ("L", "RGB", "P"):
            assert torch.equal(read(smooth.convert(mode)), expected)
        deep = Image.fromarray(np.array(smooth).astype("uint16") * 257)
        assert torch.equal(read(deep), expected)

    def test_gradients_are_cut_at_one_half(self, read):
        y, x = np.mgrid[:64, :80]
        soft = np.exp(-((y - 30.3) ** 2 + (x - 40.6) ** 2) / 200)
        soft = soft / soft.max()
        expected = torch.from_numpy(soft >= 128 / 255)
        got = read(Image.fromarray((soft * 255).round().astype("uint8")))
        assert (got.bool() != expected).sum() <= 4  # rounded
        got = read(Image.fromarray(soft.astype("float32")), "mask.tif")
        assert torch.equal(got, torch.from_numpy(soft.astype("float32") >= 0.5).byte())

    def test_gradients_without_white_are_refused(self, read):
        """Half of 200, or of 255? Few values, as of lines one pixel wide, are labels."""
        y, x = np.mgrid[:64, :80]
        soft = 200 * np.exp(-((y - 30.3) ** 2 + (x - 40.6) ** 2) / 200)
        with pytest.raises(
            ValueError, match=r"mask.png' has soft edges but no white \(maximum 200\)"
        ):
            read(Image.fromarray(soft.round().astype("uint8")))
        lines = np.zeros((64, 80), "uint8")
        for number in range(1, 11):
            lines[6 * number] = number
        assert torch.equal(read(Image.fromarray(lines)), torch.from_numpy(lines > 0).byte())

    def test_thin_label_within_unknown_pixels_is_the_object(self, read):
        pixels = np.zeros((64, 80), "uint8")
        pixels[20:27] = 255
        pixels[23] = 2
        assert torch.equal(read(Image.fromarray(pixels)), torch.from_numpy(pixels > 0).byte())

    @pytest.mark.parametrize("width", [1, 2])
    @pytest.mark.parametrize("highest", [200, 255])
    def test_tiny_instances_are_all_the_object(self, read, width, highest):
        pixels = np.zeros((64, 80), "uint8")
        numbers = np.arange(16 * 20).reshape(16, 20) % highest + 1
        for column in range(width):
            pixels[1::4, column::4] = numbers
        expected = torch.from_numpy(pixels > 0).byte()
        for mode in ("L", "RGB"):
            assert torch.equal(read(Image.fromarray(pixels).convert(mode)), expected)

    def test_lines_of_many_labels_are_the_object(self, read):
        drawn = Image.new("L", (80, 64))
        rng = np.random.default_rng(0)
        for number in rng.permutation(np.arange(1, 256))[:40]:
            line = [tuple(rng.integers(0, (80, 64)).tolist()) for _ in range(2)]
            ImageDraw.Draw(drawn).line(line, fill=int(number))
        assert torch.equal(read(drawn), torch.from_numpy(np.array(drawn) > 0).byte())

    def test_grays_that_may_be_either_are_refused(self, read):
        pixels = np.random.default_rng(0).integers(0, 256, (64, 80)).astype("uint8")
        with pytest.raises(ValueError, match=r"mask.png' has grays that may be labels or soft ed"):
            read(Image.fromarray(pixels))

    def test_gray_area_apart_from_a_soft_object_is_refused(self, read):
        """At one half it would be lost."""
        large = Image.new("L", (800, 640))
        ImageDraw.Draw(large).ellipse((210, 150, 630, 520), fill=255)
        smooth = np.array(large.resize((80, 64), Image.Resampling.BOX))
        smooth[2:6, 2:6] = 100
        with pytest.raises(ValueError, match="an area of 100 apart from what is white"):
            read(Image.fromarray(smooth))

    def test_masks_of_half_the_size_are_soft(self, read):
        large = Image.new("L", (160, 128))
        ImageDraw.Draw(large).ellipse((41, 30, 121, 100), fill=255)
        smooth = large.resize((80, 64), Image.Resampling.BOX)  # 64, 128 and 191
        assert torch.equal(read(smooth), torch.from_numpy(np.array(smooth) >= 128).byte())

    def test_trimap_without_0_is_refused(self, read):
        """As the Oxford pets have it: 1 object, 2 background, 3 unknown."""
        pixels = draw(1)
        pixels[pixels == 0] = 2
        pixels[20, 30:50] = 3
        with pytest.raises(ValueError, match=r"mask.png' has the values 1, 2, 3 and no 0, which"):
            read(Image.fromarray(pixels))
        colors = np.stack([pixels, pixels * 3, pixels], 2)
        with pytest.raises(ValueError, match="has several colors and no black"):
            read(Image.fromarray(colors))

    def test_values_without_a_known_middle_are_refused(self, read):
        with pytest.raises(ValueError, match=r"holds fractions from 0 to 2.5"):
            read(Image.fromarray(draw(2.5, "float32")), "mask.tif")
        with pytest.raises(ValueError, match="values that are not finite; save it as a gray PNG"):
            read(Image.fromarray(draw(np.nan, "float32")), "mask.tif")

    def test_several_frames_are_refused(self, read):
        frames = [Image.fromarray(draw(255)), Image.fromarray(255 - draw(255))]
        with pytest.raises(ValueError, match=r"mask.tif' has 2 frames; save it as a gray PNG"):
            read(frames[0], "mask.tif", save_all=True, append_images=frames[1:])


class TestPalettes:
    @pytest.mark.parametrize(
        "palette", [[255, 255, 255, 0, 0, 0], [200, 200, 200, 0, 0, 0], [220, 30, 30, 0, 0, 0]]
    )
    def test_colors_count_where_number_0_is_not_black(self, read, palette):
        """Number 1, black, is the background, as anybody sees it."""
        assert torch.equal(read(make_palette(1 - draw(1), palette)), SQUARE)

    def test_quantized_mask_is_read_as_the_mask(self, read):
        colors = np.repeat(draw(255)[:, :, None], 3, 2)
        assert torch.equal(read(Image.fromarray(colors).quantize(2)), SQUARE)
        assert torch.equal(read(Image.fromarray(255 - colors).quantize(2)), 1 - SQUARE)

    def test_numbers_count_where_0_is_black(self, read):
        """As in VOC: class 2 in a border of 255, whose color does not matter."""
        numbers = draw(2)
        numbers[18:20] = 255
        expected = SQUARE.clone()
        expected[18:20] = 255
        assert torch.equal(read(make_palette(numbers, VOC), ignore=255), expected)
        expected[18:20] = 1
        assert torch.equal(read(make_palette(numbers, VOC)), expected)

    def test_labels_shown_in_black_are_labels(self, read):
        assert torch.equal(read(make_palette(draw(3), [0] * 768)), SQUARE)
        assert torch.equal(read(make_palette(draw(3), [0] * 9 + [1, 1, 1])), SQUARE)

    def test_two_grays_with_unknown_pixels(self, read):
        mask = read(make_palette(draw(1), [0, 0, 0, 255, 255, 255]), ignore=255)
        assert torch.equal(mask, SQUARE)  # number 1 is white, and not the unknown 255

    def test_transparent_number_0_is_the_background(self, read):
        picture = make_palette(draw(1), [250, 250, 250, 10, 200, 10])
        assert torch.equal(read(picture, transparency=0), SQUARE)

    @pytest.mark.parametrize("values", [draw(255), 255 - draw(255)])
    def test_gif(self, read, values):
        expected = torch.from_numpy(values > 0).byte()
        assert torch.equal(read(Image.fromarray(values), "mask.gif"), expected)

    def test_colors_without_black_are_refused(self, read):
        with pytest.raises(ValueError, match=r"has several colors and no black.* gray PNG, 255 on"):
            read(make_palette(draw(1), [31, 119, 180, 255, 127, 14]))


class TestColors:
    def test_dark_and_bright_colors_are_the_object(self, read):
        colors = np.zeros((64, 80, 3), "uint8")
        colors[20:40, 30:40, 2] = 40
        colors[20:40, 40:50] = 255, 0, 0
        assert torch.equal(read(Image.fromarray(colors)), SQUARE)
        assert torch.equal(read(Image.fromarray(colors), ignore=255), SQUARE)  # red is not gray
        colors[:5] = 255
        expected = SQUARE.clone()
        expected[:5] = 255
        assert torch.equal(read(Image.fromarray(colors), ignore=255), expected)

    @pytest.mark.parametrize(
        ("inside", "outside"),
        [((0, 0, 0), (0, 0, 0)), ((255, 255, 255), (255, 255, 255)), ((9, 8, 7), (70, 80, 90)),
         ((200, 9, 9), (0, 0, 0))],
    )  # fmt: skip
    @pytest.mark.parametrize("alpha", [255, 100])
    def test_cutout_is_read_by_its_transparency(self, read, inside, outside, alpha):
        assert torch.equal(read(make_cutout(inside, outside, alpha)), SQUARE)

    @pytest.mark.parametrize("name", ["mask.png", "mask.webp"])
    @pytest.mark.parametrize("gray", [False, True])
    @pytest.mark.parametrize("outside", ["black", "kept"])
    def test_photograph_with_black_pixels_is_read_by_its_transparency(
        self, read, name, gray, outside
    ):
        """A nose within the animal, and what a tool left under the transparent pixels."""
        colors = np.random.default_rng(0).integers(30, 255, (64, 80, 3))
        colors = colors[..., :1].repeat(3, 2) if gray else colors
        colors[28:32, 38:42] = 0
        colors[5:9, 5:9] = 0
        if outside == "black":
            colors *= draw(1)[..., None]
        cutout = Image.fromarray(np.dstack([colors.astype("uint8"), draw(255)]))
        assert torch.equal(read(cutout, name), SQUARE)

    def test_drawing_within_opaque_pixels_is_refused(self, read):
        """White on black within an opaque square: either may be the object."""
        cutout = np.array(make_cutout((0, 0, 0), (0, 0, 0), 255))
        cutout[25:35, 35:45, :3] = 255
        with pytest.raises(ValueError, match="one object by its colors and another by its transp"):
            read(Image.fromarray(cutout))

    def test_hair_is_transparent_from_one_half_on(self, read):
        drawn = Image.new("L", (640, 512))
        ImageDraw.Draw(drawn).ellipse((200, 150, 400, 350), fill=255)
        for angle in np.random.default_rng(0).uniform(0, 6.28, 60):
            end = (300 + 220 * np.cos(angle), 250 + 220 * np.sin(angle))
            ImageDraw.Draw(drawn).line((300, 250, *end), fill=255, width=3)
        alpha = np.array(drawn.resize((80, 64), Image.Resampling.BOX))
        cutout = Image.fromarray(np.dstack([np.full((64, 80, 3), 99, "uint8"), alpha]))
        assert torch.equal(read(cutout), torch.from_numpy(alpha >= 128).byte())

    def test_nowhere_transparent_is_refused(self, read):
        cutout = np.array(make_cutout((9, 9, 9), (99, 9, 9), 255))
        cutout[..., 3] = np.maximum(cutout[..., 3], 100)
        with pytest.raises(ValueError, match=r"is nowhere transparent \(alpha from 100 to 255\)"):
            read(Image.fromarray(cutout))

    def test_colors_against_transparency_are_refused(self, read):
        with pytest.raises(ValueError, match="one object by its colors and another by its transp"):
            read(make_cutout((0, 0, 0), (200, 9, 9), 255))

    def test_cmyk(self, read):
        mask = read(Image.fromarray(draw(255)).convert("RGB").convert("CMYK"), "mask.tif")
        assert torch.equal(mask, SQUARE)


class TestLossyFormats:
    @pytest.mark.parametrize(
        ("name", "options"),
        [("mask.jpg", {"quality": 75}), ("mask.jpg", {"quality": 20}), ("mask.webp", {}),
         ("mask.tif", {"compression": "jpeg"}),
         ("mask.jp2", {"quality_layers": [8], "irreversible": True})],
    )  # fmt: skip
    @pytest.mark.parametrize("mode", ["L", "RGB"])
    def test_ringing_is_not_the_object(self, read, name, options, mode):
        large = Image.new("L", (80, 64))
        ImageDraw.Draw(large).ellipse((23, 11, 61, 52), fill=255)
        expected = torch.from_numpy(np.array(large) > 0).byte()
        got = read(large.convert(mode), name, **options)
        assert (got != expected).sum() <= 3
        assert expected.sum() > 1000

    def test_only_black_or_only_white(self, read):
        for value in (0, 255):
            mask = read(Image.new("L", (80, 64), value), "mask.jpg")
            assert mask.unique().tolist() == [value // 255]

    @pytest.mark.parametrize("color", [(220, 20, 60), (128, 0, 0), (0, 128, 128), (150, 150, 150)])
    def test_object_of_one_color(self, read, color):
        pixels = np.repeat(draw(1)[..., None], 3, 2) * np.array(color, "uint8")
        mask = read(Image.fromarray(pixels), "mask.jpg", subsampling=0)
        assert torch.equal(mask, SQUARE)
        mask = read(Image.fromarray(pixels), "mask.jpg")  # chroma of half the resolution
        assert torch.equal(mask, SQUARE)

    def test_transparency_of_a_lossy_webp(self, read):
        cutout = make_cutout((200, 200, 200), (200, 200, 200), 255)
        assert torch.equal(read(cutout, "mask.webp"), SQUARE)

    @pytest.mark.parametrize("levels", [(1, 1), (20, 255), (128, 255), (60, 200)])
    def test_labels_are_refused(self, read, levels):
        pixels = draw(levels[0])
        pixels[45:60, 5:70] = levels[1]
        with pytest.raises(ValueError, match=r"mask.jpg' is in a format whose values are not exac"):
            read(Image.fromarray(pixels), "mask.jpg", quality=90)

    def test_unknown_value_is_refused(self, read):
        with pytest.raises(ValueError, match=r"is a JPEG, .* none of them can be ignore=255"):
            read(Image.fromarray(draw(255)), "mask.jpg", ignore=255)

    def test_lossless_webp_holds_labels(self, read):
        picture = Image.fromarray(draw(2)).convert("RGB")
        assert torch.equal(read(picture, "mask.webp", lossless=True), SQUARE)
