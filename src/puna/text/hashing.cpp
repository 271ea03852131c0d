// The loops over characters of `dedup`: hashes of normalised lines, of shingles of words, MinHash signatures, and a set of hashes.
//
// Text comes as UTF-8; tables over code points say what each character becomes (hashing.py makes them, and does the same in numpy).
// One thread, whole numbers only: every result is the same on every machine.

#include <cstdint>
#include <vector>

typedef int64_t Size;

namespace {

constexpr uint64_t GOLDEN = 0x9E3779B97F4A7C15u;
constexpr uint64_t NEXT_WORD = 0xD6E8FEB86659FD93u;
constexpr uint32_t SPACE = 1u << 31, DELETED = 1u << 30;     // flags of the table for lines, above 21 bits of a code point
constexpr uint64_t SEPARATOR = 0, ALONE = 1ull << 63, SKIP = ALONE;  // of the table for words, above three times 21 bits
constexpr uint32_t CODE = (1u << 21) - 1;

// The finaliser of SplitMix64 (Steele, Lea and Flood 2014; constants of Stafford's variant 13).
inline uint64_t mix(uint64_t x) {
    x = (x ^ (x >> 30)) * 0xBF58476D1CE4E5B9u;
    x = (x ^ (x >> 27)) * 0x94D049BB133111EBu;
    return x ^ (x >> 31);
}

// The next code point; never reads beyond `end`, gives more than 0x10FFFF or takes several bytes for ASCII, whatever the bytes are.
inline uint32_t decode(const uint8_t*& at, const uint8_t* end) {
    const uint32_t first = *at++;
    if (first < 0x80) return first;
    const Size more = first >= 0xF0 ? 3 : first >= 0xE0 ? 2 : 1;
    uint32_t code = first & (0x3Fu >> more);
    for (Size i = 0; i < more && at < end; i++) code = code << 6 | (*at++ & 0x3Fu);
    return code < 0x80 || code > 0x10FFFF ? 0xFFFD : code;
}

// Hashes of all runs of `n` words, given one after the other to `found`; of all words together where there are fewer.
template <class Found>
void each_shingle(const uint8_t* at, const uint8_t* end, const uint64_t* table, Size n, std::vector<uint64_t>& words, Found found) {
    words.clear();
    uint64_t sum = 0, place = 0;
    const auto finish = [&] {
        if (place) words.push_back(sum);
        sum = place = 0;
    };
    while (at < end) {
        const uint64_t entry = table[decode(at, end)];
        if (entry == SKIP) continue;
        if (entry == SEPARATOR) {
            finish();
            continue;
        }
        if (entry & ALONE) finish();
        for (uint64_t rest = entry & ~ALONE; rest; rest >>= 21) sum += mix((rest & CODE) + (place += GOLDEN));
        if (entry & ALONE) finish();
    }
    finish();
    const Size count = static_cast<Size>(words.size()), width = count < n ? count : n;
    for (Size first = 0; width && first + width <= count; first++) {
        uint64_t shingle = 0;
        for (Size i = 0; i < width; i++) shingle = shingle * NEXT_WORD + words[first + i];
        found(mix(shingle));
    }
}

inline Size slot_of(uint64_t hash, Size slots) { return static_cast<Size>(static_cast<unsigned __int128>(mix(hash)) * slots >> 64); }

// Where `hash` is in the table or would go; 0 marks an empty slot. The table is never full.
inline Size find(const uint64_t* table, Size slots, uint64_t hash) {
    Size slot = slot_of(hash, slots);
    while (table[slot] && table[slot] != hash) slot = slot + 1 == slots ? 0 : slot + 1;
    return slot;
}

}  // namespace

extern "C" {

// hashes: one for each line, that is for each '\n' of the text and one more.
void line_hashes(const uint8_t* text, Size bytes, const uint32_t* table, uint64_t* hashes) {
    const uint8_t *at = text, *end = text + bytes;
    for (bool newline = true; newline; hashes++) {
        uint64_t sum = 0, place = 0, kept = 0, kept_place = 0;  // kept: up to the last character that is not white space
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
            if (!(entry & DELETED)) sum += mix((entry & CODE) + (place += GOLDEN));
            if (!space) kept = sum, kept_place = place;
        }
        *hashes = !kept_place ? 0 : kept ? kept : 1;
    }
}

// out: room for bytes / 2 + 1 hashes. Gives their number.
Size shingles(const uint8_t* text, Size bytes, const uint64_t* table, Size n, uint64_t* out) {
    std::vector<uint64_t> words;
    Size count = 0;
    each_shingle(text, text + bytes, table, n, words, [&](uint64_t hash) { out[count++] = hash; });
    return count;
}

// signatures [documents, k]: minima of (hash * multiplier + addition) mod 2^32 over the shingles of text[ends[d - 1]..ends[d]].
void signatures(const uint8_t* text, const int64_t* ends, Size documents, const uint64_t* table, Size n, const uint32_t* multipliers,
                const uint32_t* additions, Size k, uint32_t* out) {
    std::vector<uint64_t> words;
    for (Size document = 0; document < documents; document++, out += k) {
        for (Size i = 0; i < k; i++) out[i] = UINT32_MAX;
        const uint8_t* at = text + (document ? ends[document - 1] : 0);
        uint32_t* __restrict__ least = out;
        each_shingle(at, text + ends[document], table, n, words, [&](uint64_t hash) {
            const uint32_t short_hash = static_cast<uint32_t>(hash >> 32);
            for (Size i = 0; i < k; i++) {
                const uint32_t value = short_hash * multipliers[i] + additions[i];
                least[i] = value < least[i] ? value : least[i];
            }
        });
    }
}

// first[i]: whether hashes[i] was not in the table; it is put there. Stops before a new hash when `room` are put; gives how many
// hashes were worked on. Hash 0 is always new and never put. *count grows by what was put.
Size first_time(uint64_t* table, Size slots, Size room, const uint64_t* hashes, Size n, uint8_t* first, int64_t* count) {
    constexpr Size AHEAD = 16;  // slots are far apart in memory: ask for them early
    for (Size i = 0; i < n; i++) {
        if (i + AHEAD < n) __builtin_prefetch(table + slot_of(hashes[i + AHEAD], slots));
        first[i] = 1;
        if (hashes[i] == 0) continue;
        const Size slot = find(table, slots, hashes[i]);
        first[i] = table[slot] == 0;
        if (!first[i]) continue;
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
