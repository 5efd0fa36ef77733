"""Cell correlation where the answer is known."""

import dataclasses

import torch
from xcam_example import CellCorrelation, HiddenCells

import xcam
from xcam.models.toy import GapNet


def test_map_of_the_falls_themselves_correlates_fully():
    generator = torch.Generator().manual_seed(0)
    net, images = GapNet(), torch.rand(3, 3, 16, 16, generator=generator)
    explanation = xcam.explain(net, images, method=HiddenCells(cells=4))
    falls = explanation.raw.repeat_interleave(4, 1).repeat_interleave(4, 2)  # a block a cell
    for maps, wanted in ((falls, 1.0), (-2 * falls + 5, -1.0), (torch.ones_like(falls), 0.0)):
        made_by_hand = dataclasses.replace(explanation, raw=maps)
        rows = CellCorrelation(cells=4).score(net, images, made_by_hand)
        torch.testing.assert_close(rows, torch.full((3,), wanted), rtol=0, atol=1e-4)
