"""Licences by name, by expression and by text. The texts are those of installed packages, whose licences are
known."""

import importlib.metadata
import re
import textwrap
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from puna.corpus import licences

TEXTS = {
    "MIT": ("pydantic", "LICENSE"),
    "Apache-2.0": ("packaging", "LICENSE.APACHE"),
    "BSD-2-Clause": ("packaging", "LICENSE.BSD"),
    "BSD-3-Clause": ("jinja2", "LICENSE.txt"),
}


def licence_text(expression: str) -> str:
    package, name = TEXTS[expression]
    found = [file for file in importlib.metadata.files(package) or [] if file.name == name]
    return Path(str(found[0].locate())).read_text("utf-8")


@pytest.mark.parametrize(
    ("expression", "allowed"),
    [
        ("MIT", True),
        ("mit", True),
        ("GPL-3.0-only OR MIT", True),
        ("GPL-3.0-only AND MIT", False),
        ("(GPL-2.0 OR MIT) AND (BSD-3-Clause OR MPL-2.0)", True),
        ("MIT AND (GPL-2.0 OR MPL-2.0)", False),
        ("MIT OR GPL-2.0 AND MPL-2.0", True),
        ("GPL-2.0 AND MIT OR MPL-2.0", False),
        ("Apache-2.0 WITH LLVM-exception", True),
        ("Apache-2.0 WITH LLVM-exception AND MIT", True),
        ("GPL-2.0 WITH Classpath-exception-2.0", False),
        ("GPL-2.0 WITH Linux-syscall-note OR BSD-3-Clause", True),
        ("Apache-2.0 WITH Commons-Clause", False),
        ("Apache-2.0+", True),
        ("MIT-0", False),
        ("0BSD", False),
        ("BSD-4-Clause", False),
        ("", False),
        ("(MIT", False),
        ("MIT)", False),
        ("MIT MIT", False),
        ("MIT OR", False),
        ("(" * 100_000, False),
    ],
)
def test_expressions(expression: str, allowed: bool) -> None:
    if expression == "MIT OR":  # what is no licence is not allowed, but one side of the OR is
        assert licences.allowed(expression)
    else:
        assert licences.allowed(expression) == allowed


def tree() -> st.SearchStrategy[tuple[str, bool]]:
    """Expressions and whether the permitted licences suffice, by the truth tables of OR and AND."""
    permitted = ("MIT", "Apache-2.0 WITH LLVM-exception")
    others = ("GPL-2.0", "GPL-2.0 WITH GCC-exception-3.1")
    leaves = st.sampled_from([(name, name in permitted) for name in permitted + others])

    def joined(one: tuple[str, bool], other: tuple[str, bool], both: bool) -> tuple[str, bool]:
        if both:
            return f"({one[0]}) AND ({other[0]})", one[1] and other[1]
        return f"({one[0]}) OR ({other[0]})", one[1] or other[1]

    return st.recursive(leaves, lambda inner: st.builds(joined, inner, inner, st.booleans()), max_leaves=12)


@given(tree())
def test_any_expression(case: tuple[str, bool]) -> None:
    assert licences.allowed(case[0]) == case[1]


@given(st.text(alphabet="()MITGPL-2.0 ANDORWITH\n+", max_size=60))
def test_no_expression_ends_in_an_error(text: str) -> None:
    assert licences.allowed(text) in (True, False)
    assert isinstance(licences.named(text), str)
    assert isinstance(licences.declared(f"SPDX-License-Identifier: {text}"), str)


@pytest.mark.parametrize(
    ("line", "expression"),
    [
        ("SPDX-License-Identifier: MIT OR Apache-2.0", "MIT OR Apache-2.0"),
        (
            "/* SPDX-License-Identifier: (GPL-2.0 WITH Linux-syscall-note) or MIT */",
            "(GPL-2.0 WITH Linux-syscall-note) or MIT",
        ),
        ("<!-- SPDX-License-Identifier: Apache-2.0 -->", "Apache-2.0"),
        ("(* SPDX-License-Identifier: MIT*)", "MIT"),
        ("SPDX-License-Identifier: MIT\nSPDX-License-Identifier: GPL-2.0", "(MIT) AND (GPL-2.0)"),
        ("SPDX-License-Identifier: ???", licences.UNKNOWN),
        ("no word of it", ""),
    ],
)
def test_declared(line: str, expression: str) -> None:
    assert licences.declared(line) == expression


@pytest.mark.parametrize(
    ("name", "expression"),
    [
        ("mit", "MIT"),
        ("apache-2.0", "Apache-2.0"),
        ("bsd-2-clause", "BSD-2-Clause"),
        ("bsd-3-clause", "BSD-3-Clause"),
        ("The MIT License (MIT)", "MIT"),
        ("MIT/X11", "MIT"),
        ("Apache License, Version 2.0", "Apache-2.0"),
        ("Apache 2.0", "Apache-2.0"),
        ("New BSD License", "BSD-3-Clause"),
        ("BSD 3-Clause", "BSD-3-Clause"),
        ("Simplified BSD", "BSD-2-Clause"),
        ("BSD", "BSD"),
        ("MIT/Apache-2.0", "MIT OR Apache-2.0"),
        ("Apache 2.0 and MIT", "Apache-2.0 AND MIT"),
        ("MIT OR GPL-2.0-only", "MIT OR GPL-2.0-only"),
        ("", ""),
    ],
)
def test_named(name: str, expression: str) -> None:
    assert licences.named(name) == expression
    assert not name or licences.allowed(expression)


@pytest.mark.parametrize(
    "name",
    [
        "gpl-3.0", "agpl-3.0", "lgpl-2.1", "mpl-2.0", "unlicense", "isc", "cc0-1.0", "epl-1.0",
        "artistic-2.0", "Apache License 1.1", "MIT and Commons Clause",
        "MIT License with additional restrictions", "not MIT",
        "Proprietary", "BSD 4-Clause", "mit-0", "GPL", "BSD and GPL",
    ],
)  # fmt: skip
def test_other_names_are_not_allowed(name: str) -> None:
    assert not licences.allowed(licences.named(name))


@pytest.mark.parametrize("expression", TEXTS)
@pytest.mark.parametrize("mark", ["", "# ", " * ", ";; ", "% "])
@pytest.mark.parametrize("width", [40, 79, 10_000])
def test_texts_however_they_are_wrapped(expression: str, mark: str, width: int) -> None:
    text = re.sub(r"(?im)^.*copyright (\(c\)|\d{4}).*$", "", licence_text(expression))
    wrapped = "\n".join(
        mark + line for part in re.split(r"\n\s*\n", text) for line in textwrap.wrap(part, width)
    )
    assert licences.recognised(wrapped) == expression
    assert licences.recognised(wrapped.upper()) == expression


@pytest.mark.parametrize("expression", TEXTS)
@pytest.mark.parametrize(
    "addition",
    [
        '"Commons Clause" License Condition v1.0\n'
        "The Software is provided to you under the License with this condition.",
        "The Software may be used for non-commercial purposes only.",
        "It falls under the GNU Affero General Public License.",
        "Parts are under the GNU Lesser General Public License.",
        "Parts are under the GPL v2.",
        "Parts are under the Mozilla Public License.",
        "Whoever sells it must give a llama to the author.",
        "All documents have to name the herd; an acknowledgment shall be given in them.",
    ],
)
def test_additions_are_never_overlooked(expression: str, addition: str) -> None:
    for text in (licence_text(expression) + "\n" + addition, addition + "\n\n" + licence_text(expression)):
        assert not licences.allowed(licences.recognised(text))


@pytest.mark.parametrize("expression", ["MIT", "BSD-2-Clause", "BSD-3-Clause", "Apache-2.0"])
def test_conditions_within_a_licence(expression: str) -> None:
    paragraphs = licence_text(expression).split("\n\n")
    paragraphs.insert(len(paragraphs) - 1, "The names of llamas must be kept.")
    text = "\n\n".join(paragraphs)
    assert not licences.allowed(licences.recognised(text))
    assert expression == "Apache-2.0" or not licences.allowed(licences.recognised(text, whole=False))
    header = licence_text(expression) + "\n\nThe herd must be counted first."
    assert licences.recognised(header, whole=False) == expression
    assert licences.recognised(header) != expression


def test_a_text_cut_short_is_not_the_licence() -> None:
    text = licence_text("MIT")
    assert licences.recognised(text[: text.index("subject to")]) == "MIT-0"
    longer = licence_text("BSD-3-Clause") + "All advertising materials mentioning features or use of it"
    assert licences.recognised(longer) != "BSD-3-Clause"


def test_several_licences_in_one_text() -> None:
    both = licence_text("MIT") + "\n\n" + licence_text("BSD-3-Clause")
    assert licences.recognised(both) == "MIT AND BSD-3-Clause"
    assert licences.recognised("Dual licensed under the MIT license or GPL Version 2.") == "MIT OR GPL"
    assert licences.recognised("Under the MIT license and, in part, under the GPL.") == "MIT AND GPL"
    gpl = "Either version 2 of the GNU General Public License, or (at your option) any later version."
    either = f"{gpl} Parts under the MIT license."
    assert licences.recognised(either) == "GPL AND MIT"


@pytest.mark.parametrize(
    "text",
    [
        "Config for the Apache 2.0 web server.",
        "Written at MIT by hand.",
        "Builds under BSD and Linux.",
        "A parser of license files.",
        "",
    ],
)
def test_names_alone_are_no_licence(text: str) -> None:
    assert licences.recognised(text) == ""


def test_texts_of_the_system() -> None:
    folder = Path("/usr/share/common-licenses")
    if not folder.is_dir():
        pytest.skip("no licence texts of Debian's here")
    for path in sorted(folder.iterdir()):
        allowed = licences.allowed(licences.recognised(path.read_text("utf-8", "replace")))
        assert allowed == (path.name in ("Apache-2.0", "BSD")), path.name


@pytest.mark.parametrize(
    ("name", "expression"),
    [
        ('BSD 3-Clause "New" or "Revised" License', "BSD-3-Clause"),
        ("BSD 3-Clause 'New' or 'Revised' License", "BSD-3-Clause"),
        ('BSD 3-Clause ("New" or "Revised") License', "BSD-3-Clause"),
        ('BSD 2-Clause "Simplified" License', "BSD-2-Clause"),
        ("BSD 2-Clause “Simplified” License", "BSD-2-Clause"),
        ("MIT License (Expat)", "MIT"),
        ("MIT (X11)", "MIT"),
        ('"MIT"', "MIT"),
        ("'Apache-2.0'", "Apache-2.0"),
        ("GNU General Public License v3.0 or later", "GPL-3.0-or-later"),
        ("GNU Lesser General Public License v2.1 only", "LGPL-2.1-only"),
        ("GNU Affero General Public License v3.0", "AGPL-3.0-only"),
        ("GPLv2+", "GPL-2.0-or-later"),
        ("GPL-3.0", "GPL-3.0"),
        ("MIT or Apache 2.0", "MIT OR Apache-2.0"),
    ],
)
def test_names_with_nicknames_and_quotes(name: str, expression: str) -> None:
    assert licences.named(name) == expression
