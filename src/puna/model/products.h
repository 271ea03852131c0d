// Products of small matrices in registers, of float32 or bfloat16, and how their operands are packed: what
// attention in kernels.cpp is made of.

#pragma once

#include <algorithm>
#include <cstdint>
#include <cstring>
#include <utility>

#if defined(__AVX512F__)
constexpr int WIDTH = 16, COLUMNS = 4;
#elif defined(__AVX__)
constexpr int WIDTH = 8, COLUMNS = 2;
#else
constexpr int WIDTH = 4, COLUMNS = 2;
#endif
constexpr int ROWS = 6;     // a tile of ROWS x COLUMNS vectors of a product's result is held in registers
constexpr int BLOCK = 64;   // queries and keys computed together: scores of 16 KB stay in the L1 cache
typedef float Vector __attribute__((vector_size(4 * WIDTH), aligned(4), may_alias));
typedef int32_t Bits __attribute__((vector_size(4 * WIDTH), aligned(4)));
typedef int64_t Size;
typedef int64_t Pairs __attribute__((vector_size(4 * WIDTH), aligned(4), may_alias));
typedef uint16_t Bfloat16;  // the upper half of a float32

// Loops are vectorised only where all that they call is inlined, which a compiler may leave in large files.
#define INLINE inline __attribute__((always_inline))

namespace {

INLINE float widen(float x) { return x; }
INLINE float widen(Bfloat16 x) { return __builtin_bit_cast(float, static_cast<uint32_t>(x) << 16); }

// To the nearest, ties to even; what is not a number stays none.
INLINE uint32_t rounded(float x) {
    const uint32_t bits = __builtin_bit_cast(uint32_t, x);
    return x != x ? 0x7fc0u : (bits + 0x7fffu + (bits >> 16 & 1u)) >> 16;
}
INLINE void store(float& to, float x) { to = x; }
INLINE void store(Bfloat16& to, float x) { to = static_cast<Bfloat16>(rounded(x)); }

// exp(x) to 2 units in the last place, without branches, so that loops over it are vectorised (Cephes'
// polynomial). x is clamped to [-60, 60]: 9e-27 vanishes beside 1 in float32, while subnormal numbers would
// cost a hundred times the time.
template <class Float, class Int>
INLINE Float exponential_of(Float x) {
    x = x < -60.0f ? Float{} - 60.0f : x;
    x = x > 60.0f ? Float{} + 60.0f : x;
    const Float shifted = x * 1.44269504088896341f + 12582912.0f;  // adding 1.5 * 2^23 rounds to an integer
    const Float whole = shifted - 12582912.0f;
    const Float rest = (x - whole * 0.693359375f) + whole * 2.12194440e-4f;
    Float p = 1.9875691500e-4f * rest + 1.3981999507e-3f;
    p = p * rest + 8.3334519073e-3f;
    p = p * rest + 4.1665795894e-2f;
    p = p * rest + 1.6666665459e-1f;
    p = p * rest + 5.0000001201e-1f;
    p = p * rest * rest + rest + 1.0f;
    return p * __builtin_bit_cast(Float, __builtin_bit_cast(Int, whole + 12583039.0f) << 23);
}
INLINE float exponential(float x) { return exponential_of<float, int32_t>(x); }
INLINE Vector exponential(Vector x) { return exponential_of<Vector, Bits>(x); }

// The number of each element of a vector, and the largest of its elements.
template <int... I>
constexpr Bits counted(std::integer_sequence<int, I...>) { return Bits{I...}; }
constexpr Bits LANES = counted(std::make_integer_sequence<int, WIDTH>());
INLINE float highest_lane(Vector x) {
    float lanes[WIDTH];
    std::memcpy(lanes, &x, sizeof x);
    for (int half = WIDTH / 2; half > 0; half /= 2)
        for (int i = 0; i < half; ++i) lanes[i] = std::max(lanes[i], lanes[i + half]);
    return lanes[0];
}

// The operands of a product lie in words of four bytes: one float32, or two bfloat16 that follow each other
// along the summed dimension, PER_WORD of its elements E.
typedef float Word __attribute__((may_alias));
template <class E>
constexpr Size PER_WORD = sizeof(Word) / sizeof(E);
template <class E>
inline const Word* words(const E* x) { return reinterpret_cast<const Word*>(x); }
template <class E>
inline Word* words(E* x) { return reinterpret_cast<Word*>(x); }
template <class E>
inline Size words(Size elements) { return (elements + PER_WORD<E> - 1) / PER_WORD<E>; }

// Of two bfloat16, as float32: the first, the second, and both from them.
constexpr int32_t UPPER = static_cast<int32_t>(0xffff0000);
INLINE float lower(Word pair) { return __builtin_bit_cast(float, __builtin_bit_cast(int32_t, pair) << 16); }
INLINE float upper(Word pair) { return __builtin_bit_cast(float, __builtin_bit_cast(int32_t, pair) & UPPER); }
INLINE Word both(float lower, float upper) {
    return __builtin_bit_cast(float, rounded(lower) | rounded(upper) << 16);
}

// sum + factor * row, by elements of words; of two bfloat16 both products.
template <class E>
INLINE Vector multiply_add(Vector sum, Word factor, Vector row) {
    if constexpr (PER_WORD<E> == 1) return sum + factor * row;
#if defined(__AVX512BF16__)
    const Bits factors = __builtin_bit_cast(int32_t, factor) - Bits{};
    // As an intrinsic its arguments have other types in each compiler.
    asm("vdpbf16ps %2, %1, %0" : "+v"(sum) : "v"(factors), "v"(row));
    return sum;
#else
    const Bits pairs = reinterpret_cast<Bits>(row);
    sum += lower(factor) * reinterpret_cast<Vector>(pairs << 16);
    return sum + upper(factor) * reinterpret_cast<Vector>(pairs & UPPER);
#endif
}

// One tile of c [R, C * WIDTH] (+)= a [R, depth] b [depth, C * WIDTH]; word (i, k) of a: a[i * ai + k * ak].
template <class E, int R, int C>
inline void tile(Size depth, const Word* a, Size ai, Size ak, const Word* b, Size bk, float* c, Size ci,
        bool add) {
    Vector sums[R][C] = {};
    for (Size k = 0; k < depth; ++k) {
        Vector row[C];
        for (int j = 0; j < C; ++j) row[j] = *reinterpret_cast<const Vector*>(b + k * bk + j * WIDTH);
        for (int i = 0; i < R; ++i) {
            const Word factor = a[i * ai + k * ak];
            for (int j = 0; j < C; ++j) sums[i][j] = multiply_add<E>(sums[i][j], factor, row[j]);
        }
    }
    for (int i = 0; i < R; ++i)
        for (int j = 0; j < C; ++j) {
            Vector* to = reinterpret_cast<Vector*>(c + i * ci + j * WIDTH);
            *to = add ? *to + sums[i][j] : sums[i][j];
        }
}

template <class E, int C>
inline void columns(Size m, Size depth, const Word* a, Size ai, Size ak, const Word* b, Size bk, float* c,
        Size ci, bool add) {
    Size i = 0;
    for (; i + ROWS <= m; i += ROWS) tile<E, ROWS, C>(depth, a + i * ai, ai, ak, b, bk, c + i * ci, ci, add);
    a += i * ai, c += i * ci;
    switch (m - i) {
        case 5: tile<E, 5, C>(depth, a, ai, ak, b, bk, c, ci, add); break;
        case 4: tile<E, 4, C>(depth, a, ai, ak, b, bk, c, ci, add); break;
        case 3: tile<E, 3, C>(depth, a, ai, ak, b, bk, c, ci, add); break;
        case 2: tile<E, 2, C>(depth, a, ai, ak, b, bk, c, ci, add); break;
        case 1: tile<E, 1, C>(depth, a, ai, ak, b, bk, c, ci, add); break;
    }
}

// c [m, n] (+)= a [m, depth] b [depth, n] of words, n a multiple of WIDTH.
template <class E>
inline void product(Size m, Size n, Size depth, const Word* a, Size ai, Size ak, const Word* b, Size bk,
        float* c, Size ci, bool add) {
    Size j = 0;
    for (; j + COLUMNS * WIDTH <= n; j += COLUMNS * WIDTH)
        columns<E, COLUMNS>(m, depth, a, ai, ak, b + j, bk, c + j, ci, add);
    const Size left = (n - j) / WIDTH;
    if (left == 3) columns<E, 3>(m, depth, a, ai, ak, b + j, bk, c + j, ci, add);
    if (left == 2) columns<E, 2>(m, depth, a, ai, ak, b + j, bk, c + j, ci, add);
    if (left == 1) columns<E, 1>(m, depth, a, ai, ak, b + j, bk, c + j, ci, add);
}

inline Size padded(Size width) { return (width + WIDTH - 1) / WIDTH * WIDTH; }

// The same where one operand is a block of scores on the diagonal, of which only column <= row counts.
enum Triangle {
    NONE,
    RESULT,  // c is the block: columns beyond the last row of a tile are not computed (nor written)
    ROW,     // a is the block: columns beyond the last row of a tile are not read
    COLUMN,  // a is the block transposed: rows before the first of a tile are not read
};

template <class E>
inline void product(Triangle triangle, Size m, Size n, Size depth, const Word* a, Size ai, Size ak,
        const Word* b, Size bk, float* c, Size ci, bool add) {
    static_assert(ROWS % PER_WORD<E> == 0, "a tile begins with a word");
    if (triangle == NONE) return product<E>(m, n, depth, a, ai, ak, b, bk, c, ci, add);
    for (Size i = 0; i < m; i += ROWS) {
        const Size rows = std::min<Size>(ROWS, m - i), end = i + rows,
            before = triangle == COLUMN ? words<E>(i) : 0;
        product<E>(rows, triangle == RESULT ? std::min(n, padded(end)) : n,
            (triangle == ROW ? std::min(depth, words<E>(end)) : depth) - before, a + i * ai + before * ak, ai,
            ak, b + before * bk, bk, c + i * ci, ci, add);
    }
}

// Copy the rows of one head, padded with zeros: out [words(length), padded(width)].
void pack(const float* x, Size stride, Size length, Size width, Word* out) {
    const Size wide = padded(width);
    for (Size t = 0; t < length; ++t) {
        std::memcpy(out + t * wide, x + t * stride, width * sizeof(float));
        std::fill(out + t * wide + width, out + (t + 1) * wide, 0.0f);
    }
}

// Two rows in one: lower halves of the words from the one, upper from the other.
void interleave(const Bfloat16* lower, const Bfloat16* upper, Size width, Word* out) {
    for (Size i = 0; i < width; ++i)
        out[i] = __builtin_bit_cast(float, lower[i] | static_cast<uint32_t>(upper ? upper[i] : 0) << 16);
}

void pack(const Bfloat16* x, Size stride, Size length, Size width, Word* out) {
    const Size wide = padded(width);
    for (Size t = 0; t < length; t += 2, out += wide) {
        interleave(x + t * stride, t + 1 < length ? x + (t + 1) * stride : nullptr, width, out);
        std::fill(out + width, out + wide, 0.0f);
    }
}

// The same, transposed block by block: out [blocks, words(width), BLOCK], zeros after the last row.
template <class E>
void pack_transposed(const E* x, Size stride, Size length, Size width, Word* out) {
    const Size blocks = (length + BLOCK - 1) / BLOCK, depth = words<E>(width);
    for (Size block = 0; block < blocks; ++block) {
        Word* to = out + block * depth * BLOCK;
        const Size count = std::min<Size>(BLOCK, length - block * BLOCK);
        if (count < BLOCK) std::fill(to, to + depth * BLOCK, 0.0f);
        for (Size t = 0; t < count; ++t) {
            const Word* from = words(x + (block * BLOCK + t) * stride);
            for (Size i = 0; i < depth; ++i) to[i * BLOCK + t] = from[i];
        }
    }
}

// A block of scores [count, BLOCK] as an operand whose words go along its rows, or down its columns. `room`
// is for what is rounded; float32 stays where it is.
template <class E>
const Word* along_rows(const float* block, Size count, Word* room) {
    if constexpr (PER_WORD<E> == 1) return block;
    typedef Bfloat16 Half __attribute__((may_alias));
    Half* to = reinterpret_cast<Half*>(room);
#pragma omp simd
    for (Size i = 0; i < count * BLOCK; ++i) to[i] = static_cast<Bfloat16>(rounded(block[i]));
    return room;
}

template <class E>
const Word* down_columns(float* block, Size count, Word* room) {
    if constexpr (PER_WORD<E> == 1) return block;
    if (count % 2) std::fill(block + count * BLOCK, block + (count + 1) * BLOCK, 0.0f);
    for (Size i = 0; i < count; i += 2) {
        const float* from = block + i * BLOCK;
        Word* to = room + i / 2 * BLOCK;
#pragma omp simd
        for (Size j = 0; j < BLOCK; ++j) to[j] = both(from[j], from[BLOCK + j]);
    }
    return room;
}

}  // namespace
