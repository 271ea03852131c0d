// Scores of blocks by oblivious trees, as `apply` in main_text.py does without a compiler. Sums of integers,
// so the same in any order.

#include <algorithm>
#include <cstdint>

typedef int64_t Size;

namespace {

constexpr Size AT_ONCE = 64;  // blocks whose leaves are found together

}  // namespace

// Adds to `scores`, [blocks], what each of the trees gives. columns: [features, blocks]; features and
// thresholds: [trees, depth]; values: [trees, 1 << depth].
extern "C" void trees_add(const double* columns, Size blocks, const Size* features, const double* thresholds,
                          const Size* values, Size trees, Size depth, Size* scores) {
    Size leaf[AT_ONCE];
    for (Size start = 0; start < blocks; start += AT_ONCE) {
        const Size count = std::min(AT_ONCE, blocks - start);
        for (Size tree = 0; tree < trees; tree++) {
            std::fill(leaf, leaf + count, 0);
            for (Size level = 0; level < depth; level++) {
                const double* column = columns + features[tree * depth + level] * blocks + start;
                const double threshold = thresholds[tree * depth + level];
                for (Size i = 0; i < count; i++) leaf[i] |= static_cast<Size>(column[i] > threshold) << level;
            }
            const Size* of_tree = values + (tree << depth);
            for (Size i = 0; i < count; i++) scores[start + i] += of_tree[leaf[i]];
        }
    }
}
