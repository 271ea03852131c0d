"""Markup of languages with several scripts: -{zh-hans:计算机;zh-hant:電腦}- shows one of its texts.

Flags say more ("Writing systems/Syntax" on Meta-Wiki): H, T, N, - and such only set rules and show nothing;
A, S, D show a text and set a rule; R or none keeps a text as it is; codes of variants limit where one is
converted. The text shown is in the script of the page around it, so that a page does not change between two.
"""

import re

MARKUP = re.compile(r"-\{(?!\{)([^{}]*)\}-")
FLAGS = re.compile(r"\s*([-+A-Za-z;, ]{1,100}?)\s*\|")
SILENT = frozenset("HTN-EVG")
PAIR = re.compile(r"\s*(?:[^;|]*?=>\s*)?([a-z]{2,4}(?:-[a-z]{2,5})?)\s*:(.*)", re.DOTALL)
SEMICOLON = re.compile(r"(?<!&amp)(?<!&lt)(?<!&gt)(?<!&nbsp)(?<!&quot);")
# Endings of codes, by script.
SCRIPTS = {
    "simplified": ("hans", "cn", "sg", "my"),
    "traditional": ("hant", "tw", "hk", "mo"),
    "cyrillic": ("ec", "cyrl", "kz"),
    "latin": ("el", "latn", "tr", "latin", "lat"),
    "arabic": ("arab",),
}
# Letters by which a script is told; of Chinese, common ones that look different in the two.
LETTERS = {
    "simplified": re.compile("[们国说时会对发经这来学为个没过还体开关长问无东车见]"),
    "traditional": re.compile("[們國說時會對發經這來學為個沒過還體開關長問無東車見]"),
    "cyrillic": re.compile("[а-яј-џ]"),
    "latin": re.compile("[a-zčćžšđ]"),
    "arabic": re.compile("[\u0620-\u064a]"),
}
SAMPLE = 20_000  # characters by which the script of a page is told
DEEPEST = 4  # markup inside markup


def one_variant(text: str) -> str:
    """Show one text of each -{...}-, and nothing for rules."""
    if "-{" not in text:
        return text
    outside = MARKUP.sub("", text[:SAMPLE])
    counts = {name: len(letters.findall(outside)) for name, letters in LETTERS.items()}
    chinese = counts["simplified"] + counts["traditional"] > 0
    names = ("simplified", "traditional") if chinese else ("cyrillic", "latin", "arabic")
    script = max(names, key=lambda name: counts[name])
    for _ in range(DEEPEST):
        text, count = MARKUP.subn(lambda match: _shown(match[1], script), text)
        if not count:
            break
    return text


def _shown(content: str, script: str) -> str:
    flags = FLAGS.match(content)
    if flags:
        content = content[flags.end() :]
        letters = {flag.strip() for flag in re.split("[;,]", flags[1])}
        if letters & SILENT:
            return ""
        if "R" in letters:
            return content
    pairs = [pair for part in SEMICOLON.split(content) if (pair := PAIR.fullmatch(part))]
    if not pairs:
        return content
    suits = [pair for pair in pairs if pair[1].rpartition("-")[2] in SCRIPTS[script]]
    return (suits or pairs)[0][2].strip()
