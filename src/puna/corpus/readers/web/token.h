// Tags, comments and elements without text, cut out of a page's source: as TOKEN of blocks.py.

#pragma once

#include "rows.h"

namespace {

constexpr Size FORMULAS = 1, RIGHTS = 2;  // bits of what was seen, as in blocks.py

struct Token {
    const char* end;
    View name, attributes;  // no name: a comment, or an element that is passed over
    bool closing;
    Size seen;
};

// Where the attributes that begin at `at` end: at the > outside of quotes, else at the end of the source.
const char* attributes_end(const char* at, const char* end) {
    while (at < end && *at != '>') {
        if (*at++ != '=') continue;
        at = skip_spaces(at, end);
        if (at == end || (*at != '"' && *at != '\'')) continue;
        const char* quote = find(at + 1, end, *at);
        at = quote < end ? quote + 1 : end;
    }
    return at;
}

const char* after(const char* at, const char* end) { return at < end ? at + 1 : end; }

const char* comment_end(const char* at, const char* end) {
    if (at < end && *at == '>') return at + 1;
    if (end - at > 1 && at[0] == '-' && at[1] == '>') return at + 2;
    for (; (at = find(at, end, '-')) < end; at++) {
        const char* close = at + 1 < end && at[1] == '-' ? at + 2 : end;
        if (close < end && *close == '!') close++;
        if (close < end && *close == '>') return close + 1;
    }
    return end;
}

bool same_word(View written, View known) {
    if (written.size() != known.size()) return false;
    for (size_t i = 0; i < known.size(); i++)
        if (lower(written[i]) != known[i]) return false;
    return true;
}

// Where a name that begins at `at` ends.
const char* name_end(const char* at, const char* end) {
    while (at < end && *at != '/' && *at != '>' && !space(at, end)) at++;
    return at;
}

// Where an element without text of the page ends: at its end tag.
const char* raw_end(const char* at, const char* end, View name) {
    while ((at = find(at, end, '<')) < end) {
        const char* start = at + 1;
        if (start < end && *start == '/') {
            const char* stop = name_end(start + 1, end);
            if (stop < end && same_word(View(start + 1, stop - start - 1), name)) return at;
        }
        at++;
    }
    return end;
}

// Whether a script is a formula, or says in JSON what a page's licence is.
Size seen_in_script(View attributes, const char* at, const char* end) {
    if (contains(attributes, "math/")) return FORMULAS;
    return contains(attributes, "ld+json") && contains(View(at, end - at), "icense") ? RIGHTS : 0;
}

// Whether a link or metadata may name a page's licence.
bool names_rights(View attributes, bool of_head) {
    if (!contains(attributes, "icen") && !contains(attributes, "reative") &&
        !contains(attributes, "ublicdomain"))
        return false;
    if (contains(attributes, "reativecommons.org")) return true;
    if (of_head) return contains(attributes, "icense") || contains(attributes, "reative C");
    return contains(attributes, "icenses/") || contains(attributes, "license\"") ||
           contains(attributes, "rel=license") || contains(attributes, "rel='license") ||
           contains(attributes, "-licence") || contains(attributes, "icence-");
}

// Whether a link leads to the page before, the page after or the one above: as in elements.py.
bool turns_page(View attributes) {
    const auto says = [&](View name, std::initializer_list<View> values) {
        for (size_t at = 0; (at = attributes.find(name, at)) != View::npos;) {
            at += name.size();
            const bool quoted = at < attributes.size() && (attributes[at] == '"' || attributes[at] == '\'');
            for (const View value : values)
                if (attributes.substr(at + quoted, value.size()) == value) return true;
        }
        return false;
    };
    return says("rel=", {"prev", "next"}) || says("accesskey=", {"p", "n", "u", "P", "N", "U"});
}

// The tag or comment that begins with the < at `at`; its end is null if there is none.
Token token(const Tables& tables, const char* at, const char* end) {
    Token found{nullptr, View(), View(), false, 0};
    if (++at == end) return found;
    if ((found.closing = *at == '/')) at++;
    if (at == end || !is_letter(*at)) {
        if (found.closing) found.end = after(find(at, end, '>'), end);
        else if (View(at, end - at).substr(0, 3) == "!--") found.end = comment_end(at + 3, end);
        else if (*at == '!' || *at == '?') found.end = after(find(at + 1, end, '>'), end);
        return found;
    }
    const char *stop = name_end(at, end), *last = attributes_end(stop, end);
    const View name(at, stop - at);
    found.end = after(last, end);
    if (!found.closing && stop < end)
        for (const View raw : tables.raw)
            if (same_word(name, raw)) {
                found.end = raw_end(last, end, raw);
                if (raw == "script") found.seen = seen_in_script(View(stop, last - stop), last, found.end);
                return found;
            }
    found.name = name;
    found.attributes = View(stop, last - stop);
    return found;
}

}  // namespace
