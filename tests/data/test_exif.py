"""Pictures with an EXIF orientation: boxes and masks turn with them."""

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision.transforms import v2

from xcam.data import listed

SAME = v2.ToDtype(torch.float32, scale=True)
# Stored → upright, as the EXIF standard tells where row 0 and column 0 are.
UPRIGHT = {
    1: lambda a: a,
    2: lambda a: a[:, ::-1],
    3: lambda a: a[::-1, ::-1],
    4: lambda a: a[::-1],
    5: lambda a: a.swapaxes(0, 1),
    6: lambda a: np.rot90(a, -1),
    7: lambda a: a[::-1, ::-1].swapaxes(0, 1),
    8: lambda a: np.rot90(a),
}


def save(path, pixels, orientation=None):
    exif = Image.Exif()
    if orientation:
        exif[0x0112] = orientation
    Image.fromarray(np.ascontiguousarray(pixels)).save(path, exif=exif)


def list_boxes(mask):
    rows, columns = np.where(mask > 0)
    return columns.min(), rows.min(), columns.max() + 1, rows.max() + 1


@pytest.fixture(params=[(30, 50), (40, 40)], ids=["oblong", "square"])
def stored(request):
    """The object as it is stored: a bright rectangle off all axes of symmetry."""
    pixels = np.zeros((*request.param, 3), "uint8")
    pixels[3:12, 20:28] = 255
    return pixels


@pytest.fixture
def read(tmp_path):
    def read(truth, **options):
        (tmp_path / "list.txt").write_text(f"image.png,0,{truth}\n")
        return listed(tmp_path / "list.txt", transform=SAME, **options)[0]

    return read


@pytest.mark.parametrize("orientation", range(1, 9))
class TestOrientations:
    def test_boxes_and_masks_are_of_the_stored_pixels(self, read, tmp_path, stored, orientation):
        save(tmp_path / "image.png", stored, orientation)
        save(tmp_path / "mask.png", stored[..., 0])
        image, _, mask = read("mask.png")
        expected = torch.from_numpy(UPRIGHT[orientation](stored[..., 0] > 0).copy())
        assert torch.equal(image[0] > 0.5, expected)
        assert torch.equal(mask.bool(), expected)
        _, _, boxes = read(" ".join(map(str, list_boxes(stored[..., 0]))))
        assert boxes.tolist() == [list(list_boxes(expected.numpy()))]

    def test_upright_truth_is_left_as_it_is(self, read, tmp_path, stored, orientation):
        save(tmp_path / "image.png", stored, orientation)
        upright = UPRIGHT[orientation](stored[..., 0])
        save(tmp_path / "mask.png", upright)
        image, _, mask = read("mask.png", upright=True)
        assert torch.equal(mask.bool(), image[0] > 0.5)
        box = list_boxes(upright)
        assert read(" ".join(map(str, box)), upright=True)[2].tolist() == [list(box)]

    def test_mask_with_a_tag_is_turned_by_its_own(self, read, tmp_path, stored, orientation):
        save(tmp_path / "image.png", stored, orientation)
        save(tmp_path / "mask.tif", UPRIGHT[8](UPRIGHT[orientation](stored[..., 0])), 6)
        for upright in (False, True):
            image, _, mask = read("mask.tif", upright=upright)
            assert torch.equal(mask.bool(), image[0] > 0.5)


class TestAmbiguity:
    @pytest.fixture
    def phone(self, tmp_path):
        stored = np.zeros((30, 50, 3), "uint8")
        stored[3:12, 20:28] = 255
        save(tmp_path / "image.png", stored, 6)
        return UPRIGHT[6](stored[..., 0])

    def test_mask_that_fits_upright_alone_is_read_so(self, read, tmp_path, phone):
        save(tmp_path / "mask.png", phone)
        image, _, mask = read("mask.png")
        assert torch.equal(mask.bool(), image[0] > 0.5)

    def test_mask_that_fits_no_way_is_refused(self, read, tmp_path):
        save(tmp_path / "image.png", np.zeros((30, 50, 3), "uint8"), 6)
        save(tmp_path / "mask.png", np.zeros((30, 51), "uint8"))
        with pytest.raises(ValueError, match=r"is 30×51, its image 50×30 \(as stored 30×50\): th"):
            read("mask.png")

    def test_boxes_beyond_the_stored_pixels_name_the_remedy(self, read, phone):
        """18, 20, 27, 28 is within both; the second box only within the upright picture."""
        line = "18 20 27 28 5 5 20 45"
        with pytest.raises(ValueError, match=r"box \(5.0, 5.0, 20.0, 45.0\) is not within .* of "
                           r"30×50; .*50×30: .* give upright=True"):  # fmt: skip
            read(line)
        assert read(line, upright=True)[2].tolist() == [[18, 20, 27, 28], [5, 5, 20, 45]]
        with pytest.raises(ValueError, match=r"of 50×30; .* as it is stored .*upright=False"):
            read("20 3 48 12", upright=True)
        with pytest.raises(ValueError, match=r"of 30×50$"):
            read("0 0 60 60")
