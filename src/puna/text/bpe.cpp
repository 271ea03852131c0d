// SentencePiece's BPE encoder for models without text normalisation (Sennrich et al. 2016; Kudo and
// Richardson 2018), with the same ids.
//
// A text is cut wherever no piece of the model has the two neighbouring characters side by side: no merge can
// cross such a boundary, so what lies between two of them, a word, is encoded by itself and, when short,
// cached. Inside, the pair that makes the piece of the highest score is merged first, the leftmost among
// equals. Spaces stand for the space mark U+2581 in texts and pieces here.

#include <algorithm>
#include <atomic>
#include <cstdint>
#include <cstring>
#include <functional>
#include <memory>
#include <mutex>
#include <numeric>
#include <string>
#include <string_view>
#include <thread>
#include <unordered_map>
#include <vector>

namespace {

typedef int64_t Size;
typedef uint8_t Byte;
constexpr uint32_t NONE = 0xFFFFFFFF;
constexpr Size SLACK = 32;           // bytes behind a text that may be read, and ids that may be written
constexpr Size WORD_BYTES = 31;      // longer words are not cached
constexpr uint32_t WORD_IDS = 7;     // nor those of more ids
constexpr uint32_t SLOTS = 1 << 16;  // words that a thread caches: 4 MB
constexpr uint32_t JOIN_BITS = 1 << 18;
// Kinds of pieces: made by merging, and found before it. No text becomes a piece of another kind.
constexpr Byte NORMAL = 1, USER_DEFINED = 2;
const char SPACE_MARK[] = "\xe2\x96\x81";

inline uint64_t mixed(uint64_t a, uint64_t b) {
    const unsigned __int128 left = a ^ 0x9E3779B97F4A7C15u;
    const unsigned __int128 product = left * (b ^ 0xD1B54A32D192ED03u);
    return static_cast<uint64_t>(product) ^ static_cast<uint64_t>(product >> 64);
}

// A hash table of integers by integers; once filled it never changes.
class Table {
public:
    void fill(const std::vector<std::pair<uint64_t, uint32_t>>& entries) {
        size_t size = 16;
        while (size < 2 * entries.size()) size *= 2;
        mask = size - 1;
        slots.assign(size, {~uint64_t(0), NONE});
        for (const auto& entry : entries) {
            uint64_t at = mixed(entry.first, 0) & mask;
            while (slots[at].first != ~uint64_t(0)) at = (at + 1) & mask;
            slots[at] = entry;
        }
    }
    uint32_t find(uint64_t key) const {
        for (uint64_t at = mixed(key, 0) & mask;; at = (at + 1) & mask) {
            if (slots[at].first == key) return slots[at].second;
            if (slots[at].second == NONE) return NONE;
        }
    }

private:
    std::vector<std::pair<uint64_t, uint32_t>> slots;
    uint64_t mask = 0;
};

struct Character {
    uint32_t code;  // its bytes
    uint32_t length;
};

// The character at `at` < end, where four bytes may be read.
inline Character character(const Byte* at, const Byte* end) {
    if (*at < 0xC0) return {*at, 1};
    const uint32_t length = std::min<Size>(*at < 0xE0 ? 2 : *at < 0xF0 ? 3 : 4, end - at);
    uint32_t code;
    std::memcpy(&code, at, 4);
    return {length == 4 ? code : code & ((1u << 8 * length) - 1), length};
}

struct Symbol {
    uint32_t id, length, previous, next;  // length 0: merged into the one before it
};

struct Pair {
    uint64_t order;  // rank of the piece, then index of the left symbol: the smallest goes first
    uint32_t id, length;
    bool operator>(const Pair& other) const { return order > other.order; }
};

struct alignas(64) Slot {
    uint64_t key[4];  // the word's bytes, zeros, its length
    int32_t ids[WORD_IDS];
    uint32_t count;
};

// The memory of a thread, kept from call to call.
struct Worker {
    std::vector<Slot> slots = std::vector<Slot>(SLOTS);
    std::vector<Symbol> symbols;
    std::vector<Pair> pairs;
    std::vector<Byte> text;
};

class Model {
public:
    Model(const char* bytes, const Size* starts, const Byte* kinds, const float* scores, Size count,
          const int32_t* byte_ids, int32_t unknown, bool prefix)
        : pieces(count), unknown(unknown), prefix(prefix), rank(count), joined(JOIN_BITS / 64) {
        if (byte_ids) bytes_of.assign(byte_ids, byte_ids + 256);
        std::vector<uint32_t> order(count);
        std::iota(order.begin(), order.end(), 0);
        const auto higher = [&](uint32_t a, uint32_t b) { return scores[a] > scores[b]; };
        std::stable_sort(order.begin(), order.end(), higher);
        for (Size i = 1; i < count; ++i) rank[order[i]] = rank[order[i - 1]] + higher(order[i - 1], order[i]);

        const std::string all = std::string(bytes, starts[count]) + std::string(SLACK, '\0');
        const auto piece = [&](Size id) {
            return std::string_view(all).substr(starts[id], starts[id + 1] - starts[id]);
        };
        std::unordered_map<std::string_view, uint32_t> symbols;
        for (Size id = 0; id < count; ++id) {
            if (kinds[id] == NORMAL) symbols.emplace(piece(id), id);
            if (kinds[id] == USER_DEFINED) {
                user_defined[Byte(piece(id)[0])].push_back({std::string(piece(id)), id});
                any_user_defined = true;
            }
        }
        const auto longer = [](const auto& a, const auto& b) { return a.first.size() > b.first.size(); };
        for (auto& same_start : user_defined) std::sort(same_start.begin(), same_start.end(), longer);

        std::vector<std::pair<uint64_t, uint32_t>> merges, singles;
        uint32_t next_symbol = count;
        for (Size id = 0; id < count; ++id) {
            if (kinds[id] != NORMAL) continue;
            const std::string_view whole = piece(id);
            const Byte* first = reinterpret_cast<const Byte*>(whole.data());
            const Byte* end = first + whole.size();
            Character before = {0, 0};
            for (const Byte* at = first; at < end; at += before.length) {
                const Character here = character(at, end);
                const std::string_view text(reinterpret_cast<const char*>(at), here.length);
                // A character without a piece of its own becomes a symbol behind the pieces.
                if (symbols.emplace(text, next_symbol).second) singles.push_back({here.code, next_symbol++});
                if (at > first) join(before.code, here.code);
                before = here;
            }
            if (before.length == whole.size()) singles.push_back({before.code, id});
        }
        for (Size id = 0; id < count; ++id) {
            if (kinds[id] != NORMAL) continue;
            const std::string_view whole = piece(id);
            for (size_t at = 1; at < whole.size(); ++at) {
                if ((Byte(whole[at]) & 0xC0) == 0x80) continue;
                const auto left = symbols.find(whole.substr(0, at)), right = symbols.find(whole.substr(at));
                if (left == symbols.end() || right == symbols.end()) continue;
                merges.push_back({uint64_t(left->second) << 32 | right->second, id});
            }
        }
        merged.fill(merges);
        single.fill(singles);
    }

    // Writes the ids of a text to `out`, which has room for `factor()` of every byte and of a space before
    // them, and SLACK more. Returns their end.
    int32_t* encode(Worker& worker, const Byte* from, Size size, int32_t* out) const {
        if (size == 0) return out;
        const int32_t* first = out;
        const Byte* at = copy(worker, from, size);
        const Byte* end = worker.text.data() + worker.text.size() - SLACK;
        const Byte* start = at;  // of the word
        uint32_t before = NONE;
        while (at < end) {
            const auto* found = any_user_defined ? user_defined_at(at, end) : nullptr;
            if (found) {
                if (start < at) out = word(worker, start, at, out);
                *out++ = found->second;
                start = at += found->first.size();
                before = NONE;
                continue;
            }
            const Character here = character(at, end);
            if (before != NONE && !is_joined(before, here.code)) {
                out = word(worker, start, at, out);
                start = at;
            }
            before = here.code;
            at += here.length;
        }
        if (start < end) out = word(worker, start, end, out);
        if (!bytes_of.empty()) return out;
        // Neighbouring unknown characters count as one.
        const auto both = [this](int32_t a, int32_t b) { return a == unknown && b == unknown; };
        return std::unique(const_cast<int32_t*>(first), out, both);
    }

    // Returns most ids of a byte of text: a space without a piece becomes the three bytes of the mark.
    Size factor() const { return bytes_of.empty() || single.find(' ') < pieces ? 1 : 3; }

    std::unique_ptr<Worker> take() {
        const std::lock_guard<std::mutex> guard(lock);
        if (idle.empty()) return std::make_unique<Worker>();
        std::unique_ptr<Worker> worker = std::move(idle.back());
        idle.pop_back();
        return worker;
    }
    void give_back(std::unique_ptr<Worker> worker) {
        const std::lock_guard<std::mutex> guard(lock);
        idle.push_back(std::move(worker));
    }

private:
    const uint32_t pieces;
    const int32_t unknown;
    const bool prefix;
    std::vector<int32_t> bytes_of;  // of each byte, empty without byte fallback
    std::vector<uint32_t> rank;     // of each piece by score, equal for equal scores
    // Symbols are the pieces and, behind them, the characters that are no pieces.
    Table merged;  // left symbol, right symbol -> piece
    Table single;  // character -> symbol
    uint64_t ascii_joined[128][2] = {};
    std::vector<uint64_t> joined;  // by hash: a bit too many only makes a word longer
    std::vector<std::pair<std::string, int32_t>> user_defined[256];  // by first byte, longest first
    bool any_user_defined = false;
    std::mutex lock;
    std::vector<std::unique_ptr<Worker>> idle;

    void join(uint32_t a, uint32_t b) {
        if ((a | b) < 128) {
            ascii_joined[a][b >> 6] |= uint64_t(1) << (b & 63);
        } else {
            const uint64_t bit = mixed(a, b) & (JOIN_BITS - 1);
            joined[bit >> 6] |= uint64_t(1) << (bit & 63);
        }
    }
    bool is_joined(uint32_t a, uint32_t b) const {
        if ((a | b) < 128) return ascii_joined[a][b >> 6] >> (b & 63) & 1;
        const uint64_t bit = mixed(a, b) & (JOIN_BITS - 1);
        return joined[bit >> 6] >> (bit & 63) & 1;
    }

    // Copies a text into the worker's memory, with its dummy prefix, space marks as spaces and SLACK zeros
    // behind it.
    const Byte* copy(Worker& worker, const Byte* from, Size size) const {
        const Byte* end = from + size;
        worker.text.resize(prefix + size + SLACK);
        Byte* to = worker.text.data();
        if (prefix) *to++ = ' ';
        for (;;) {
            const Byte* mark = static_cast<const Byte*>(memmem(from, end - from, SPACE_MARK, 3));
            const Size plain = (mark ? mark : end) - from;
            std::memcpy(to, from, plain);
            to += plain;
            if (!mark) break;
            *to++ = ' ';
            from = mark + 3;
        }
        std::memset(to, 0, SLACK);
        worker.text.resize(to + SLACK - worker.text.data());
        return worker.text.data();
    }

    const std::pair<std::string, int32_t>* user_defined_at(const Byte* at, const Byte* end) const {
        for (const auto& symbol : user_defined[*at]) {
            const Size size = symbol.first.size();
            if (size <= end - at && !std::memcmp(symbol.first.data(), at, size)) return &symbol;
        }
        return nullptr;
    }

    // Writes the ids of a word, from the cache where it is there.
    int32_t* word(Worker& worker, const Byte* start, const Byte* end, int32_t* out) const {
        const Size length = end - start;
        if (length > WORD_BYTES) return merge(worker, start, end, out);
        uint64_t key[4];
        std::memcpy(key, start, 32);
        for (int i = 0; i < 4; ++i) {
            const Size rest = length - 8 * i;
            key[i] &= rest >= 8 ? ~uint64_t(0) : rest <= 0 ? 0 : (uint64_t(1) << 8 * rest) - 1;
        }
        key[3] |= uint64_t(length) << 56;
        Slot& slot = worker.slots[(mixed(key[0], key[1]) ^ mixed(key[2], key[3])) & (SLOTS - 1)];
        if (std::memcmp(slot.key, key, sizeof key)) {
            int32_t* last = merge(worker, start, end, out);
            if (last - out > Size(WORD_IDS)) return last;
            std::memcpy(slot.key, key, sizeof key);
            slot.count = last - out;
            std::copy(out, last, slot.ids);
            return last;
        }
        std::memcpy(out, slot.ids, sizeof slot.ids);
        return out + slot.count;
    }

    // Encodes a word by merging pairs, from a heap.
    int32_t* merge(Worker& worker, const Byte* start, const Byte* end, int32_t* out) const {
        auto& symbols = worker.symbols;
        auto& pairs = worker.pairs;
        symbols.clear();
        pairs.clear();
        const auto pair_at = [&](uint32_t left) {
            const Symbol &a = symbols[left], &b = symbols[a.next];
            const uint32_t id = merged.find(uint64_t(a.id) << 32 | b.id);
            if (id == NONE) return false;
            pairs.push_back({uint64_t(rank[id]) << 32 | left, id, a.length + b.length});
            return true;
        };
        for (const Byte* at = start; at < end; at += symbols.back().length) {
            const Character here = character(at, end);
            const uint32_t index = symbols.size(), next = at + here.length < end ? index + 1 : NONE;
            symbols.push_back({single.find(here.code), here.length, index - 1, next});
            if (index > 0) pair_at(index - 1);
        }
        std::make_heap(pairs.begin(), pairs.end(), std::greater<Pair>());
        while (!pairs.empty()) {
            std::pop_heap(pairs.begin(), pairs.end(), std::greater<Pair>());
            const Pair best = pairs.back();
            pairs.pop_back();
            const uint32_t index = uint32_t(best.order);
            Symbol& left = symbols[index];
            // One of the two was merged with another meanwhile: lengths only grow, so they no longer add up.
            if (left.length == 0 || left.next == NONE) continue;
            if (left.length + symbols[left.next].length != best.length) continue;
            Symbol& right = symbols[left.next];
            left.id = best.id;
            left.length = best.length;
            left.next = right.next;
            right.length = 0;
            if (left.next != NONE) {
                symbols[left.next].previous = index;
                if (pair_at(index)) std::push_heap(pairs.begin(), pairs.end(), std::greater<Pair>());
            }
            if (left.previous != NONE && pair_at(left.previous))
                std::push_heap(pairs.begin(), pairs.end(), std::greater<Pair>());
        }
        for (uint32_t index = 0; index != NONE; index = symbols[index].next) {
            const Symbol& symbol = symbols[index];
            if (symbol.id < pieces) {
                *out++ = symbol.id;
            } else if (bytes_of.empty()) {
                *out++ = unknown;
            } else if (*start == ' ') {
                for (int i = 0; i < 3; ++i) *out++ = bytes_of[Byte(SPACE_MARK[i])];
            } else {
                for (uint32_t i = 0; i < symbol.length; ++i) *out++ = bytes_of[start[i]];
            }
            start += symbol.length;
        }
        return out;
    }
};

}  // namespace

extern "C" {

// Opens a model of `count` pieces, to be closed again; piece i is bytes[starts[i]:starts[i + 1]], not empty.
// byte_ids: of the 256 bytes, or null without byte fallback. prefix: whether a space goes before every text.
// Returns null when memory runs out.
Model* pieces_open(const char* bytes, const Size* starts, const Byte* kinds, const float* scores, Size count,
                   const int32_t* byte_ids, Size unknown, Size prefix) {
    try {
        return new Model(bytes, starts, kinds, scores, count, byte_ids, unknown, prefix);
    } catch (...) {
        return nullptr;
    }
}

void pieces_close(Model* model) { delete model; }

// Returns the room, in ids, that `pieces_encode` needs for `count` texts of `size` bytes together.
Size pieces_room(const Model* model, Size size, Size count) {
    return model->factor() * (size + count) + SLACK * count;
}

// Encodes texts, text i = bytes[starts[i]:starts[i + 1]], one after the other; the ids of text i begin at
// offsets[i]. Returns how many ids there are, -1 when memory runs out.
Size pieces_encode(Model* model, const Byte* bytes, const Size* starts, Size count, Size threads,
                   int32_t* ids, Size* offsets) {
    std::atomic<Size> next{0};
    std::atomic<bool> failed{false};
    const auto room = [&](Size text) { return ids + pieces_room(model, starts[text], text); };
    const auto work = [&] {
        try {
            std::unique_ptr<Worker> worker = model->take();
            for (Size text; (text = next++) < count && !failed;) {
                const Size size = starts[text + 1] - starts[text];
                int32_t* first = room(text);
                offsets[text + 1] = model->encode(*worker, bytes + starts[text], size, first) - first;
            }
            model->give_back(std::move(worker));
        } catch (...) {
            failed = true;
        }
    };
    std::vector<std::thread> others;
    try {
        for (Size other = 1; other < std::min(threads, count); ++other) others.emplace_back(work);
    } catch (...) {  // fewer threads do as well
    }
    work();
    for (std::thread& other : others) other.join();
    if (failed) return -1;
    offsets[0] = 0;
    for (Size text = 0; text < count; ++text) {
        std::memmove(ids + offsets[text], room(text), offsets[text + 1] * sizeof *ids);
        offsets[text + 1] += offsets[text];
    }
    return offsets[count];
}
}
