"""The order of images and the randomness of each follow from counters."""

import pytest
import torch
from pretend_device import DEVICES
from trainings import CLASSES, Noisy, assert_close, plain, train, weights

import xcam
from xcam._fit.order import Order, seed_all
from xcam.models.toy import GapNet, SmallCNN


class TestOrder:
    def seen(self, **arguments):
        data = Noisy(11)
        plain(data, epochs=2, batch_size=4, **arguments)
        order = data.loaded[-22:]
        return order[:11], order[11:]

    def test_every_image_once_an_epoch(self):
        first, second = self.seen()
        assert sorted(first) == sorted(second) == list(range(11))
        assert first != second

    def test_order_follows_from_the_seed_alone(self):
        torch.manual_seed(5)
        assert self.seen() == self.seen()
        assert self.seen() != self.seen(seed=1)

    def test_drop_last_leaves_out_the_last_batch(self):
        data = Noisy(11)
        loader = torch.utils.data.DataLoader(data, batch_size=4, shuffle=True, drop_last=True)
        plain(loader, batch_size=None, epochs=2, model=SmallCNN(num_classes=CLASSES))
        assert len(data.loaded[-16:]) == 16
        assert len(set(data.loaded[-8:])) == 8
        assert len(data.loaded) == 17  # and the first, to see what an image is

    def test_order_is_the_same_from_any_step_on(self):
        order = Order(10, 4, False, seed=0)
        whole = list(order.iterate(0, 0, 2))
        for epoch, step in ((0, 2), (1, 0), (1, 1)):
            assert list(order.iterate(epoch, step, 2)) == whole[3 * epoch + step :]

    def test_counters_give_seeds_that_differ(self):
        drawn = set()
        for counters in ((0, 1), (1, 0), (0, 0, 1), (0, 10), (1, 1)):
            with torch.random.fork_rng():
                seed_all(*counters)
                drawn.add(float(torch.rand(())))
        assert len(drawn) == 5

    def test_augmentation_differs_by_epoch_and_image(self):
        images = []

        class Watched(Noisy):
            def __getitem__(self, index):
                item = super().__getitem__(index)
                images.append((index, item[0] - self.images[index] / 2))
                return item

        plain(Watched(5, noise=1.0), epochs=2)
        noises = [noise for _, noise in images[1:]]
        assert len({round(float(noise.mean()), 6) for noise in noises}) == 10

    def test_gap_net_learns_a_corner(self):
        """Not that a loss falls, but that the net is right: chance is a third."""
        net = plain(Noisy(60), GapNet(num_classes=CLASSES), epochs=30, batch_size=10, optimizer={
            "name": "Adam", "lr": 0.02})  # fmt: skip
        assert xcam.accuracy(net, Noisy(60, seed=9))["accuracy"].iloc[-1] > 0.6


@DEVICES
class TestDevices:
    @pytest.fixture
    def precise(self, monkeypatch):
        """Convolutions as on the CPU: they are rounded to ten bits by default."""
        monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", False)

    @pytest.mark.usefixtures("precise")
    def test_trains_there_and_leaves_its_generator(self, tmp_path, device):
        random = torch.cuda if device == "cuda" else torch
        before = random.get_rng_state()
        net = train(tmp_path, device=device)
        assert torch.equal(random.get_rng_state(), before)
        assert net.fc.weight.device.type == device
        clean = Noisy(11, noise=0.0)
        found, expected = (plain(clean, epochs=3, device=kind) for kind in (device, "cpu"))
        assert_close(weights(found.cpu()), weights(expected), 1e-4)

    @pytest.mark.parametrize("precision", ["bf16", "fp16"])
    def test_fit_in_half_precision_learns(self, precision, device):
        data = Noisy(60)
        net = plain(data, epochs=30, batch_size=10, device=device, precision=precision)
        assert xcam.accuracy(net, data)["accuracy"].iloc[-1] > 0.5
