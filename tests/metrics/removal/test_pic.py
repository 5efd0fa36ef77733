"""Performance information curves: by hand from the images that the net was shown."""

import io

import numpy as np
import pytest
import torch
from by_hand import explained, seeded
from nets import unchanged
from PIL import Image
from torch import nn
from torch.testing import assert_close

from xcam.engine.shared import share_passes
from xcam.imaging import blur
from xcam.metrics import AIC, SIC

IMAGES = blur(seeded(2, 3, 20, 16), 1.0)
IMAGES[:, :, 4:10, 4:10] = 0.9 * seeded(2, 3, 6, 6, seed=1)  # what the net looks at
MAPS = torch.zeros(2, 20, 16)
MAPS[:, 4:10, 4:10] = seeded(2, 6, 6, seed=2) + 0.1
MAPS += 0.01 * seeded(2, 20, 16, seed=3)
FRACTIONS = (0.05, 0.2, 0.5)
SETTINGS = {"fractions": FRACTIONS, "points": 50, "visible": 0.02}


class Contrast(nn.Module):
    """Class 1 if the square in the middle varies."""

    def forward(self, images):
        spread = images[:, :, 4:10, 4:10].var((1, 2, 3))
        return torch.stack([torch.full_like(spread, 1.0), 60 * spread], 1)


def count_bytes(picture):
    buffer = io.BytesIO()
    array = (picture * 255).round().byte().permute(1, 2, 0).numpy()
    Image.fromarray(array).save(buffer, format="webp", lossless=True, quality=100)
    return buffer.tell()


def score(metric, images=IMAGES, maps=MAPS, classes=(1, 1), net=None):
    return metric.score(net or Contrast(), images, explained(maps, classes))


def record(metric):
    """The rows, and what the net was shown: (B, P, C, H, W)."""
    net, seen = Contrast(), []
    net.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0].clone()))
    rows = score(metric, net=net)
    return rows, torch.cat(seen).unflatten(0, (2, len(FRACTIONS) + 2))


def test_images_are_blurred_but_for_the_highest_pixels():
    _, seen = record(SIC(**SETTINGS))
    assert seen[:, -1].equal(IMAGES)
    for i in range(2):
        order = MAPS[i].flatten().argsort(descending=True)
        for k, share in enumerate((0, *FRACTIONS)):
            same = (seen[i, k] == IMAGES[i]).all(0).flatten()
            assert same[order[: int(320 * share)]].all()
            assert int(320 * share) <= same.sum() <= int(320 * share) + 6
    assert not (seen[0, 0] == IMAGES[0]).all(0).equal((seen[1, 0] == IMAGES[1]).all(0))


@pytest.mark.parametrize("metric", [SIC(**SETTINGS), AIC(**SETTINGS)], ids=lambda m: m.spec.name)
@pytest.mark.parametrize("monotonic", [True, False])
def test_curves_match_a_plain_loop(metric, monotonic):
    metric = type(metric)(**SETTINGS, monotonic=monotonic)
    rows, seen = record(metric)
    logits = Contrast()(seen.flatten(0, 1)).unflatten(0, (2, -1))
    outputs = logits.softmax(2)[..., 1] if isinstance(metric, SIC) else logits.argmax(2)
    for i in range(2):
        sizes = np.array([count_bytes(one) for one in seen[i]], float)
        x = ((sizes - sizes[0]) / (sizes[-1] - sizes[0])).clip(0, 1)
        s = outputs[i].double().numpy()
        y = ((s - s[0]) / (s[-1] - s[0])).clip(0, 1)
        y = np.maximum.accumulate(y) if monotonic else y
        assert (np.diff(x) > 0).all()
        curve = np.interp(np.linspace(0, 1, 51), x, y)
        assert rows[i].tolist() == pytest.approx([*curve, 1], abs=1e-5)
        area = float(metric.finish(rows[i].double()))
        assert area == pytest.approx(np.trapezoid(curve, dx=1 / 50), abs=1e-5)
        assert 0 < area < 1


def test_good_map_shows_what_matters_first():
    good, bad = (SIC(**SETTINGS).finish(score(SIC(**SETTINGS), maps=m)) for m in (MAPS, -MAPS))
    assert (good > bad + 0.2).all()


def test_image_without_a_curve_does_not_count():
    metric = SIC(**SETTINGS)
    flat = IMAGES.clone()
    flat[0] = 0.5  # cannot be blurred
    rows, whole = score(metric, flat), score(metric)
    assert not rows[0].any()
    assert_close(metric.finish(rows.mean(0)), metric.finish(whole[1]))
    assert metric.finish(score(metric, classes=(0, 0)).mean(0)).isnan()  # more probable if blurred
    assert metric.finish(score(SIC(**SETTINGS, least=1.0)).mean(0)).isnan()
    assert metric.curve(rows[0])[1].tolist() == [0] * 51


def test_both_curves_share_their_passes():
    net, passes = Contrast(), []
    net.register_forward_pre_hook(lambda _, inputs: passes.append(len(inputs[0])))
    explanation = explained(MAPS, [1, 1])
    with unchanged(net, IMAGES, MAPS), share_passes(IMAGES):
        for metric in (SIC(**SETTINGS), AIC(**SETTINGS)):
            metric.score(net, IMAGES, explanation)
    assert sum(passes) == 2 * 5


def test_other_channels_and_ranges_are_compressed_too():
    two = torch.cat([IMAGES, IMAGES], 1)[:, :4] * 1.2 - 0.3  # of four channels
    rows = score(SIC(**SETTINGS), two)
    assert rows[:, -1].tolist() == [1, 1]


def test_bad_settings():
    with pytest.raises(ValueError, match="fractions must ascend between 0 and 1"):
        SIC(fractions=(0.5, 0.1))
    with pytest.raises(ValueError, match=r"visible must be a finite number in \[0, 1\]"):
        AIC(visible=2.0)
