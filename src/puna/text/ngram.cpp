// The two loops of ngram.py that are slow as whole-array operations: counting n-grams and looking them up.
// Integers only, except for sums of stored logarithms in a fixed order, so both equal numpy's results. The
// lists of n-grams are explained in ngram.py.
#include <algorithm>
#include <cstdint>
#include <vector>

using std::int64_t;
using std::uint32_t;
using std::uint64_t;

namespace {

constexpr uint32_t ABSENT = UINT32_MAX;
constexpr std::size_t SMALL = 256;  // below it std::sort is faster than passes over 256 buckets
constexpr int64_t AHEAD = 12;       // tokens that memory is prefetched in advance

// Sorts items (token << 32 | position), which come in order of position, so a stable sort by token is enough.
void sort(std::vector<uint64_t>& group, std::vector<uint64_t>& spare, uint32_t largest) {
  if (group.size() < SMALL) {
    std::sort(group.begin(), group.end());
    return;
  }
  spare.resize(group.size());
  for (int shift = 32; shift < 64 && largest >> (shift - 32); shift += 8) {
    std::size_t starts[257] = {};
    for (uint64_t item : group) ++starts[(item >> shift & 255) + 1];
    for (int bucket = 0; bucket < 256; ++bucket) starts[bucket + 1] += starts[bucket];
    for (uint64_t item : group) spare[starts[item >> shift & 255]++] = item;
    group.swap(spare);
  }
}

}  // namespace

// Extends the n-grams of one order by one token; returns how many longer n-grams there are.
//   tokens [size]: the text. length: tokens of an n-gram here, without the new one.
//   positions: where the n-grams begin, all positions of the first one, then of the second...; repeats
//     [contexts]: how many positions each has; numbers [size]: the n-gram that begins at a position.
//     positions becomes the same list for the longer n-grams.
//   Out: next_numbers [size]; first_child [contexts + 1]; for each longer n-gram its last token, its repeats,
//     and its suffix: the n-gram without its first token; and, added to preceding [contexts], of how many
//     longer n-grams each one is the suffix.
extern "C" int64_t extend(const uint32_t* tokens, int64_t size, int64_t begin, int64_t length,
                          uint32_t* positions, const uint32_t* repeats, int64_t contexts,
                          const uint32_t* numbers, uint32_t* next_numbers, uint32_t* first_child,
                          uint32_t* last_tokens, uint32_t* next_repeats, uint32_t* suffixes,
                          uint32_t* preceding) {
  std::vector<uint64_t> group, spare;
  int64_t count = 0, read = 0, written = 0, all = 0;
  for (int64_t context = 0; context < contexts; ++context) all += repeats[context];
  for (int64_t context = 0; context < contexts; ++context) {
    first_child[context] = static_cast<uint32_t>(count);
    group.clear();
    uint32_t largest = 0;
    bool sorted = true;  // as many groups are from the start
    for (int64_t end = read + repeats[context]; read < end; ++read) {
      if (read + AHEAD < all) {
        const int64_t soon = positions[read + AHEAD];
        __builtin_prefetch(tokens + soon + length);
        __builtin_prefetch(numbers + soon + 1);
        __builtin_prefetch(next_numbers + soon, 1);
      }
      const int64_t next = positions[read] + length;
      if (next >= size || tokens[next] == begin) continue;  // the document ends here
      const uint64_t item = static_cast<uint64_t>(tokens[next]) << 32 | positions[read];
      sorted = sorted && (group.empty() || item > group.back());
      group.push_back(item);
      largest = std::max(largest, tokens[next]);
    }
    if (!sorted) sort(group, spare, largest);
    for (std::size_t item = 0; item < group.size(); ++item) {
      const uint32_t position = static_cast<uint32_t>(group[item]);
      const uint32_t token = static_cast<uint32_t>(group[item] >> 32);
      if (item == 0 || token != group[item - 1] >> 32) {
        last_tokens[count] = token;
        next_repeats[count] = 0;
        suffixes[count] = numbers[position + 1];
        ++preceding[suffixes[count]];
        ++count;
      }
      ++next_repeats[count - 1];
      next_numbers[position] = static_cast<uint32_t>(count - 1);
      positions[written++] = position;
    }
  }
  first_child[contexts] = static_cast<uint32_t>(count);
  return count;
}

// Scores a text with one more order. tokens [size]; contexts [size]: number of the n-gram that ends at each
// token, or ABSENT; longer: the same for the n-grams one token longer. scores [size] becomes the logarithm of
// the longest n-gram found so far plus those of the contexts that did not lead to a longer one.
// probabilities: of the longer n-grams; backoffs: of the contexts.
extern "C" void score(const uint32_t* tokens, int64_t size, int64_t begin, const uint32_t* first_child,
                      const uint32_t* last_tokens, const float* probabilities, const float* backoffs,
                      const uint32_t* contexts, uint32_t* longer, double* scores, int threads) {
  if (size == 0) return;
  longer[0] = ABSENT;
#pragma omp parallel for num_threads(threads) schedule(static)
  for (int64_t at = 1; at < size; ++at) {
    if (at + 2 * AHEAD < size && contexts[at + 2 * AHEAD - 1] != ABSENT)
      __builtin_prefetch(first_child + contexts[at + 2 * AHEAD - 1]);
    if (at + AHEAD < size && contexts[at + AHEAD - 1] != ABSENT) {
      __builtin_prefetch(last_tokens + first_child[contexts[at + AHEAD - 1]]);
      __builtin_prefetch(backoffs + contexts[at + AHEAD - 1]);
    }
    const uint32_t context = contexts[at - 1], token = tokens[at];
    longer[at] = ABSENT;
    if (context == ABSENT || token == begin) continue;
    const uint32_t* child = last_tokens + first_child[context];
    uint32_t left = first_child[context + 1] - first_child[context];
    const bool any = left != 0;
    for (; left > 1; left -= left / 2) child += child[left / 2 - 1] < token ? left / 2 : 0;
    if (any && *child == token) {
      longer[at] = static_cast<uint32_t>(child - last_tokens);
      scores[at] = probabilities[child - last_tokens];
    } else {
      scores[at] += backoffs[context];
    }
  }
}
