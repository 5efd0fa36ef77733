"""Boxes and masks: what is refused, and how each becomes the other."""

import pytest
import torch

from xcam.metrics.localization.truth import find_boxes, find_objects, ignore_in_boxes, pad_boxes

NAN = float("nan")
IMAGES = torch.zeros(2, 3, 6, 8)
BOXES = pad_boxes([[[0, 0, 2, 3], [4, 1, 8, 6]], [[1, 2, 3, 4]]])


def masks(dtype=torch.uint8):
    marked = torch.zeros(2, 6, 8, dtype=dtype)
    marked[0, 1:3, 2:5] = 1
    marked[1, 5, 7] = 1
    return marked


class TestConversion:
    def test_boxes_to_masks(self):
        objects, ignored = find_objects(BOXES, IMAGES)
        expected = torch.zeros(2, 6, 8, dtype=torch.bool)
        expected[0, 0:3, 0:2] = True
        expected[0, 1:6, 4:8] = True
        expected[1, 2:4, 1:3] = True
        assert objects.equal(expected)
        assert not ignored.any()

    def test_one_box_an_image(self):
        one = torch.tensor([[0.0, 0, 2, 3], [1, 2, 3, 4]])
        assert find_boxes(one, IMAGES).equal(one[:, None])
        assert find_objects(one, IMAGES)[0].equal(find_objects(one[:, None], IMAGES)[0])

    def test_pixel_belongs_to_a_box_that_holds_its_center(self):
        box = torch.tensor([[0.5, 0.6, 1.5, 2.4]]).expand(2, 4)
        objects, _ = find_objects(box, IMAGES)
        assert objects[0].nonzero().tolist() == [[1, 0]]

    @pytest.mark.parametrize("dtype", [torch.bool, torch.uint8])
    def test_masks_to_boxes(self, dtype):
        expected = torch.tensor([[[2.0, 1, 5, 3]], [[7, 5, 8, 6]]])
        assert find_boxes(masks(dtype), IMAGES).equal(expected)

    def test_and_back(self):
        boxes = torch.tensor([[[2.0, 1, 5, 3]], [[0, 0, 8, 6]]])
        assert find_boxes(find_objects(boxes, IMAGES)[0], IMAGES).equal(boxes)

    def test_ignored_pixels_are_no_object(self):
        marked = masks()
        marked[0, 0] = 255
        objects, ignored = find_objects(marked, IMAGES)
        assert objects.equal(masks() == 1)
        assert ignored.sum() == 8
        assert ignored[0, 0].all()
        assert find_boxes(marked, IMAGES).equal(find_boxes(masks(), IMAGES))


class TestPadding:
    def test_rows_of_nan(self):
        assert BOXES.shape == (2, 2, 4)
        assert BOXES[1, 0].tolist() == [1, 2, 3, 4]
        assert BOXES[1, 1].isnan().all()

    def test_tensors(self):
        assert pad_boxes([torch.tensor([[1, 2, 3, 4]])]).tolist() == [[[1, 2, 3, 4]]]

    @pytest.mark.parametrize(
        ("boxes", "sentence"),
        [
            ([], "at least one image, got none"),
            ([[[1, 2, 3, 4]], []], r"boxes of image 1 must be \(n, 4\), n ≥ 1, got \(0,\)"),
            ([[1, 2, 3, 4]], r"boxes of image 0 must be \(n, 4\), n ≥ 1, got \(4,\)"),
            ([[[1, 2, 3]]], r"got \(1, 3\)"),
        ],
    )
    def test_refuses(self, boxes, sentence):
        with pytest.raises(ValueError, match=sentence):
            pad_boxes(boxes)


class TestIgnoring:
    @pytest.mark.parametrize("dtype", [torch.bool, torch.uint8])
    def test_background_in_boxes(self, dtype):
        boxes = pad_boxes([[[0, 0, 4, 2]], [[0, 0, 1, 1]]])
        boxes[1] = NAN
        marked = ignore_in_boxes(masks(dtype), boxes)
        expected = masks()
        expected[0, 0:2, 0:4] = 255
        expected[0, 1, 2:4] = 1  # the object stays
        assert marked.equal(expected)

    def test_what_was_ignored_stays(self):
        marked = masks()
        marked[1, 0, 0] = 255
        assert ignore_in_boxes(marked, torch.full((2, 1, 4), NAN)).equal(marked)

    def test_refuses_as_any_box(self):
        with pytest.raises(ValueError, match=r"box 0 of image 1 is .* outside"):
            ignore_in_boxes(masks(), torch.tensor([[0.0, 0, 1, 1], [0, 0, 1, 7]]))


def changed(index, values):
    boxes = BOXES.clone()
    boxes[index] = torch.tensor(values)
    return boxes


def marked(index, value):
    wrong = masks()
    wrong[index] = value
    return wrong


BAD = {
    "missing": (None, TypeError, "truth must be a tensor of boxes .* or masks .*, got none"),
    "list": ([[0, 0, 1, 1]], TypeError, "must be a tensor of boxes .*, got list"),
    "labels": (torch.tensor([1, 2]), TypeError, r"got torch.int64 of shape \(2,\); class labels"),
    "number of boxes": (BOXES[:1], ValueError, r"must be \(2, N, 4\) .* got \(1, 2, 4\)"),
    "five corners": (torch.zeros(2, 1, 5), ValueError, r"or \(2, 4\) for 2 .* got \(2, 1, 5\)"),
    "float masks": (masks().float(), ValueError, r"got \(2, 6, 8\); masks are bool or uint8"),
    "nan corner": (changed((0, 1), [1, 1, NAN, 2]), ValueError, "box 1 of image 0 is partly NaN"),
    "no box": (changed((1, 0), [NAN] * 4), ValueError, "image 1 has no box, all are NaN"),
    "no width": (changed((0, 1), [3.0, 1, 3, 2]), ValueError, r"image 0 is \(3, 1, 3, 2\): x0"),
    "no height": (changed((0, 0), [3.0, 2, 4, 1]), ValueError, "x0 < x1, y0 < y1 is wanted"),
    "too wide": (
        changed((1, 0), [0.0, 0, 8.5, 6]),
        ValueError,
        r"box 0 of image 1 is \(0, 0, 8.5, 6\), outside of the 8 × 6 pixels .*: scale",
    ),
    "too high": (changed((1, 0), [0.0, 0, 8, 7]), ValueError, "outside"),
    "negative": (changed((1, 0), [0.0, -1, 8, 6]), ValueError, "outside"),
    "infinite": (changed((1, 0), [0.0, 0, torch.inf, 6]), ValueError, "outside"),
    "size of masks": (masks()[..., :4], ValueError, r"must be \(2, 6, 8\) .* got \(2, 6, 4\)"),
    "number of masks": (masks()[:1], ValueError, r"got \(1, 6, 8\)"),
    "channel of masks": (masks()[:, None], ValueError, r"got \(2, 1, 6, 8\)"),
    "value of masks": (marked((1, 0, 0), 7), ValueError, "mask of image 1 holds 7; a mask is 1 on"),
    "empty mask": (marked(1, 0), ValueError, "image 1 has no object pixel: leave"),
    "ignored mask": (marked(1, 255), ValueError, "image 1 has no object pixel: leave"),
}


@pytest.mark.parametrize("case", BAD)
@pytest.mark.parametrize("read", [find_objects, find_boxes])
def test_bad_input(case, read):
    truth, error, sentence = BAD[case]
    with pytest.raises(error, match=sentence):
        read(truth, IMAGES)


def test_box_between_pixel_centers_has_no_pixel():
    boxes = changed((1, 0), [0.6, 0, 1.4, 6])
    assert find_boxes(boxes, IMAGES).nan_to_num(-1).equal(boxes.nan_to_num(-1))
    with pytest.raises(ValueError, match="image 1 has no object pixel"):
        find_objects(boxes, IMAGES)
