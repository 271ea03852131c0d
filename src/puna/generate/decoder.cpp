// One step of the decoder for a batch of rows on a CPU: rows are tokens of any number of sequences, each of
// which has read its earlier tokens into blocks of a common store of keys and values.
//
// What a row gives depends on its own sequence alone, bit by bit: every element of a product is one chain of
// fused additions along the depth, in whatever tile of rows it is computed; a row's attention goes over the
// blocks of its sequence in their order; and nothing is summed by two threads. So neither the other rows, nor
// the number of threads, nor the pieces in which a prompt is read change a result.
//
// Weights are packed once into panels of PANEL columns (rows of a linear layer's weight), as float32, as
// bfloat16 in words of two that follow each other along the depth, or as 8-bit integers with a scale a
// column.

#include <array>
#include <cmath>
#include <utility>
#include <vector>
#if defined(__AVX2__)
#include <immintrin.h>
#endif

#include "../model/products.h"

namespace {

constexpr int PANEL = 2 * WIDTH;
constexpr int TALL = WIDTH == 16 ? 12 : 6;  // rows of a tile: its sums fill the registers
constexpr Size KEYS = 16;                   // positions of a block of keys and values
constexpr Size CHUNK = 1024;                // logits whose exponentials are summed in float32

// Elements of activations for weights W.
template <class W> struct OperandOf { typedef float type; };
template <> struct OperandOf<Bfloat16> { typedef Bfloat16 type; };
template <class W> using Operand = typename OperandOf<W>::type;

// Bytes of a packed matrix's row of PANEL elements.
template <class W> constexpr Size STEP = sizeof(W) * (sizeof(W) == 2 ? 2 : 1) * PANEL;

INLINE Vector load(const float* from) { return *reinterpret_cast<const Vector*>(from); }
INLINE Vector load(const Bfloat16* from) { return *reinterpret_cast<const Vector*>(from); }
INLINE Vector load(const int8_t* from) {
#if defined(__AVX512F__)
    const __m512i wide = _mm512_cvtepi8_epi32(_mm_loadu_si128(reinterpret_cast<const __m128i*>(from)));
    return (Vector)_mm512_cvtepi32_ps(wide);
#elif defined(__AVX2__)
    const __m256i wide = _mm256_cvtepi8_epi32(_mm_loadl_epi64(reinterpret_cast<const __m128i*>(from)));
    return (Vector)_mm256_cvtepi32_ps(wide);
#else
    Vector out;
    for (int i = 0; i < WIDTH; ++i) out[i] = from[i];
    return out;
#endif
}

// A tile of c [R, PANEL] (+)= a [R, depth] b [depth, PANEL]; a lies as [words of the depth][R].
template <class W, int R>
void tile(Size depth, const Word* a, const char* b, const float* scales, float* c, Size stride, bool add) {
    typedef Operand<W> E;
    Vector sums[R][2] = {};
#pragma GCC unroll 4
    for (Size k = 0; k < words<E>(depth); ++k) {
        const W* from = reinterpret_cast<const W*>(b + k * STEP<W>);
        const Vector left = load(from), right = load(from + WIDTH * PER_WORD<E>);
        for (int i = 0; i < R; ++i) {
            sums[i][0] = multiply_add<E>(sums[i][0], a[k * R + i], left);
            sums[i][1] = multiply_add<E>(sums[i][1], a[k * R + i], right);
        }
    }
    for (int i = 0; i < R; ++i)
        for (int j = 0; j < 2; ++j) {
            Vector sum = sums[i][j];
            if (scales) sum *= load(scales + j * WIDTH);
            Vector* to = reinterpret_cast<Vector*>(c + i * stride + j * WIDTH);
            *to = add ? *to + sum : sum;
        }
}

typedef void (*Tile)(Size, const Word*, const char*, const float*, float*, Size, bool);
template <class W, int... R>
constexpr std::array<Tile, sizeof...(R)> tiles(std::integer_sequence<int, R...>) {
    return {&tile<W, R + 1>...};
}

Size panels(Size columns) { return (columns + PANEL - 1) / PANEL; }
template <class W> Size packed_bytes(Size depth) { return words<Operand<W>>(depth) * STEP<W>; }

struct Matrix {
    const char* data;
    const float* scales;
    Size depth, columns;
};

// Rows of operands as products want them: tiles of TALL rows one after the other, the last one lower.
template <class E>
struct Rows {
    Word* data;
    Size rows, depth;
    Size height(Size tile) const { return std::min<Size>(TALL, rows - tile * TALL); }
    Word* at(Size tile) const { return data + tile * TALL * words<E>(depth); }
    Size count() const { return (rows + TALL - 1) / TALL; }
    void put(Size row, Size k, float value) const {
        const Size tile = row / TALL, i = row % TALL, high = height(tile);
        typedef E Element __attribute__((may_alias));
        Element* to = reinterpret_cast<Element*>(at(tile) + k / PER_WORD<E> * high + i);
        store(to[k % PER_WORD<E>], value);
    }
    // The odd end of the depth: zeros beside its last element.
    void end(Size row) const {
        if (depth % PER_WORD<E>) put(row, depth, 0.0f);
    }
};

// c [rows, columns in whole panels] (+)= a weight'. Called by all threads.
template <class W>
void product(const Rows<Operand<W>>& a, const Matrix& weight, float* c, Size stride, bool add) {
    static constexpr auto by_height = tiles<W>(std::make_integer_sequence<int, TALL>());
    const Size bytes = packed_bytes<W>(weight.depth);
#pragma omp for schedule(dynamic, 1)
    for (Size panel = 0; panel < panels(weight.columns); ++panel)
        for (Size t = 0; t < a.count(); ++t)
            by_height[a.height(t) - 1](weight.depth, a.at(t), weight.data + panel * bytes,
                weight.scales ? weight.scales + panel * PANEL : nullptr,
                c + t * TALL * stride + panel * PANEL, stride, add);
}

// RMSNorm of chosen rows of x, as operands. Called by all threads.
template <class E>
void norm(const float* x, Size stride, const int32_t* chosen, const float* weight, const Rows<E>& out,
        float eps) {
#pragma omp for schedule(static)
    for (Size r = 0; r < out.rows; ++r) {
        const float* from = x + (chosen ? chosen[r] : r) * stride;
        float squares = 0.0f;
#pragma omp simd reduction(+ : squares)
        for (Size i = 0; i < out.depth; ++i) squares += from[i] * from[i];
        const float scale = 1.0f / std::sqrt(squares / out.depth + eps);
        for (Size i = 0; i < out.depth; ++i) out.put(r, i, from[i] * scale * weight[i]);
        out.end(r);
    }
}

template <class E>
void swiglu(const float* both, Size stride, const Rows<E>& out) {
#pragma omp for schedule(static)
    for (Size r = 0; r < out.rows; ++r) {
        const float *gate = both + r * stride, *up = gate + out.depth;
        for (Size begin = 0; begin < out.depth; begin += 64) {
            float values[64];
            const Size count = std::min<Size>(64, out.depth - begin);
#pragma omp simd
            for (Size i = 0; i < count; ++i) {
                const float a = gate[begin + i];
                values[i] = a / (1.0f + exponential(-a)) * up[begin + i];
            }
            for (Size i = 0; i < count; ++i) out.put(r, begin + i, values[i]);
        }
        out.end(r);
    }
}

float total(Vector sums) {
    float sum = 0.0f;
    for (int i = 0; i < WIDTH; ++i) sum += sums[i];
    return sum;
}

// scores [R, blocks * KEYS] = q k' for the blocks of a sequence; q lies as [width][R], a block of keys as
// [width][KEYS].
template <int R>
void score(const float* q, const float* keys, const int32_t* table, Size blocks, Size apart, Size width,
        float* scores, Size stride) {
    constexpr int C = KEYS / WIDTH;
    for (Size b = 0; b < blocks; ++b) {
        const float* block = keys + table[b] * apart;
        Vector sums[R][C] = {};
        for (Size k = 0; k < width; ++k)
            for (int j = 0; j < C; ++j) {
                const Vector row = load(block + k * KEYS + j * WIDTH);
                for (int i = 0; i < R; ++i) sums[i][j] += q[k * R + i] * row;
            }
        for (int i = 0; i < R; ++i)
            for (int j = 0; j < C; ++j)
                *reinterpret_cast<Vector*>(scores + i * stride + b * KEYS + j * WIDTH) = sums[i][j];
    }
}

// out [R, wide] = scores [R, blocks * KEYS] v; a block of values lies as [KEYS][wide].
template <int R>
void weigh(const float* scores, Size stride, const float* values, const int32_t* table, Size blocks,
        Size apart, Size wide, float* out) {
    for (Size j = 0; j < wide; j += WIDTH) {
        Vector sums[R] = {};
        for (Size b = 0; b < blocks; ++b) {
            const float* block = values + table[b] * apart + j;
            for (Size t = 0; t < KEYS; ++t) {
                const Vector row = load(block + t * wide);
                for (int i = 0; i < R; ++i) sums[i] += scores[i * stride + b * KEYS + t] * row;
            }
        }
        for (int i = 0; i < R; ++i) *reinterpret_cast<Vector*>(out + i * wide + j) = sums[i];
    }
}

typedef void (*Score)(const float*, const float*, const int32_t*, Size, Size, Size, float*, Size);
typedef void (*Weigh)(const float*, Size, const float*, const int32_t*, Size, Size, Size, float*);
template <int... R>
constexpr std::array<Score, sizeof...(R)> scorers(std::integer_sequence<int, R...>) {
    return {&score<R + 1>...};
}
template <int... R>
constexpr std::array<Weigh, sizeof...(R)> weighers(std::integer_sequence<int, R...>) {
    return {&weigh<R + 1>...};
}

// Scores of the keys up to a row's position become shares that sum to 1; those behind it become 0.
void softmax(float* scores, Size keys, Size all, float scale) {
    float top = -INFINITY;
#pragma omp simd reduction(max : top)
    for (Size j = 0; j < keys; ++j) top = std::max(top, scores[j]);
    Vector sums = {};
    for (Size j = keys; j < all; ++j) scores[j] = 0.0f;
    for (Size j = 0; j < all; j += WIDTH) {
        float part[WIDTH];
#pragma omp simd
        for (int i = 0; i < WIDTH; ++i) part[i] = exponential((scores[j + i] - top) * scale);
        for (int i = 0; i < WIDTH && j + i >= keys; ++i) part[i] = 0.0f;
        if (j < keys && j + WIDTH > keys)
            for (Size i = keys - j; i < WIDTH; ++i) part[i] = 0.0f;
        std::memcpy(scores + j, part, sizeof part);
        sums += load(part);
    }
    const float share = 1.0f / total(sums);
#pragma omp simd
    for (Size j = 0; j < all; ++j) scores[j] *= share;
}

// Rows that follow each other in one sequence.
struct Run {
    int32_t first, rows, position;
};

struct Shape {
    Size layers, dim, heads, kv_heads, width, ffn, vocab, rows, runs, table, wanted, blocks;
};

// Queries of one run that share keys: pairs (row, head of the group) from `pair` on.
struct Task {
    Size run, kv_head, pair;
};

struct Store {
    float *keys, *values;  // of a layer: [blocks, kv_heads, width, KEYS], [blocks, kv_heads, KEYS, wide]
    Size wide;
};

// Rotate a row's queries and keys, and keep its keys and values. Called by all threads.
void keep(const Shape& s, const Run* runs, const int32_t* tables, const float* cosine, const float* sine,
        float* qkv, Size stride, const Store& store) {
    const Size half = s.width / 2;
    for (Size run = 0; run < s.runs; ++run)
#pragma omp for schedule(static) nowait
        for (Size r = 0; r < runs[run].rows; ++r) {
            const Size position = runs[run].position + r;
            const float *c = cosine + position * half, *turn = sine + position * half;
            float* row = qkv + (runs[run].first + r) * stride;
            for (Size h = 0; h < s.heads + s.kv_heads; ++h)
                for (Size i = 0; i < half; ++i) {
                    float* pair = row + h * s.width + 2 * i;
                    const float even = pair[0], odd = pair[1];
                    pair[0] = even * c[i] - odd * turn[i];
                    pair[1] = even * turn[i] + odd * c[i];
                }
            const Size block = tables[run * s.table + position / KEYS], t = position % KEYS;
            for (Size h = 0; h < s.kv_heads; ++h) {
                const float *k = row + (s.heads + h) * s.width, *v = k + s.kv_heads * s.width;
                float* keys = store.keys + (block * s.kv_heads + h) * s.width * KEYS + t;
                for (Size i = 0; i < s.width; ++i) keys[i * KEYS] = k[i];
                std::memcpy(store.values + ((block * s.kv_heads + h) * KEYS + t) * store.wide, v,
                    s.width * sizeof(float));
            }
        }
#pragma omp barrier
}

template <class E>
void attend(const Shape& s, const Run* runs, const int32_t* tables, const std::vector<Task>& tasks,
        const float* qkv, Size stride, const Store& store, const Rows<E>& out) {
    static constexpr auto score_by = scorers(std::make_integer_sequence<int, TALL>());
    static constexpr auto weigh_by = weighers(std::make_integer_sequence<int, TALL>());
    static thread_local std::vector<float> kept;
    const Size group = s.heads / s.kv_heads, apart_keys = s.kv_heads * s.width * KEYS,
        apart_values = s.kv_heads * KEYS * store.wide;
    const float scale = 1.0f / std::sqrt(static_cast<float>(s.width));
#pragma omp for schedule(dynamic, 1)
    for (Size number = 0; number < static_cast<Size>(tasks.size()); ++number) {
        const Task& task = tasks[number];
        const Run& run = runs[task.run];
        const Size high = std::min<Size>(TALL, run.rows * group - task.pair);
        const Size keys = run.position + (task.pair + high - 1) / group + 1;  // that the last row sees
        const Size blocks = (keys + KEYS - 1) / KEYS, all = blocks * KEYS, apart = all + KEYS;
        kept.resize(std::max<Size>(kept.size(), TALL * (apart + s.width + store.wide)));
        float *scores = kept.data(), *queries = scores + TALL * apart, *sums = queries + TALL * s.width;
        for (Size i = 0; i < high; ++i) {
            const Size pair = task.pair + i, head = task.kv_head * group + pair % group;
            const float* q = qkv + (run.first + pair / group) * stride + head * s.width;
            for (Size k = 0; k < s.width; ++k) queries[k * high + i] = q[k];
        }
        const int32_t* table = tables + task.run * s.table;
        score_by[high - 1](queries, store.keys + task.kv_head * s.width * KEYS, table, blocks, apart_keys,
            s.width, scores, apart);
        for (Size i = 0; i < high; ++i)
            softmax(scores + i * apart, run.position + (task.pair + i) / group + 1, all, scale);
        weigh_by[high - 1](scores, apart, store.values + task.kv_head * KEYS * store.wide, table, blocks,
            apart_values, store.wide, sums);
        for (Size i = 0; i < high; ++i) {
            const Size pair = task.pair + i, head = task.kv_head * group + pair % group;
            for (Size k = 0; k < s.width; ++k)
                out.put(run.first + pair / group, head * s.width + k, sums[i * store.wide + k]);
        }
    }
    // Each row's end belongs to nobody above.
#pragma omp for schedule(static)
    for (Size r = 0; r < out.rows; ++r) out.end(r);
}

// weights: the embedding, the last norm's weight, the head and its scales; then of each layer the first
// norm's weight, the products q k v, o, the second norm's weight, gate and up, down, each with its scales.
template <class W>
void step(const Shape& s, const void* const* weights, const int64_t* tokens, const float* cosine,
        const float* sine, const Run* runs, const int32_t* tables, const int32_t* wanted, float* keys,
        float* values, float* logits, float eps) {
    typedef Operand<W> E;
    const Size q_dim = s.heads * s.width, kv_dim = s.kv_heads * s.width, group = s.heads / s.kv_heads;
    const Size stride = panels(s.dim) * PANEL, wide = padded(s.width);
    const Size apart = PANEL * panels(std::max(q_dim + 2 * kv_dim, 2 * s.ffn));
    const Size deepest = std::max(std::max(q_dim, s.dim), s.ffn);
    static thread_local std::vector<float> kept;
    kept.resize(std::max<Size>(kept.size(), s.rows * (stride + apart + words<E>(deepest))));
    float *x = kept.data(), *between = x + s.rows * stride;
    Word* packed = between + s.rows * apart;
    const Rows<E> narrow{packed, s.rows, s.dim}, heads{packed, s.rows, q_dim}, ffn{packed, s.rows, s.ffn},
        last{packed, s.wanted, s.dim};
    const Size layer_keys = s.blocks * kv_dim * KEYS, layer_values = s.blocks * s.kv_heads * KEYS * wide;
    const float* table = static_cast<const float*>(weights[0]);
    const auto matrix = [&](Size at, Size depth, Size columns) {
        return Matrix{static_cast<const char*>(weights[at]), static_cast<const float*>(weights[at + 1]),
            depth, columns};
    };
    std::vector<Task> tasks;
    for (Size run = 0; run < s.runs; ++run)
        for (Size head = 0; head < s.kv_heads; ++head)
            for (Size pair = 0; pair < runs[run].rows * group; pair += TALL)
                tasks.push_back({run, head, pair});
#pragma omp parallel
    {
#pragma omp for schedule(static)
        for (Size r = 0; r < s.rows; ++r) {
            std::memcpy(x + r * stride, table + tokens[r] * s.dim, s.dim * sizeof(float));
            std::fill(x + r * stride + s.dim, x + (r + 1) * stride, 0.0f);
        }
        for (Size layer = 0; layer < s.layers; ++layer) {
            const Size at = 4 + layer * 10;
            const Store store{keys + layer * layer_keys, values + layer * layer_values, wide};
            norm(x, stride, nullptr, static_cast<const float*>(weights[at]), narrow, eps);
            product<W>(narrow, matrix(at + 1, s.dim, q_dim + 2 * kv_dim), between, apart, false);
            keep(s, runs, tables, cosine, sine, between, apart, store);
            attend(s, runs, tables, tasks, between, apart, store, heads);
            product<W>(heads, matrix(at + 3, q_dim, s.dim), x, stride, true);
            norm(x, stride, nullptr, static_cast<const float*>(weights[at + 5]), narrow, eps);
            product<W>(narrow, matrix(at + 6, s.dim, 2 * s.ffn), between, apart, false);
            swiglu(between, apart, ffn);
            product<W>(ffn, matrix(at + 8, s.ffn, s.dim), x, stride, true);
        }
        norm(x, stride, wanted, static_cast<const float*>(weights[1]), last, eps);
        product<W>(last, matrix(2, s.dim, s.vocab), logits, panels(s.vocab) * PANEL, false);
    }
}

// Pack a weight [columns, depth] into panels, zeros behind its last column.
template <class W>
void pack(const float* weight, Size columns, Size depth, char* out, float* scales) {
    typedef Operand<W> E;
    constexpr Size pair = PER_WORD<E>;
    const Size bytes = packed_bytes<W>(depth);
#pragma omp parallel for schedule(static)
    for (Size panel = 0; panel < panels(columns); ++panel) {
        W* to = reinterpret_cast<W*>(out + panel * bytes);
        for (Size j = 0; j < PANEL; ++j) {
            const Size column = panel * PANEL + j;
            const float* from = weight + column * depth;
            float largest = 0.0f;
            if (sizeof(W) == 1) {
                for (Size k = 0; column < columns && k < depth; ++k)
                    largest = std::max(largest, std::abs(from[k]));
                scales[column] = largest / 127.0f;
            }
            for (Size k = 0; k < words<E>(depth) * pair; ++k) {
                const float value = column < columns && k < depth ? from[k] : 0.0f;
                W& place = to[(k / pair * PANEL + j) * pair + k % pair];
                if constexpr (sizeof(W) == 1)
                    place = static_cast<int8_t>(largest > 0.0f ? std::lrint(value / largest * 127.0f) : 0);
                else
                    store(place, value);
            }
        }
    }
}

}  // namespace

extern "C" {

Size panel_columns() { return PANEL; }

#define DECODER(NAME, W) \
    void pack_##NAME(const float* weight, Size columns, Size depth, char* out, float* scales) { \
        pack<W>(weight, columns, depth, out, scales); \
    } \
    void step_##NAME(const Size* shape, const void* const* weights, const int64_t* tokens, \
            const float* cosine, const float* sine, const int32_t* runs, const int32_t* tables, \
            const int32_t* wanted, float* keys, float* values, float* logits, float eps) { \
        step<W>(*reinterpret_cast<const Shape*>(shape), weights, tokens, cosine, sine, \
            reinterpret_cast<const Run*>(runs), tables, wanted, keys, values, logits, eps); \
    }
DECODER(float32, float)
DECODER(bfloat16, Bfloat16)
DECODER(int8, int8_t)

// log sum exp of each row of logits [rows, columns], float64 [rows].
void log_sums(const float* logits, Size rows, Size stride, Size columns, double* out) {
#pragma omp parallel for schedule(static)
    for (Size r = 0; r < rows; ++r) {
        const float* from = logits + r * stride;
        float top = -INFINITY;
#pragma omp simd reduction(max : top)
        for (Size i = 0; i < columns; ++i) top = std::max(top, from[i]);
        double sum = 0.0;
        for (Size begin = 0; begin < columns; begin += CHUNK) {
            const Size count = std::min<Size>(CHUNK, columns - begin);
            float part = 0.0f;
#pragma omp simd reduction(+ : part)
            for (Size i = 0; i < count; ++i) part += exponential(from[begin + i] - top);
            sum += part;
        }
        out[r] = top + std::log(sum);
    }
}
}
