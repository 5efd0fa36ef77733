"""What is published: the sdist, the page on PyPI, the citation, the names users rely on."""

import importlib
import re
import shutil
import subprocess
import sys
import tarfile
from pathlib import Path

import pytest

import xcam

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

ROOT = Path(__file__).parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
HOME = PROJECT["urls"]["Repository"]


@pytest.fixture(scope="module")
def tracked():
    """The files of the repository."""
    if not (ROOT / ".git").exists():
        pytest.skip("no repository: this is an sdist")
    listed = subprocess.check_output(["git", "ls-files"], cwd=ROOT, text=True)
    return [name for name in listed.splitlines() if (ROOT / name).exists()]


@pytest.fixture(scope="module")
def sdist(tracked, tmp_path_factory):
    """The files of an sdist that was built of a copy, and its metadata."""
    copy = tmp_path_factory.mktemp("copy") / "xcam"
    for name in tracked:
        (copy / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / name, copy / name)
    code = "from setuptools import build_meta; print(build_meta.build_sdist('dist'))"
    done = subprocess.run([sys.executable, "-c", code], cwd=copy, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    with tarfile.open(copy / "dist" / done.stdout.splitlines()[-1]) as archive:
        names = [name.partition("/")[2] for name in archive.getnames()]
        info = archive.extractfile(f"xcam-{PROJECT['version']}/PKG-INFO")
        return names, info.read().decode("utf-8")


def test_sdist_holds_the_repository(sdist, tracked):
    assert sorted(set(tracked) - set(sdist[0])) == []


def test_page_on_pypi_has_no_relative_link(sdist):
    headers, _, text = sdist[1].partition("\n\n")
    assert "Description-Content-Type: text/markdown" in headers
    assert f"Project-URL: Repository, {HOME}" in headers
    assert text.startswith("# xcam\n")
    html = pytest.importorskip("markdown_it").MarkdownIt("commonmark").enable("table").render(text)
    links = re.findall(r'(?:href|src)="([^"]+)"', html)
    assert all(link.startswith("https://") for link in links)
    picture = f"{HOME}/raw/main/docs/figures/demo.png"
    assert picture in re.findall(r'src="([^"]+)"', html)
    own = [link for link in links if link.startswith(HOME)]
    assert len(own) > 5
    for link in own:
        assert (ROOT / re.sub(r".*/main/", "", link).partition("#")[0]).exists(), link


def test_citation_is_of_this_version():
    text = (ROOT / "CITATION.cff").read_text("utf-8")
    assert f"\nversion: {PROJECT['version']}\n" in text
    assert f"\nlicense: {PROJECT['license']}\n" in text
    assert f"\nrepository-code: {HOME}\n" in text


def read_names():
    lines = (ROOT / "tests" / "public_names.txt").read_text("utf-8").split()
    return [line.rpartition(".")[::2] for line in lines]


@pytest.mark.parametrize("module", sorted({module for module, _ in read_names()}))
def test_public_names_stay(module):
    found = importlib.import_module(module)
    for name in (name for of, name in read_names() if of == module):
        assert name in found.__all__, f"see 'What users rely on' in CONTRIBUTING.md: {name}"
        assert getattr(found, name) is not None


def test_names_of_xcam_are_listed():
    assert sorted(name for module, name in read_names() if module == "xcam") == xcam.__all__
