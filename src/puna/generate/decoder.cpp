// One step of the decoder for a batch of rows on a CPU: rows are tokens of any number of sequences, each of
// which has read its earlier tokens into blocks of a common store of keys and values.
//
// What a row gives depends on its own sequence alone, bit by bit: every element of a product is one chain of
// fused additions along the depth, in whatever tile of rows it is computed; a row's attention goes over the
// blocks of its sequence in their order; and nothing is summed by two threads. So neither the other rows, nor
// the number of threads, nor the pieces in which a prompt is read change a result.
//
// Weights are packed once into panels of PANEL columns (rows of a linear layer's weight), as float32, as
// bfloat16 in words of two that follow each other along the depth, or as bytes, of which GROUP along the
// depth share a scale and a least value; activations are then rounded to 16-bit integers of their row's
// scale, so that sums of products inside a group are exact.

#include <array>
#include <cmath>
#include <type_traits>
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
constexpr Size GROUP = 32;                  // bytes along the depth that share a scale

// A thread's scratch memory, kept from call to call.
float* room(Size floats) {
    static thread_local std::vector<float> kept;
    if (static_cast<Size>(kept.size()) < floats) kept.resize(floats);
    return kept.data();
}

// Elements of activations for weights W.
template <class W> struct OperandOf { typedef float type; };
template <> struct OperandOf<Bfloat16> { typedef Bfloat16 type; };
template <> struct OperandOf<uint8_t> { typedef int16_t type; };
template <class W> using Operand = typename OperandOf<W>::type;

// Elements along the depth with those that fill the last word, or group.
template <class E>
Size deep(Size depth) {
    constexpr Size whole = std::is_same<E, int16_t>::value ? GROUP : PER_WORD<E>;
    return (depth + whole - 1) / whole * whole;
}

// Bytes of a packed panel.
template <class W> Size panel_bytes(Size depth) { return deep<Operand<W>>(depth) * PANEL * sizeof(W); }
constexpr Size GROUP_BYTES = PANEL * (GROUP + 2 * sizeof(float));  // with scales and least values behind them
template <> Size panel_bytes<uint8_t>(Size depth) { return deep<int16_t>(depth) / GROUP * GROUP_BYTES; }

INLINE Vector load(const void* from) { return *static_cast<const Vector*>(from); }

// sum + the products of pairs of 16-bit integers: WIDTH pairs of bytes, each beside the same pair.
INLINE Bits add_pairs(Bits sum, const char* bytes, Word pair) {
    const int32_t both = __builtin_bit_cast(int32_t, pair);
#if defined(__AVX512BW__)
    const __m256i narrow = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(bytes));
    const __m512i wide = _mm512_cvtepu8_epi16(narrow);
#if defined(__AVX512VNNI__)
    return (Bits)_mm512_dpwssd_epi32((__m512i)sum, wide, _mm512_set1_epi32(both));
#else
    return sum + (Bits)_mm512_madd_epi16(wide, _mm512_set1_epi32(both));
#endif
#elif defined(__AVX2__) && !defined(__AVX512F__)
    const __m256i wide = _mm256_cvtepu8_epi16(_mm_loadu_si128(reinterpret_cast<const __m128i*>(bytes)));
    return sum + (Bits)_mm256_madd_epi16(wide, _mm256_set1_epi32(both));
#else
    for (int i = 0; i < WIDTH; ++i)
        sum[i] += static_cast<uint8_t>(bytes[2 * i]) * static_cast<int16_t>(both)
            + static_cast<uint8_t>(bytes[2 * i + 1]) * (both >> 16);
    return sum;
#endif
}

// Rows of operands as products want them: tiles of TALL rows one after the other, the last one lower, each as
// [words of the depth][rows]. Of 16-bit integers with scales [rows] and sums of groups [groups][rows].
template <class E>
struct Rows {
    Word* data;
    float *sums, *scales;
    Size rows, depth;
    Size height(Size tile) const { return std::min<Size>(TALL, rows - tile * TALL); }
    Word* at(Size tile) const { return data + tile * TALL * words<E>(deep<E>(depth)); }
    float* sums_at(Size tile) const { return sums + tile * TALL * (deep<E>(depth) / GROUP); }
    Size count() const { return (rows + TALL - 1) / TALL; }

    void put(Size row, const float* values) const {
        const Size tile = row / TALL, i = row % TALL, high = height(tile), all = deep<E>(depth);
        Word* to = at(tile) + i;
        if constexpr (PER_WORD<E> == 1) {
            for (Size k = 0; k < all; ++k) to[k * high] = values[k];
        } else if constexpr (std::is_same<E, Bfloat16>::value) {
            for (Size k = 0; k < all; k += 2)
                to[k / 2 * high] = both(values[k], k + 1 < depth ? values[k + 1] : 0.0f);
        } else {
            float largest = 0.0f;
            for (Size k = 0; k < depth; ++k) largest = std::max(largest, std::abs(values[k]));
            const float scale = largest / 32767.0f, inverse = largest > 0.0f ? 32767.0f / largest : 0.0f;
            scales[row] = scale;
            for (Size group = 0; group < all / GROUP; ++group) {
                int32_t sum = 0, rounded[GROUP];
                for (Size k = 0; k < GROUP; ++k) {
                    const Size from = group * GROUP + k;
                    const float value = from < depth ? values[from] * inverse : 0.0f;
                    sum += rounded[k] = static_cast<int32_t>(std::nearbyint(value));
                }
                for (Size k = 0; k < GROUP; k += 2)
                    to[(group * GROUP + k) / 2 * high] =
                        __builtin_bit_cast(Word, (rounded[k] & 0xffff) | (rounded[k + 1] << 16));
                sums_at(tile)[group * high + i] = static_cast<float>(sum);
            }
        }
    }
};

// A tile of c [R, PANEL] (+)= a [R, depth] b [depth, PANEL].
template <class W, int R>
void tile(const Rows<Operand<W>>& rows, Size number, const char* b, float* c, Size stride, bool add) {
    typedef Operand<W> E;
    Vector sums[R][2] = {};
    const Word* a = rows.at(number);
    if constexpr (sizeof(W) > 1) {
        const Size count = words<E>(deep<E>(rows.depth));
#pragma GCC unroll 4
        for (Size k = 0; k < count; ++k) {
            const char* from = b + k * PANEL * sizeof(Word);
            const Vector left = load(from), right = load(from + WIDTH * sizeof(Word));
            for (int i = 0; i < R; ++i) {
                sums[i][0] = multiply_add<E>(sums[i][0], a[k * R + i], left);
                sums[i][1] = multiply_add<E>(sums[i][1], a[k * R + i], right);
            }
        }
    } else {
        const float* totals = rows.sums_at(number);
        for (Size group = 0; group < deep<E>(rows.depth) / GROUP; ++group, b += GROUP_BYTES) {
            Bits whole[R][2] = {};
            for (Size k = 0; k < GROUP / 2; ++k, a += R)
                for (int i = 0; i < R; ++i)
                    for (int j = 0; j < 2; ++j)
                        whole[i][j] = add_pairs(whole[i][j], b + (k * PANEL + j * WIDTH) * 2, a[i]);
            const char* behind = b + GROUP * PANEL;
            for (int i = 0; i < R; ++i)
                for (int j = 0; j < 2; ++j) {
                    const Vector scale = load(behind + j * sizeof(Vector)),
                        least = load(behind + (2 + j) * sizeof(Vector));
                    sums[i][j] += least * totals[group * R + i];
                    sums[i][j] += scale * __builtin_convertvector(whole[i][j], Vector);
                }
        }
        for (int i = 0; i < R; ++i)
            for (int j = 0; j < 2; ++j) sums[i][j] *= rows.scales[number * TALL + i];
    }
    for (int i = 0; i < R; ++i)
        for (int j = 0; j < 2; ++j) {
            Vector* to = reinterpret_cast<Vector*>(c + i * stride + j * WIDTH);
            *to = add ? *to + sums[i][j] : sums[i][j];
        }
}

template <class W> using Tile = void (*)(const Rows<Operand<W>>&, Size, const char*, float*, Size, bool);
template <class W, int... R>
constexpr std::array<Tile<W>, sizeof...(R)> tiles(std::integer_sequence<int, R...>) {
    return {&tile<W, R + 1>...};
}

Size panels(Size columns) { return (columns + PANEL - 1) / PANEL; }

// c [rows, columns in whole panels] (+)= a weight'. Called by all threads.
template <class W>
void product(const Rows<Operand<W>>& a, const void* weight, Size columns, float* c, Size stride, bool add) {
    static constexpr auto by_height = tiles<W>(std::make_integer_sequence<int, TALL>());
    const Size bytes = panel_bytes<W>(a.depth);
#pragma omp for schedule(dynamic, 1)
    for (Size panel = 0; panel < panels(columns); ++panel)
        for (Size t = 0; t < a.count(); ++t)
            by_height[a.height(t) - 1](a, t, static_cast<const char*>(weight) + panel * bytes,
                c + t * TALL * stride + panel * PANEL, stride, add);
}

// RMSNorm of chosen rows of x, as operands. Called by all threads.
template <class E>
void norm(const float* x, Size stride, const int32_t* chosen, const void* weights, const Rows<E>& out,
        float eps) {
    const float* weight = static_cast<const float*>(weights);
    float* values = room(out.depth);
#pragma omp for schedule(static)
    for (Size r = 0; r < out.rows; ++r) {
        const float* from = x + (chosen ? chosen[r] : r) * stride;
        float squares = 0.0f;
#pragma omp simd reduction(+ : squares)
        for (Size i = 0; i < out.depth; ++i) squares += from[i] * from[i];
        const float scale = 1.0f / std::sqrt(squares / out.depth + eps);
#pragma omp simd
        for (Size i = 0; i < out.depth; ++i) values[i] = from[i] * scale * weight[i];
        out.put(r, values);
    }
}

template <class E>
void swiglu(const float* both, Size stride, const Rows<E>& out) {
    float* values = room(out.depth);
#pragma omp for schedule(static)
    for (Size r = 0; r < out.rows; ++r) {
        const float *gate = both + r * stride, *up = gate + out.depth;
#pragma omp simd
        for (Size i = 0; i < out.depth; ++i) values[i] = gate[i] / (1.0f + exponential(-gate[i])) * up[i];
        out.put(r, values);
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

// Attention of all queries, q in qkv, to out [rows, heads * width]. Called by all threads.
void attend(const Shape& s, const Run* runs, const int32_t* tables, const std::vector<Task>& tasks,
        const float* qkv, Size stride, const Store& store, float* out) {
    static constexpr auto score_by = scorers(std::make_integer_sequence<int, TALL>());
    static constexpr auto weigh_by = weighers(std::make_integer_sequence<int, TALL>());
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
        float *scores = room(TALL * (apart + s.width + store.wide)), *queries = scores + TALL * apart,
            *sums = queries + TALL * s.width;
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
            std::memcpy(out + ((run.first + pair / group) * s.heads + head) * s.width, sums + i * store.wide,
                s.width * sizeof(float));
        }
    }
}

// weights: the embedding, the last norm's weight, the head; then of each layer the first norm's weight, the
// products q k v, o, the second norm's weight, gate and up, down.
template <class W>
void step(const Shape& s, const void* const* weights, const int64_t* tokens, const float* cosine,
        const float* sine, const Run* runs, const int32_t* tables, const int32_t* wanted, float* keys,
        float* values, float* logits, float eps) {
    typedef Operand<W> E;
    const Size q_dim = s.heads * s.width, kv_dim = s.kv_heads * s.width, group = s.heads / s.kv_heads;
    const Size stride = panels(s.dim) * PANEL, wide = padded(s.width);
    const Size apart = PANEL * panels(std::max(q_dim + 2 * kv_dim, 2 * s.ffn));
    const Size deepest = deep<E>(std::max(std::max(q_dim, s.dim), s.ffn));
    static thread_local std::vector<float> kept;
    const Size row = stride + apart + q_dim + words<E>(deepest) + deepest / GROUP + 2;
    kept.resize(std::max<Size>(kept.size(), s.rows * row));
    float *x = kept.data(), *between = x + s.rows * stride, *attended = between + s.rows * apart;
    Word* packed = attended + s.rows * q_dim;
    float *sums = packed + s.rows * words<E>(deepest), *scales = sums + s.rows * (deepest / GROUP + 1);
    const Rows<E> narrow{packed, sums, scales, s.rows, s.dim}, heads{packed, sums, scales, s.rows, q_dim},
        ffn{packed, sums, scales, s.rows, s.ffn}, last{packed, sums, scales, s.wanted, s.dim};
    const Size layer_keys = s.blocks * kv_dim * KEYS, layer_values = s.blocks * s.kv_heads * KEYS * wide;
    const float* table = static_cast<const float*>(weights[0]);
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
            const void* const* own = weights + 3 + layer * 6;
            const Store store{keys + layer * layer_keys, values + layer * layer_values, wide};
            norm(x, stride, nullptr, own[0], narrow, eps);
            product<W>(narrow, own[1], q_dim + 2 * kv_dim, between, apart, false);
            keep(s, runs, tables, cosine, sine, between, apart, store);
            attend(s, runs, tables, tasks, between, apart, store, attended);
#pragma omp for schedule(static)
            for (Size r = 0; r < s.rows; ++r) heads.put(r, attended + r * q_dim);
            product<W>(heads, own[2], s.dim, x, stride, true);
            norm(x, stride, nullptr, own[3], narrow, eps);
            product<W>(narrow, own[4], 2 * s.ffn, between, apart, false);
            swiglu(between, apart, ffn);
            product<W>(ffn, own[5], s.dim, x, stride, true);
        }
        norm(x, stride, wanted, weights[1], last, eps);
        product<W>(last, weights[2], s.vocab, logits, panels(s.vocab) * PANEL, false);
    }
}

// Pack a group of one column: bytes, their scale and least value.
void pack_group(const float* from, Size count, uint8_t* to, float* scale, float* least) {
    const auto ends = std::minmax_element(from, from + count);
    *least = *ends.first;
    *scale = (*ends.second - *ends.first) / 255.0f;
    for (Size k = 0; k < count; ++k)
        to[k / 2 * PANEL * 2 + k % 2] =
            *scale > 0.0f ? static_cast<uint8_t>(std::nearbyint((from[k] - *least) / *scale)) : 0;
}

// Pack a weight [columns, depth] into panels, zeros behind its last column and at the end of its depth.
template <class W>
void pack(const float* weight, Size columns, Size depth, char* out) {
    typedef Operand<W> E;
    constexpr Size pair = PER_WORD<E>;
    const Size bytes = panel_bytes<W>(depth);
#pragma omp parallel for schedule(static)
    for (Size panel = 0; panel < panels(columns); ++panel) {
        char* to = out + panel * bytes;
        std::memset(to, 0, bytes);
        for (Size j = 0; j < std::min<Size>(PANEL, columns - panel * PANEL); ++j) {
            const float* from = weight + (panel * PANEL + j) * depth;
            if constexpr (sizeof(W) == 1) {
                for (Size k = 0; k < depth; k += GROUP) {
                    char* group = to + k / GROUP * GROUP_BYTES;
                    float* scale = reinterpret_cast<float*>(group + GROUP * PANEL) + j;
                    uint8_t* place = reinterpret_cast<uint8_t*>(group) + 2 * j;
                    pack_group(from + k, std::min(GROUP, depth - k), place, scale, scale + PANEL);
                }
            } else {
                W* place = reinterpret_cast<W*>(to) + j * pair;
                for (Size k = 0; k < depth; ++k) store(place[k / pair * PANEL * pair + k % pair], from[k]);
            }
        }
    }
}

}  // namespace

extern "C" {

Size panel_columns() { return PANEL; }

#define DECODER(NAME, W) \
    Size bytes_##NAME(Size columns, Size depth) { return panels(columns) * panel_bytes<W>(depth); } \
    void pack_##NAME(const float* weight, Size columns, Size depth, char* out) { \
        pack<W>(weight, columns, depth, out); \
    } \
    void step_##NAME(const Size* shape, const void* const* weights, const int64_t* tokens, \
            const float* cosine, const float* sine, const int32_t* runs, const int32_t* tables, \
            const int32_t* wanted, float* keys, float* values, float* logits, float eps) { \
        step<W>(*reinterpret_cast<const Shape*>(shape), weights, tokens, cosine, sine, \
            reinterpret_cast<const Run*>(runs), tables, wanted, keys, values, logits, eps); \
    }
DECODER(float32, float)
DECODER(bfloat16, Bfloat16)
DECODER(int8, uint8_t)

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
