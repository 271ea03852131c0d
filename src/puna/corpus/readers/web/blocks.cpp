// A page's source to its blocks: the same as `_split` of blocks.py, which says what is done and why, in one pass over UTF-8.
//
// Every name, group, word and entity comes from blocks.py's tables. Nothing is read outside the source, whatever its bytes are; there is
// no recursion, and the limits on open elements, nodes and blocks are blocks.py's.

#include "characters.h"

#include <algorithm>
#include <new>
#include <vector>

namespace {

// Both in blocks.py's order: KINDS' values, COLUMNS.
enum Kind : Size { INLINE, CONTAINER, PARAGRAPH, ITEM, HEADING, CELL, ROW, PRE, SKIP, LINK, BREAK, TITLE, RULE };
enum Column { KIND, LEVEL, LINKED, PLACE, LENGTH, SIZE, STOPS, COPIES, REPEATS, COMMON, WORDS, COLUMNS };
constexpr int LETTERS = 28, START = 26, END = 27;  // of the automaton: a to z, a word's start, its end
constexpr size_t LONGEST_NAME = 32;
constexpr Size MARKED = 1000, VALUE = 300, LONGEST_WORD = 30, ROW_CELL = 200, SHORT = 200;

// An element's name. bits: its own; those of what its start closes, and where the search for these ends; where that for its start ends.
struct Name {
    View text;
    Size number;
    Kind kind;
    uint64_t bit, same, walls, end_walls, groups;
};

struct Tables {
    std::string letters;  // what the views look at
    std::vector<Name> names;
    std::unordered_map<View, const Name*> by_name;
    Entities entities;
    std::vector<View> raw;
    std::vector<int32_t> next;  // the automaton over words: [states, LETTERS]
    std::vector<uint64_t> groups;  // that a state speaks for
    uint64_t content, prose;
    Size group_count, depth, nodes, blocks, reach;
};

// What an element's attributes say it is for: ` class`, ` id`, ... one after the other, in lower case.
void marks_of(View attributes, std::string& out) {
    static constexpr View WORDS[] = {"class", "id", "role", "itemprop", "style", "hidden"};
    const char *at = attributes.data(), *end = characters_on(at, at + attributes.size(), MARKED);
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
                for (stop = value; stop < end && *stop != '"' && *stop != '\'' && *stop != '>' && !space(stop, end);) stop++;
                if (stop == value) stop = nullptr;
            }
        }
        if (stop) {
            stop = characters_on(value, stop, VALUE);
        } else {
            const char c = after < end ? *after : ' ';
            if (!is_ascii(c) || is_letter(c) || is_digit(c) || c == '_' || c == '-') continue;
            value = stop = after;
        }
        at = stop;
        if (word == "hidden") {
            out += " hidden";
        } else if (word != "style") {
            out += ' ';
            for (; value < stop; value++) out += lower(*value);
        } else {
            std::string style;
            for (; value < stop; value++) style += lower(*value);
            const char* end_of_style = style.data() + style.size();
            for (size_t place = 0; (place = style.find("display:", place)) != std::string::npos;) {
                const char* shown = skip_spaces(style.data() + (place += 8), end_of_style);
                if (end_of_style - shown < 4 || memcmp(shown, "none", 4) != 0) continue;
                out += " hidden";
                break;
            }
        }
    }
}

// The groups that the words of an element's marks speak for, as bits.
uint64_t groups_of(const Tables& tables, View marks) {
    uint64_t found = 0;
    View content;
    for (size_t i = 0; i < marks.size();) {
        if (marks[i] < 'a' || marks[i] > 'z') {
            i++;
            continue;
        }
        const size_t start = i;
        Size state = tables.next[START];
        uint64_t bits = 0;
        for (; i < marks.size() && i - start < LONGEST_WORD && marks[i] >= 'a' && marks[i] <= 'z'; i++) {
            state = tables.next[state * LETTERS + marks[i] - 'a'];
            bits |= tables.groups[state];
        }
        if (i - start < 2) continue;
        bits |= tables.groups[tables.next[state * LETTERS + END]];
        found |= bits;
        if (!(bits & tables.content)) continue;
        const View word = marks.substr(start, i - start);
        if (content.empty()) content = word;
        else if (word != content) found |= tables.prose;  // "entry-content", "article body": the text itself
    }
    return found;
}

struct Token {
    const char* end;
    View name, attributes;  // no name: no text comes from it
    bool closing;
};

// The attributes that begin at `at`: to the > that is in no quotes, or to the end.
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

// What no text comes from reaches to its end tag.
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

// The tag or comment at the < of `at`; end: null where it is none.
Token token(const Tables& tables, const char* at, const char* end) {
    Token found{nullptr, View(), View(), false};
    if (++at == end) return found;
    if ((found.closing = *at == '/')) at++;
    if (at == end || !is_letter(*at)) {
        if (found.closing) found.end = after(find(at, end, '>'), end);
        else if (end - at > 2 && at[0] == '!' && at[1] == '-' && at[2] == '-') found.end = comment_end(at + 3, end);
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
                return found;
            }
    found.name = name;
    found.attributes = View(stop, last - stop);
    return found;
}

struct Node {
    Size parent, first, last;
    const Name* name;
    View attributes;
};

struct Open {
    const Name* name;
    Size node;
};

struct Part {
    size_t start, end;
    Size count;
};

struct Page {
    const Tables& tables;
    std::string text, title;
    std::vector<Size> blocks;  // [blocks, COLUMNS]
    std::vector<size_t> starts;
    std::vector<Node> nodes;
    std::vector<int32_t> near;  // [blocks, groups]

    std::vector<Open> stack;
    std::vector<Size> open_count;
    std::string buffer, cleaned, scratch, lowered;
    std::vector<Part> cells, rows;  // of `buffer`, of `cleaned`
    size_t begin = 0;  // of what comes after the last cell
    Size node = 0, linked = 0, in_link = 0, skipping = 0, pre = 0, count = 0;
    bool in_title = false, bullet = false;
    const Name *root, *tag, *p;

    explicit Page(const Tables& tables) : tables(tables), open_count(tables.names.size()) {
        root = tag = &tables.names[0];
        p = tables.by_name.at("p");
        nodes.push_back({-1, 0, 0, root, View()});
        stack.push_back({root, 0});
    }

    Size height() const { return static_cast<Size>(stack.size()); }
    bool filled() const { return buffer.size() > begin; }

    void add(View found, Size links, Kind kind) {
        if (count >= tables.blocks) return;
        const Size characters = length(found);
        Size bytes = static_cast<Size>(found.size());
        for (size_t i = 0; i + 1 < found.size(); i++)
            if (found[i] == '\xED' && static_cast<uint8_t>(found[i + 1]) >= 0xA0) bytes -= 2;  // half a character would be written as ?
        Size values[COLUMNS] = {};
        values[KIND] = kind;
        values[LEVEL] = kind == HEADING ? tag->text[1] - '0' : 0;
        values[LINKED] = links < characters ? links : characters;
        values[PLACE] = node;
        values[LENGTH] = characters;
        values[SIZE] = characters * (static_cast<double>(bytes) > 2.3 * static_cast<double>(characters) ? 2 : 1);
        values[STOPS] = stops(found, characters);
        blocks.insert(blocks.end(), values, values + COLUMNS);
        starts.push_back(text.size());
        text += found;
        count++;
    }

    void end_cell() {
        cells.push_back({begin, buffer.size(), linked});
        begin = buffer.size();
        linked = 0;
    }

    void drop() {
        buffer.clear();
        begin = linked = 0;
    }

    void flush() {
        cleaned.clear();
        if (!cells.empty()) {
            end_cell();
            rows.clear();
            Size longest = 0, links = 0;
            std::string joined;
            for (const Part& cell : cells) {
                const size_t start = cleaned.size();
                clean(tables.entities, View(buffer).substr(cell.start, cell.end - cell.start), false, cleaned, scratch);
                if (cleaned.size() == start) continue;
                rows.push_back({start, cleaned.size(), cell.count});
                const Size characters = length(View(cleaned).substr(start));
                longest = characters > longest ? characters : longest;
            }
            cells.clear();
            const bool one = rows.size() > 1 && longest < ROW_CELL;
            for (const Part& row : rows) {
                const View found = View(cleaned).substr(row.start, row.end - row.start);
                if (!one) {
                    add(found, row.count, ROW);
                    continue;
                }
                if (!joined.empty()) joined += " | ";
                joined += found;
                links += row.count;
            }
            if (one) add(joined, links, ROW);
        } else if (filled()) {
            clean(tables.entities, buffer, pre != 0, cleaned, scratch);
            if (!cleaned.empty()) {
                const Kind kind = tag->kind == INLINE || tag->kind == ITEM ? CONTAINER : tag->kind;
                add(cleaned, linked, pre ? PRE : bullet ? ITEM : kind);
                bullet = false;
            }
        }
        drop();
        in_title = false;
    }

    void close(Size until) {
        while (height() > until) {
            const Open last = stack.back();
            stack.pop_back();
            open_count[last.name->number]--;
            nodes[last.node].last = count;
        }
        tag = stack.back().name;
        node = stack.back().node;
        bullet = false;
        if (skipping > until) skipping = 0;
        if (pre > until) pre = 0;
        if (in_link > until) in_link = 0;
    }

    // Where one of the names is open, 0 where a wall comes first.
    Size height_of(uint64_t names, uint64_t walls) const {
        const Size lowest = height() > tables.reach ? height() - tables.reach : 0;
        for (Size at = height() - 1; at > lowest; at--) {
            if (stack[at].name->bit & names) return at;
            if (stack[at].name->bit & walls) return 0;
        }
        return 0;
    }

    void open(const Name* name) {
        stack.push_back({name, node});
        open_count[name->number]++;
    }

    void text_between(const char* at, const char* end) {
        if (at == end || skipping || !(filled() || pre || skip_spaces(at, end) < end)) return;
        buffer.append(at, end);
        if (in_link) linked += stripped_length(View(at, end - at));
    }

    void end_tag(const Name* name) {
        Size until = 0;
        if (stack.back().name == name) until = height() - 1;
        else if (open_count[name->number]) until = height_of(name->bit, name->end_walls);
        else if (name->kind == PARAGRAPH) flush();
        if (!until) return;
        if (name->kind == CELL) end_cell();
        else if (name->kind != SKIP && (filled() || !cells.empty())) flush();
        close(until);
    }

    void start_tag(const Name* name, View attributes) {
        if (name->kind == CELL && (stack.back().name->kind == CELL || stack.back().name->kind == ROW)) end_cell();
        else if (filled() || !cells.empty()) flush();
        if (stack.back().name == p) close(height() - 1);
        if (name->same && !(stack.back().name->bit & name->walls)) {
            const Size until = height_of(name->same, name->walls);
            if (until) close(until);
        }
        if (height() >= tables.depth || static_cast<Size>(nodes.size()) >= tables.nodes) return;
        node = static_cast<Size>(nodes.size());
        tag = name;
        nodes.push_back({stack.back().node, count, 0, name, attributes});
        open(name);
        if (name->kind == ITEM) bullet = name->text == "li";
        else if (name->kind == PRE && !pre) pre = height();
    }

    void on_tag(View written, View attributes, bool closing) {
        if (written.size() > LONGEST_NAME) return;
        lowered.clear();
        if (!lower_word(written, lowered)) return;
        const auto found = tables.by_name.find(lowered);
        if (found == tables.by_name.end()) {
            if (lowered == "body") flush();
            return;
        }
        const Name* name = found->second;
        switch (name->kind) {
            case INLINE: return;
            case LINK: in_link = closing ? 0 : height(); return;
            case BREAK:
                if (filled()) buffer += NEW_LINE;
                return;
            case TITLE:
                if (closing && in_title) {
                    if (title.empty()) {
                        clean(tables.entities, View(buffer).substr(begin), false, title, scratch);
                        std::replace(title.begin(), title.end(), '\n', ' ');
                    }
                    buffer.resize(begin);
                    linked = 0;
                    in_title = false;
                } else if (!closing && !skipping) {
                    flush();
                    in_title = true;
                }
                return;
            default: break;
        }
        if (closing) {
            end_tag(name);
        } else if (name->kind == RULE) {
            flush();
        } else if (name->kind == SKIP) {
            if (height() >= tables.depth || (!attributes.empty() && attributes.back() == '/')) return;
            open(name);
            if (!skipping) skipping = height();
        } else {
            start_tag(name, attributes);
        }
    }

    void run(const char* at, const char* end) {
        const char* start = at;
        while ((at = find(at, end, '<')) < end) {
            const Token found = token(tables, at, end);
            if (!found.end) {
                at++;
                continue;
            }
            text_between(start, at);
            start = at = found.end;
            if (!found.name.empty()) on_tag(found.name, found.attributes, found.closing);
        }
        text_between(start, end);
        flush();
        close(1);
        nodes[0].last = count;
        starts.push_back(text.size());
        surroundings();
        copies();
        common_words();
    }

    // For each block, the nearest elements of the groups, and how often its own element's name and marks are on the page.
    void surroundings() {
        const size_t groups = tables.group_count;
        std::vector<int32_t> rows(groups, -1);  // [rows, groups], shared by the nodes that add nothing to their parents'
        std::vector<size_t> row_of(nodes.size(), 0);
        std::vector<Size> number(nodes.size(), 0), times(tables.names.size(), 0);  // of a name with marks, after those without
        std::unordered_map<std::string, Size> numbers;
        std::string marks;
        times[0] = 1;
        for (size_t i = 1; i < nodes.size(); i++) {
            const Node& own = nodes[i];
            row_of[i] = row_of[own.parent];
            number[i] = own.name->number;
            if (own.first < own.last) {
                marks.assign(own.name->text);
                marks_of(own.attributes, marks);
                const uint64_t found = own.name->groups | groups_of(tables, View(marks).substr(own.name->text.size()));
                if (found) {
                    const size_t above = row_of[i] * groups;
                    row_of[i] = rows.size() / groups;
                    rows.resize(rows.size() + groups);
                    memcpy(rows.data() + row_of[i] * groups, rows.data() + above, groups * sizeof(int32_t));
                    for (size_t group = 0; group < groups; group++)
                        if (found >> group & 1) rows[row_of[i] * groups + group] = static_cast<int32_t>(i);
                }
                if (marks.size() > own.name->text.size()) {
                    number[i] = numbers.emplace(marks, times.size()).first->second;
                    if (number[i] == static_cast<Size>(times.size())) times.push_back(0);
                }
            }
            times[number[i]]++;
        }
        near.resize(count * groups);
        for (Size i = 0; i < count; i++) {
            const Size place = blocks[i * COLUMNS + PLACE];
            blocks[i * COLUMNS + REPEATS] = times[number[place]];
            memcpy(near.data() + i * groups, rows.data() + row_of[place] * groups, groups * sizeof(int32_t));
        }
    }

    View block(Size i) const { return View(text).substr(starts[i], starts[i + 1] - starts[i]); }

    // How many blocks have the same text.
    void copies() {
        std::unordered_map<View, Size> times;
        times.reserve(count);
        for (Size i = 0; i < count; i++) times[block(i)]++;
        for (Size i = 0; i < count; i++) blocks[i * COLUMNS + COPIES] = times[block(i)];
    }

    // For each word of a text, in lower case where that is ASCII, else empty.
    template <class Found>
    void each_word(View from, Found found) {
        const char *at = from.data(), *end = at + from.size();
        while ((at = skip_spaces(at, end)) < end) {
            const char* word = at;
            while (at < end && !space(at, end)) at++;
            lowered.clear();
            if (!lower_word(View(word, at - word), lowered)) lowered.clear();
            found(View(lowered));
        }
    }

    // How many words a short block has, and how many different ones of the title; -1 where that takes Unicode's tables.
    void common_words() {
        std::unordered_map<std::string, Size> last;  // the words of the title, and the block that had each last
        bool plain = true;
        each_word(title, [&](View word) {
            if (word.empty()) plain = false;
            else last[std::string(word)] = -1;
        });
        for (Size i = 0; i < count; i++) {
            Size* values = blocks.data() + i * COLUMNS;
            if (values[LENGTH] > SHORT) continue;
            bool known = true;
            each_word(block(i), [&](View word) {
                values[WORDS]++;
                if (word.empty()) known = plain;
                const auto found = last.find(lowered);
                if (found == last.end() || found->second == i) return;
                found->second = i;
                values[COMMON]++;
            });
            if (!known) values[COMMON] = -1;
        }
    }
};

// The strings of a text, each ended by a NUL.
std::vector<View> strings(View text) {
    std::vector<View> found;
    for (size_t start = 0, end; (end = text.find('\0', start)) != View::npos; start = end + 1)
        found.push_back(text.substr(start, end - start));
    return found;
}

}  // namespace

// The tables of blocks.py, kept for good; null where memory is short. letters: strings ended by NUL, names first, then the names of RAW,
// then entities and what each stands for in turns. names: Name's numbers from `kind` on, [name_count, 6]; limits: the last members of
// Tables, from `content` on.
extern "C" void* blocks_open(const char* letters, Size size, const uint64_t* names, Size name_count, Size raw_count, const int32_t* next,
                             const uint64_t* groups, Size states, const uint64_t* limits) try {
    Tables* made = new Tables{};
    made->letters.assign(letters, size);
    const std::vector<View> all = strings(made->letters);
    for (Size i = 0; i < name_count; i++, names += 6)
        made->names.push_back({all[i], i, static_cast<Kind>(names[0]), names[1], names[2], names[3], names[4], names[5]});
    for (const Name& name : made->names) made->by_name.emplace(name.text, &name);
    made->raw.assign(all.begin() + name_count, all.begin() + name_count + raw_count);
    for (size_t i = name_count + raw_count; i + 1 < all.size(); i += 2) made->entities.emplace(all[i], all[i + 1]);
    made->next.assign(next, next + states * LETTERS);
    made->groups.assign(groups, groups + states);
    made->content = limits[0], made->prose = limits[1];
    Size* numbers[] = {&made->group_count, &made->depth, &made->nodes, &made->blocks, &made->reach};
    for (int i = 0; i < 5; i++) *numbers[i] = static_cast<Size>(limits[2 + i]);
    return made;
} catch (const std::bad_alloc&) {
    return nullptr;
}

// The blocks of a page, for blocks_read and blocks_close; null where memory is short. sizes: of blocks, nodes, text in bytes, title.
extern "C" void* blocks_split(const void* tables, const char* source, Size size, Size* sizes) try {
    Page* page = new Page(*static_cast<const Tables*>(tables));
    try {
        page->run(source, source + size);
    } catch (...) {
        delete page;
        throw;
    }
    const Size found[] = {page->count, static_cast<Size>(page->nodes.size()), static_cast<Size>(page->text.size()),
                          static_cast<Size>(page->title.size())};
    memcpy(sizes, found, sizeof found);
    return page;
} catch (const std::bad_alloc&) {
    return nullptr;
}

// text: of all blocks, then the title; blocks [COLUMNS, blocks], nodes [3, nodes], near [blocks, groups].
extern "C" void blocks_read(const void* found, char* text, Size* blocks, Size* nodes, int32_t* near) {
    const Page& page = *static_cast<const Page*>(found);
    memcpy(text, page.text.data(), page.text.size());
    memcpy(text + page.text.size(), page.title.data(), page.title.size());
    const Size count = page.count, node_count = static_cast<Size>(page.nodes.size());
    for (Size i = 0; i < count; i++)
        for (int column = 0; column < COLUMNS; column++) blocks[column * count + i] = page.blocks[i * COLUMNS + column];
    for (Size i = 0; i < node_count; i++) {
        const Node& node = page.nodes[i];
        nodes[i] = node.parent, nodes[node_count + i] = node.first, nodes[2 * node_count + i] = node.last;
    }
    std::copy(page.near.begin(), page.near.end(), near);
}

extern "C" void blocks_close(void* found) { delete static_cast<Page*>(found); }
