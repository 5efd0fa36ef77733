"""What xcam, torchcam, captum, grad-cam and quantus can do: a table of the docs, found by trying.

`python docs/features.py docs/explanation/peers.md` looks into the installed packages, runs them on
small nets, and writes the table behind the page's marker. Where quantus is not installed,
`--quantus FOLDER` names the folder that `pip install --no-deps --target` filled; without it the
cells of quantus stay as they are. The tests compare the other columns with the page.
"""

from __future__ import annotations

import argparse
import functools
import importlib.metadata
import importlib.util
import inspect
import re
import sys
import warnings
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor, nn

import xcam
from xcam.models import toy

MARKER = "<!-- made by `python docs/features.py docs/explanation/peers.md` -->"
PACKAGES = {
    "xcam": "xcam",
    "torchcam": "torchcam",
    "captum": "captum",
    "grad-cam": "pytorch_grad_cam",
    "quantus": "quantus",
}
Explain = Callable[..., Tensor]
Probe = Callable[[str], bool]


# What a package defines, or its distribution says ----------------------------------------------


def find_folder(library: str) -> Path:
    """Return the folder of an installed package."""
    spec = importlib.util.find_spec(PACKAGES[library])
    if spec is None or spec.origin is None:
        raise ModuleNotFoundError(f"{library} is not installed")
    return Path(spec.origin).parent


@functools.cache
def read_sources(library: str) -> str:
    """Return the text of all modules of a package."""
    paths = sorted(find_folder(library).rglob("*.py"))
    return "\n".join(path.read_text("utf-8", errors="ignore") for path in paths)


@functools.cache
def list_definitions(library: str) -> frozenset[str]:
    """Return the names of all classes and functions of a package, and of what xcam registers."""
    names = set(re.findall(r"^\s*(?:class|def) (\w+)", read_sources(library), re.MULTILINE))
    if library == "xcam":
        names.update(xcam.list_methods(), xcam.list_metrics())
    return frozenset(names)


def defines(pattern: str) -> Callable[[str], bool]:
    """Return a probe of whether a class or function has a name that matches in full."""
    wanted = re.compile(pattern)
    return lambda library: any(wanted.fullmatch(name) for name in list_definitions(library))


def is_typed(library: str) -> bool:
    """Return whether type checkers may read the package's annotations."""
    return (find_folder(library) / "py.typed").exists()


def has_command(library: str) -> bool:
    """Return whether installing it gives a command."""
    found = importlib.metadata.distribution(library).entry_points
    return any(one.group == "console_scripts" for one in found)


def finds_plugins(library: str) -> bool:
    """Return whether it looks for entry points of other packages."""
    return bool(re.search(r"\bentry_points\(|load_setuptools_entrypoints", read_sources(library)))


# What Grad-CAM of a library does on small nets -------------------------------------------------


def explain_with_xcam(net: nn.Module, layer: str, images: Tensor, target: object) -> Tensor:
    """Return xcam's maps."""
    return xcam.explain(net, images, target, method="gradcam", layer=layer).raw


def explain_with_torchcam(net: nn.Module, layer: str, images: Tensor, target: object) -> Tensor:
    """Return torchcam's maps."""
    from torchcam.methods import GradCAM

    with GradCAM(net, layer) as extractor:
        output = net(images)
        if callable(target):
            return extractor(scores=output, targets=lambda row: target(row[None], None)[0])[0]
        return extractor(target, output)[0]


def explain_with_captum(net: nn.Module, layer: str, images: Tensor, target: object) -> Tensor:
    """Return captum's maps."""
    from captum.attr import LayerGradCam

    module = net.get_submodule(layer)
    if callable(target):
        return LayerGradCam(lambda x: target(net(x), None), module).attribute(images)[:, 0]
    return LayerGradCam(net, module).attribute(images, target=target)[:, 0]


def explain_with_grad_cam(net: nn.Module, layer: str, images: Tensor, target: object) -> Tensor:
    """Return grad-cam's maps."""
    from pytorch_grad_cam import GradCAM
    from pytorch_grad_cam.utils.model_targets import ClassifierOutputTarget

    if callable(target):
        targets = [lambda row: target(row[None], None)[0]] * len(images)
    else:
        chosen = [target] * len(images) if isinstance(target, int) else target
        targets = [ClassifierOutputTarget(one) for one in chosen]
    cam = GradCAM(model=net, target_layers=[net.get_submodule(layer)])
    found = cam(input_tensor=images, targets=targets)
    cam.activations_and_grads.release()
    return torch.as_tensor(found)


EXPLAIN: dict[str, Explain] = {
    "xcam": explain_with_xcam,
    "torchcam": explain_with_torchcam,
    "captum": explain_with_captum,
    "grad-cam": explain_with_grad_cam,
}


def make_images(count: int = 2, sides: int = 2) -> Tensor:
    """Return noise, (count, 3, 16, 16) or with three sides."""
    return torch.rand(count, 3, *[16] * sides, generator=torch.Generator().manual_seed(0))


def gives_negative_values(library: str) -> bool:
    """Return whether maps keep what speaks against the class."""
    maps = [EXPLAIN[library](toy.GapNet(), "features", make_images(), k) for k in range(5)]
    return bool((torch.cat(maps) < 0).any())


def explains_a_class_each(library: str) -> bool:
    """Return whether the images of a batch may have different classes."""
    net, images = toy.SmallCNN(), make_images()
    together = EXPLAIN[library](net, "features", images, [3, 1])
    alone = [EXPLAIN[library](net, "features", images[i : i + 1], k) for i, k in ((0, 3), (1, 1))]
    return torch.allclose(together, torch.cat(alone), atol=1e-5)


def explains_a_function(library: str) -> bool:
    """Return whether a function of the output may be explained."""
    net, images = toy.SmallCNN(), make_images()
    maps = EXPLAIN[library](net, "features", images, lambda output, rows: output[:, 3])
    return torch.allclose(maps, EXPLAIN[library](net, "features", images, [3, 3]), atol=1e-5)


def reads_tokens(library: str) -> bool:
    """Return whether a transformer's layer gives a map of 4 x 4 patches, and not of zeros."""
    maps = EXPLAIN[library](toy.TokenNet(), "blocks.1.norm1", make_images(), [3, 1])
    return maps.ndim == 3 and maps.shape[1] == maps.shape[2] and bool(maps.any())


def chooses_a_layer(library: str) -> bool:
    """Return whether Grad-CAM may be made without naming a layer."""
    if library == "xcam":
        return bool(xcam.explain(toy.SmallCNN(), make_images()).method.layer)
    if library == "torchcam":
        from torchcam.methods import GradCAM
    elif library == "captum":
        from captum.attr import LayerGradCam as GradCAM
    else:
        from pytorch_grad_cam import GradCAM
    parameters = inspect.signature(GradCAM).parameters.values()
    return not any("layer" in one.name and one.default is one.empty for one in parameters)


def leaves_gradients_and_modes(library: str) -> bool:
    """Return whether `.grad` and modes of a net in training mode are as they were."""
    net = toy.GapNet().train()
    EXPLAIN[library](net, "features", make_images(), [3, 1])
    gradients = any(parameter.grad is not None for parameter in net.parameters())
    return not gradients and all(module.training for module in net.modules())


def explains_in_eval_mode(library: str) -> bool:
    """Return whether a net in training mode is explained as it predicts, its statistics kept."""
    net = toy.SmallCNN().train()
    before = [buffer.clone() for buffer in net.buffers()]
    EXPLAIN[library](net, "features", make_images(), [3, 1])
    return all(torch.equal(*pair) for pair in zip(before, net.buffers(), strict=True))


def explains_half_precision(library: str) -> bool:
    """Return whether a model in bfloat16 gives finite maps."""
    net, images = toy.SmallCNN().bfloat16(), make_images().bfloat16()
    return bool(EXPLAIN[library](net, "features", images, [3, 1]).isfinite().all())


def refuses_bad_images(library: str) -> bool:
    """Return whether an image with a NaN is refused."""
    images = make_images()
    images[0, 0, 0, 0] = torch.nan
    try:
        if library == "torchcam":
            from torchcam.explain import explain  # its extractors take it

            explain(toy.SmallCNN(), images[:1], target_layer="features")
        EXPLAIN[library](toy.SmallCNN(), "features", images, [3, 1])
    except ValueError:
        return True
    return False


def explains_volumes(library: str) -> bool:
    """Return whether a net of volumes (B, C, D, H, W) is explained."""
    net = nn.Sequential(
        nn.Conv3d(3, 4, 3), nn.ReLU(), nn.AdaptiveAvgPool3d(1), nn.Flatten(), nn.Linear(4, 5)
    ).eval()
    return EXPLAIN[library](net, "1", make_images(sides=3), [3, 1]).ndim == 4


# The table -------------------------------------------------------------------------------------

METHODS: dict[str, Probe] = {
    "Grad-CAM": defines("(Layer)?GradC(AM|am)|gradcam"),
    "LayerCAM, Grad-CAM++": defines("LayerCAM|layercam"),
    "Score-CAM": defines("ScoreCAM|scorecam"),
    "RISE": defines("RISE|rise"),
    "Integrated Gradients": defines("IntegratedGradients|integrated_gradients"),
    "LRP": defines("LRP|lrp"),
    "Kernel SHAP, LIME": defines("KernelShap|kernel_shap"),
    "attention of transformers": defines("LeGrad|legrad|AttentionRollout"),
    "heads that are trained: L-CAM, CALM, LFI-CAM, ABN, CA-Stream": defines("LCAM\\w*|CALM|LFICAM"),
    "neurons, concepts (TCAV), influence of training data": defines("TCAV|TracIn\\w*"),
    "text, tabular data": defines("LLMAttribution|TextTokenInput"),
}
EXPLAINING: dict[str, Probe] = {
    "maps keep negative values": gives_negative_values,
    "another class for each image of a batch": explains_a_class_each,
    "a function of the output": explains_a_function,
    "chooses a layer by itself": chooses_a_layer,
    "transformers without a reshape function": reads_tokens,
    "leaves `.grad` and modes as they were": leaves_gradients_and_modes,
    "explains a net in training mode without touching batch norm": explains_in_eval_mode,
    "a model in bfloat16": explains_half_precision,
    "refuses an image with a NaN": refuses_bad_images,
    "volumes (B, C, D, H, W)": explains_volumes,
}
METRICS: dict[str, Probe] = {
    "insertion, deletion": defines("Insertion|DeletionInsertionMetric|insertion"),
    "average drop, increase in confidence": defines(
        "AverageDrop|ClassificationMetric|DropInConfidence|average_drop"
    ),
    "average gain": defines("AverageGain|average_gain"),
    "ROAD": defines("ROAD\\w*|road"),
    "ROAR: remove and retrain": defines("(?i)roar\\w*"),
    "pointing game": defines("PointingGame|pointing_game"),
    "MaxBoxAcc, PxAP": defines("MaxBoxAcc\\w*|PxAP|max_box_acc"),
    "model parameter randomization": defines("(Smooth|Efficient)?MPRT|mprt"),
    "sensitivity to small changes": defines("(?i)\\w*sensitivity_?max|max_?sensitivity"),
    "infidelity": defines("(?i)infidelity"),
    "intervals over images": defines("(?i)\\w*(bootstrap|jackknife|confidence_interval)\\w*"),
}
PACKAGE: dict[str, Probe] = {
    "types for type checkers": is_typed,
    "a command": has_command,
    "plugins in packages of their own": finds_plugins,
    "a contract to check new methods with": defines("check_method|method_checks"),
}
SECTIONS = {
    "Methods": METHODS,
    "Explaining": EXPLAINING,
    "Metrics": METRICS,
    "Package": PACKAGE,
}


def probe(section: str, title: str, library: str) -> str:
    """Return a cell: "yes", "no", or a dash, since quantus leaves explaining to captum."""
    if library == "quantus" and section in ("Methods", "Explaining"):
        return "–"
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return "yes" if SECTIONS[section][title](library) else "no"
    except Exception:
        return "no"


def read_cells(page: str) -> dict[str, dict[str, str]]:
    """Return the cells of a page's table: by feature, then by library."""
    rows = [line.strip("|").split("|") for line in page.splitlines() if line.startswith("| ")]
    rows = [row for row in rows if "---" not in row[0]]
    header, *rest = [[cell.strip() for cell in row] for row in rows]
    names = [cell.split(" ")[0] for cell in header[1:]]
    return {row[0]: dict(zip(names, row[1:], strict=True)) for row in rest}


def make_table(old: dict[str, dict[str, str]], quantus: str) -> str:
    """Return the table; the cells of quantus are the old ones where it is not installed."""
    installed = importlib.util.find_spec("quantus") is not None
    versions = [
        f"{name} {quantus if name == 'quantus' and not installed else find_version(name)}"
        for name in PACKAGES
    ]
    lines = [["feature", *versions], ["---"] * (len(PACKAGES) + 1)]
    for section, features in SECTIONS.items():
        lines.append([f"**{section}**", *[""] * len(PACKAGES)])
        for title in features:
            cells = [
                old[title][name] if name == "quantus" and not installed
                else probe(section, title, name)
                for name in PACKAGES
            ]  # fmt: skip
            lines.append([title, *cells])
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def find_version(library: str) -> str:
    """Return the version of an installed library."""
    return importlib.metadata.version(library)


def main() -> None:
    """Write the table into a page."""
    parser = argparse.ArgumentParser(description="Write the table of features.")
    parser.add_argument("page", type=Path)
    parser.add_argument("--quantus", help="a folder that holds quantus")
    arguments = parser.parse_args()
    if arguments.quantus:
        sys.path.append(arguments.quantus)
    head, _, old = arguments.page.read_text("utf-8").partition(MARKER)
    cells = read_cells(old) if "| feature" in old else {}
    (version,) = re.findall(r"quantus ([\d.]+)", old) or [""]
    table = make_table(cells, version)
    arguments.page.write_text(f"{head.rstrip()}\n\n{MARKER}\n\n{table}", "utf-8")


if __name__ == "__main__":
    main()
