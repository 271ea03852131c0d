"""The main text of an HTML page, whoever brought it."""

import re

CHARSET = re.compile(rb"""charset\s*=\s*["']?\s*([A-Za-z0-9_:.-]+)""", re.IGNORECASE)


def page_text(html: bytes, content_type: str = "") -> tuple[str, str]:
    """(title, main text) of a page; both empty where there is none. content_type: of the HTTP header, for its charset.

    The encoding is the header's, then the page's own mark, then a guess. Navigation, forms and boilerplate are left out by
    Resiliparse's main-content rules.
    """
    from resiliparse.extract.html2text import extract_plain_text
    from resiliparse.parse.encoding import bytes_to_str, detect_encoding
    from resiliparse.parse.html import HTMLTree

    named = CHARSET.search(content_type.encode("latin-1", "replace")) or CHARSET.search(html[:4096])
    encoding = named.group(1).decode() if named else ""
    try:
        if not encoding or not _known(encoding):
            encoding = detect_encoding(html) or "utf-8"
        tree = HTMLTree.parse(bytes_to_str(html, encoding))
        if tree.body is None:
            return "", ""
        text = extract_plain_text(
            tree, main_content=True, alt_texts=False, links=False, form_fields=False, noscript=False, list_bullets=True,
            preserve_formatting=True,
        )  # fmt: skip
        return " ".join((tree.title or "").split()), text.strip()
    except (ValueError, LookupError, RuntimeError, UnicodeError):
        return "", ""


def _known(encoding: str) -> bool:
    import codecs

    try:
        codecs.lookup(encoding)
    except LookupError:
        return False
    return True
