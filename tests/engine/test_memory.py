"""What evaluations and results hold, by the peak memory of a process of their own."""

import numpy as np
import peaks
import pytest

from xcam.results.parts import encode_part
from xcam.runs.manifest import encode_manifest

pytestmark = pytest.mark.skipif(not peaks.STATUS.exists(), reason="needs Linux's /proc")

EVALUATE = """
from evaluations import Pictures, evaluate, loader

class Large(Pictures):
    def __getitem__(self, index):
        image, label = super().__getitem__(index)
        return image.repeat(1, 25, 25), label  # 200 × 200, half a megabyte

def run(count):
    evaluate(loader(Large(count, size=8)), "center_gaussian", controls=False)

run(12)
with rise():
    run(200)
"""

READ = """
from recorded import Best
from xcam.results import Results, rows

rows._BUDGET = 2**24  # for one of two methods, as for 50,000 images by 1000 numbers

def opened(folder, verb):
    results = Results(folder, {"best": Best()})
    assert results._rows.summary["errors"].sum() == 1
    return getattr(results, verb)

verbs = "table", "compare"
for verb in verbs:
    opened(sys.argv[1], verb)(resamples=20)  # what is loaded at its first use is not the rows'
for verb in verbs:
    run = opened(sys.argv[2], verb)
    with rise():
        run(resamples=20)
    del run
"""

IMAGES, WIDTH = 10_000, 1000
PART = 100  # images; some parts are read ahead
MEGABYTES = IMAGES * WIDTH * 4 / 2**20  # of one method


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """Two methods' rows of 40 MB, of which one has failed; before it a few to begin with."""
    return [written(tmp_path_factory.mktemp("run"), count) for count in (500, IMAGES)]


def written(folder, count):
    (folder / "rows").mkdir()
    said = {"methods": {}, "metrics": {}, "images": {"count": count}}
    (folder / "manifest.json").write_bytes(encode_manifest(said))
    generator = np.random.default_rng(0)
    for number, start in enumerate(range(0, count, PART)):
        part = rows(range(start, start + PART), generator)
        if not number:
            part[0] |= {"values": None, "shape": None, "error": "ValueError: no map"}
        path = folder / "rows" / f"batch-{number:08d}.parquet"
        path.write_bytes(encode_part(part))
    return folder


def rows(indices, generator):
    values = generator.integers(0, 2, (len(indices), 2, 1, WIDTH)).astype(np.float32)
    plain = {"model": "net", "metric": "best", "shape": [1, WIDTH], "seconds": 0.0}
    return [
        plain | {"index": index, "image": str(index), "method": method, "values": found.ravel()}
        for index, pair in zip(indices, values, strict=True)
        for method, found in zip("ab", pair, strict=True)
    ]


def test_rows_are_held_of_one_method_at_a_time(folders):
    table, compare = peaks.risen(READ, *map(str, folders))
    # 1.1 is usual; 2 with a copy of them, or with both methods.
    assert table < 1.5 * MEGABYTES
    assert compare < 1.5 * MEGABYTES


def test_evaluations_hold_some_images_at_a_time():
    """The 200 images are 92 MB, some at a time 10."""
    (risen,) = peaks.risen(EVALUATE)
    assert risen < 40
