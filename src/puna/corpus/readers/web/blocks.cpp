// Splitter of a page's HTML into blocks: `_split` of blocks.py, which says what is done and why, in one pass
// over UTF-8.
//
// Every name, group, word and entity comes from the tables of blocks.py, and so do the limits on open
// elements, nodes and blocks. Nothing is read outside the source, whatever its bytes are, and there is no
// recursion.

#include "characters.h"
#include "hints.h"
#include "rows.h"
#include "token.h"

#include <algorithm>
#include <new>
#include <vector>

namespace {

// What blocks.py calls RAISED_MARKS, NOTE.
constexpr char SUPERSCRIPT = 1, AFTER_SUPERSCRIPT = 2, SUBSCRIPT = 3, AFTER_SUBSCRIPT = 4, NOTE = 5;
constexpr size_t NONE = SIZE_MAX;

struct Node {
    Size parent, first, last;
    const Name* name;
    View attributes;
    Size signature = 0, turns = 0;
};

struct Open {
    const Name* name;
    Size node;
};

struct Part {
    size_t start, end;
    Size count, column;
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
    std::vector<Part> cells;  // of `buffer`
    Row row;
    size_t begin = 0;  // of what comes after the last cell
    size_t link_start = NONE, cell_start = 0;  // counted from there
    Size node = 0, linked = 0, in_link = 0, skipping = 0, pre = 0, code_table = 0, count = 0, seen = 0;
    Size blank_lines = 0;
    bool in_title = false, bullet = false;
    const Name *root, *tag, *p, *table;
    const char *resume = nullptr, *source_end = nullptr;  // where to read on, if not behind the tag

    explicit Page(const Tables& tables) : tables(tables), open_count(tables.names.size()) {
        root = tag = &tables.names[0];
        p = tables.by_name.at("p");
        table = tables.by_name.at("table");
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
            if (found[i] == '\xED' && static_cast<uint8_t>(found[i + 1]) >= 0xA0) bytes -= 2;  // a surrogate
        Size values[COLUMNS] = {};
        values[KIND] = kind;
        values[LEVEL] = kind == HEADING ? tag->text[1] - '0' : 0;
        values[LINK_LENGTH] = links < characters ? links : characters;
        values[NODE] = node;
        values[LENGTH] = characters;
        const bool wide = static_cast<double>(bytes) > 2.3 * static_cast<double>(characters);
        values[SIZE] = wide ? 2 * characters : characters;
        values[SENTENCE_ENDS] = sentence_ends(found, characters);
        blocks.insert(blocks.end(), values, values + COLUMNS);
        starts.push_back(text.size());
        text += found;
        count++;
        if (!row.height) return;
        row.columns.push_back(row.column);
        if (kind == PRE || kind == ITEM || kind == HEADING) row.plain = false;
    }

    // Makes one block of the row's blocks, if they are one line.
    void finish_row() {
        if (!row.height) return;
        const Size first = row.first, height_of_row = row.height;
        std::string line;
        row.line([&](Size i) {
            const size_t start = starts[first + i];
            const size_t end = first + i + 1 < count ? starts[first + i + 1] : text.size();
            return View(text).substr(start, end - start);
        }, line);
        if (line.empty()) return;
        Size links = 0;
        for (Size i = first; i < count; i++) links += blocks[i * COLUMNS + LINK_LENGTH];
        text.resize(starts[first]);
        starts.resize(first);
        blocks.resize(first * COLUMNS);
        count = first;
        const Size own = node;
        node = row.node;
        add(line, links, ROW);
        node = own;
        for (size_t i = row.first_node; i < nodes.size(); i++) nodes[i].first = nodes[i].last = first;
        for (Size i = height_of_row; i < height(); i++) nodes[stack[i].node].first = first + 1;
    }

    void end_cell() {
        cells.push_back({begin, buffer.size(), linked, row.column});
        begin = buffer.size();
        linked = 0;
        link_start = NONE;
    }

    void drop() {
        buffer.clear();
        begin = linked = cell_start = 0;
        link_start = NONE;
    }

    void flush() {
        cleaned.clear();
        if (!cells.empty()) {
            end_cell();
            const Size column = row.column;
            for (const Part& cell : cells) {
                cleaned.clear();
                const View source = View(buffer).substr(cell.start, cell.end - cell.start);
                clean(tables.entities, source, false, cleaned, scratch);
                row.column = cell.column;
                if (!cleaned.empty()) add(cleaned, cell.count, ROW);
            }
            cells.clear();
            row.column = column;
        } else if (filled()) {
            clean(tables.entities, buffer, pre != 0, cleaned, scratch);
            if (!cleaned.empty()) {
                const bool other = tag->kind == INLINE || tag->kind == ITEM || tag->kind == CODE;
                const Kind kind = other ? CONTAINER : tag->kind;
                cleaned.insert(0, blank_lines, '\n');
                blank_lines = 0;
                add(cleaned, linked, pre ? PRE : bullet ? ITEM : kind);
                bullet = false;
            }
        }
        drop();
        in_title = false;
    }

    // Counts an element that closed inside <pre>, if it is a line without text.
    void blank_line(const Open& closed) {
        const Kind kind = closed.name->kind;
        const bool line = kind == CONTAINER || kind == PARAGRAPH || kind == ITEM;
        const bool leaf = closed.node + 1 == static_cast<Size>(nodes.size());
        const Size first = nodes[closed.node].first;
        if (line && leaf && first == count && nodes[stack[pre - 1].node].first < first) blank_lines++;
    }

    void close(Size until) {
        while (height() > until) {
            if (height() == row.height) finish_row();
            const Open last = stack.back();
            stack.pop_back();
            open_count[last.name->number]--;
            nodes[last.node].last = count;
            if (pre && pre <= height() && !code_table) blank_line(last);
        }
        tag = stack.back().name;
        node = stack.back().node;
        bullet = false;
        if (skipping > until) skipping = 0;
        if (pre > until) pre = blank_lines = 0;
        if (in_link > until) in_link = 0;
        if (code_table > until) code_table = 0;
    }

    // The height at which one of the names is open, 0 if a boundary comes first.
    Size height_of(uint64_t names, uint64_t boundaries) const {
        const Size lowest = height() > tables.reach ? height() - tables.reach : 0;
        for (Size at = height() - 1; at > lowest; at--) {
            if (stack[at].name->bit & names) return at;
            if (stack[at].name->bit & boundaries) return 0;
        }
        return 0;
    }

    void open(const Name* name) {
        stack.push_back({name, node});
        open_count[name->number]++;
    }

    void text_between(const char* at, const char* end) {
        if (at == end || skipping || !(filled() || pre || skip_spaces(at, end) < end)) return;
        if (code_table && is_between_cells(tag) && skip_spaces(at, end) == end) return;
        buffer.append(at, end);
        if (in_link) linked += stripped_length(View(at, end - at));
    }

    // Whether an element holds rows or cells, but no text of its own.
    bool is_between_cells(const Name* name) const {
        return name->kind == ROW || (name->kind == CONTAINER && !name->end_boundaries);
    }

    bool ends_with(char c) const { return filled() && buffer.back() == c; }

    // Ends a line of code in a table.
    void new_line() {
        if (filled() && buffer.back() != '\n') buffer += '\n';
    }

    void end_tag(const Name* name) {
        Size until = 0;
        if (stack.back().name == name) until = height() - 1;
        else if (open_count[name->number]) until = height_of(name->bit, name->end_boundaries);
        else if (name->kind == PARAGRAPH && !code_table) flush();
        if (!until) return;
        if (code_table && until >= code_table) {
            if (name->kind == CELL)
                while (buffer.size() - begin > cell_start && ends_with('\n')) buffer.pop_back();
            else if (name->kind != SKIP && !is_between_cells(name)) new_line();
        } else if (name->kind == CELL) {
            end_cell();
        } else if (name->kind != SKIP && (filled() || !cells.empty())) {
            flush();
        }
        close(until);
        if (name == table) row.begin_table();
    }

    // Begins a cell that was opened; of line numbers, passes over its content.
    void begin_cell(View attributes, const char* at) {
        cell_start = buffer.size() - begin;
        const char* numbers = cell_of_numbers(at, source_end, attributes);
        if (code_table) {
            resume = numbers;
            return;
        }
        if (!row.height) row.begin(height() - 1, count, stack[height() - 2].node, node);
        row.begin_cell(attributes);
        if (!numbers) return;
        flush();
        row.height = 0;
        row.column = -1;
        resume = numbers;
        const Size open_table = height_of(table->bit, 0);
        code_table = (open_table ? open_table : height() - 2) + 1;
        if (!pre) pre = code_table;
    }

    void raise_or_lower(const Name* name, View attributes, bool closing) {
        const bool raised = name->text == "sup";
        const char before = raised ? SUPERSCRIPT : SUBSCRIPT;
        if (closing) {
            if (ends_with(before)) {
                buffer.pop_back();
                cell_start = std::min(cell_start, buffer.size() - begin);
                return;
            }
            buffer += raised ? AFTER_SUPERSCRIPT : AFTER_SUBSCRIPT;
            return;
        }
        bool note = in_link && buffer.size() - begin == link_start;
        for (const View part : {View("ref"), View("note"), View("cite"), View("fn")})
            note |= contains(attributes, part);
        buffer += before;
        if (note) buffer += NOTE;
    }

    void start_tag(const Name* name, View attributes, Kind kind, const char* at) {
        const Kind parent = stack.back().name->kind;
        if (code_table) {
            if (kind == ROW) {
                if (filled()) buffer += '\n';
            } else if (!is_between_cells(name)) {
                new_line();
            }
        } else if (kind == CELL && (parent == CELL || parent == ROW)) end_cell();
        else if (filled() || !cells.empty()) flush();
        if (stack.back().name == p) close(height() - 1);
        if (name->closed && !(stack.back().name->bit & name->boundaries)) {
            const Size until = height_of(name->closed, name->boundaries);
            if (until) close(until);
        }
        if (kind == ROW || name == table || (kind == CELL && row.height != height())) finish_row();
        if (name == table) row.begin_table();
        if (height() >= tables.depth || static_cast<Size>(nodes.size()) >= tables.nodes) return;
        node = static_cast<Size>(nodes.size());
        tag = name;
        nodes.push_back({stack.back().node, count, 0, name, attributes});
        open(name);
        if (kind == ITEM) bullet = name->text == "li";
        else if (kind == PRE && !pre) pre = height();
        else if (kind == CELL) begin_cell(attributes, at);
    }

    void on_inline(View attributes, bool closing, const char* at) {
        if (pre && !closing && !skipping) resume = number_inside(at, source_end, attributes);
    }

    // at: the end of the tag.
    void on_tag(View written, View attributes, bool closing, const char* at) {
        if (written.size() > MAX_NAME) return;
        lowered.clear();
        if (!lower_word(written, lowered)) return;
        const auto found = tables.by_name.find(lowered);
        if (found == tables.by_name.end()) {
            if (lowered == "body") flush();
            return;
        }
        const Name* name = found->second;
        switch (name->kind) {
            case INLINE:
                on_inline(attributes, closing, at);
                if (!closing && lowered == "img" && contains(attributes, "atex")) seen |= FORMULAS;
                return;
            case CODE:
                if (closing ? open_count[name->number] == 0 : !keeps_lines(attributes))
                    return on_inline(attributes, closing, at);
                break;
            case MATH: seen |= FORMULAS; return;
            case ABOUT:
                if (names_rights(attributes, true)) seen |= RIGHTS;
                return;
            case RAISED:
                if (!skipping) raise_or_lower(name, attributes, closing);
                return;
            case LINK:
                in_link = closing ? 0 : height();
                link_start = buffer.size() - begin;
                if (!closing && ends_with(SUPERSCRIPT)) buffer += NOTE;
                if (!closing && names_rights(attributes, false)) seen |= RIGHTS;
                if (!closing && turns_page(attributes)) nodes[node].turns++;
                return;
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
                    link_start = NONE;
                    cell_start = 0;
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
            start_tag(name, attributes, name->kind == CODE ? PRE : name->kind, at);
        }
    }

    void run(const char* at, const char* end) {
        const char* start = at;
        source_end = end;
        while ((at = find(at, end, '<')) < end) {
            const Token found = token(tables, at, end);
            if (!found.end) {
                at++;
                continue;
            }
            text_between(start, at);
            start = at = found.end;
            seen |= found.seen;
            if (found.name.empty()) continue;
            resume = nullptr;
            on_tag(found.name, found.attributes, found.closing, at);
            if (resume) start = at = resume;
        }
        text_between(start, end);
        flush();
        close(1);
        finish_row();
        nodes[0].last = count;
        starts.push_back(text.size());
        surroundings();
        copies();
        title_words();
    }

    // For each block, the innermost elements of the groups around it, and how many elements of the page have
    // the name and hints of its own.
    void surroundings() {
        const size_t groups = tables.group_count;
        std::vector<int32_t> rows(groups, -1);  // [rows, groups]; a node without groups has its parent's row
        std::vector<size_t> row_of(nodes.size(), 0);
        // Numbers of names without hints, and of names with them.
        std::vector<Size> number_of_name(tables.names.size(), -1);
        std::unordered_map<std::string, Size> numbers;
        std::string signature;
        Size known = 1;
        for (size_t i = 1; i < nodes.size(); i++) {
            const Node& own = nodes[i];
            row_of[i] = row_of[own.parent];
            Size* number = &number_of_name[own.name->number];
            if (own.first < own.last) {
                signature.assign(own.name->text);
                hints_of(own.attributes, signature);
                const View hints = View(signature).substr(own.name->text.size());
                const uint64_t found = own.name->groups | groups_of(tables, hints);
                if (found) {
                    const size_t above = row_of[i] * groups;
                    row_of[i] = rows.size() / groups;
                    rows.resize(rows.size() + groups);
                    memcpy(rows.data() + row_of[i] * groups, rows.data() + above, groups * sizeof(int32_t));
                    for (size_t group = 0; group < groups; group++)
                        if (found >> group & 1) rows[row_of[i] * groups + group] = static_cast<int32_t>(i);
                }
                if (signature.size() > own.name->text.size())
                    number = &numbers.emplace(signature, -1).first->second;
            }
            if (*number < 0) *number = known++;
            nodes[i].signature = *number;
        }
        near.resize(count * groups);
        for (Size i = 0; i < count; i++) {
            const Size place = blocks[i * COLUMNS + NODE];
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

    // Calls `visit` with each word of a text, in lower case where that is ASCII, else empty.
    template <class Visit>
    void each_word(View from, Visit visit) {
        const char *at = from.data(), *end = at + from.size();
        while ((at = skip_spaces(at, end)) < end) {
            const char* word = at;
            while (at < end && !space(at, end)) at++;
            lowered.clear();
            if (!lower_word(View(word, at - word), lowered)) lowered.clear();
            visit(View(lowered));
        }
    }

    // How many words a short block has, and how many different ones of the title; -1 where lower case takes
    // Unicode's tables.
    void title_words() {
        std::unordered_map<std::string, Size> last;  // the title's words, and the last block that had each
        bool plain = true;
        each_word(title, [&](View word) {
            if (word.empty()) plain = false;
            else last[std::string(word)] = -1;
        });
        for (Size i = 0; i < count; i++) {
            Size* values = blocks.data() + i * COLUMNS;
            if (values[LENGTH] > MAX_SHORT) continue;
            bool known = true;
            each_word(block(i), [&](View word) {
                values[WORDS]++;
                if (word.empty()) known = plain;
                const auto found = last.find(lowered);
                if (found == last.end() || found->second == i) return;
                found->second = i;
                values[TITLE_WORDS]++;
            });
            if (!known) values[TITLE_WORDS] = -1;
        }
    }
};

// The strings of a text in which a NUL ends each.
std::vector<View> strings(View text) {
    std::vector<View> found;
    for (size_t start = 0, end; (end = text.find('\0', start)) != View::npos; start = end + 1)
        found.push_back(text.substr(start, end - start));
    return found;
}

}  // namespace

// Makes the tables of blocks.py, which are never freed; null where memory is short. letters: strings that a
// NUL ends: names, the names of RAW, then entities, each with what it stands for. names: the numbers of Name
// from `kind` on, [name_count, 6]. limits: the last members of Tables, from `content` on.
extern "C" void* blocks_open(const char* letters, Size size, const uint64_t* names, Size name_count,
                             Size raw_count, const int32_t* next, const uint64_t* groups, Size states,
                             const uint64_t* limits) try {
    Tables* made = new Tables{};
    made->letters.assign(letters, size);
    const std::vector<View> all = strings(made->letters);
    for (Size i = 0; i < name_count; i++, names += 6)
        made->names.push_back(
            {all[i], i, static_cast<Kind>(names[0]), names[1], names[2], names[3], names[4], names[5]});
    for (const Name& name : made->names) made->by_name.emplace(name.text, &name);
    made->raw.assign(all.begin() + name_count, all.begin() + name_count + raw_count);
    for (size_t i = name_count + raw_count; i + 1 < all.size(); i += 2)
        made->entities.emplace(all[i], all[i + 1]);
    made->next.assign(next, next + states * LETTERS);
    made->groups.assign(groups, groups + states);
    made->content = limits[0], made->prose = limits[1];
    Size* numbers[] = {&made->group_count, &made->depth, &made->nodes, &made->blocks, &made->reach};
    for (int i = 0; i < 5; i++) *numbers[i] = static_cast<Size>(limits[2 + i]);
    return made;
} catch (const std::bad_alloc&) {
    return nullptr;
}

// Splits a page, for blocks_read and blocks_close; null where memory is short. sizes: receives the number of
// blocks, of nodes, of bytes of the text and of the title, and what was seen.
extern "C" void* blocks_split(const void* tables, const char* source, Size size, Size* sizes) try {
    Page* page = new Page(*static_cast<const Tables*>(tables));
    try {
        page->run(source, source + size);
    } catch (...) {
        delete page;
        throw;
    }
    sizes[0] = page->count;
    sizes[1] = static_cast<Size>(page->nodes.size());
    sizes[2] = static_cast<Size>(page->text.size());
    sizes[3] = static_cast<Size>(page->title.size());
    sizes[4] = page->seen;
    return page;
} catch (const std::bad_alloc&) {
    return nullptr;
}

// Copies the text of all blocks and the title, blocks [COLUMNS, blocks], nodes [5, nodes], near [blocks,
// groups].
extern "C" void blocks_read(const void* found, char* text, Size* blocks, Size* nodes, int32_t* near) {
    const Page& page = *static_cast<const Page*>(found);
    memcpy(text, page.text.data(), page.text.size());
    memcpy(text + page.text.size(), page.title.data(), page.title.size());
    const Size count = page.count, node_count = static_cast<Size>(page.nodes.size());
    for (Size i = 0; i < count; i++)
        for (int column = 0; column < COLUMNS; column++)
            blocks[column * count + i] = page.blocks[i * COLUMNS + column];
    for (Size i = 0; i < node_count; i++) {
        const Node& node = page.nodes[i];
        nodes[i] = node.parent, nodes[node_count + i] = node.first, nodes[2 * node_count + i] = node.last;
        nodes[3 * node_count + i] = node.signature, nodes[4 * node_count + i] = node.turns;
    }
    std::copy(page.near.begin(), page.near.end(), near);
}

extern "C" void blocks_close(void* found) { delete static_cast<Page*>(found); }
