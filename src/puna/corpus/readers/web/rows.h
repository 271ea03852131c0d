// Rows of a table as lines, and line numbers beside code: as in rows.py.

#pragma once

#include "hints.h"

namespace {

constexpr Size MAX_COLUMNS = 200, MAX_COLUMN_SPAN = 20, MAX_TAG = 300;

inline bool contains(View text, View part) { return text.find(part) != View::npos; }
inline bool blank(char c) { return c == ' ' || c == '\t' || c == '\r' || c == '\n'; }
inline bool in_tag(char c) { return (c >= ' ' && c <= '~' && c != '<' && c != '>') || blank(c); }

bool is_gutter(View attributes) {
    static constexpr View PARTS[] = {"gutter",   "lineno",   "line-num", "line_num", "linenum",
                                     "ineNum",   "lines-num", "blob-num", "ln-n",     "-nums",
                                     "lnt",      "lnum",     "\"ln\"",   "'ln'"};
    if (!contains(attributes, "um") && !contains(attributes, "ln") && !contains(attributes, "gutter") &&
        !contains(attributes, "lineno"))
        return false;
    for (const View part : PARTS)
        if (contains(attributes, part)) return true;
    return false;
}

// Where a tag of up to MAX_TAG plain characters ends that begins at the < at `at`; null if there is none.
const char* short_tag(const char* at, const char* end) {
    const char* stop = ++at;
    while (stop < end && stop - at < MAX_TAG && in_tag(*stop)) stop++;
    return stop < end && *stop == '>' ? stop + 1 : nullptr;
}

// Where the content of a cell that holds line numbers ends, null for any other cell.
const char* cell_of_numbers(const char* at, const char* end, View attributes) {
    if (!is_gutter(attributes)) return nullptr;
    bool number = false;
    while (at < end) {
        if (blank(*at)) {
            at++;
        } else if (is_digit(*at) || (number && (*at == '.' || *at == ':'))) {
            number = true;
            at++;
        } else if (*at == '<') {
            const char* name = at + 1 + (at + 1 < end && at[1] == '/');
            if (name < end && lower(*name) == 't')
                return number || contains(attributes, "data-line-number") ? at : nullptr;
            if (!(at = short_tag(at, end))) return nullptr;
        } else {
            return nullptr;
        }
    }
    return nullptr;
}

// Where the content of an element that holds one line number ends, null for any other element.
const char* number_inside(const char* at, const char* end, View attributes) {
    if (!is_gutter(attributes)) return nullptr;
    const auto blanks = [&] {
        while (at < end && blank(*at)) at++;
    };
    if (end - at > 1 && *at == '<' && at[1] >= 'a' && at[1] <= 'z') {
        const char *start = at + 1, *stop = start + 1;
        while (stop < end && stop - start <= MAX_TAG && in_tag(*stop)) stop++;
        if (stop == end || *stop != '>') return nullptr;
        at = stop + 1;
    }
    blanks();
    const char* digits = at;
    while (at < end && at - digits < 6 && is_digit(*at)) at++;
    if (at == digits) return nullptr;
    while (at < end && (blank(*at) || *at == '.' || *at == ':' || *at == '|')) at++;
    if (end - at > 2 && at[0] == '<' && at[1] == '/') {  // of an element inside, if another follows
        const char *name = at + 2, *stop = name;
        while (stop < end && stop - name < 9 && *stop >= 'a' && *stop <= 'z') stop++;
        const char* inside = at;
        if (stop > name && stop < end && *stop == '>') {
            at = stop + 1;
            blanks();
            if (end - at > 1 && at[0] == '<' && at[1] == '/') return at;
        }
        return inside;
    }
    return end - at > 1 && at[0] == '<' && at[1] == '/' ? at : nullptr;
}

bool keeps_lines(View attributes) {
    for (size_t at = 0; (at = attributes.find("white-space", at)) != View::npos;) {
        at += 11;
        size_t next = at;
        const auto spaces = [&] {
            while (next < attributes.size() && (attributes[next] == ' ' || attributes[next] == '\t')) next++;
        };
        spaces();
        if (next == attributes.size() || attributes[next] != ':') continue;
        next++;
        spaces();
        if (attributes.substr(next, 3) == "pre") return true;
    }
    return false;
}

// The row of a table that is being read: as Row of rows.py.
struct Row {
    Size height = 0, first = 0, node = 0, first_node = 0, cells = 0, next = 0, column = -1, width = 0;
    bool plain = true;
    std::vector<Size> columns, spans;

    void begin_table() {
        spans.clear();
        width = 0;
    }

    void begin(Size new_height, Size first_block, Size own_node, Size first_cell) {
        height = new_height, first = first_block, node = own_node, first_node = first_cell;
        cells = next = 0;
        column = -1;
        plain = true;
        columns.clear();
    }

    // Reads colspan and rowspan, the last of each.
    static void read_spans(View attributes, Size& wide, Size& tall) {
        if (!contains(attributes, "pan") && !contains(attributes, "PAN")) return;
        for (size_t at = 0; at + 7 <= attributes.size(); at++) {
            const bool across = same(attributes, at, "colspan");
            if (!across && !same(attributes, at, "rowspan")) continue;
            size_t value = at + 7;
            const auto blanks = [&] {
                while (value < attributes.size() && blank(attributes[value])) value++;
            };
            blanks();
            if (value == attributes.size() || attributes[value] != '=') continue;
            value++;
            blanks();
            if (value < attributes.size() && (attributes[value] == '"' || attributes[value] == '\'')) value++;
            Size number = 0;
            const size_t start = value;
            for (; value < attributes.size() && value - start < 4 && is_digit(attributes[value]); value++)
                number = number * 10 + attributes[value] - '0';
            if (value == start) continue;
            if (across) wide = number > 0 && number <= MAX_COLUMN_SPAN ? number : 1;
            else tall = number > 1 ? number : 1;
            at = value - 1;
        }
    }

    static bool same(View text, size_t at, View word) {
        for (size_t i = 0; i < word.size(); i++)
            if (lower(text[at + i]) != word[i]) return false;
        return true;
    }

    void begin_cell(View attributes) {
        while (next < static_cast<Size>(spans.size()) && spans[next]) {
            spans[next++]--;
            cells++;
        }
        cells++;
        column = next;
        Size wide = 1, tall = 1;
        read_spans(attributes, wide, tall);
        if (next + wide > MAX_COLUMNS) {
            plain = false;
            return;
        }
        if (tall > 1) {
            if (static_cast<Size>(spans.size()) < next + wide) spans.resize(next + wide);
            for (Size i = next; i < next + wide; i++) spans[i] = tall - 1;
        }
        next += wide;
    }

    // Ends the row: appends the text of its blocks as one line, nothing where they are to stay apart.
    template <class TextOf>
    void line(TextOf text_of, std::string& out) {
        Size line_width = next;
        for (Size i = next; i < static_cast<Size>(spans.size()); i++)
            if (spans[i]) {
                spans[i]--;
                cells++;
                line_width = i + 1;
            }
        height = 0;
        column = -1;
        if (!plain || cells < 2 || columns.empty()) return;
        std::vector<std::string> texts(line_width);
        Size filled = 0;
        for (size_t i = 0; i < columns.size(); i++) {
            if (columns[i] < 0) return;
            std::string& text = texts[columns[i]];
            if (text.empty()) filled++;
            else text += ' ';
            for (const char c : text_of(static_cast<Size>(i))) text += c == '\n' ? ' ' : c;
        }
        for (const std::string& text : texts)
            if (length(text) >= MAX_CELL) return;
        if (filled < 2 && line_width != width) return;
        const bool known = line_width == width || 2 * filled >= line_width;
        if (2 * filled >= line_width) width = line_width;
        bool any = false;
        for (Size i = 0; i < static_cast<Size>(texts.size()); i++) {
            if (texts[i].empty() && (!known || i >= line_width)) continue;
            if (any) out += "| ";
            any = true;
            out += texts[i];
            if (!texts[i].empty()) out += ' ';
        }
        while (!out.empty() && out.back() == ' ') out.pop_back();
    }
};

}  // namespace
