"""Expansion of the templates that the 20 Wikipedias use inside sentences.

A template without a rule here expands to nothing: infoboxes, navigation, citations, maintenance requests,
coordinates, flags, sounds, and guides to pronunciation.

A rule is a pattern of parameters ("{1}": the first one, "{last}": the last one without a name) or a function
of the parameters. A pattern with a missing parameter expands to nothing. A rule "fr:s" applies to one
language only and takes precedence over a rule "s".
"""

import re
from collections.abc import Callable

from puna.corpus.readers.wiki.languages import FORMAT_NUMBER, PAGE_NAMES, names
from puna.corpus.readers.wiki.quantities import QUANTITIES, Values, first, listed, number
from puna.text import lists

KEY = re.compile(r"[\w -]{1,40}")
FIELD = re.compile(r"\{(\w+)\}")
# Names of the parameter that holds the text, where it is not the first one.
TEXT_KEYS = (
    *("text", "texte", "texto", "testo", "content", "quote"),
    *("zitat", "tekst", "текст", "fr", "label", "name"),
)
PIPE, EQUALS = "\x01", "\x02"  # stand for | and = that do not separate parameters
LOST = "\x03"  # stands for a template without a rule here
# French templates that show their own name, as {{84e}}.
ORDINAL = re.compile(r"(?:[\divxlc]+(?:er|re|e|ème|nd|nde))(?: .*)?")
MONTHS = (
    *("January", "February", "March", "April", "May", "June"),
    *("July", "August", "September", "October", "November", "December"),
)


def expand(inner: str, title: str, language: str) -> str:
    """Expand the template {{inner}}, whose own templates are expanded already.

    title: of the page, for {{PAGENAME}}. language: of the wiki, as "de".
    """
    written, _, rest = inner.partition("|")
    written = " ".join(written.replace("_", " ").split())
    name = written.lower()
    if name in PAGE_NAMES:
        return title
    rule = RULES.get(f"{language}:{name}") or RULES.get(name) or _rule_by_form(name, written, language)
    if rule is None and ":" in name:
        return _parser_function(written.replace(LOST, ""), rest.replace(LOST, ""), language)
    if rule is None:
        return written if language == "fr" and ORDINAL.fullmatch(name) else LOST
    values = parameters(rest.replace(LOST, "")) if rest else {}
    if callable(rule):
        return rule(values, language)
    missing = False

    def fill(field: re.Match[str]) -> str:
        nonlocal missing
        value = _value(values, field[1])
        missing = missing or not value
        return value

    text = FIELD.sub(fill, rule) if "{" in rule else rule
    return "" if missing else text


def _rule_by_form(name: str, written: str, language: str) -> str | None:
    """Return the pattern of a template whose name has a form that many templates share."""
    if name.startswith(("lang-", "јез-", "jez-", "jezik-", "script/")):
        return "{1}"
    if ":" in name:
        return None
    if language == "de" and name.startswith('"'):
        return "„{1}“"
    if language == "de" and len(name) in (3, 4) and written[-1] == "S":
        return "{1}"  # {{enS|word}} names the language of a word
    return None


def parameters(rest: str) -> Values:
    """Return the parameters of a template by name, those without one by their number."""
    values: Values = {}
    count = 0
    for parameter in rest.split("|"):
        key, equals, value = parameter.partition("=")
        key = key.strip()
        if equals and KEY.fullmatch(key):
            values[key.lower()] = value.strip()
        else:
            count += 1
            values[str(count)] = parameter.strip()
    return values


def _value(values: Values, key: str) -> str:
    """Return the parameter for a field of a pattern, or where that is missing the one that names the text."""
    if key == "last":
        return first(values, TEXT_KEYS) or (listed(values) or [""])[-1]
    if values.get(key):
        return values[key]
    if key == "1" or (key == "2" and "1" not in values):
        return first(values, TEXT_KEYS)
    return ""


def _parser_function(written: str, rest: str, language: str) -> str:
    """Evaluate a parser function of MediaWiki, where the page alone determines it."""
    name, _, argument = written.partition(":")
    name, argument = name.strip().lower(), argument.strip()
    if name in FORMAT_NUMBER:
        return argument if rest.strip() in ("R", "NOSEP") else number(argument.replace(",", ""), language)
    if name == "#if":
        yes, _, no = rest.partition("|")
        return (yes if argument else no.partition("|")[0]).strip()
    changes: dict[str, Callable[[str], str]] = {
        "lc": str.lower,
        "uc": str.upper,
        "ucfirst": lambda text: text[:1].upper() + text[1:],
        "lcfirst": lambda text: text[:1].lower() + text[1:],
    }
    return changes[name](argument) if name in changes else ""


def _joined(separator: str) -> Callable[[Values, str], str]:
    return lambda values, language: separator.join(value for value in listed(values) if value)


def _bullets(values: Values, language: str) -> str:
    return "".join(f"\n* {value}" for value in listed(values) if value) + "\n"


def _sic(values: Values, language: str) -> str:
    return values.get("1") or "[sic]"


def _citation(values: Values, language: str) -> str:
    """Expand {{harvtxt|Ames|Bolt|1990|p=5}} to "Ames & Bolt (1990)"."""
    found = listed(values)
    return f"{' & '.join(found[:-1])} ({found[-1]})" if len(found) > 1 else ""


def _accidental(values: Values, language: str) -> str:
    signs = {"flat": "♭", "b": "♭", "sharp": "♯", "#": "♯", "natural": "♮"}
    return signs.get(values.get("1", "").lower(), "")


def _circa(values: Values, language: str) -> str:
    return f"c. {values.get('1', '')}".strip()


def _date(values: Values, language: str) -> str:
    """Expand {{birth date|1950|5|1}} to "May 1, 1950", with df=y "1 May 1950"; join what is no date."""
    found = [value for value in listed(values) if value]
    are_numbers = all(value.isdecimal() and len(value) < 5 for value in found[:3])
    if not are_numbers or not found or len(found[0]) < 3:
        return " ".join(found)
    month = MONTHS[int(found[1]) - 1] if len(found) > 1 and 0 < int(found[1]) < 13 else ""
    day = str(int(found[2])) if len(found) > 2 and month else ""
    if values.get("df"):
        return " ".join(part for part in (day, month, found[0]) if part)
    return f"{month} {day}, {found[0]}" if day else f"{month} {found[0]}".strip()


def _as_of(values: Values, language: str) -> str:
    if not values.get("1"):
        return ""
    return ("as of " if values.get("lc") else "As of ") + _date({**values, "df": "y"}, language)


def _ship(values: Values, language: str) -> str:
    return f"{values.get('1', '')} {values.get('2', '')}".strip()


def _with_original(values: Values, language: str) -> str:
    """Expand {{nihongo|text|kanji|romaji}} to "text (kanji, romaji)"."""
    text, *others = listed(values) or [""]
    inside = ", ".join(value for value in others[:2] if value)
    return f"{text} ({inside})" if text and inside else text or inside


def _chinese(values: Values, language: str) -> str:
    keys = ("c", "t", "s", "p", "w", "j", "poj")
    return "; ".join(dict.fromkeys(values[key] for key in keys if values.get(key)))


def _untranslated(values: Values, language: str) -> str:
    """Expand a link to a page that is still to be translated: {{нп5|title|text|language|title there}}."""
    return values.get("2") or values.get("1", "")


def _quote(values: Values, language: str) -> str:
    text = _value(values, "1")
    if not text:
        return ""
    author = first(values, ("author", "autor", "auteur", "автор", "sign", "2"))
    source = first(values, ("source", "quelle", "fuente", "источник", "3"))
    attribution = ", ".join(name for name in (author, source) if name)
    return f"\n{text}\n" + (f"— {attribution}\n" if attribution else "")


def _keys(values: Values, language: str) -> str:
    return "+".join(value for value in listed(values) if value)


# Templates by the pattern or function that expands them.
_LISTS = lists.listed(__file__, "templates.json")
FUNCTIONS: dict[Callable[[Values, str], str], str] = {
    **QUANTITIES,
    **{globals()[f"_{function}"]: written for function, written in _LISTS["functions"].items()},
    **{_joined(separator): written for separator, written in _LISTS["joined"].items()},
}
RULES: dict[str, str | Callable[[Values, str], str]] = {
    **{name: pattern for pattern, named in _LISTS["patterns"].items() for name in named},
    **{name: function for function, written in FUNCTIONS.items() for name in names(written)},
    **{name: name.upper() + " {1}" for name in names(_LISTS["vessels"])},
}
# Templates that close a table opened by {|.
TABLE_ENDS = names(_LISTS["table_ends"])
