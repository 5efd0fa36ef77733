"""Record what Quantus 0.6 gives for small inputs, so that tests compare without having it.

It brings packages that replace ours, so that it is no dependency. Into a folder of its own, with
PAIR's saliency, which the section of information curves takes:

    pip install --no-deps --target FOLDER quantus==0.6.0 cachetools saliency==0.2.1
    PYTHONPATH=FOLDER:tests python tests/metrics/record_quantus.py [section …]
"""

import json
import sys
from functools import partial
from pathlib import Path
from unittest import mock

import numpy as np
import torch
from by_hand import seeded
from torch import nn

from xcam.imaging import blur, hash_images
from xcam.metrics.removal.imputation import impute
from xcam.metrics.removal.pic import draw_pixels
from xcam.metrics.removal.subsets import draw_ranks
from xcam.metrics.robustness.neighbors import draw_neighbors
from xcam.models.toy import SmallCNN

FILE = Path(__file__).with_name("quantus.json")
QUIET = {"disable_warnings": True, "normalise": False, "abs": False}


class Pixels:
    """What the section of pixels that are removed is about: gray images, their lowest value 0."""

    images = seeded(3, 1, 8, 8)
    images[:, :, 3, 5] = 0
    maps = seeded(3, 8, 8, seed=1) - 0.5
    classes = torch.tensor([3, 1, 0])
    net = SmallCNN(channels=1)
    masks = torch.zeros(3, 8, 8, dtype=torch.uint8)
    masks[:, 2:7, 1:5] = 1
    samples, size, step = 20, 10, 4

    # Whole numbers, which add up exactly: weights and values from -2 to 2, some of them 0.
    integers = (seeded(3, 1, 8, 8, seed=2) * 4).floor()
    integers[:, :, 3, 5] = 0
    weights = (seeded(2, 64, seed=3) * 5).floor() - 2
    weights[:, 29] = 0  # of the pixel above, which stays when it is replaced

    @classmethod
    def linear(cls):
        net = nn.Sequential(nn.Flatten(), nn.Linear(64, 2, bias=False)).eval()
        net[1].weight.data.copy_(cls.weights)
        return net.requires_grad_(False)

    @classmethod
    def shares(cls):
        """What each pixel gives to the first logit of the linear net: complete."""
        return (cls.weights[0] * cls.integers.flatten(1)).view(3, 8, 8)


def record_pixels(quantus):
    def measure(metric, net=Pixels.net, images=Pixels.images, maps=Pixels.maps, **more):
        classes = more.pop("classes", Pixels.classes).numpy()
        arrays = {"x_batch": images.numpy(), "y_batch": classes, "a_batch": maps[:, None].numpy()}
        return [float(value) for value in metric(net, **arrays, device="cpu", **more)]

    def draw(_, size, replace):
        state, sample = next(draws)
        return np.flatnonzero(draw_ranks(state, sample, 64).numpy() < size)

    states = hash_images(Pixels.images, seed=0)
    draws = iter([(state, sample) for sample in range(Pixels.samples) for state in states])
    runs = {"nr_runs": Pixels.samples, "subset_size": Pixels.size, "return_aggregate": False}
    with mock.patch("numpy.random.choice", draw):
        correlation = measure(quantus.FaithfulnessCorrelation(**runs, **QUIET))
    estimate = quantus.FaithfulnessEstimate(features_in_step=Pixels.step, **QUIET)
    monotonicity = quantus.Monotonicity(features_in_step=Pixels.step, **QUIET)
    linear = {"net": Pixels.linear(), "images": Pixels.integers, "classes": Pixels.classes * 0}
    sparse = quantus.NonSensitivity(features_in_step=1, **{**QUIET, "abs": True})
    mass = quantus.AttributionLocalisation(positive_attributions=True, **QUIET)
    top = {"k": 9, **QUIET}
    s_batch = Pixels.masks[:, None].numpy().astype(bool)
    intersection = measure(quantus.TopKIntersection(**top), s_batch=s_batch)
    weighted = quantus.TopKIntersection(concept_influence=True, **top)
    return {
        "faithfulness_correlation": correlation,
        "faithfulness_estimate": measure(estimate),
        "monotonicity": measure(monotonicity),
        "complete": measure(quantus.Completeness(**QUIET), maps=Pixels.shares(), **linear),
        "incomplete": measure(quantus.Completeness(**QUIET), maps=Pixels.shares() * 2, **linear),
        "non_sensitivity": measure(sparse, maps=Pixels.integers[:, 0], softmax=False, **linear),
        "attribution_localization": measure(mass, s_batch=s_batch),
        "top_k_intersection": intersection,
        "top_k_intersection_weighted": measure(weighted, s_batch=s_batch),
    }


class Fixed:
    """A layer that is made anew without chance, so that Quantus and xcam have the same weights."""

    def reset_parameters(self):
        with torch.no_grad():
            for weight in self.parameters(recurse=False):
                places = torch.arange(float(weight.numel())).view_as(weight)
                weight.copy_(torch.cos(self.pace * places + 1) / 2)


class First(Fixed, nn.Conv2d):
    pace = 2.3


class Second(Fixed, nn.Conv2d):
    pace = 1.7


class Last(Fixed, nn.Linear):
    pace = 2.9


class Randomization:
    """What the section of random weights and classes is about: gray images and two classes."""

    images = seeded(3, 1, 8, 8)
    classes = torch.tensor([0, 1, 0])

    @staticmethod
    def build():
        layers = [First(1, 4, 3), nn.ReLU(), Second(4, 4, 3, padding=1), nn.ReLU()]
        net = nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), Last(4, 2)).eval()
        for seed, weight in enumerate(net.parameters()):
            weight.data.copy_(seeded(*weight.shape, seed=seed) - 0.4)
        return net


def record_randomization(quantus):
    def explain(model, inputs, targets, **_):
        images = torch.as_tensor(inputs).detach().float().clone().requires_grad_()
        scores = model(images)[torch.arange(len(images)), torch.as_tensor(targets).long()]
        return torch.autograd.grad(scores.sum(), images)[0].numpy()

    def measure(metric, **given):
        arrays = {"x_batch": Randomization.images.numpy(), "y_batch": Randomization.classes.numpy()}
        net = Randomization.build()
        return metric(net, **arrays, **given, explain_func=explain, device="cpu")

    def by_layer(metric):
        found = measure(metric)
        return {layer: list(map(float, found[layer])) for layer in ("0", "2", "6")}

    plain = {"disable_warnings": True}
    orders = ("top_down", "bottom_up", "independent")
    ranks = {"similarity_func": quantus.similarity_func.correlation_spearman, "num_classes": 2}
    return {
        **{f"mprt_{one}": by_layer(quantus.MPRT(layer_order=one, **plain)) for one in orders},
        "smooth_mprt": by_layer(quantus.SmoothMPRT(nr_samples=1, **plain)),
        "efficient_mprt": list(map(float, measure(quantus.EfficientMPRT(**plain)))),
        "random_logit": list(map(float, measure(quantus.RandomLogit(**ranks, **plain)))),
    }


class Neighbors:
    """What the section of robustness is about: gradients of images' copies, as xcam draws them."""

    images = Pixels.images + 0.1
    net = SmallCNN(channels=1)
    classes = net(images).detach().argmax(1)
    samples, radius, layer = 5, 0.05, "features.0"

    @staticmethod
    def explain(model, inputs, targets, **_):
        inputs = torch.as_tensor(inputs, dtype=torch.float32).requires_grad_()
        scores = model(inputs).gather(1, torch.as_tensor(targets)[:, None])
        return torch.autograd.grad(scores.sum(), inputs)[0].numpy()


def record_robustness(quantus):
    samples, images = Neighbors.samples, Neighbors.images
    few = {"nr_samples": samples, **QUIET}

    def measure(metric, images=images, classes=Neighbors.classes, **more):
        arrays = {"x_batch": images.numpy(), "y_batch": classes.numpy()}
        # One by one: it divides the maps of a batch by the largest value of them all.
        more = {"explain_func": Neighbors.explain, "softmax": False, "batch_size": 1, **more}
        return [float(value) for value in metric(Neighbors.net, **arrays, device="cpu", **more)]

    def draw(noise, radius=Neighbors.radius):
        """Return what takes the next of our copies, whatever Quantus asks for."""
        _, copies = draw_neighbors(images, slice(0, samples * len(images)), radius, noise, 0)
        rest = iter(copies.view(samples, len(images), 1, -1).transpose(0, 1).flatten(0, 1).numpy())
        return lambda arr, **_: next(rest).copy()

    whole = quantus.Infidelity(perturb_patch_sizes=[8], n_perturb_samples=1, **QUIET)
    black = {"images": Pixels.images, "classes": Pixels.classes}
    relative = {
        "relative_input_stability": (quantus.RelativeInputStability, {}),
        "relative_output_stability": (quantus.RelativeOutputStability, {}),
        "relative_representation_stability": (
            quantus.RelativeRepresentationStability,
            {"layer_names": [Neighbors.layer]},
        ),
    }
    return {
        "max_sensitivity": measure(quantus.MaxSensitivity(perturb_func=draw("uniform"), **few)),
        "local_lipschitz": measure(
            quantus.LocalLipschitzEstimate(
                perturb_func=draw("gaussian", 0.1), **{**few, "normalise": True}
            )
        ),
        "continuity": measure(quantus.Continuity(nr_steps=4, **QUIET), **black),
        "infidelity": measure(whole, a_batch=Pixels.maps[:, None].numpy(), **black),
        **{
            name: measure(kind(perturb_func=draw("uniform"), **few, **more))
            for name, (kind, more) in relative.items()
        },
    }


class Information:
    """What the section of information curves is about: the net looks at a square that varies."""

    images = blur(seeded(3, 3, 32, 32), 1.0)
    images[:, :, 8:20, 8:20] = 0.9 * seeded(3, 3, 12, 12, seed=1)
    images = (images * 255).round() / 255
    maps = 0.01 * seeded(3, 32, 32, seed=3)
    maps[:, 8:20, 8:20] += seeded(3, 12, 12, seed=2)
    fractions = tuple(pixels / 1024 for pixels in (20, 51, 102, 307, 614))
    visible = 0.02

    class Net(nn.Module):
        def forward(self, images):
            spread = images[:, :, 8:20, 8:20].var((1, 2, 3))
            return torch.stack([torch.full_like(spread, 1.0), 40 * spread], 1)


def record_information(_):
    from saliency.metrics import pic

    def interpolate(full_img, pixel_mask, method="linear"):
        images = torch.tensor(full_img).permute(2, 0, 1)[None].float() / 255
        shown = impute(images, torch.tensor(~pixel_mask)[None])[0]
        return (shown * 255).round().byte().permute(1, 2, 0).numpy()

    def predict(pictures, soft):
        images = torch.tensor(pictures).permute(0, 3, 1, 2).float() / 255
        logits = Information.Net()(images)
        return (logits.softmax(1)[:, 1] if soft else logits.argmax(1).float()).numpy()

    found = {}
    states = hash_images(Information.images, seed=0)
    for name, soft in (("sic", True), ("aic", False)):
        for monotonic in (True, False):
            with (
                mock.patch.object(pic, "create_blurred_image", interpolate),
                mock.patch("numpy.trapz", np.trapezoid, create=True),
            ):
                found[f"{name}_{monotonic}"] = [
                    pic.compute_pic_metric(
                        (image * 255).round().byte().permute(1, 2, 0).numpy(),
                        map_.numpy(),
                        draw_pixels(state, 1024, Information.visible).view(32, 32).numpy(),
                        partial(predict, soft=soft),
                        Information.fractions,
                        min_pred_value=0,
                        keep_monotonous=monotonic,
                        num_data_points=100,
                    ).auc
                    for image, map_, state in zip(
                        Information.images, Information.maps, states, strict=True
                    )
                ]
    return found


SECTIONS = {
    "pixels": record_pixels,
    "randomization": record_randomization,
    "robustness": record_robustness,
    "information": record_information,
}


def main(*names):
    import quantus

    found = json.loads(FILE.read_text("utf-8")) if FILE.exists() else {}
    found |= {name: SECTIONS[name](quantus) for name in names or SECTIONS}
    FILE.write_text(json.dumps(found, indent=1, sort_keys=True) + "\n", "utf-8")


if __name__ == "__main__":
    main(*sys.argv[1:])
