"""Formulas of docstrings and specs as LaTeX: closed forms, and that no symbol is lost."""

import html
import re
import unicodedata
from collections import Counter

import formulas
import pytest
from docutils.utils.math.latex2mathml import tex2mathml

import xcam

CLASSES = [
    *(xcam.get_method(name) for name in xcam.list_methods()),
    *(xcam.get_metric(name) for name in xcam.list_metrics()),
]


@pytest.mark.parametrize(
    ("written", "latex"),
    [
        ("M = Σ_k w_k A_k", r"M = \sum_{k} w_{k} A_{k}"),
        ("(y − y_k)/|y|", r"\frac{y - y_{k}}{|y|}"),
        ("∂y/∂A_k,ij", r"\frac{\partial y}{\partial A_{k,ij}}"),
        ("a / (b + c)", r"a / (b + c)"),
        ("(∇A ⊙ A)⁺ R", r"(\nabla A \odot A)^{+} R"),
        ("∫₀¹ g da", r"\int_{0}^{1} g \,da"),
        ("(2/(max x − 1))²", r"(\frac{2}{\max x - 1})^{2}"),
        ("√(G_x² + ½)", r"\sqrt{G_{x}^{2} + \frac{1}{2}}"),
        ("mean_ij ḡ", r"\operatorname{mean}_{ij}\,\bar{g}"),
        ("1[R_out > 0]", r"1[R_{\text{out}} > 0]"),
        ("f(x without its k highest)", r"f(x\ \text{without its}\ k\ \text{highest})"),
        ("s = F^T q' / √d", r"s = F^{T} q' / \sqrt{d}"),
    ],
)
def test_closed_forms(written, latex):
    assert formulas.write_latex(written) == latex


@pytest.mark.parametrize("formula", ["(a + b", "a @ b", "✓"])
def test_what_cannot_be_read_is_refused(formula):
    with pytest.raises(ValueError, match=re.escape(formula)):
        formulas.write_latex(formula)


def find_all(text):
    return [text[begin:end] for begin, end in formulas.find_formulas(text)]


@pytest.mark.parametrize(
    ("sentence", "found"),
    [
        (
            "M = Σ_k w_k A_k with w_k = (y − y_k)/|y|, where y_k is (A, 2020) a score.",
            ["M = Σ_k w_k A_k", "w_k = (y − y_k)/|y|", "y_k"],
        ),
        ("AUC = Σ_k s_k/n, s_k = f(x without its k·step pixels) (Bo et al., 2018).",
         ["AUC = Σ_k s_k/n", "s_k = f(x without its k·step pixels)"]),
        ("A flat channel of 3x3 cells, `a = b_k`, has n_samples maps in [0, 1].", []),
        ("A is (C, h, w), up to 2.36 M values; see arXiv:2101.00001.", []),
        ("(the sum x + y)", ["x + y"]),
    ],
)  # fmt: skip
def test_formulas_are_found_within_sentences(sentence, found):
    assert find_all(sentence) == found


def count_symbols(text):
    """The letters, digits and signs of a formula, but for brackets and bars, which may go."""
    plain = unicodedata.normalize("NFKD", text).translate(
        str.maketrans({"−": "-", "Σ": "∑", "⁄": None, "ˉ": "\u0304", "⋅": "·", "∼": "~", "′": "'"})
    )
    return Counter(re.sub(r"[\s()/|_^{},\[\]√\u2061\u00a0]", "", plain))


@pytest.mark.parametrize("cls", CLASSES, ids=lambda cls: cls.spec.name)
def test_no_symbol_of_a_formula_is_lost_or_added(cls):
    paragraphs = [" ".join(part.split()) for part in cls.__doc__.split("\n\n")]
    found = [formula for text in paragraphs for formula in find_all(text)]
    if isinstance(formula := getattr(cls.spec, "formula", None), str):
        found += find_all(formula)
    for formula in found:
        shown = re.sub(r"<[^>]*>", "", str(tex2mathml(formulas.write_latex(formula))))
        shown = html.unescape(shown.replace("&ApplyFunction;", ""))
        assert count_symbols(shown) == count_symbols(formula), formula
