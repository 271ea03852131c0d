// The loop over characters of fastText's prediction: the sum of the rows of a text's words and of their 2- to
// 4-grams of characters.
//
// Rows are integers (fasttext.py scales them), so the sum is the same in any order, on every machine and in
// numpy.

#include <cstdint>
#include <cstring>
#include <vector>

typedef int64_t Size;

namespace {

constexpr Size DIMENSIONS = 16, SHORTEST = 2, LONGEST = 4;
constexpr uint32_t OFFSET = 2166136261u, PRIME = 16777619u;  // FNV-1a

inline uint32_t hashed(uint32_t hash, uint8_t byte) {
    const int32_t with_sign = static_cast<int8_t>(byte);  // as in fastText
    return (hash ^ static_cast<uint32_t>(with_sign)) * PRIME;
}

inline bool space(uint8_t byte) { return byte == ' ' || (byte >= '\t' && byte <= '\r') || byte == 0; }

struct Model {
    const int32_t* slots;       // hash table of words, -1 where empty
    Size mask;                  // its size less one
    const uint8_t* names;       // words one after the other
    const int64_t* ends;        // where each ends
    const uint64_t* buckets;    // a bit for each bucket of n-grams that has a row
    const int32_t* ranks;       // rows of buckets before each 64
    Size bucket_count;
    Size words;                 // rows of words, which come before those of buckets
    const int32_t* rows;
};

inline void add(const Model& model, Size row, int64_t* sum) {
    const int32_t* values = model.rows + row * DIMENSIONS;
    for (Size i = 0; i < DIMENSIONS; i++) sum[i] += values[i];
}

// Returns the row of a word, -1 for an unknown one.
inline Size word_row(const Model& model, const uint8_t* at, Size size, uint32_t hash) {
    for (Size slot = hash & model.mask;; slot = (slot + 1) & model.mask) {
        const Size row = model.slots[slot];
        if (row < 0) return -1;
        const Size start = row ? model.ends[row - 1] : 0;
        if (model.ends[row] - start == size && !std::memcmp(model.names + start, at, size)) return row;
    }
}

// Adds the rows of the n-grams of a word between its marks < and >, as fastText counts characters of UTF-8;
// returns how many have one.
Size add_ngrams(const Model& model, const std::vector<uint8_t>& marked, int64_t* sum) {
    const uint8_t *const bytes = marked.data(), *const stop = bytes + marked.size();
    const uint32_t divisor = static_cast<uint32_t>(model.bucket_count);
    // Remainders without division (Lemire, Kaser and Kurz 2019).
    const uint64_t inverse = ~uint64_t(0) / divisor + 1;
    Size count = 0;
    for (const uint8_t* start = bytes; start < stop; start++) {
        if ((*start & 0xC0) == 0x80) continue;
        uint32_t hash = OFFSET;
        const uint8_t* at = start;
        for (Size n = 1; n <= LONGEST && at < stop; n++) {
            do hash = hashed(hash, *at++);
            while (at < stop && (*at & 0xC0) == 0x80);
            if (n < SHORTEST) continue;
            const unsigned __int128 product = static_cast<unsigned __int128>(inverse * hash) * divisor;
            const uint64_t bucket = static_cast<uint64_t>(product >> 64);
            const uint64_t bits = model.buckets[bucket >> 6], below = (uint64_t(1) << (bucket & 63)) - 1;
            if (!(bits >> (bucket & 63) & 1)) continue;
            add(model, model.words + model.ranks[bucket >> 6] + __builtin_popcountll(bits & below), sum);
            count++;
        }
    }
    return count;
}

}  // namespace

// Fills sum [16]; returns how many rows it adds up.
extern "C" Size row_sum(const uint8_t* text, Size size, const int32_t* slots, Size mask, const uint8_t* names,
                        const int64_t* ends, const uint64_t* buckets, const int32_t* ranks, Size bucket_count,
                        Size words, const int32_t* rows, int64_t* sum) {
    const Model model{slots, mask, names, ends, buckets, ranks, bucket_count, words, rows};
    Size count = 0;
    std::vector<uint8_t> marked;
    std::memset(sum, 0, DIMENSIONS * sizeof(int64_t));
    for (Size at = 0; at < size;) {
        if (space(text[at])) {
            at++;
            continue;
        }
        const Size start = at;
        uint32_t hash = OFFSET;
        marked.assign(1, '<');
        for (; at < size && !space(text[at]); at++) {
            hash = hashed(hash, text[at]);
            marked.push_back(text[at]);
        }
        marked.push_back('>');
        const Size row = word_row(model, text + start, at - start, hash);
        if (row >= 0) {
            add(model, row, sum);
            count++;
        }
        count += add_ngrams(model, marked, sum);
    }
    return count;
}
