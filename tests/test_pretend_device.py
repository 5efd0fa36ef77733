"""The pretend accelerator refuses and counts what a GPU refuses and waits for."""

import copy

import pytest
import torch
import torch.nn.functional as F
from pretend_device import DEVICE, pretend
from torch import nn

HOST = torch.arange(6.0).view(2, 3)


@pytest.fixture
def reads():
    with pretend() as reads:
        yield reads


@pytest.mark.usefixtures("reads")
class TestRefusals:
    @pytest.mark.parametrize(
        "mix",
        [
            lambda there: there + HOST,
            lambda there: torch.cat([there, HOST]),
            lambda there: torch.stack([there.sum(), torch.tensor(1.0)]),
            lambda there: torch.zeros(()).add_(there.sum()),
            lambda there: HOST[there[0].long().clamp(max=1)],
            lambda there: there.gather(1, HOST.long().clamp(max=2)),
            lambda there: F.conv2d(there[None, None], torch.ones(1, 1, 1, 1)),
            lambda there: there.index_put((torch.tensor([0]),), torch.ones(3)),
        ],
    )
    def test_tensors_of_both_devices_do_not_mix(self, mix):
        with pytest.raises(RuntimeError, match="expected all tensors to be on the same device"):
            mix(HOST.to(DEVICE))

    def test_numpy_takes_no_tensor_of_the_device(self):
        with pytest.raises(RuntimeError, match="numpy"):
            HOST.to(DEVICE).numpy()

    def test_generators_of_the_host_draw_nothing_there(self):
        with pytest.raises(RuntimeError, match="expected a generator of the device"):
            torch.rand(3, device=DEVICE, generator=torch.Generator())

    def test_single_values_and_indices_of_the_host_are_taken(self):
        there = HOST.to(DEVICE)
        assert (there + torch.tensor(1.0)).tolist() == (HOST + 1).tolist()
        assert there[torch.tensor([1])].tolist() == [[3, 4, 5]]


class TestReads:
    @pytest.mark.parametrize(
        ("read", "count"),
        [
            (lambda there: float(there.sum()), 1),
            (lambda there: bool(there.isfinite().all()), 1),
            (lambda there: there.tolist(), 1),
            (lambda there: there.cpu(), 1),
            (lambda there: HOST.clone().copy_(there), 1),
            (lambda there: there.nonzero(), 1),
            (lambda there: there[there > 1], 1),
            (lambda there: there.masked_fill(there > 1, 0), 0),
            (lambda there: torch.where(there > 1, there, 0).argmax(), 0),
            (lambda there: torch.empty_like(there, device="meta"), 0),
            (lambda there: HOST.to(there), 0),
        ],
    )
    def test_waits_are_counted(self, reads, read, count):
        there = HOST.to(DEVICE)
        read(there)
        assert reads.total() == count


@pytest.mark.usefixtures("reads")
class TestValues:
    @pytest.mark.parametrize(
        "make",
        [
            lambda device: torch.tensor([1, 2], device=device),
            lambda device: torch.ones(2, device=device).new_tensor([3]),
            lambda device: torch.linspace(0, 1, 3, device=device),
            lambda device: torch.stack(torch.unravel_index(HOST.to(device).argmax(), (2, 3))),
            lambda device: F.pad(HOST.to(device)[None], (1, 1), mode="replicate"),
            lambda device: HOST.to(device)[:, 1:].mul_(2),
        ],
    )
    def test_results_are_there_and_the_same(self, make):
        found = make(DEVICE)
        assert found.device == DEVICE
        assert found.tolist() == make("cpu").tolist()

    def test_net_moves_learns_and_comes_back(self):
        net = nn.Sequential(nn.Conv2d(1, 2, 1), nn.BatchNorm2d(2), nn.Flatten(), nn.Linear(12, 2))
        copies = [copy.deepcopy(net), copy.deepcopy(net).to(DEVICE)]
        for moved, images in zip(
            copies, (HOST[None, None], HOST[None, None].to(DEVICE)), strict=True
        ):
            optimizer = torch.optim.Adam(moved.parameters(), 0.1)
            moved(images).logsumexp(1).sum().backward()
            optimizer.step()
        assert {p.device for p in copies[1].parameters()} == {DEVICE}
        there = copy.deepcopy(copies[1]).cpu().state_dict()
        for name, value in copies[0].state_dict().items():
            torch.testing.assert_close(there[name], value)


def test_device_is_gone_behind_the_block():
    with pretend():
        torch.zeros(2, device=DEVICE)
    with pytest.raises(NotImplementedError):
        torch.zeros(2, device=DEVICE)
