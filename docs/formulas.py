"""Write the formulas of docstrings and specs, which are plain text, as LaTeX: symbol for symbol.

Nothing is laid out anew but what has one reading: scripts, roots, and quotients without blanks
around the slash. What is not understood stays text.
"""

from __future__ import annotations

import re
import unicodedata

SYMBOLS = {
    **{sign: "\\" + unicodedata.name(sign).split()[-1].lower() for sign in "αβγδζηθκλμνξπρστφχψω"},
    **{"ε": r"\varepsilon", "Δ": r"\Delta", "Φ": r"\Phi", "Ω": r"\Omega"},
    **{"Σ": r"\sum", "∫": r"\int", "∂": r"\partial", "∇": r"\nabla", "∞": r"\infty"},
    **{"·": r"\cdot", "×": r"\times", "⊙": r"\odot", "∩": r"\cap", "∈": r"\in", "~": r"\sim"},
    **{"←": r"\leftarrow", "→": r"\to", "≥": r"\geq", "≤": r"\leq", "≠": r"\neq", "−": "-"},
    **{
        "‖": r"\|",
        "#": r"\#",
        "%": r"\%",
        "½": r"\frac{1}{2}",
        "…": r"\ldots",
        "{": r"\{",
        "}": r"\}",
    },
    **{sign: sign for sign in "=+-/<>|,:;.!'()[]"},
}
NAMED = {name: rf"\{name}" for name in ("max", "min", "exp", "log", "ln", "tanh")}
CLOSING = {"(": ")", "[": "]", "{": "}"}
RAISED = dict(zip("⁰¹²³⁴⁵⁶⁷⁸⁹⁺⁻ᵀ*", "0123456789+-T*", strict=True))
LOWERED = dict(zip("₀₁₂₃₄₅₆₇₈₉", "0123456789", strict=True))
WORDY = re.compile(r"in|out|[A-Za-z]{4,}")  # subscripts that are words, not several indices

WIDE = 40  # characters of a formula that gets lines of its own

NUMBER = re.compile(r"\d+(?:\.\d+)?(?:e-?\d+)?")
WORD = re.compile(r"[A-Za-z][A-Za-z0-9]+(?:['-][A-Za-z0-9]+)*")
SCRIPT = re.compile(r"\{([^{}]*)\}|(\d+\.\d+|[A-Za-z0-9α-ω]+(?:,[A-Za-z0-9]+)*)")


class Formula:
    """A reader of one formula, from left to right."""

    def __init__(self, text: str) -> None:
        self.text, self.at = text, 0

    def peek(self) -> str:
        return self.text[self.at : self.at + 1]

    def read_all(self, end: str = "") -> str:
        """Return the LaTeX up to the closing bracket `end`, which is consumed."""
        parts: list[str] = []
        while self.peek() != end:
            if not self.peek():
                raise ValueError(f"no {end} in {self.text}")
            if self.peek().isspace():
                self.at += 1
                parts.append(" ")
            elif parts and self.is_tight_slash(parts[-1]):
                self.at += 1
                below = self.read_bars() if self.peek() == "|" else self.read_atom()
                parts[-1] = rf"\frac{{{drop_brackets(parts[-1])}}}{{{drop_brackets(below)}}}"
            else:
                parts.append(self.read_atom())
        self.at += len(end)
        return space_words("".join(parts)).strip()

    def is_tight_slash(self, before: str) -> bool:
        after = self.text[self.at + 1 : self.at + 2]
        return self.peek() == "/" and before not in " |" and bool(after) and not after.isspace()

    def read_bars(self) -> str:
        self.at += 1
        return f"|{self.read_all('|')}|"

    def read_atom(self) -> str:
        """Return one symbol, number, word or bracket, with its scripts."""
        if found := NUMBER.match(self.text, self.at):
            self.at = found.end()
            return found[0] + self.read_scripts()
        if found := WORD.match(self.text, self.at):
            self.at = found.end()
            return self.write_word(found[0]) + self.read_scripts()
        sign = unicodedata.normalize("NFD", self.peek())
        self.at += 1
        if sign in CLOSING:
            closing = CLOSING[sign]
            inside = self.read_all(closing)
            return f"{SYMBOLS[sign]}{inside}{SYMBOLS[closing]}{self.read_scripts()}"
        if sign == "√":
            return rf"\sqrt{{{drop_brackets(self.read_atom())}}}"
        if sign in ("∂", "∇") and not self.peek().isspace():
            return f"{SYMBOLS[sign]} {self.read_atom()}"
        if len(sign) == 2 and sign[1] == "\N{COMBINING MACRON}":
            return rf"\bar{{{sign[0]}}}{self.read_scripts()}"
        if sign.isascii() and sign.isalpha():
            return sign + self.read_scripts()
        if sign not in SYMBOLS:
            raise ValueError(f"{sign!r} in {self.text}")
        latex = SYMBOLS[sign]
        scripts = self.read_scripts() if sign.isalpha() or sign in "∫)|‖" else ""
        return latex + (scripts or " " * (latex[-1].isalpha()))

    def write_word(self, word: str) -> str:
        if word[0] == "d" and len(word) == 2 and "∫" in self.text:
            return rf"\,d{word[1]}"
        is_function = self.peek() in ("(", "_")
        return NAMED.get(word) or rf"\{'operatorname' if is_function else 'text'}{{{word}}}"

    def read_scripts(self) -> str:
        """Return the subscripts, superscripts and primes at this place."""
        scripts = ""
        while sign := self.peek():
            if sign in "_^" and (found := SCRIPT.match(self.text, self.at + 1)):
                self.at = found.end()
                inside = found[1] or found[2]
                scripts += rf"{sign}{{{write_script(inside)}}}"
            elif sign in RAISED or sign in LOWERED:
                table, mark = (RAISED, "^") if sign in RAISED else (LOWERED, "_")
                run = ""
                while self.peek() and self.peek() in table:
                    run += table[self.peek()]
                    self.at += 1
                scripts += f"{mark}{{{run}}}"
            elif sign in "'′":
                self.at += 1
                scripts += "'"
            else:
                break
        return scripts


def write_latex(formula: str) -> str:
    """Return a formula, symbol for symbol, as LaTeX.

    Raises:
        ValueError: A symbol has no counterpart here, or a bracket stays open.
    """
    return Formula(formula).read_all()


def write_script(inside: str) -> str:
    """Return a subscript or superscript: a word upright, indices in italics."""
    if WORDY.fullmatch(inside):
        return rf"\text{{{inside}}}"
    signs = [SYMBOLS.get(sign, sign) for sign in inside]
    return "".join(sign + " " * (sign[0] == "\\") for sign in signs).strip()


def drop_brackets(latex: str) -> str:
    """Return what is between round brackets that enclose all of it; anything else as it is."""
    depth = 0
    for at, sign in enumerate(latex):
        depth += (sign == "(") - (sign == ")")
        if depth == 0:
            return latex[1:-1] if latex[0] == "(" and at == len(latex) - 1 else latex
    return latex


def space_words(latex: str) -> str:
    """Return LaTeX with words that follow each other in one text, and blanks around it."""
    latex = re.sub(r" +", " ", latex)
    while (joined := re.sub(r"(\\text\{[^{}]*)\} \\text\{", r"\1 ", latex)) != latex:
        latex = joined
    latex = re.sub(r"(\\operatorname\{\w+\}(?:_(?:\w|\{[^{}]*\}))?) (?=[\w\\])", r"\1\\,", latex)
    latex = re.sub(r"(^|[^\\\w])(\w+|[})\]']) (?=\\text)", r"\1\2\\ ", latex)
    return re.sub(r"(\\text\{[^{}]*\}) (?=[\w\\(\[])", r"\1\\ ", latex)


# Where formulas are within the sentences of a docstring.

PROTECTED = re.compile(r"^:[\w ]+:|(:[\w:]+:)?`+[^`]+`+_?|https?://\S+|(?:arXiv|doi):\S+")
TOKENS = re.compile(
    r"""(?:
    [_^](?:\{[^{}]*\}|\d+\.\d+|(?:in|out|images|object|[A-Za-z0-9α-ω]{1,3}(?:,[A-Za-z0-9]{1,3})*)(?!\w))
    | \d+(?:\.\d+)?(?:e-?\d+)?                           # numbers
    | (?:max|min|exp|log|ln|argmax)(?![A-Za-z])
    | [A-Za-z][A-Za-z0-9]+(?:-[A-Za-z]+)?(?=[(_])          # functions
    | \|\w+\|
    | (?<=Σ)_\w+
    | (?<![A-Za-z])[A-Za-zḡ](?![A-Za-z])                   # letters that stand alone
    | [α-ωΔΣΦΩ∫∂∇∞·×⊙∩∈~←→≥≤≠−‖#½…=+/<>|√⁰-⁺⁻²³¹ᵀ*₀-₉()\[\]{},'′]
    )+""",
    re.VERBOSE,
)
STRONG = re.compile(
    r"[=←Σ∂∇√∫⊙·½∈∩‖]|[\w)][²³⁰-⁺⁻ᵀ]|\b[A-Za-zα-ω]_\w|(?<=[\w)]) [−+/<≥] (?=[\w(‖])|\b\w/\w"
    r"|\w\|\w|(?<![A-Za-zα-ω])[A-Za-zα-ω]\(\w"
)
INFIX = re.compile(r"(?:^|[\s(])[=←⊙<>≥·+−∩~/]$")
ALONE = re.compile(r"\(?([b-zB-HJ-Zα-ω]'?)[.,;:)]*")
END = re.compile(r"[.,;:]+$")


def is_math(word: str) -> bool:
    """Return whether a word is of symbols alone, apart from words within a function's brackets."""
    word = re.sub(r"(?<=\w)\([^()]*\)", "()", END.sub("", word))
    word = re.sub(r"(?<=[\w#][(\[{])[^()\[\]{}]+$", "", word)
    return bool(TOKENS.fullmatch(word)) and not re.fullmatch(r"[()\[\],]+", word)


def measure_depth(text: str) -> int:
    """Return how many brackets are open at the end of a text; -1 where one closes too many."""
    depth = 0
    for sign in text:
        depth += (sign in "([{") - (sign in ")]}")
        if depth < 0:
            return -1
    return depth + text.count("‖") % 2


def find_formulas(text: str) -> list[tuple[int, int]]:
    """Return where formulas begin and end in a paragraph: the longest runs of symbols.

    A run takes along words in brackets that a function opened, as in f(x without its highest
    pixels), and a word on either side of an equals sign. It ends at a comma, but in brackets.
    """
    words = list(re.finditer(r"\S+", PROTECTED.sub(lambda found: "`" * len(found[0]), text)))
    spans = []
    at = 0
    while at < len(words):
        start = at
        word, before_equals = words[at][0], is_equals(words, at + 1)
        before_sign = before_equals or (at + 1 < len(words) and words[at + 1][0] in "·⊙")
        if before_sign and re.fullmatch(r"[A-Za-z]{2,}", word):
            at += 1
        elif not is_math(word) or (word in ("A", "a", "I") and not before_equals):
            at += 1  # a letter alone is an article, unless a sign follows
            continue
        begin, at = words[start].start(), at + 1
        end = words[at - 1].end()
        while at < len(words) and continues(text[begin:end], words[at][0]):
            end, at = words[at].end(), at + 1
        found = trim(text[begin:end])
        if STRONG.search(found) and is_readable(found):
            spans.append((begin, begin + len(found)))
        else:
            at = start + 1
    return spans


def is_readable(formula: str) -> bool:
    """Return whether all of a formula can be written, and its brackets match."""
    if measure_depth(formula) != 0:
        return False
    try:
        write_latex(formula)
    except ValueError:
        return False
    return True


def is_equals(words: list[re.Match[str]], at: int) -> bool:
    return at < len(words) and words[at][0] in ("=", "←")


def continues(formula: str, word: str) -> bool:
    """Return whether a formula goes on with the next word."""
    if "`" in word:
        return False
    depth = measure_depth(formula)
    if depth > 0:
        return True
    if depth < 0 or END.search(formula):
        return False
    if INFIX.search(formula) or re.search(r"Σ(_\w+)?$", formula):
        return word not in ("the", "a")
    return is_math(word) or ("∫" in formula and bool(re.fullmatch("d[a-z]", word)))


def trim(formula: str) -> str:
    """Return a run without the punctuation behind it, and without a bracket of the sentence."""
    formula = END.sub("", formula)
    if found := INFIX.search(formula):
        formula = formula[: found.start()]
    while formula and measure_depth(formula) < 0 and formula[-1] in ")]":
        formula = END.sub("", formula[:-1])
    return formula
