"""Whatever takes the name of a method or metric takes its other spellings and aliases."""

import torch
from torch.utils.data import TensorDataset
from typer.testing import CliRunner

import xcam
from xcam.cli import app
from xcam.models.toy import GapNet

IMAGES = torch.rand(4, 3, 12, 12, generator=torch.Generator().manual_seed(0))
LABELS = torch.tensor([0, 1, 2, 3])


def test_explain():
    found = xcam.explain(GapNet(), IMAGES, method="Grad-CAM")
    assert found.method.spec.name == "gradcam"
    assert torch.equal(found.raw, xcam.explain(GapNet(), IMAGES, method="gradcam").raw)
    paths = xcam.explain(GapNet(), IMAGES, method="IG", n_steps=3)
    assert repr(paths.method) == repr(xcam.methods.IntegratedGradients(n_steps=3))


def test_evaluate_labels_by_the_registered_name():
    found = xcam.evaluate(
        GapNet(), [(IMAGES, LABELS)], ["Grad-CAM++", "GRADCAM"], ["AD", "Insertion"], controls=False
    )
    table = found.table()
    assert {"gradcam_plusplus", "gradcam"} == set(table["method"])
    assert {"average_drop", "insertion"} == set(table["metric"])


def test_fit_and_the_nets_own_method():
    data = TensorDataset(IMAGES, LABELS)
    net = xcam.fit(GapNet(), data, "L-CAM-Fm", epochs=1, batch_size=4, labels="given")
    assert net.method.spec.name == "lcam_fm"
    found = xcam.explain(net, IMAGES, method="LCAM_FM")
    assert repr(found.method) == repr(net.method)


def test_energy_pointing_game_has_its_initials():
    energy = xcam.get_metric("energy_pointing_game")
    assert xcam.get_metric("epg") is xcam.get_metric("EPG") is energy


def test_command_line():
    done = CliRunner().invoke(app, ["check", "Center-Gaussian"])
    assert done.exit_code == 0, done.output
    assert "same_for_any_batch_size" in done.output
