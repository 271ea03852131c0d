// Scores of blocks by oblivious trees, as `apply` in main_text.py does without a compiler. Sums of integers,
// so the same in any order.

#include <algorithm>
#include <cstdint>
#include <vector>

typedef int64_t Size;

namespace {

constexpr Size AT_ONCE = 64;  // blocks whose leaves are found together
constexpr Size DEPTH = 4;     // levels of a tree

}  // namespace

// Adds to `scores`, [blocks], what each of the trees gives. columns: [features, blocks]; features and
// thresholds: [trees, DEPTH]; values: [trees, 1 << DEPTH].
extern "C" void trees_add(const double* columns, Size blocks, Size column_count, const Size* features,
                          const double* thresholds, const Size* values, Size trees, Size* scores) {
    std::vector<double> tile(column_count * AT_ONCE);
    int32_t leaf[AT_ONCE];
    Size sums[AT_ONCE];
    for (Size start = 0; start < blocks; start += AT_ONCE) {
        const Size count = std::min(AT_ONCE, blocks - start);
        for (Size column = 0; column < column_count; column++)
            std::copy_n(columns + column * blocks + start, count, tile.data() + column * AT_ONCE);
        for (Size& sum : sums) sum = 0;
        for (Size tree = 0; tree < trees; tree++) {
            const double* column[DEPTH];
            double least[DEPTH];
            for (Size level = 0; level < DEPTH; level++) {
                column[level] = tile.data() + features[tree * DEPTH + level] * AT_ONCE;
                least[level] = thresholds[tree * DEPTH + level];
            }
            for (Size i = 0; i < AT_ONCE; i++) {
                leaf[i] = 0;
                for (Size level = 0; level < DEPTH; level++)
                    leaf[i] |= column[level][i] > least[level] ? 1 << level : 0;
            }
            const Size* of_tree = values + (tree << DEPTH);
            for (Size i = 0; i < AT_ONCE; i++) sums[i] += of_tree[leaf[i]];
        }
        for (Size i = 0; i < count; i++) scores[start + i] += sums[i];
    }
}
