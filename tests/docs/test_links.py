"""The checker of the built site's links."""

import links

PAGE = """<h1 id="top"></h1>
<a href="#top"></a> <a href="a/b%20c.html#x%26y"></a> <img src="data:,">
<a href="http://e.org/z"></a>
<a href="#none"></a> <img alt="" src="gone.png"> <a href="a/b%20c.html#no"></a>
"""


def test_broken_links_are_found(tmp_path):
    (tmp_path / "a").mkdir()
    below = '<p id="x&amp;y"><a class="k" href="../index.html#top">'
    (tmp_path / "a" / "b c.html").write_text(below)
    (tmp_path / "index.html").write_text(PAGE)
    broken = ["#none", "a/b%20c.html#no", "gone.png"]
    assert links.find_broken_links(tmp_path) == [f"index.html: {link}" for link in broken]
