"""Maps of other tasks are those of their scores, on small random nets of each kind."""

import pytest
import torch
from nets import pictures
from other_tasks import (
    Classifier,
    PixelValues,
    Segmenter,
    explain_labels,
    explain_region,
    explain_similarity,
    main,
)
from torch.testing import assert_close
from torchvision.transforms.functional import to_pil_image

import xcam
from xcam.models.toy import GapNet, TokenNet

IMAGES = pictures(2, 3, 16)


def test_map_of_several_labels_is_the_sum_of_theirs():
    """Grad-CAM is linear in the score."""
    labels = torch.tensor([[1, 0, 1, 0, 0], [0, 1, 0, 0, 1]]).bool()
    found = explain_labels(GapNet(), IMAGES, labels, batch_size=1)
    maps = [xcam.explain(GapNet(), IMAGES, label, method="gradcam").raw for label in range(5)]
    expected = torch.einsum("bk,kbhw->bhw", labels.float(), torch.stack(maps))
    assert_close(found.raw, expected)


def test_map_of_a_region_has_the_weights_of_its_category():
    """Behind a 1x1 convolution, ∂ score / ∂ F_k sums to w_k times the pixels of the region."""
    torch.manual_seed(0)
    segmenter = Segmenter().eval()
    regions = torch.zeros(2, 16, 16).bool()
    regions[0, 4:8, 4:12] = regions[1, 2:6, 2:10] = True  # inside, where bilinear weights sum to 1
    found = explain_region(segmenter, IMAGES, 2, regions, layer="backbone")
    with torch.no_grad():
        weights = segmenter.classifier.weight[2, :, 0, 0] * 32 / 64
        expected = torch.einsum("k,bkhw->bhw", weights, segmenter.backbone(IMAGES))
    assert_close(found.raw, expected)
    assert found.target is None


def test_map_of_a_similarity_follows_its_gradient():
    encoder, embedding = GapNet(num_classes=6), torch.arange(6.0)
    found = explain_similarity(encoder, IMAGES, embedding, method="gradcam")
    features = encoder.features(IMAGES).detach().requires_grad_()
    embeddings = encoder.fc(features.mean((2, 3)))
    cosine = (embeddings @ embedding) / (embeddings.norm(dim=1) * embedding.norm())
    (gradient,) = torch.autograd.grad(cosine.sum(), features)
    assert_close(found.raw, (gradient.mean((2, 3), keepdim=True) * features).sum(1).detach())


@pytest.mark.parametrize("method", ["gradcam", "attention_gradient", "integrated_gradients"])
def test_wrapped_classifier_is_explained_as_the_net_inside(method):
    found = xcam.explain(PixelValues(Classifier()).eval(), IMAGES, [1, 2], method=method)
    assert_close(found.raw, xcam.explain(TokenNet(), IMAGES, [1, 2], method=method).raw)


def test_classifier_of_transformers_is_explained():
    transformers = pytest.importorskip("transformers", reason="an optional library")
    config = transformers.ViTConfig(
        hidden_size=12,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=24,
        image_size=16,
        patch_size=4,
        num_labels=3,
    )
    torch.manual_seed(0)
    net = transformers.ViTForImageClassification(config).eval()
    for method in ("gradcam", "attention_rollout", "attention_gradient", "legrad"):
        found = xcam.explain(net, IMAGES, 1, method=method)
        assert found.raw.shape == (2, 4, 4)
        assert found.raw.any()
        assert_close(found.raw, xcam.explain(PixelValues(net), IMAGES, 1, method=method).raw)
    config._attn_implementation = "eager"  # which returns its matrices
    twin = transformers.ViTForImageClassification(config).eval()
    twin.load_state_dict(net.state_dict())
    with torch.no_grad():
        attentions = twin(IMAGES, output_attentions=True).attentions
    rollout = torch.eye(17)
    for matrix in attentions:
        rollout = (matrix.mean(1) / 2 + torch.eye(17) / 2) @ rollout
    for each in (net, twin):
        found = xcam.explain(each, IMAGES, 1, method="attention_rollout").raw
        assert_close(found, rollout[:, 0, 1:].reshape(2, 4, 4))


def test_example_draws_one_of_each_kind(tmp_path, capsys):
    to_pil_image(IMAGES[0]).save(tmp_path / "image.png")
    main([str(tmp_path / "image.png"), "--out", str(tmp_path / "maps")])
    assert len(capsys.readouterr().out.splitlines()) == 4
    drawn = sorted(path.stem for path in (tmp_path / "maps").iterdir())
    assert drawn == ["hugging_face", "labels", "region", "similarity"]
