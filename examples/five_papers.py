"""What the five papers could not compare: their heads beside post-hoc methods, all else equal.

    export OMP_NUM_THREADS=1
    python examples/five_papers.py --out runs/five --data cues &
    python examples/five_papers.py --out runs/five --data fashion_mnist --root data
    python examples/five_papers.py --out runs/five --report

For each data set and seed a small ResNet is trained, the frozen net. From its weights go on, for as
many epochs on the same images: LFI-CAM, ABN, L-CAM, CALM and CA-Stream; CBAM's and RAN's modules
behind its last stage; and, as a control, the net as it is. The maps of new images are scored by the
net that each is of and by the frozen one, beside those of post-hoc methods. Started again, it goes
on. `--quick` takes one seed, few images and one epoch: it checks the steps, not the numbers.
`--report` prints the tables of what is there, and writes rows and a figure into `docs/figures`.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar

import five_papers_report
import pandas as pd
from five_papers_nets import (
    FROZEN,
    HEADS,
    QUICK,
    Part,
    Sizes,
    draw_cues,
    load_fashion_mnist,
    make_post_hoc,
    make_settings,
    train_nets,
)
from stability_of_attention import SETTINGS, compute_agreements, compute_chance, make_untrained
from torch import Tensor, nn
from torch.utils.data import Subset, TensorDataset

import xcam
from xcam.core import Explanation, Metric, MetricSpec
from xcam.metrics import EnergyPointingGame, PointingGame

DATA, SEEDS = ("cues", "fashion_mnist"), (0, 1, 2)
REMOVAL = (
    "insertion",
    "deletion",
    "average_drop",
    "increase_in_confidence",
    "average_gain",
    "road",
)
METRICS: dict[str, Metric] = {name: xcam.get_metric(name)() for name in REMOVAL}
LOCALIZATION = {"pointing_game": PointingGame(tolerance=1), "pxap": xcam.get_metric("pxap")()}
EXPLAINING_AGAIN: dict[str, Metric] = {
    "adcc": xcam.get_metric("adcc")(),
    "mprt": xcam.get_metric("mprt")(n_steps=3),
    "max_sensitivity": xcam.get_metric("max_sensitivity")(n_samples=5),
}
VARIED = {title: HEADS.get(title, ("gradcam", {})) for title in ("LFI-CAM", "ABN", "Grad-CAM")}


@dataclass(frozen=True)
class Preference(EnergyPointingGame):
    """Of what a map has on both discs, the share on the one that is explained.

    It takes masks that are 1 on that disc, 0 on the other and 255, ignored, beside them. A map that
    has nothing on either prefers neither: 1/2.
    """

    spec: ClassVar[MetricSpec] = replace(
        EnergyPointingGame.spec, name="preference", title="Preference", aliases=()
    )

    def score(
        self,
        model: nn.Module,
        images: Tensor,
        explanation: Explanation,
        truth: Tensor | None = None,
    ) -> Tensor:
        """Return (B,) shares; see `Metric.score`."""
        shares = super().score(model, images, explanation, truth)
        on_both = explanation.maps.clamp(min=0).masked_fill(truth == 255, 0)
        return shares.masked_fill(on_both.sum((1, 2)) == 0, 0.5)


def score(
    nets: Mapping[str, nn.Module],
    data: TensorDataset,
    out: Path,
    sizes: Sizes,
    metrics: Mapping[str, Metric],
    again: Mapping[str, Metric],
) -> Iterator[pd.DataFrame]:
    """Score the maps of each net by the net itself, and all by the frozen one.

    Args:
        nets: From `train_nets`.
        data: The images.
        out: The folder.
        sizes: Of the methods.
        metrics: That score any map.
        again: Metrics that explain again, and thus need the net that a map is of.
    """
    same: dict[str, Any] = {"target": "label", "progress": sys.stderr.isatty()}
    stored, post_hoc, frozen = {}, make_post_hoc(sizes), {FROZEN: nets[FROZEN]}
    for title, (name, _) in HEADS.items():
        net, methods = {title: nets[title]}, {title: name}
        methods |= {} if name == "gradcam" else {"Grad-CAM": "gradcam"}
        every, folder = {**metrics, **again}, out / title
        found = xcam.evaluate(
            net, data, methods, every, out=folder, controls=False, save_maps=True, **same
        )
        yield from tabulate(found, "own", sizes.resamples)
        stored[title] = folder / "maps" / title
    found = xcam.evaluate(frozen, data, post_hoc, metrics, maps=stored, out=out / FROZEN, **same)
    yield from tabulate(found, FROZEN, sizes.resamples)
    if again:
        found = xcam.evaluate(frozen, data, post_hoc, again, out=out / "again", **same)
        yield from tabulate(found, FROZEN, sizes.resamples)


def tabulate(
    results: xcam.Results, judge: str, resamples: int, by: str = "method"
) -> Iterator[pd.DataFrame]:
    """Yield results, their differences from Grad-CAM's (of nets, from the frozen one's), costs."""
    reference = "Grad-CAM" if by == "method" else FROZEN
    names = {"difference": "value", "a": "method", "b": "minus"}
    table = results.table(resamples)
    yield table.assign(judge=judge, method=table[by])
    if reference in set(table[by]):
        pairs = results.compare(reference=reference, by=by, resamples=resamples)
        pairs = pairs[["metric", "n", "low", "high", "p", *names]].rename(columns=names)
        yield pairs.assign(judge=judge)
    if by == "method":
        costs = results.costs().groupby(["model", "method"])[["explain_seconds", "explain_passes"]]
        made = costs.first().query("explain_passes > 0")  # others are stored maps
        long = made.melt(var_name="metric", ignore_index=False).reset_index()
        yield long.assign(judge=judge, direction="lower")


def retrain(
    nets: Mapping[str, nn.Module], part: Part, out: Path, sizes: Sizes, seed: int
) -> pd.DataFrame:
    """Measure accuracies after retraining without the highest pixels of maps (ROAR)."""
    train = Subset(part.train, range(sizes.retrained))
    for title, net in nets.items():
        results = xcam.roar(
            part.make_net,
            train,
            part.test,
            {title: net},
            {title: HEADS[title][0]} if title in HEADS else make_post_hoc(sizes),
            fit=make_settings(FROZEN, sizes.retrained, sizes.epochs),
            fractions=sizes.fractions,
            repeats=1,  # with each seed of the study
            seed=seed,
            out=out,
        )
    table = results.table().query("0 < fraction < 1")
    names = [f"roar({fraction:.0%})" for fraction in table["fraction"]]
    return table.assign(metric=names, direction="lower", judge=FROZEN)


def vary_settings(part: Part, out: Path, sizes: Sizes) -> Iterator[dict[str, object]]:
    """Measure how far maps of nets agree that were trained by different settings, pair by pair."""
    images, labels = part.scored.tensors[:2]
    for title, (name, given) in VARIED.items():
        head = {} if name == "gradcam" else {"method": name, **given}
        maps: dict[str, list[Tensor]] = {title: [], f"{title}, untrained": []}
        for number, varied in enumerate(SETTINGS[: sizes.settings]):
            optimizer = {"name": "SGD", "momentum": 0.9, "nesterov": True}
            settings = {
                "optimizer": {
                    **optimizer,
                    "lr": varied["lr"],
                    "weight_decay": varied["weight_decay"],
                },
                "schedule": {"name": "CosineAnnealingLR", "T_max": sizes.epochs},
                "batch_size": varied["batch_size"],
                "epochs": sizes.epochs,
                "precision": "bf16",
                "seed": number,
            }
            new, folder = part.make_seeded_net(number), out / title / str(number)
            net = xcam.fit(new, part.train, out=folder, **settings, **head)
            untrained = make_untrained(new, name, number) if head else new
            for each, found in zip((net, untrained), maps.values(), strict=True):
                found.append(xcam.explain(each, images, labels, name).maps)
        for label, found in maps.items():
            agreements = {"iou": compute_agreements, "iou of other images": compute_chance}
            for metric, compute in agreements.items():
                iou = pd.Series(compute(found, "pixel"))
                ends = {"value": iou.mean(), "low": iou.min(), "high": iou.max()}
                yield {"method": label, "metric": metric, "judge": "settings", **ends}


def measure(data: str, seed: int, options: argparse.Namespace, sizes: Sizes) -> None:
    """Train, explain, score and retrain on a data set with a seed; write `results.csv`."""
    out, is_cues = options.out / data / str(seed), data == "cues"
    part = draw_cues(seed, sizes) if is_cues else load_fashion_mnist(options.root, seed, sizes)
    nets = train_nets(part, out / "nets", sizes, seed)
    accuracy = xcam.evaluate(
        nets, part.test, ["random"], ["accuracy"], controls=False, out=out / "accuracy"
    )
    metrics = {**METRICS, **(LOCALIZATION if is_cues else {})}
    tables = [
        *tabulate(accuracy, "own", sizes.resamples, by="model"),
        *score(nets, part.scored, out / "scored", sizes, metrics, EXPLAINING_AGAIN),
        retrain(nets, part, out / "roar", sizes, seed),
    ]
    if part.two is not None:
        found = score(nets, part.two, out / "two", sizes, {"preference": Preference()}, {})
        tables += [table[table["metric"] == "preference"] for table in found]
    if seed == SEEDS[0]:
        tables.append(pd.DataFrame(vary_settings(part, out / "settings", sizes)))
    table = pd.concat(tables).assign(data=data, seed=seed)
    table = table.drop_duplicates(["judge", "model", "method", "metric", "minus"])  # costs
    table[five_papers_report.COLUMNS].to_csv(out / "results.csv", index=False)


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure, or report what was measured."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, required=True, help="folder, one a data set and seed")
    parser.add_argument("--data", choices=DATA, help="one of the data sets; both by default")
    parser.add_argument("--seed", type=int, choices=SEEDS, help="one of the seeds; all by default")
    parser.add_argument("--root", type=Path, default=Path("data"), help="where Fashion-MNIST is")
    parser.add_argument(
        "--quick", action="store_true", help="check the steps: few images, one seed"
    )
    parser.add_argument("--report", action="store_true", help="of what is there, and no more")
    options = parser.parse_args(arguments)
    if options.report:
        five_papers_report.report(options.out)
        return
    sizes, seeds = (QUICK, SEEDS[:1]) if options.quick else (Sizes(), SEEDS)
    for data in (options.data,) if options.data else DATA:
        for seed in seeds if options.seed is None else (options.seed,):
            measure(data, seed, options, sizes)
            print(f"{data}, seed {seed}: measured", flush=True)


if __name__ == "__main__":
    main()
