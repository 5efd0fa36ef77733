"""An engineer has a net of her own, its weights and photographs, and a shell."""

import json

import pytest
import torch
from PIL import Image
from shell import fail, type_in
from torch import nn

import xcam

NAMES = ["ant", "bee", "cat", "dog"]


@pytest.fixture(scope="module")
def desk(tmp_path_factory):
    """Her folder: weights as torch.save writes them, names, photographs by class, one broken."""
    folder = tmp_path_factory.mktemp("desk")
    torch.manual_seed(0)
    net = xcam.models.load("xcam:cifar_resnet", depth=8, num_classes=4)
    torch.save({"state_dict": net.model.state_dict()}, folder / "mine.pth")
    (folder / "classes.txt").write_text("\n".join(NAMES))
    for number in range(6):
        path = folder / "photos" / NAMES[2 + number % 2] / f"{number}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        pixels = torch.randint(0, 256, (90, 120, 3), dtype=torch.uint8)
        Image.fromarray(pixels.numpy()).save(path)
    return folder


@pytest.fixture
def here(desk, monkeypatch):
    """The shell is in that folder."""
    monkeypatch.chdir(desk)
    return desk


MODEL = (
    "--model xcam:cifar_resnet --set depth=8 --set num_classes=4 --weights mine.pth "
    "--categories classes.txt --mean 0.485,0.456,0.406 --std 0.229,0.224,0.225"
)


def test_engineer_explains_her_own_net(here):
    assert "gradcam" in type_in("xcam methods")
    layers = type_in(f"xcam explain --layers {MODEL}")
    names = [line.split()[0] for line in layers.splitlines()]
    assert "model.stage2" in names

    said = fail(f"xcam explain photos {MODEL} --target cut --out overlays", 2)
    assert said == "xcam: no class of the model is called 'cut'; the nearest are cat\n"
    assert not (here / "overlays").exists()

    methods = '"gradcam(layer=model.stage2),rise(n_masks=4)"'
    asked = f"{MODEL} --target cat --contrast dog --methods {methods}"
    shown = type_in(f"xcam explain photos/cat/0.jpg {asked} --out overlays")
    assert "; rather than: dog" in shown
    overlays = sorted(path.name for path in (here / "overlays").iterdir())
    assert overlays == ["0.gradcam.png", "0.rise.png"]
    assert xcam.read_image("overlays/0.gradcam.png").shape[2] == 120  # the photograph's own

    (here / "photos" / "dog" / "broken.jpg").write_text("no picture")
    said = fail(f"xcam explain photos {MODEL} --methods gradcam --out all", 1)
    assert said.splitlines()[-2] == "xcam: 1 of 7 pictures could not be read"
    assert len([*(here / "all").rglob("*.png")]) == 6
    (here / "photos" / "dog" / "broken.jpg").unlink()

    shown = type_in(f"xcam explain photos {MODEL} --worst 2 --target label --out mistakes")
    first, _, *lines = shown.splitlines()
    assert first.endswith(" of 6 pictures are classified wrongly")
    assert 0 < len(lines) <= 2
    assert all("; labeled: " in line for line in lines)


def test_engineer_compares_methods_on_her_photographs(here):
    lines = [f"photos/{NAMES[2 + n % 2]}/{n}.jpg,{NAMES[2 + n % 2]}" for n in range(6)]
    (here / "list.csv").write_text("\n".join(["file,label", *lines, "photos/gone.jpg,dog"]))
    asked = (
        f"--data list.csv {MODEL.replace('xcam:', 'mine=xcam:')} "
        '--methods "gradcam,layercam" --metrics "average_drop,sparseness" --out runs/a'
    )
    assert "measured on" in type_in(f"xcam evaluate {asked} --dry-run --quiet")
    assert not (here / "runs").exists()
    shown = type_in(f"xcam evaluate {asked}")
    assert shown.splitlines()[0].split() == ["method", "average_drop", "↓", "sparseness", "↑"]
    assert max(map(len, shown.splitlines()[:6])) <= 80
    assert "10 errors" in shown  # of the file that is gone, by 5 methods and 2 metrics
    said = fail(f"xcam evaluate {asked} --strict --quiet", 1)
    assert said.splitlines()[-1] == "xcam: 10 rows could not be scored"
    rows = json.loads(type_in(f"xcam evaluate {asked} --quiet --json"))
    assert {row["model"] for row in rows} == {"mine"}
    shown = type_in("xcam compare runs/a --reference random")
    assert "gradcam" in shown
    assert "@inproceedings{selvaraju2017gradcam," in type_in("xcam cite gradcam average_drop")


def test_net_without_names_takes_numbers(here):
    torch.save(nn.Linear(2, 2).state_dict(), "other.pth")
    said = fail("xcam explain photos --model xcam:cifar_resnet --weights other.pth", 2)
    assert said.startswith("xcam: the weights in 'other.pth' are not those of this ")
    plain = "--model xcam:cifar_resnet --set depth=8 --set num_classes=4 --weights mine.pth"
    said = fail(f"xcam explain photos {plain} --target cat", 2)
    assert "is the name of a class, and the model names none: give its number" in said
    assert "class 2 " in type_in(f"xcam explain photos/cat/0.jpg {plain} --target 2 --out n")
