"""What `evaluate` refuses before it writes anything."""

import pytest
import torch
from evaluations import NET, Pictures, evaluate, loader
from torch.utils.data import BatchSampler, DataLoader, IterableDataset, SequentialSampler
from torchvision.transforms.functional import to_pil_image

import xcam
from xcam.data import Splits
from xcam.errors import UnknownNameError


class TestBadInput:
    @pytest.mark.parametrize(
        ("arguments", "kind", "sentence"),
        [
            ({"methods": "gradcan"}, UnknownNameError, "did you mean gradcam"),
            ({"metrics": "sparsness"}, UnknownNameError, "did you mean sparseness"),
            ({"methods": [3]}, TypeError, "method must be a name or a Method object, got 3"),
            ({"metrics": [3]}, TypeError, "metrics must be names or Metric objects, got 3"),
            ({"methods": ()}, ValueError, "nothing to evaluate; give methods, or maps"),
            ({"metrics": ()}, ValueError, "no metrics to score with"),
            ({"methods": ["rise", "rise"]}, ValueError, "RISE(.*) is given twice"),
            ({"target": 3}, ValueError, "target must be 'predicted' or 'label', got 3"),
            ({"model": lambda x: x}, TypeError, "model must be a torch.nn.Module, got function"),
            ({"model": {}}, ValueError, "there is no model"),
            ({"model": {1: NET}}, TypeError, "a label must be a string, got 1; give '1'"),
            ({"methods": {16: "rise"}}, TypeError, "a label must be a string, got 16"),
            ({"maps": {None: print}}, TypeError, "a label must be a string, got None"),
            ({"maps": 3}, TypeError, "maps must be a folder, a callable"),
            ({"maps": {"rise": print}, "methods": "rise"}, ValueError, "are called 'rise'"),
            ({"maps": "no/folder"}, FileNotFoundError, "no folder of maps at 'no/folder'"),
            ({"indices": [11]}, ValueError, "indices must be from 0 to 10, got 11"),
            ({"indices": [-1]}, ValueError, "indices must be from 0 to 10, got -1"),
            ({"indices": [1, 1]}, ValueError, "must name each image once"),
            ({"indices": [True] * 11}, TypeError, r"whole numbers, got \(11,\) of torch.bool"),
            ({"indices": torch.ones(11) > 0}, TypeError, r"give mask.nonzero\(\).flatten\(\)"),
            ({"indices": [1.5]}, TypeError, "whole numbers, got .* of torch.float32"),
            ({"indices": [[1]]}, TypeError, r"whole numbers, got \(1, 1\)"),
            ({"indices": []}, ValueError, "there are no images"),
            ({"fraction": 0}, ValueError, "fraction must be above 0 and at most 1, got 0"),
            ({"fraction": 1.5}, ValueError, "fraction must be above 0 and at most 1, got 1.5"),
            ({"batch_size": 0}, ValueError, "batch_size must be a positive int or None, got 0"),
            ({"precision": "fp8"}, ValueError, "precision must be"),
            ({"metrics": "max_box_acc"}, ValueError, "'max_box_acc' needs boxes"),
            ({"metrics": "energy_pointing_game"}, ValueError, "'energy_pointing_game' needs masks"),
        ],
    )
    def test_bad_argument_is_refused_before_anything_is_written(
        self, tmp_path, arguments, kind, sentence
    ):
        out = tmp_path / "out"
        with pytest.raises(kind, match=sentence):
            evaluate(loader(), out=out, **arguments)
        assert not out.exists()

    @pytest.mark.parametrize(
        ("made", "kind", "sentence"),
        [
            (lambda d: loader(d, shuffle=True), ValueError, "by a RandomSampler"),
            (lambda d: loader(d, drop_last=True), ValueError, "drop_last=True"),
            (lambda d: DataLoader(d, batch_size=None), ValueError, "makes its own batches"),
            (lambda d: iter(loader(d)), TypeError, "data must be a DataLoader, a data set"),
            (lambda d: Splits(d, None, d, ()), TypeError, "data holds several splits; give one"),
            (lambda d: [], ValueError, "there are no images"),
            (lambda d: [{"images": d.images}], TypeError, "a batch must be images"),
            (lambda d: [(d.images, [0.5] * 11)], TypeError, r"labels must be \(B,\) integers"),
            (lambda d: [(d.images, [0])], ValueError, "a batch has 11 images and 1 labels"),
            (lambda d: [(d.images, None, [None] * 11)], TypeError, "truth must be a tensor"),
            (lambda d: [d.images.double()], TypeError, "images are torch.float64 and the model"),
            (lambda d: [d.images[:, 0]], ValueError, r"images must be \(B, C, H, W\)"),
        ],
    )
    def test_bad_data_is_refused_before_anything_is_written(self, tmp_path, made, kind, sentence):
        out = tmp_path / "out"
        with pytest.raises(kind, match=sentence):
            evaluate(made(Pictures()), out=out)
        assert not out.exists()

    def test_loader_with_its_own_batch_sampler_is_refused(self):
        class Own(BatchSampler):
            pass

        data = Pictures()
        own = Own(SequentialSampler(data), 4, False)
        with pytest.raises(ValueError, match="makes its own batches"):
            evaluate(DataLoader(data, batch_sampler=own))

    @pytest.mark.parametrize("workers", [0, 1])
    def test_pil_images_are_refused_with_a_transform_to_use(self, workers):
        class Raw(Pictures):
            def __getitem__(self, index):
                return to_pil_image(self.images[index]), self.labels[index]

        with pytest.raises(TypeError, match="gives PIL images, and images must be tensors"):
            evaluate(loader(Raw(), num_workers=workers))

    def test_iterable_data_set_is_refused(self):
        class Stream(IterableDataset):
            def __iter__(self):
                return iter(())

        with pytest.raises(TypeError, match="got Stream"):
            evaluate(DataLoader(Stream()))

    @pytest.mark.parametrize("metric", ["accuracy", "sparseness"])
    def test_missing_labels_are_refused(self, metric):
        names = xcam.list_metrics()
        needy = [n for n in names if xcam.get_metric(n).spec.truth == "labels"]
        chosen = needy[:1] if metric == "accuracy" and needy else ["sparseness"]
        target = "label" if chosen == ["sparseness"] else "predicted"
        with pytest.raises(ValueError, match=r"needs labels, and the data has none"):
            evaluate([Pictures().images], metrics=chosen, target=target)

    def test_wrong_number_of_ids_is_refused(self):
        data = Pictures()
        data.ids = data.ids[:3]
        with pytest.raises(ValueError, match="has 11 images and 3 ids"):
            evaluate(loader(data))
