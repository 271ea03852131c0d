"""Superscripts and subscripts as plain text that keeps its value: 10²¹, H₂O, x^{max}.

Unicode has raised and lowered forms of digits, signs and many single letters ("Superscripts and Subscripts",
U+2070 to U+209F, and the phonetic blocks). Where every character has one, these are used. A run that has
letters next to each other is a word, and hard to read so: it, and whatever lacks a form, is written as TeX
does, ^{...} or _{...}. Endings of ordinals and abbreviations (21st, 1er, Mme) are raised for looks only and
stay as they are. What is a footnote's mark is for the caller to find out before.
"""

import re

SUPERSCRIPTS = str.maketrans(
    "0123456789+-−–‐‑=()abcdefghijklmnoprstuvwxyzABDEGHIJKLMNOPRTUVWβγδθφχ′",
    "⁰¹²³⁴⁵⁶⁷⁸⁹⁺⁻⁻⁻⁻⁻⁼⁽⁾ᵃᵇᶜᵈᵉᶠᵍʰⁱʲᵏˡᵐⁿᵒᵖʳˢᵗᵘᵛʷˣʸᶻᴬᴮᴰᴱᴳᴴᴵᴶᴷᴸᴹᴺᴼᴾᴿᵀᵁⱽᵂᵝᵞᵟᶿᵠᵡ′",
)
SUBSCRIPTS = str.maketrans(
    "0123456789+-−–‐‑=()aehijklmnoprstuvxβγρφχ", "₀₁₂₃₄₅₆₇₈₉₊₋₋₋₋₋₌₍₎ₐₑₕᵢⱼₖₗₘₙₒₚᵣₛₜᵤᵥₓᵦᵧᵨᵩᵪ"
)
# Raised for looks: the text is the same without. English, French, Spanish, Italian, Dutch endings.
ENDINGS = "st nd rd th er ers re res ère ères ème èmes eme emes ième ièmes nde de me mes lle lles gr gen ier"
# Signs that are raised by themselves, or small wherever they stand.
ALONE = re.compile("[*†‡§¶°ºª®™©℠′″'’\"”´`]+")
SIGNS = {"TM": "™", "tm": "™", "SM": "℠", "(R)": "®"}
WORD = re.compile(r"[^\W\d_]{2}")
MAX_LENGTH = 60  # characters; a longer text in small letters is a note, no index


def superscript(text: str) -> str:
    """Return a raised text as plain text, e.g. "21" as "²¹", "a,b" as "^{a,b}", "st" and "*" as they are.

    White space at its end stays; empty text is empty.
    """
    bare = text.strip()
    if bare.lower() in ENDINGS.split() or bare in SIGNS or ALONE.fullmatch(bare):
        return SIGNS.get(bare, bare) + _space_behind(text)
    return _moved(text, "^", SUPERSCRIPTS)


def subscript(text: str) -> str:
    """Return a lowered text as plain text, e.g. "2" as "₂", "max" as "_{max}"; see superscript."""
    return _moved(text, "_", SUBSCRIPTS)


def _moved(text: str, mark: str, forms: dict[int, int]) -> str:
    bare = " ".join(text.split())
    if not bare or len(bare) > MAX_LENGTH:
        return text
    compact = re.sub(r"(?<=[-+−=]) | (?=[-+−=])", "", bare)
    if not WORD.search(compact):
        if all(ord(character) in forms for character in compact):
            return compact.translate(forms) + _space_behind(text)
        if all(ord(character) in forms.values() for character in compact):  # as it is asked for already
            return text
    return f"{mark}{{{bare}}}{_space_behind(text)}"


def _space_behind(text: str) -> str:
    return " " if text[-1:].isspace() else ""
