// Characters, white space and entities of UTF-8 as in Python's str and html. Nothing is read outside a text,
// whatever its bytes.

#pragma once

#include <cstdint>
#include <cstring>
#include <string>
#include <string_view>
#include <unordered_map>

typedef int64_t Size;
typedef std::string_view View;
typedef std::unordered_map<View, View> Entities;  // what follows the &, and what it stands for

constexpr char NEW_LINE = '\0';  // <br>
constexpr Size MAX_ENTITY = 33, MIN_SENTENCES = 40;

inline bool is_ascii(char c) { return !(c & 0x80); }
inline bool is_letter(char c) { return (c | 32) >= 'a' && (c | 32) <= 'z'; }
inline bool is_digit(char c) { return c >= '0' && c <= '9'; }
inline char lower(char c) { return c >= 'A' && c <= 'Z' ? c | 32 : c; }
inline bool begins(char c) { return (c & 0xC0) != 0x80; }  // a character

// How many bytes the white space (of str.isspace) at `at` takes, 0 if there is none.
inline int space(const char* at, const char* end) {
    const uint8_t c = *at;
    if (c < 0x80) return c == ' ' || (c >= 9 && c <= 13) || (c >= 0x1C && c <= 0x1F);
    if (c == 0xC2) return at + 1 < end && (at[1] == '\x85' || at[1] == '\xA0') ? 2 : 0;
    if (c < 0xE1 || c > 0xE3 || end - at < 3) return 0;
    const uint32_t rest = static_cast<uint8_t>(at[1]) << 8 | static_cast<uint8_t>(at[2]);
    if (c == 0xE1) return rest == 0x9A80 ? 3 : 0;
    if (c == 0xE3) return rest == 0x8080 ? 3 : 0;
    const bool spaces = (rest >= 0x8080 && rest <= 0x808A) || rest == 0x80A8 || rest == 0x80A9;
    return spaces || rest == 0x80AF || rest == 0x819F ? 3 : 0;
}

inline const char* skip_spaces(const char* at, const char* end) {
    while (at < end) {
        const int width = space(at, end);
        if (!width) break;
        at += width;
    }
    return at;
}

inline const char* find(const char* at, const char* end, char c) {
    const void* found = at < end ? memchr(at, c, end - at) : nullptr;
    return found ? static_cast<const char*>(found) : end;
}

// The end of the first `count` characters.
inline const char* characters_on(const char* at, const char* end, Size count) {
    if (end - at <= count) return end;
    for (; at < end; at++)
        if (begins(*at) && count-- == 0) break;
    return at;
}

inline Size length(View text) {
    Size count = 0;
    for (const char c : text) count += begins(c);
    return count;
}

// Characters without the white space at both ends.
inline Size stripped_length(View text) {
    const char *end = text.data() + text.size(), *start = skip_spaces(text.data(), end), *last = start;
    for (const char* at = start; at < end;) {
        const int width = space(at, end);
        at += width ? width : 1;
        if (!width) last = at;
    }
    return length(View(start, last - start));
}

inline void append_code(std::string& out, uint32_t code) {
    if (code < 0x80) {
        out += static_cast<char>(code);
        return;
    }
    const int more = code < 0x800 ? 1 : code < 0x10000 ? 2 : 3;
    out += static_cast<char>((more == 1 ? 0xC0 : more == 2 ? 0xE0 : 0xF0) | code >> 6 * more);
    for (int i = more - 1; i >= 0; i--) out += static_cast<char>(0x80 | (code >> 6 * i & 0x3F));
}

// Decodes a number as html.unescape does, but eight or more decimal digits are no character; returns its end.
inline const char* unescape_number(const Entities& entities, const char* at, const char* end,
                                   std::string& out) {
    const bool hex = at < end && (*at | 32) == 'x';
    const char *start = at + hex, *stop = start;
    uint32_t code = 0;
    for (; stop < end && (is_digit(*stop) || (hex && (*stop | 32) >= 'a' && (*stop | 32) <= 'f')); stop++) {
        const uint32_t digit = is_digit(*stop) ? *stop - '0' : (*stop | 32) - 'a' + 10;
        code = code * (hex ? 16 : 10) + digit;
        if (code > 0x10FFFF) code = 0x110000;
    }
    if (stop == start) return nullptr;
    const auto known = entities.find('#' + std::to_string(code));
    if (!hex && stop - start >= 8) {
        append_code(out, 0xFFFD);
    } else if (known != entities.end()) {
        out += known->second;
    } else {
        append_code(out, code > 0x10FFFF || (code >= 0xD800 && code <= 0xDFFF) ? 0xFFFD : code);
    }
    return stop < end && *stop == ';' ? stop + 1 : stop;
}

// Appends a text with its entities decoded as by html.unescape: of names, the longest that is one.
inline void unescape(const Entities& entities, View text, std::string& out) {
    const char *at = text.data(), *end = at + text.size();
    while (at < end) {
        const char* mark = find(at, end, '&');
        out.append(at, mark);
        if (mark == end) return;
        at = mark + 1;
        const char* after = nullptr;
        if (at < end && *at == '#') {
            after = unescape_number(entities, at + 1, end, out);
        } else {
            const char* stop = at;
            while (stop < end && stop - at < MAX_ENTITY && (is_letter(*stop) || is_digit(*stop))) stop++;
            if (stop < end && *stop == ';') stop++;
            for (; stop - at > 1 && !after; stop--) {
                const auto found = entities.find(View(at, stop - at));
                if (found == entities.end()) continue;
                out += found->second;
                after = stop;
            }
        }
        if (after) at = after;
        else out += '&';
    }
}

// Appends lines as the page has them, without the spaces at their ends and the empty lines around.
inline void lines_of(View text, std::string& out) {
    const size_t start = out.size();
    const char *at = text.data(), *end = at + text.size();
    size_t kept = start;  // the end of the line's last character that is no space
    while (at < end) {
        const uint8_t c = *at;
        const int width = c == NEW_LINE ? 1 : space(at, end);
        bool ends = c == NEW_LINE || (c >= 10 && c <= 13) || (c >= 0x1C && c <= 0x1E);
        ends |= c == 0xC2 && width && at[1] == '\x85';
        ends |= c == 0xE2 && width && at[1] == '\x80' && (at[2] == '\xA8' || at[2] == '\xA9');
        if (ends) {
            at += c == '\r' && at + 1 < end && (at[1] == '\n' || at[1] == NEW_LINE) ? 2 : width;
            out.resize(kept);
            if (out.size() > start) out += '\n';
            kept = out.size();
            continue;
        }
        out.append(at, width ? width : 1);
        at += width ? width : 1;
        if (!width) kept = out.size();
    }
    out.resize(kept);
    while (out.size() > start && out.back() == '\n') out.pop_back();
}

// Appends what `clean` of blocks.py makes of a text.
inline void clean(const Entities& entities, View text, bool verbatim, std::string& out,
                  std::string& scratch) {
    if (text.find('&') != View::npos) {
        scratch.clear();
        unescape(entities, text, scratch);
        text = scratch;
    }
    if (verbatim) return lines_of(text, out);
    const size_t start = out.size();
    const char *at = text.data(), *end = at + text.size();
    char before = 0;
    while (at < end) {
        const int width = *at == NEW_LINE ? 1 : space(at, end);
        if (width) {
            before = *at == NEW_LINE ? '\n' : before ? before : ' ';
            at += width;
            continue;
        }
        const char* word = at;
        do at++;
        while (at < end && *at != NEW_LINE && !space(at, end));
        if (before && out.size() > start) out += before;
        before = 0;
        out.append(word, at);
    }
}

// Appends what str.lower makes of a word of ASCII, Latin-1 and general punctuation; false where that takes
// Unicode's tables.
inline bool lower_word(View word, std::string& out) {
    static constexpr View KELVIN = "\u212A";  // the one letter that str.lower makes an ASCII letter
    for (size_t i = 0; i < word.size(); i++) {
        if (is_ascii(word[i])) {
            out += lower(word[i]);
        } else if (word.compare(i, KELVIN.size(), KELVIN) == 0) {
            out += 'k';
            i += KELVIN.size() - 1;
        } else if (word.compare(i, 2, "\xE2\x80") == 0 && i + 2 < word.size()) {
            out += word.substr(i, 3);
            i += 2;
        } else if ((word[i] == '\xC2' || word[i] == '\xC3') && i + 1 < word.size()) {
            const uint8_t c = word[i + 1];
            out += word[i++];
            const bool upper = word[i - 1] == '\xC3' && c <= 0x9E && c != 0x97;  // À to Þ, but not ×
            out += static_cast<char>(upper ? c + 0x20 : c);
        } else {
            return false;
        }
    }
    return true;
}

// How many sentences end in a text, roughly: `_sentence_ends` of blocks.py.
inline Size sentence_ends(View text, Size characters) {
    Size count = text.back() == '.' || text.back() == '?' || text.back() == '!';
    if (characters <= MIN_SENTENCES) return count;
    for (size_t i = 0; i + 1 < text.size(); i++) {
        const uint8_t c = text[i];
        if (c < 0x80) {
            count += (c == '.' || c == '?' || c == '!') && text[i + 1] == ' ';
        } else if (begins(c)) {
            for (const View stop : {View("。"), View("！"), View("？"), View("।"), View("؟"), View("…")})
                count += text.compare(i, stop.size(), stop) == 0;
        }
    }
    return count;
}
