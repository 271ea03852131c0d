"""Numbers, units, exponents and formulas of templates, as the language of the wiki writes them.

What is raised or lowered keeps its value: 10²¹, m·s⁻², H₂O, x^{max}.
"""

import re
from collections.abc import Callable

from puna.corpus.readers.wiki.languages import SEPARATORS, UNGROUPED_THOUSANDS
from puna.text import lists
from puna.text.raised import subscript, superscript

Values = dict[str, str]
NUMBER = re.compile(r"([-+−]?)(\d+)(?:\.(\d+))?(?:[eE]([-+−]?\d{1,9}))?")
CHARGE = re.compile(r"\d*[-+−]")
UNIT_EXPONENT = re.compile(r"(?<=[A-Za-zµΩ])[-−]?\d\b")
UNIT_KEYS = ("u", "ul", "um", "unit", "unité", "unidad", "suffix", "post", "einheit")
COUNTED = re.compile(r"(?<=[^\W\d_])\d+|(?<=[)\]])\d+")
_LISTS = lists.listed(__file__, "quantities.json")
RANGES: dict[str, str] = _LISTS["ranges"]
UNITS: dict[str, str] = _LISTS["units"]


def listed(values: Values) -> list[str]:
    """Return the parameters without a name."""
    found: list[str] = []
    while (value := values.get(str(len(found) + 1))) is not None:
        found.append(value)
    return found


def first(values: Values, keys: tuple[str, ...]) -> str:
    """Return the first parameter of these that is not empty."""
    return next((values[key] for key in keys if values.get(key)), "")


def number(text: str, language: str, group: str = "") -> str:
    """Return a number as the language writes it, with its separators; any other text as it is.

    group: between groups of digits, where that is not the language's own.
    """
    match = NUMBER.fullmatch(text.strip())
    if match is None or len(match[2]) > 300:
        return text
    own, point = SEPARATORS.get(language, SEPARATORS["en"])
    integer = match[2]
    if len(integer) > 4 or (len(integer) == 4 and language not in UNGROUPED_THOUSANDS):
        integer = f"{int(integer):,}".replace(",", group or own)
    return match[1] + integer + (point + match[3] if match[3] else "") + _power_of_ten(match[4] or "")


def _power_of_ten(exponent: str) -> str:
    return "×10" + superscript(exponent) if exponent.strip() else ""


def _unit(unit: str) -> str:
    """Return a unit with its exponents raised: "m3", "s-1"."""
    return UNITS.get(unit) or UNIT_EXPONENT.sub(lambda match: superscript(match[0]), unit)


def _number(values: Values, language: str) -> str:
    return number(values.get("1", ""), language)


def _quantity(values: Values, language: str) -> str:
    """Expand {{unité|12000|e=6|km}}; units may be followed by their exponents: |m||s|-2."""
    found = listed(values)
    if not found:
        return ""
    amount, space, unit = found[0].partition(" ")
    exponent = first(values, ("e", "exp", "10^", "potenz"))
    quantity = number(amount, language) + _power_of_ten(exponent) + space + unit
    pairs = zip(found[1::2], [*found[2::2], ""], strict=False)
    units = [unit + superscript(exponent) for unit, exponent in pairs if unit]
    return " ".join([quantity, "⋅".join(units) or first(values, UNIT_KEYS)]).strip()


def _measure(values: Values, language: str) -> str:
    """Expand {{M|2000|0,5|km|e=3}}: value, uncertainty, unit, digits in groups with spaces."""
    value, error, unit = [*listed(values), "", "", ""][:3]
    shown, exponent = number(value, language, " "), _power_of_ten(values.get("e", ""))
    if error:
        shown = f"({shown} ± {error})" if exponent else f"{shown} ± {error}"
    return f"{shown}{exponent} {first(values, UNIT_KEYS) or unit}".strip()


def _scientific(values: Values, language: str) -> str:
    """Expand {{ZahlExp|3,14|21|suffix=kg}}."""
    value, exponent, unit = [*listed(values), "", "", ""][:3]
    return f"{number(value, language)}{_power_of_ten(exponent)} {first(values, UNIT_KEYS) or unit}".strip()


def _convert(values: Values, language: str) -> str:
    """Expand {{convert|5|to|7|km|mi}} to "5 to 7 km", {{convert|5|ft|11|in|m}} to "5 ft 11 in"."""
    found = listed(values)
    if not found:
        return ""
    shown, at = number(found[0], language), 1
    while at + 1 < len(found) and found[at] in RANGES:
        shown += RANGES[found[at]] + number(found[at + 1], language)
        at += 2
    unit = found[at] if at < len(found) else ""
    shown = f"{shown} {UNITS.get(unit, unit)}".strip()
    if at + 2 < len(found) and f"{unit} {found[at + 2]}" in ("ft in", "st lb", "lb oz", "mi yd", "yd ft"):
        shown += f" {found[at + 1]} {found[at + 2]}"
    return shown


def _height(values: Values, language: str) -> str:
    return " ".join(f"{values[unit]} {unit}" for unit in ("m", "cm", "ft", "in") if values.get(unit))


def _val(values: Values, language: str) -> str:
    """Expand {{val|1.2|0.3|e=6|u=kg|up=s}} to "(1.2±0.3)×10⁶ kg/s"."""
    value, error, below = [*listed(values), "", "", ""][:3]
    shown, exponent = number(value, language), _power_of_ten(values.get("e", "")) if value else ""
    if below:
        shown += superscript(f"+{error.lstrip('+')}") + subscript(f"−{below.lstrip('-−')}")
    elif error:
        shown += error if error.startswith("(") else f"±{error}"
        shown = f"({shown})" if exponent and "±" in shown else shown
    if not value and values.get("e"):
        shown = "10" + superscript(values["e"])
    unit = _unit(first(values, UNIT_KEYS))
    divisor = first(values, ("up", "upl"))
    unit += f"/{_unit(divisor)}" if divisor else ""
    space = "" if unit.startswith(("°", "%", "′", "″", "/")) and not unit.startswith("°C") else " "
    return f"{values.get('p', '')}{shown}{exponent}{space}{unit}{values.get('s', '')}".strip()


def _gaps(values: Values, language: str) -> str:
    """Expand {{gaps|6.674|30|e=-11|u=m}}: the groups of one number."""
    digits = "".join(value for value in listed(values) if value)
    unit = _unit(first(values, UNIT_KEYS))
    return f"{values.get('lhs', '')}{digits}{_power_of_ten(values.get('e', ''))} {unit}".strip()


def _euros(values: Values, language: str) -> str:
    return f"{number(values.get('1', ''), language)} €".strip()


def _chemical_formula(values: Values, language: str) -> str:
    """Expand {{chem|H|2|O}}, {{chem2|H2O}} with counts as subscripts and charges as superscripts."""
    terms = (superscript(term) if CHARGE.fullmatch(term) else term for term in listed(values))
    return COUNTED.sub(lambda match: subscript(match[0]), "".join(terms))


def _nuclide(values: Values, language: str) -> str:
    """Expand {{nuclide|U|235}} to "²³⁵U", {{nuclide|uranium|235}} to "uranium-235"."""
    name, mass = [*listed(values), "", ""][:2]
    return superscript(mass) + name if len(name) < 3 else f"{name}-{mass}".rstrip("-")


def _times_power(values: Values, language: str) -> str:
    return _power_of_ten(values.get("1", "")) or "×10"


def _exponent(values: Values, language: str) -> str:
    return _power_of_ten(values.get("1", ""))


def _ten_to(values: Values, language: str) -> str:
    return "10" + superscript(values.get("1", ""))


def _power(values: Values, language: str) -> str:
    """Expand {{pow|10|21}}; with one value that is raised."""
    *base, exponent = listed(values) or [""]
    return "".join(base) + superscript(exponent)


def _superscript(values: Values, language: str) -> str:
    return superscript(first(values, ("1", "text", "texte")))


def _subscript(values: Values, language: str) -> str:
    return subscript(first(values, ("1", "text", "texte")))


def _both(values: Values, language: str) -> str:
    """Expand {{su|a|p=2|b=i}}, {{SubSup|x|i|2}}: what is raised and what is lowered."""
    base, low, high = [*listed(values), "", "", ""][:3]
    return base + subscript(values.get("b") or low) + superscript(values.get("p") or high)


def _plus_minus(values: Values, language: str) -> str:
    up, down = [*listed(values), "", ""][:2]
    return superscript(f"+{up}") + subscript(f"−{down}") if down else f"±{up}"


def _fraction(values: Values, language: str) -> str:
    found = [value for value in listed(values) if value]
    if len(found) > 2:
        return f"{found[0]} {found[1]}/{found[2]}"
    return f"1/{found[0]}" if len(found) == 1 else "/".join(found)


def _hour(values: Values, language: str) -> str:
    return f"{values.get('1', '')} h {values.get('2', '')}".strip()


def _before(word: str) -> Callable[[Values, str], str]:
    """Expand {{p.|12}} to "p. 12", without a value to the word alone."""
    return lambda values, language: f"{word} {' '.join(filter(None, listed(values)))}".strip()


# By the function that expands them; "fr:num" on the wiki of one language only, before any "num".
QUANTITIES: dict[Callable[[Values, str], str], str] = {
    **{globals()[f"_{function}"]: names for function, names in _LISTS["functions"].items()},
    **{_before(word): names for word, names in _LISTS["words"].items()},
}
