"""Characters that show nothing: dropped where they say nothing either.

Soft hyphens, zero-width spaces, word joiners, byte order marks, marks of direction and invisible operators
are left from typesetting, and split a word or a number for whoever reads the characters. Three of the kind
belong to their scripts: U+200C and U+200D choose the forms of letters in joining and Indic scripts (Unicode
Standard, section 23.2; RFC 5892, appendix A), U+200D and tags make one picture of several emoji (UTS #51),
and U+200B ends words in Khmer, Thai and their like, which put no spaces.
"""

import re

from puna.text.characters import UNSPACED_SCRIPTS

# Arabic to Mandaic and Indic; Myanmar; Khmer and Mongolian; Tai Tham to Batak; Syloti Nagri to Devanagari;
# Javanese to Meetei Mayek; forms of Arabic; scripts of their kinds in the supplementary plane.
_JOINING = (
    "\u0600-\u061b\u061d-\u0dff\u1000-\u109f\u1780-\u18af\u1a20-\u1bff\ua800-\ua8ff\ua980-\uabff\ufb50-\ufdff"
    "\ufe70-\ufefc\U00010a00-\U00010aff\U00010d00-\U00011fff\U0001e900-\U0001e95f"
)
_UNSPACED = "".join(f"{chr(first)}-{chr(last)}" for first, last in UNSPACED_SCRIPTS if last < 0x2E80)
_PICTURE = "\u00a9\u00ae\u2190-\u2bff\u3030-\u303d\u3297-\u3299\ufe0f\U0001f000-\U0001faff"
_TAG = "\U000e0020-\U000e007f"
_SILENT = re.compile("[\u00ad\u061c\u200b-\u200f\u202a-\u202e\u2060-\u206f\ufeff\U000e0000-\U000e007f]")
# Where such a character belongs.
_NEEDED = re.compile(
    f"(?<=[{_JOINING}])[\u200c\u200d]|[\u200c\u200d](?=[{_JOINING}])"
    f"|(?<=[{_UNSPACED}])\u200b(?=[{_UNSPACED}])"
    f"|(?<=[{_PICTURE}{_TAG}])\u200d(?=[{_PICTURE}])"
    f"|(?<=\U0001f3f4)[{_TAG}]+"
)


def without_invisible(text: str) -> str:
    """Drop characters that show nothing, but those that a script or an emoji needs."""
    if text.isascii():
        return text
    parts, at = [], 0
    while silent := _SILENT.search(text, at):
        needed = _NEEDED.match(text, silent.start())
        parts.append(text[at : needed.end() if needed else silent.start()])
        at = needed.end() if needed else silent.end()
    return "".join([*parts, text[at:]]) if parts else text
