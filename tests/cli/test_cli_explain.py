"""`xcam explain` on folders, patterns and lists, by several methods, of a net of one's own."""

import pytest
import torch
from commands import refused, run
from PIL import Image

import xcam
from xcam.cli.photos import find_photos
from xcam.models import Normalized
from xcam.models.toy import GapNet

NAMES = ("ant", "bee", "cat", "dog")


def write(path, seed, size=(16, 16)):
    path.parent.mkdir(parents=True, exist_ok=True)
    generator = torch.Generator().manual_seed(seed)
    pixels = torch.randint(0, 256, (*size, 3), dtype=torch.uint8, generator=generator)
    Image.fromarray(pixels.numpy()).save(path)
    return path


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    """Two classes of three pictures."""
    root = tmp_path_factory.mktemp("photos")
    for number in range(6):
        write(root / ("cat", "dog")[number // 3] / f"{number}.png", number, (40, 60))
    return root


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    """Weights of a net of one's own, and the names of its classes."""
    folder = tmp_path_factory.mktemp("net")
    torch.save(GapNet(num_classes=4, seed=3).state_dict(), folder / "mine.pth")
    (folder / "classes.txt").write_text("\n".join(NAMES))
    return folder


@pytest.fixture
def model(weights, monkeypatch):
    """Options of that net, which takes 16 x 16 pixels."""
    load = xcam.models.load
    monkeypatch.setattr(
        xcam.models, "load", lambda *args, **named: load(*args, input_size=16, **named)
    )
    return [
        "--model", "xcam:gap_net", "--weights", weights / "mine.pth", "--set", "num_classes=4",
        "--categories", weights / "classes.txt", "--mean", "0.4,0.4,0.4", "--std", "0.2,0.2,0.2",
    ]  # fmt: skip


def files(folder):
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*.*"))


def test_net_of_ones_own_explains_a_folder_by_two_methods(photos, model, weights, tmp_path):
    done = run(
        "explain", photos, *model, "--target", "cat", "--contrast", "dog", "--methods",
        "gradcam(layer=model.features.0),layercam", "--no-caption", "--out", tmp_path / "out",
        "--npy", tmp_path / "maps",
    )  # fmt: skip
    assert done.exit_code == 0, done.output
    stems = [f"{'cat' if number < 3 else 'dog'}/{number}" for number in range(6)]
    overlays = [f"{stem}.{method}.png" for stem in stems for method in ("gradcam", "layercam")]
    assert files(tmp_path / "out") == overlays
    maps = [f"{method}/{stem}.npy" for method in ("gradcam", "layercam") for stem in stems]
    assert files(tmp_path / "maps") == maps
    net = GapNet(num_classes=4, seed=3)
    net = Normalized(net, [0.4] * 3, [0.2] * 3, categories=NAMES, input_size=16).eval()
    picture = photos / "cat" / "0.png"
    layer = "model.features.0"
    expected = xcam.explain(net, [picture], "cat", contrast="dog", layer=layer)
    pixels = (expected.overlay([picture])[0] * 255).round() / 255
    assert torch.equal(xcam.read_image(tmp_path / "out" / overlays[0]), pixels)
    assert pixels.shape == (3, 40, 60)
    first, second, line, *_ = done.stdout.splitlines()
    assert (first, second[:8]) == (repr(expected.method), "LayerCAM")
    assert "; rather than: dog " in line
    assert line.endswith(", ".join(str(tmp_path / "out" / name) for name in overlays[:2]))


def test_captions_stand_below_the_picture(photos, model, tmp_path):
    picture = photos / "cat" / "0.png"
    for name, more in (("plain", ["--no-caption"]), ("captioned", [])):
        done = run("explain", picture, *model, "--out", tmp_path / name, *more)
        assert done.exit_code == 0, done.output
    plain, captioned = (
        xcam.read_image(tmp_path / name / "0.gradcam.png") for name in ("plain", "captioned")
    )
    assert captioned.shape[1] > plain.shape[1]
    assert torch.equal(captioned[:, :40], plain)
    assert bool((captioned[:, 40:] < 0.5).any())  # ink


def test_broken_file_is_a_line_at_the_end(photos, model, tmp_path):
    (tmp_path / "in").mkdir()
    for number in range(2):
        write(tmp_path / "in" / f"{number}.png", number)
    (tmp_path / "in" / "broken.png").write_text("no picture")
    whole = write(tmp_path / "in" / "cut.png", 5, (60, 60)).read_bytes()
    (tmp_path / "in" / "cut.png").write_bytes(whole[: len(whole) // 2])
    done = run("explain", tmp_path / "in", *model, "--out", tmp_path / "out")
    assert done.exit_code == 1
    assert files(tmp_path / "out") == ["0.gradcam.png", "1.gradcam.png"]
    counts, *broken = done.stderr.splitlines()[-3:]
    assert counts == "xcam: 2 of 4 pictures could not be read"
    assert "broken.png' is not a picture" in broken[0]
    assert "cut.png' is not a picture" in broken[1]


def test_files_are_checked_before_the_net_is_loaded(tmp_path, monkeypatch):
    monkeypatch.setattr(xcam.models, "load", lambda *_: pytest.fail("loaded"))
    (tmp_path / "broken.png").write_text("no picture")
    assert "is not a picture" in refused("explain", tmp_path / "broken.png")
    assert "no picture at" in refused("explain", tmp_path / "gone.png")
    assert "no picture matches" in refused("explain", tmp_path / "*.jpg")
    assert refused("explain").startswith("give pictures to explain")


def test_worst_mistakes_come_first(photos, model, weights, tmp_path):
    net = GapNet(num_classes=4, seed=3)
    net = Normalized(net, [0.4] * 3, [0.2] * 3, categories=NAMES, input_size=16).eval()
    data = xcam.data.folder(photos, 16)
    paths = list(data.paths)
    batch = torch.stack([xcam.read_image(path, 16) for path in paths])
    odds, predicted = net(batch).detach().softmax(1).max(1)
    wrong = [
        (float(-share), path)
        for share, k, path in zip(odds, predicted, paths, strict=True)
        if NAMES[k] != path.parent.name
    ]
    worst = [path for _, path in sorted(wrong)[:2]]
    listed = tmp_path / "list.csv"
    listed.write_text("".join(f"{path},{path.parent.name}\n" for path in paths))
    for source in (photos, listed):
        out = tmp_path / source.stem
        done = run("explain", source, *model, "--worst", "2", "--target", "label", "--out", out)
        assert done.exit_code == 0, done.output
        first, _, *lines = done.stdout.splitlines()
        assert first == f"{len(wrong)} of 6 pictures are classified wrongly"
        assert [line.split(":")[0] for line in lines] == [str(path) for path in worst]
        for line, path in zip(lines, worst, strict=True):
            assert f"; labeled: {path.parent.name} -> " in line
            assert f"explained: {path.parent.name} " in line


def test_layers_that_can_be_read_are_listed(model):
    done = run("explain", "--layers", *model)
    assert done.exit_code == 0, done.output
    header, *lines = done.stdout.splitlines()
    assert header.split() == ["layer", "module", "channels", "map"]
    assert [line.split()[-1] for line in lines].count("default") == 1
    net = xcam.models.load("xcam:gap_net", num_classes=4)
    for name in (line.split()[0] for line in lines):
        assert xcam.explain(net, torch.rand(1, 3, 16, 16), layer=name).maps.shape == (1, 16, 16)


def test_pictures_of_one_name_keep_their_folders_or_endings(tmp_path):
    write(tmp_path / "a" / "x.png", 0)
    write(tmp_path / "b" / "x.png", 1)
    write(tmp_path / "b" / "x.bmp", 1)
    names = [str(tmp_path / name) for name in ("a/x.png", "b/x.png")]
    assert [str(one.place) for one in find_photos(names)] == ["a/x.png", "b/x.png"]
    assert [str(one.place) for one in find_photos(names[:1])] == ["x.png"]
    pattern = str(tmp_path / "*" / "x.*")
    assert [str(one.place) for one in find_photos([pattern])] == ["a/x.png", "b/x.bmp", "b/x.png"]
    assert len(find_photos([pattern, str(tmp_path)])) == 3  # each once
