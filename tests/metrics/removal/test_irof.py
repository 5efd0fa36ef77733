"""IROF: a closed form, a loop in place, and images of fewer segments than steps."""

import numpy as np
import pytest
import torch
from by_hand import curve_of, explained, seeded
from nets import unchanged
from torch import nn
from torch.testing import assert_close

import xcam
from xcam.engine.forward import run_settings
from xcam.imaging.superpixels import divide_into_grid, segment_by_slic
from xcam.metrics import IROF
from xcam.models import Normalized
from xcam.models.toy import SmallCNN

IMAGES = seeded(3, 3, 24, 20)
MAPS = seeded(3, 24, 20, seed=1) - 0.5
CLASSES = [4, 0, 2]
NORMALISED = Normalized(SmallCNN(), (0.5, 0.4, 0.3), (0.2, 0.3, 0.25))


class Brightness(nn.Module):
    """Gives class 0 the probability 0.2 + 0.6 · mean of the pixels."""

    def forward(self, images):
        p = 0.2 + 0.6 * images.mean((1, 2, 3))
        return torch.stack([p, 1 - p], 1).log()


def curves(metric, model=NORMALISED, images=IMAGES, maps=MAPS, classes=CLASSES):
    return metric.score(model, images, explained(maps, classes))


def by_loop(image, scores, labels, target, model=NORMALISED):
    """The ratios of one image whose segments turn mean colour one by one."""
    order = sorted(labels.unique().tolist(), key=lambda k: -float(scores[labels == k].mean()))
    pictures, picture = [image.clone()], image.clone()
    for k in order:
        picture[:, labels == k] = image.mean((1, 2))[:, None]
        pictures.append(picture.clone())
    curve = curve_of(model, pictures, target)
    return curve / curve[0]


def test_closed_form_where_every_segment_counts_the_same():
    metric = IROF(segments="grid", n_segments=16, fill="zero")
    found = metric.score(Brightness(), torch.ones(2, 3, 8, 8), explained(seeded(2, 8, 8), [0, 0]))
    assert_close(found, (1 - 0.6 / 0.8 * torch.linspace(0, 1, 17)).expand(2, -1))
    assert_close(metric.finish(found), torch.full((2,), 0.375))
    assert metric.curve(found.mean(0))[0].tolist() == [k / 16 for k in range(17)]


@pytest.mark.parametrize("segments", ["slic", "grid"])
def test_curves_match_an_inplace_loop(segments):
    found = curves(IROF(segments=segments, n_segments=9))
    assert found.shape == (3, 10)
    labels = (
        segment_by_slic(IMAGES, 9, 0.1)
        if segments == "slic"
        else [divide_into_grid((24, 20), 9)[0]] * 3
    )
    for i, target in enumerate(CLASSES):
        assert len(labels[i].unique()) == 9
        expected = by_loop(IMAGES[i], MAPS[i], labels[i], target)
        assert_close(found[i], expected, atol=1e-5, rtol=1e-5)
    ratios = found.numpy().astype(float)
    area = 9 - (ratios.sum(1) - (ratios[:, 0] + ratios[:, -1]) / 2)
    np.testing.assert_allclose(
        IROF(n_segments=9).finish(found).numpy(), area / 9, rtol=1e-6, atol=1e-6
    )


def test_fewer_segments_than_steps():
    images, maps = seeded(1, 3, 4, 4), seeded(1, 4, 4, seed=1)
    few = IROF(segments="grid", n_segments=16)
    many = IROF(segments="grid", n_segments=40)
    sixteen, forty = (
        curves(metric, images=images, maps=maps, classes=[1])[0] for metric in (few, many)
    )
    assert forty.shape == (41,)
    between = torch.from_numpy(np.interp(np.linspace(0, 16, 41), range(17), sixteen.numpy()))
    assert_close(forty, between.float(), atol=1e-5, rtol=1e-5)
    assert_close(many.finish(forty), few.finish(sixteen), atol=0, rtol=0.005)


def test_area_does_not_depend_on_how_many_segments_were_asked_for():
    """The exact area of four equal steps is 0.375; counts rounded down gave 0.30 for 7 steps."""
    maps = explained(seeded(2, 2, 2), [0, 0])
    for asked in (4, 7, 50, 100):
        metric = IROF(segments="grid", n_segments=asked, fill="zero")
        found = metric.finish(metric.score(Brightness(), torch.ones(2, 3, 2, 2), maps))
        assert_close(found, torch.full((2,), 0.375))


def test_superpixels_that_ran_empty_take_no_step():
    images, maps = seeded(2, 3, 16, 21), seeded(2, 16, 21, seed=1) - 0.5
    found = curves(IROF(n_segments=40, compactness=0.01), images=images, maps=maps, classes=[1, 2])
    for i, used in enumerate((40, 42)):
        labels = segment_by_slic(images, 40, 0.01)[i]
        assert len(labels.unique()) == used
        curve = by_loop(images[i], maps[i], labels, i + 1)
        expected = np.interp(np.linspace(0, used, 41), range(used + 1), curve.numpy())
        assert_close(found[i], torch.from_numpy(expected).float(), atol=1e-5, rtol=1e-5)


def test_zero_fill_depends_on_the_space():
    zero = curves(IROF(n_segments=9, fill="zero"))
    inner = curves(IROF(n_segments=9, fill="zero", space="normalized", segments="grid"))
    mean = torch.tensor((0.5, 0.4, 0.3))
    same = curves(IROF(n_segments=9, fill=mean, segments="grid"))
    assert_close(inner, same, atol=1e-5, rtol=1e-5)
    assert not torch.allclose(zero[:, -1], inner[:, -1])


def test_map_of_true_weights_scores_higher_than_its_negative():
    images, seen = torch.ones(1, 3, 8, 8), seeded(8, 8, seed=2)

    class Weighed(Brightness):
        def forward(self, images):
            return super().forward(images * seen / seen.mean())

    for segments in ("slic", "grid"):
        metric = IROF(segments=segments, n_segments=16, fill="zero")
        best, worst = (
            metric.finish(metric.score(Weighed(), images, explained(maps[None], [0]))[0])
            for maps in (seen, -seen)
        )
        assert best > worst + 0.05


@pytest.mark.parametrize("size", [1, 3, 100])
def test_curves_are_the_same_for_any_batch_size(size):
    whole = curves(IROF(n_segments=9))
    with run_settings(batch_size=size):
        assert_close(curves(IROF(n_segments=9)), whole, atol=1e-6, rtol=1e-5)


def test_traces_and_registry():
    with unchanged(NORMALISED, IMAGES, MAPS):
        assert curves(IROF()).shape == (3, 101)
    assert xcam.get_metric("irof") is IROF


@pytest.mark.parametrize(
    ("values", "sentence"),
    [
        ({"segments": "felzenszwalb"}, "'slic' or 'grid', got 'felzenszwalb'"),
        ({"n_segments": 0}, "n_segments must be an int of at least 1, such as 100, got 0"),
        ({"compactness": 0.0}, "compactness must be a finite number above 0, such as 0.1, got 0.0"),
        ({"space": "pixel"}, "'input' or 'normalized', got 'pixel'"),
        ({"fill": "black"}, "got 'black'"),
    ],
)
def test_bad_settings(values, sentence):
    with pytest.raises(ValueError, match=sentence):
        IROF(**values)
