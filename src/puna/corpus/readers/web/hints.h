// Names of elements and their hints (class, id, role, ...): the tables of blocks.py, and the groups of
// words that hints belong to.

#pragma once

#include "characters.h"

#include <vector>

namespace {

// Both in the order of blocks.py: the values of KINDS, COLUMNS.
enum Kind : Size {
    INLINE, CONTAINER, PARAGRAPH, ITEM, HEADING, CELL, ROW, PRE, SKIP, LINK, BREAK, TITLE, RULE, RAISED, CODE,
    MATH, ABOUT
};
enum Column {
    KIND, LEVEL, LINK_LENGTH, NODE, LENGTH, SIZE, SENTENCE_ENDS, COPIES, TITLE_WORDS, WORDS, COLUMNS
};
constexpr int LETTERS = 28, START = 26, END = 27;  // of the automaton: a to z, a word's start, its end
constexpr size_t MAX_NAME = 32;
constexpr Size MAX_ATTRIBUTES = 1000, MAX_VALUE = 300, MAX_WORD = 30, MAX_CELL = 200, MAX_SHORT = 200;

// An element's name. Sets of names are bits: its own, those of the elements that its start tag closes
// (`closed`), those that end the search for these (`boundaries`), and those outside of which its end tag
// closes nothing (`end_boundaries`).
struct Name {
    View text;
    Size number;
    Kind kind;
    uint64_t bit, closed, boundaries, end_boundaries, groups;
};

struct Tables {
    std::string letters;  // owns the characters of the views
    std::vector<Name> names;
    std::unordered_map<View, const Name*> by_name;
    Entities entities;
    std::vector<View> raw;
    std::vector<int32_t> next;  // the automaton over words: [states, LETTERS]
    std::vector<uint64_t> groups;  // that a state stands for, as bits
    uint64_t content, prose;
    Size group_count, depth, nodes, blocks, reach;
};

// Tells whether a style has a value behind one of its names and white space.
bool says(View style, View name, View wanted) {
    for (size_t place = 0; (place = style.find(name, place)) != View::npos;) {
        place += name.size();
        const char* value = skip_spaces(style.data() + place, style.data() + style.size());
        if (style.substr(value - style.data()).substr(0, wanted.size()) == wanted) return true;
    }
    return false;
}

// Appends the hints of an element, the values of class, id, role, ... in lower case, a space before each.
void hints_of(View attributes, std::string& out) {
    static constexpr View WORDS[] = {"class", "id", "role", "itemprop", "style", "hidden", "aria-hidden"};
    const char *at = attributes.data(), *end = characters_on(at, at + attributes.size(), MAX_ATTRIBUTES);
    while (at < end) {
        const int width = *at == '"' || *at == '\'' || *at == '/' ? 1 : space(at, end);
        View word;
        if (width)
            for (const View known : WORDS)
                if (View(at + width, end - at - width).substr(0, known.size()) == known) word = known;
        at += width ? width : 1;
        if (word.empty()) continue;
        const char *after = at + word.size(), *value = skip_spaces(after, end), *stop = nullptr;
        if (value < end && *value == '=' && (value = skip_spaces(value + 1, end)) < end) {
            if (*value == '"' || *value == '\'') {
                stop = find(value + 1, end, *value);
                value++;
            } else {
                stop = value;
                while (stop < end && View("\"'>").find(*stop) == View::npos && !space(stop, end)) stop++;
                if (stop == value) stop = nullptr;
            }
        }
        if (stop) {
            stop = characters_on(value, stop, MAX_VALUE);
        } else {
            const char c = after < end ? *after : ' ';
            if (!is_ascii(c) || is_letter(c) || is_digit(c) || c == '_' || c == '-') continue;
            value = stop = after;
        }
        at = stop;
        std::string lowered;
        for (; value < stop; value++) lowered += lower(*value);
        bool unseen = word == "hidden";
        if (word == "style")
            unseen = says(lowered, "display:", "none") || says(lowered, "visibility:", "hidden");
        else if (word == "aria-hidden") unseen = lowered == "true";
        else if (!unseen) out += ' ' + lowered;
        if (unseen) out += " hidden unseen";
    }
}

// The groups that the words of an element's hints stand for, as bits.
uint64_t groups_of(const Tables& tables, View hints) {
    uint64_t found = 0;
    View content;
    for (size_t i = 0; i < hints.size();) {
        if (hints[i] < 'a' || hints[i] > 'z') {
            i++;
            continue;
        }
        const size_t start = i;
        Size state = tables.next[START];
        uint64_t bits = 0;
        for (; i < hints.size() && i - start < MAX_WORD && hints[i] >= 'a' && hints[i] <= 'z'; i++) {
            state = tables.next[state * LETTERS + hints[i] - 'a'];
            bits |= tables.groups[state];
        }
        if (i - start < 2) continue;
        bits |= tables.groups[tables.next[state * LETTERS + END]];
        found |= bits;
        if (!(bits & tables.content)) continue;
        const View word = hints.substr(start, i - start);
        if (content.empty()) content = word;
        else if (word != content) found |= tables.prose;  // two words for content, as in "entry-content"
    }
    return found;
}

}  // namespace
