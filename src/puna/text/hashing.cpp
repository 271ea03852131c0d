// Loops over characters for deduplication: hashes of normalised lines and of shingles of words, MinHash
// signatures, and a set of hashes.
//
// Text comes as UTF-8; tables over code points say what each character becomes (hashing.py makes them, and
// does the same in numpy). One thread, integers only: every result is the same on every machine.

#include <cstdint>
#include <vector>

typedef int64_t Size;

namespace {

constexpr uint64_t GOLDEN = 0x9E3779B97F4A7C15u;
constexpr uint64_t NEXT_WORD = 0xD6E8FEB86659FD93u;
// Flags of the table for lines, above the 21 bits of a code point.
constexpr uint32_t SPACE = 1u << 31, DELETED = 1u << 30;
// Entries and flags of the table for words, above three code points of 21 bits.
constexpr uint64_t SEPARATOR = 0, ALONE = 1ull << 63, SKIP = ALONE;
constexpr uint32_t CODE = (1u << 21) - 1;

// SplitMix64's finaliser (Steele, Lea and Flood 2014; constants of Stafford's variant 13).
inline uint64_t mix(uint64_t x) {
    x = (x ^ (x >> 30)) * 0xBF58476D1CE4E5B9u;
    x = (x ^ (x >> 27)) * 0x94D049BB133111EBu;
    return x ^ (x >> 31);
}

// Returns the next code point. Whatever the bytes are, it never reads beyond `end`, never returns more than
// 0x10FFFF, and returns ASCII for single bytes only.
inline uint32_t decode(const uint8_t*& at, const uint8_t* end) {
    const uint32_t first = *at++;
    if (first < 0x80) return first;
    const Size more = first >= 0xF0 ? 3 : first >= 0xE0 ? 2 : 1;
    uint32_t code = first & (0x3Fu >> more);
    for (Size i = 0; i < more && at < end; i++) code = code << 6 | (*at++ & 0x3Fu);
    return code < 0x80 || code > 0x10FFFF ? 0xFFFD : code;
}

// Calls `emit` with the hash of each run of `n` words in turn; of all words together where there are fewer.
template <class Emit>
void each_shingle(const uint8_t* at, const uint8_t* end, const uint64_t* table, Size n,
                  std::vector<uint64_t>& words, Emit emit) {
    words.clear();
    uint64_t sum = 0, offset = 0;  // offset: the position in the word times GOLDEN
    const auto finish = [&] {
        if (offset) words.push_back(sum);
        sum = offset = 0;
    };
    while (at < end) {
        const uint64_t entry = table[decode(at, end)];
        if (entry == SKIP) continue;
        if (entry == SEPARATOR) {
            finish();
            continue;
        }
        if (entry & ALONE) finish();
        for (uint64_t rest = entry & ~ALONE; rest; rest >>= 21)
            sum += mix((rest & CODE) + (offset += GOLDEN));
        if (entry & ALONE) finish();
    }
    finish();
    const Size count = static_cast<Size>(words.size()), width = count < n ? count : n;
    for (Size first = 0; width && first + width <= count; first++) {
        uint64_t shingle = 0;
        for (Size i = 0; i < width; i++) shingle = shingle * NEXT_WORD + words[first + i];
        emit(mix(shingle));
    }
}

inline Size slot_of(uint64_t hash, Size slots) {
    return static_cast<Size>(static_cast<unsigned __int128>(mix(hash)) * slots >> 64);
}

// Returns the slot where `hash` is or would go; 0 marks an empty slot. The table is never full.
inline Size find(const uint64_t* table, Size slots, uint64_t hash) {
    Size slot = slot_of(hash, slots);
    while (table[slot] && table[slot] != hash) slot = slot + 1 == slots ? 0 : slot + 1;
    return slot;
}

}  // namespace

extern "C" {

// Fills hashes: one for each line, that is for each '\n' of the text and one more.
void line_hashes(const uint8_t* text, Size bytes, const uint32_t* table, uint64_t* hashes) {
    const uint8_t *at = text, *end = text + bytes;
    for (bool newline = true; newline; hashes++) {
        uint64_t sum = 0, offset = 0;              // offset: the position in the line times GOLDEN
        uint64_t solid_sum = 0, solid_offset = 0;  // up to the last character that is not white space
        bool started = false;
        newline = false;
        while (at < end) {
            const uint32_t code = decode(at, end);
            if (code == '\n') {
                newline = true;
                break;
            }
            const uint32_t entry = table[code];
            const bool space = entry & SPACE;
            if (space && !started) continue;
            started = true;
            if (!(entry & DELETED)) sum += mix((entry & CODE) + (offset += GOLDEN));
            if (!space) solid_sum = sum, solid_offset = offset;
        }
        *hashes = !solid_offset ? 0 : solid_sum ? solid_sum : 1;
    }
}

// Fills out, which has room for bytes / 2 + 1 hashes; returns their number.
Size shingles(const uint8_t* text, Size bytes, const uint64_t* table, Size n, uint64_t* out) {
    std::vector<uint64_t> words;
    Size count = 0;
    each_shingle(text, text + bytes, table, n, words, [&](uint64_t hash) { out[count++] = hash; });
    return count;
}

// Fills out [documents, k]: minima of (hash * multiplier + addition) mod 2^32 over the shingles of
// text[ends[d - 1]..ends[d]].
void signatures(const uint8_t* text, const int64_t* ends, Size documents, const uint64_t* table, Size n,
                const uint32_t* multipliers, const uint32_t* additions, Size k, uint32_t* out) {
    std::vector<uint64_t> words;
    for (Size document = 0; document < documents; document++, out += k) {
        for (Size i = 0; i < k; i++) out[i] = UINT32_MAX;
        const uint8_t* at = text + (document ? ends[document - 1] : 0);
        uint32_t* __restrict__ minima = out;
        each_shingle(at, text + ends[document], table, n, words, [&](uint64_t hash) {
            const uint32_t short_hash = static_cast<uint32_t>(hash >> 32);
            for (Size i = 0; i < k; i++) {
                const uint32_t value = short_hash * multipliers[i] + additions[i];
                minima[i] = value < minima[i] ? value : minima[i];
            }
        });
    }
}

// Puts hashes into the table and fills is_new[i]: whether hashes[i] was not in it. Stops before a new hash
// once the table holds `room`; returns how many hashes were processed. Hash 0 is always new and never put.
// *count grows by what was put.
Size mark_new(uint64_t* table, Size slots, Size room, const uint64_t* hashes, Size n, uint8_t* is_new,
              int64_t* count) {
    constexpr Size AHEAD = 16;  // slots are far apart in memory: ask for them early
    for (Size i = 0; i < n; i++) {
        if (i + AHEAD < n) __builtin_prefetch(table + slot_of(hashes[i + AHEAD], slots));
        is_new[i] = 1;
        if (hashes[i] == 0) continue;
        const Size slot = find(table, slots, hashes[i]);
        is_new[i] = table[slot] == 0;
        if (!is_new[i]) continue;
        if (*count == room) return i;
        table[slot] = hashes[i];
        ++*count;
    }
    return n;
}

// Puts all hashes of one table into another.
void move(const uint64_t* table, Size slots, uint64_t* larger, Size larger_slots) {
    for (Size slot = 0; slot < slots; slot++)
        if (table[slot]) larger[find(larger, larger_slots, table[slot])] = table[slot];
}
}
