// Kernels of the decoder for CPUs: the parts between the matrix products, and causal attention inside
// documents. Each takes arrays of float32, and as NAME_bf16 arrays of bfloat16; all is computed and summed in
// float32, but for the products inside attention, whose operands are rounded to bfloat16 there.
//
// Every function takes plain arrays, splits its work over OpenMP's threads (torch's own, since the library is
// already loaded) and writes each result from exactly one thread. Sums over rows are taken in pieces of a
// fixed size and then over the pieces in order, so no result depends on timing or on the number of threads.

#include <cmath>
#include <numeric>
#include <vector>

#include "products.h"

constexpr int PART = 4096;  // elements of a long array that a thread takes at once
constexpr int PIECE = 64;   // rows that are summed together, as PIECE_ROWS of kernels.py
constexpr int STRIP = 64;   // columns of the pieces' sums that a thread adds up at once
constexpr int LONG = 256;   // tokens whose gradients of low rank are summed together, as LONG of kernels.py

namespace {

// A thread's scratch memory, kept from call to call: pages returned to the system would have to be cleared
// again.
class Room {
public:
    explicit Room(Size floats) {
        if (static_cast<Size>(kept.size()) < floats) kept.resize(floats);
    }
    float* take(Size floats) {
        float* from = kept.data() + used;
        used += floats;
        return from;
    }

private:
    static thread_local std::vector<float> kept;
    Size used = 0;
};
thread_local std::vector<float> Room::kept;

// One thread's part of a long array; __restrict says that the arrays do not overlap.
template <class E>
void swiglu_part(const E* __restrict gate, const E* __restrict up, E* __restrict out, Size count) {
#pragma omp simd
    for (Size i = 0; i < count; ++i) {
        const float a = widen(gate[i]);
        store(out[i], a / (1.0f + exponential(-a)) * widen(up[i]));
    }
}

template <class E>
void swiglu_backward_part(const E* __restrict gate, const E* __restrict up, E* __restrict gradient,
        E* __restrict gradient_gate, E* __restrict gradient_up, Size count) {
#pragma omp simd
    for (Size i = 0; i < count; ++i) {
        const float a = widen(gate[i]), sigmoid = 1.0f / (1.0f + exponential(-a)), silu = a * sigmoid,
            given = widen(gradient[i]), above = widen(up[i]);
        store(gradient[i], silu * above);
        store(gradient_gate[i], given * above * (sigmoid + silu * (1.0f - sigmoid)));
        store(gradient_up[i], given * silu);
    }
}

// out = x / sqrt(mean(x^2) + eps) * weight, row by row.
template <class E>
void rms_norm(const E* x, const float* weight, E* out, Size rows, Size width, float eps) {
#pragma omp parallel for schedule(static)
    for (Size r = 0; r < rows; ++r) {
        const E* from = x + r * width;
        E* to = out + r * width;
        float squares = 0.0f;
#pragma omp simd reduction(+ : squares)
        for (Size i = 0; i < width; ++i) squares += widen(from[i]) * widen(from[i]);
        const float scale = 1.0f / std::sqrt(squares / width + eps);
#pragma omp simd
        for (Size i = 0; i < width; ++i) store(to[i], widen(from[i]) * scale * weight[i]);
    }
}

// gradient_x = residual (null: none) + d rms_norm / dx . gradient; gradient_weight [width].
// pieces: [ceil(rows / PIECE), width] of scratch.
template <class E>
void rms_norm_backward(const E* x, const float* weight, const E* gradient, const E* residual, E* gradient_x,
        float* gradient_weight, float* pieces, Size rows, Size width, float eps) {
    const Size count = (rows + PIECE - 1) / PIECE;
#pragma omp parallel
    {
#pragma omp for schedule(static)
        for (Size piece = 0; piece < count; ++piece) {
            float* sums = pieces + piece * width;
            std::fill(sums, sums + width, 0.0f);
            for (Size r = piece * PIECE; r < std::min<Size>((piece + 1) * PIECE, rows); ++r) {
                const E *from = x + r * width, *given = gradient + r * width,
                    *beside = residual ? residual + r * width : nullptr;
                E* to = gradient_x + r * width;
                float squares = 0.0f, along = 0.0f;
#pragma omp simd reduction(+ : squares, along)
                for (Size i = 0; i < width; ++i) {
                    squares += widen(from[i]) * widen(from[i]);
                    along += widen(from[i]) * widen(given[i]) * weight[i];
                }
                const float scale = 1.0f / std::sqrt(squares / width + eps),
                    back = along * scale * scale * scale / width;
#pragma omp simd
                for (Size i = 0; i < width; ++i) {
                    const float value = widen(from[i]), slope = widen(given[i]);
                    sums[i] += slope * value * scale;
                    const float own = slope * weight[i] * scale - value * back;
                    store(to[i], beside ? own + widen(beside[i]) : own);
                }
            }
        }
#pragma omp for schedule(static)
        for (Size begin = 0; begin < width; begin += STRIP) {
            const Size end = std::min<Size>(begin + STRIP, width);
            std::fill(gradient_weight + begin, gradient_weight + end, 0.0f);
            for (Size piece = 0; piece < count; ++piece)
#pragma omp simd
                for (Size i = begin; i < end; ++i) gradient_weight[i] += pieces[piece * width + i];
        }
    }
}

// out = silu(gate) * up, where silu(a) = a / (1 + exp(-a)).
template <class E>
void swiglu(const E* gate, const E* up, E* out, Size count) {
#pragma omp parallel for schedule(static)
    for (Size begin = 0; begin < count; begin += PART)
        swiglu_part(gate + begin, up + begin, out + begin, std::min<Size>(PART, count - begin));
}

// silu(gate) * up again, in the memory of its gradient, and the gradients of gate and up.
template <class E>
void swiglu_backward(const E* gate, const E* up, E* gradient, E* gradient_gate, E* gradient_up, Size count) {
#pragma omp parallel for schedule(static)
    for (Size begin = 0; begin < count; begin += PART)
        swiglu_backward_part(gate + begin, up + begin, gradient + begin, gradient_gate + begin,
            gradient_up + begin, std::min<Size>(PART, count - begin));
}

// Rotate neighbouring pairs of x [tokens, heads, width] by the angles of cosine, sine [positions, width / 2],
// where token i has position i % positions; direction -1 rotates by the negative angle. out may be x.
template <class E>
void rotate(const E* x, const float* cosine, const float* sine, E* out, Size tokens, Size positions,
        Size heads, Size width, float direction) {
#pragma omp parallel for schedule(static)
    for (Size t = 0; t < tokens; ++t) {
        const float *c = cosine + t % positions * (width / 2), *s = sine + t % positions * (width / 2);
        for (Size h = 0; h < heads; ++h) {
            const E* pair = x + (t * heads + h) * width;
            E* to = out + (t * heads + h) * width;
#pragma omp simd
            for (Size i = 0; i < width / 2; ++i) {
                const float turn = s[i] * direction;
                if constexpr (PER_WORD<E> == 1) {
                    const float even = pair[2 * i], odd = pair[2 * i + 1];
                    to[2 * i] = even * c[i] - odd * turn;
                    to[2 * i + 1] = even * turn + odd * c[i];
                } else {
                    const float even = lower(words(pair)[i]), odd = upper(words(pair)[i]);
                    words(to)[i] = both(even * c[i] - odd * turn, even * turn + odd * c[i]);
                }
            }
        }
    }
}

// How many of a block's queries, the first ones, attend to keys before `end`. start: of these queries.
Size reaching(const int32_t* start, Size count, Size end) {
    return std::lower_bound(start, start + count, end) - start;
}

// Keys of a block, in whole vectors, before the first that a query attends to.
Size unseen(Size first) { return std::max<Size>(first, 0) / WIDTH * WIDTH; }

// Causal attention inside documents. q, out: [rows, length, heads, width]; k, v: [rows, length, kv_heads,
// width]; log_sums: [rows, heads, length]. start [rows, length]: the first position that a position attends
// to, never decreasing along a row. Blocks of scores that no position attends to are not computed, and no
// scores are kept (Dao et al. 2022, algorithm 1).
template <class E>
void attention(const E* q, const E* k, const E* v, const int32_t* start, E* out, float* log_sums, Size rows,
        Size length, Size heads, Size kv_heads, Size width, float scale) {
    const Size group = heads / kv_heads, wide = padded(width), blocks = (length + BLOCK - 1) / BLOCK;
    const Size q_stride = heads * width, kv_stride = kv_heads * width;
#pragma omp parallel
    {
        const Size depth = words<E>(width), turned = blocks * depth * BLOCK, packed = words<E>(length) * wide;
        Room room(turned + packed + 2 * BLOCK * BLOCK + BLOCK * wide + 2 * BLOCK);
        float *keys = room.take(turned), *values = room.take(packed), *scores = room.take(BLOCK * BLOCK),
            *narrow = room.take(BLOCK * BLOCK);
        float *sums = room.take(BLOCK * wide), *highest = room.take(BLOCK), *total = room.take(BLOCK);
#pragma omp for schedule(dynamic, 1)
        for (Size task = 0; task < rows * kv_heads; ++task) {
            const Size row = task / kv_heads, kv_head = task % kv_heads;
            const int32_t* from = start + row * length;
            pack_transposed(k + row * length * kv_stride + kv_head * width, kv_stride, length, width, keys);
            pack(v + row * length * kv_stride + kv_head * width, kv_stride, length, width, values);
            for (Size head = kv_head * group; head < (kv_head + 1) * group; ++head)
                for (Size first = 0; first < length; first += BLOCK) {
                    const Size count = std::min<Size>(BLOCK, length - first);
                    std::fill(highest, highest + BLOCK, -INFINITY);
                    std::fill(total, total + BLOCK, 0.0f);
                    std::fill(sums, sums + BLOCK * wide, 0.0f);
                    const Word* queries = words(q + (row * length + first) * q_stride + head * width);
                    for (Size block = from[first] / BLOCK; block <= first / BLOCK; ++block) {
                        const Size base = block * BLOCK, seen = std::min<Size>(BLOCK, length - base);
                        const bool diagonal = base == first;
                        const Size reach = reaching(from + first, count, base + BLOCK),
                            skip = diagonal ? 0 : unseen(from[first] - base);
                        product<E>(diagonal ? RESULT : NONE, reach, BLOCK - skip, depth, queries,
                            words<E>(q_stride), 1, keys + block * depth * BLOCK + skip, BLOCK, scores + skip,
                            BLOCK, false);
                        for (Size i = 0; i < reach; ++i) {
                            float* score = scores + i * BLOCK;
                            const Size low = std::max<Size>(from[first + i] - base, 0),
                                high = std::min<Size>(first + i - base + 1, BLOCK);
                            // Scores of the row that are computed, in whole vectors.
                            const Size known = std::min<Size>(padded(high), BLOCK);
                            float top = highest[i], sum = 0.0f;
#pragma omp simd reduction(max : top)
                            for (Size j = low; j < high; ++j) top = std::max(top, score[j] * scale);
#pragma omp simd
                            for (Size j = 0; j < known; ++j) score[j] = exponential(score[j] * scale - top);
                            for (Size j = 0; j < low; ++j) score[j] = 0.0f;
                            for (Size j = high; j < BLOCK; ++j) score[j] = 0.0f;
#pragma omp simd reduction(+ : sum)
                            for (Size j = 0; j < known; ++j) sum += score[j];
                            if (top > highest[i]) {
                                const float fade = total[i] > 0.0f ? exponential(highest[i] - top) : 0.0f;
                                total[i] *= fade;
                                float* so_far = sums + i * wide;
#pragma omp simd
                                for (Size j = 0; j < wide; ++j) so_far[j] *= fade;
                                highest[i] = top;
                            }
                            total[i] += sum;
                        }
                        product<E>(diagonal ? ROW : NONE, reach, wide, words<E>(seen) - words<E>(skip),
                            along_rows<E>(scores, reach, narrow) + words<E>(skip), words<E>(BLOCK), 1,
                            values + words<E>(base + skip) * wide, wide, sums, wide, true);
                    }
                    for (Size i = 0; i < count; ++i) {
                        E* to = out + (row * length + first + i) * q_stride + head * width;
                        const float share = 1.0f / total[i];
#pragma omp simd
                        for (Size j = 0; j < width; ++j) store(to[j], sums[i * wide + j] * share);
                        log_sums[(row * heads + head) * length + first + i] = highest[i] + std::log(total[i]);
                    }
                }
        }
    }
}

// Gradients of `attention`: the scores are computed again block by block from the saved log-sums (Dao et al.
// 2022, algorithm 4).
template <class E>
void attention_backward(const E* gradient, const E* q, const E* k, const E* v, const E* out,
        const float* log_sums, const int32_t* start, E* gradient_q, E* gradient_k, E* gradient_v, Size rows,
        Size length, Size heads, Size kv_heads, Size width, float scale) {
    const Size group = heads / kv_heads, wide = padded(width), blocks = (length + BLOCK - 1) / BLOCK;
    const Size q_stride = heads * width, kv_stride = kv_heads * width;
#pragma omp parallel
    {
        const Size depth = words<E>(width), turned = blocks * depth * BLOCK,
            packed = words<E>(length) * wide, results = length * wide, square = BLOCK * BLOCK;
        Room room(2 * turned + 3 * packed + 3 * results + length + 3 * square);
        float *keys_t = room.take(turned), *values_t = room.take(turned), *keys = room.take(packed),
            *queries = room.take(packed);
        float *given = room.take(packed), *to_q = room.take(results), *to_k = room.take(results),
            *to_v = room.take(results);
        float *chances = room.take(square), *slopes = room.take(square), *narrow = room.take(square),
            *along = room.take(length);
#pragma omp for schedule(dynamic, 1)
        for (Size task = 0; task < rows * kv_heads; ++task) {
            const Size row = task / kv_heads, kv_head = task % kv_heads,
                kv_at = row * length * kv_stride + kv_head * width;
            const int32_t* from = start + row * length;
            pack_transposed(k + kv_at, kv_stride, length, width, keys_t);
            pack_transposed(v + kv_at, kv_stride, length, width, values_t);
            pack(k + kv_at, kv_stride, length, width, keys);
            std::fill(to_k, to_k + results, 0.0f);
            std::fill(to_v, to_v + results, 0.0f);
            for (Size head = kv_head * group; head < (kv_head + 1) * group; ++head) {
                const Size q_at = row * length * q_stride + head * width;
                const float* sums = log_sums + (row * heads + head) * length;
                pack(q + q_at, q_stride, length, width, queries);
                pack(gradient + q_at, q_stride, length, width, given);
                for (Size t = 0; t < length; ++t) {
                    const E *result = out + q_at + t * q_stride, *slope = gradient + q_at + t * q_stride;
                    float sum = 0.0f;
#pragma omp simd reduction(+ : sum)
                    for (Size j = 0; j < width; ++j) sum += widen(result[j]) * widen(slope[j]);
                    along[t] = sum;
                }
                std::fill(to_q, to_q + results, 0.0f);
                for (Size block = 0; block < blocks; ++block) {
                    const Size base = block * BLOCK, seen = std::min<Size>(BLOCK, length - base);
                    for (Size first = base; first < length && from[first] < base + BLOCK; first += BLOCK) {
                        const Size count =
                            reaching(from + first, std::min<Size>(BLOCK, length - first), base + BLOCK);
                        const bool diagonal = base == first;
                        const Size skip = diagonal ? 0 : unseen(from[first] - base);
                        const Size at = q_at + first * q_stride;
                        product<E>(diagonal ? RESULT : NONE, count, BLOCK - skip, depth, words(q + at),
                            words<E>(q_stride), 1, keys_t + block * depth * BLOCK + skip, BLOCK,
                            chances + skip, BLOCK, false);
                        product<E>(diagonal ? RESULT : NONE, count, BLOCK - skip, depth, words(gradient + at),
                            words<E>(q_stride), 1, values_t + block * depth * BLOCK + skip, BLOCK,
                            slopes + skip, BLOCK, false);
                        for (Size i = 0; i < count; ++i) {
                            float *chance = chances + i * BLOCK, *slope = slopes + i * BLOCK;
                            const Size low = std::clamp<Size>(from[first + i] - base, 0, BLOCK);
                            const Size high = std::min<Size>(first + i - base + 1, BLOCK),
                                known = std::min<Size>(padded(high), BLOCK);
                            const float total = sums[first + i], mean = along[first + i];
#pragma omp simd
                            for (Size j = 0; j < known; ++j)
                                chance[j] = exponential(chance[j] * scale - total);
                            for (Size j = 0; j < low; ++j) chance[j] = 0.0f;
                            for (Size j = high; j < BLOCK; ++j) chance[j] = 0.0f;
#pragma omp simd
                            for (Size j = 0; j < known; ++j) slope[j] = chance[j] * (slope[j] - mean) * scale;
                            for (Size j = known; j < BLOCK; ++j) slope[j] = 0.0f;
                        }
                        const Size later = words<E>(first) * wide;
                        product<E>(diagonal ? COLUMN : NONE, seen - skip, wide, words<E>(count),
                            down_columns<E>(chances, count, narrow) + skip, 1, BLOCK, given + later, wide,
                            to_v + (base + skip) * wide, wide, true);
                        product<E>(diagonal ? COLUMN : NONE, seen - skip, wide, words<E>(count),
                            down_columns<E>(slopes, count, narrow) + skip, 1, BLOCK, queries + later, wide,
                            to_k + (base + skip) * wide, wide, true);
                        product<E>(diagonal ? ROW : NONE, count, wide, words<E>(seen) - words<E>(skip),
                            along_rows<E>(slopes, count, narrow) + words<E>(skip), words<E>(BLOCK), 1,
                            keys + words<E>(base + skip) * wide, wide, to_q + first * wide, wide, true);
                    }
                }
                for (Size t = 0; t < length; ++t)
                    for (Size j = 0; j < width; ++j)
                        store(gradient_q[q_at + t * q_stride + j], to_q[t * wide + j]);
            }
            for (Size t = 0; t < length; ++t)
                for (Size j = 0; j < width; ++j) {
                    store(gradient_k[kv_at + t * kv_stride + j], to_k[t * wide + j]);
                    store(gradient_v[kv_at + t * kv_stride + j], to_v[t * wide + j]);
                }
        }
    }
}

// total = sum over the rows of weight * (lse - logit of the target + z * lse^2), weights null for 1. With
// want_gradient the logits are overwritten by its gradient.
template <class E>
void cross_entropy(E* logits, const int64_t* targets, const float* weights, double* total, Size rows,
        Size vocabulary, float z, int want_gradient) {
    std::vector<double> losses(rows);
#pragma omp parallel for schedule(static)
    for (Size r = 0; r < rows; ++r) {
        E* row = logits + r * vocabulary;
        float* exponentials;
        if constexpr (PER_WORD<E> == 1) {
            exponentials = row;
        } else {
            exponentials = Room(vocabulary).take(vocabulary);
        }
        const int64_t target = targets[r];
        const float weight = weights ? weights[r] : 1.0f;
        float top = widen(row[0]);
#pragma omp simd reduction(max : top)
        for (Size i = 0; i < vocabulary; ++i) top = std::max(top, widen(row[i]));
        const double chosen = widen(row[target]);
        double sum = 0.0;
        // Partial sums keep float32 exact enough for any vocabulary.
        for (Size begin = 0; begin < vocabulary; begin += 1024) {
            const Size end = std::min<Size>(begin + 1024, vocabulary);
            float part = 0.0f;
            if (want_gradient) {
#pragma omp simd reduction(+ : part)
                for (Size i = begin; i < end; ++i)
                    part += exponentials[i] = exponential(widen(row[i]) - top);
            } else {
#pragma omp simd reduction(+ : part)
                for (Size i = begin; i < end; ++i) part += exponential(widen(row[i]) - top);
            }
            sum += part;
        }
        const double log_sum = top + std::log(sum);
        losses[r] = weight * (log_sum - chosen + z * log_sum * log_sum);
        if (want_gradient) {
            const float factor = static_cast<float>(weight * (1.0 + 2.0 * z * log_sum) / sum);
#pragma omp simd
            for (Size i = 0; i < vocabulary; ++i) store(row[i], exponentials[i] * factor);
            // Before it is rounded: beside a chance of nearly 1 the rest would be lost.
            if constexpr (PER_WORD<E> == 1) {
                row[target] -= weight;
            } else {
                store(row[target], exponentials[target] * factor - weight);
            }
        }
    }
    *total = std::accumulate(losses.begin(), losses.end(), 0.0);
}

// total += addend.
template <class E>
void accumulate(const E* __restrict addend, float* __restrict total, Size count) {
#pragma omp parallel for schedule(static)
    for (Size begin = 0; begin < count; begin += PART)
#pragma omp simd
        for (Size i = begin; i < std::min<Size>(begin + PART, count); ++i) total[i] += widen(addend[i]);
}

// Gradients (g B)' x of A and (x A')' g of B' of a weight's change B A, summed over LONG tokens each: pieces
// [ceil(tokens / LONG), rank, inputs; then rank, outputs]. Gradient g [tokens, outputs], x [tokens, inputs]
// are read once: a block of them stays in the cache. a_t [inputs, wide], b [outputs, wide]: A' and B, zeros
// beyond the rank. inputs, outputs and wide are multiples of WIDTH.
void low_rank(const float* gradient, const float* x, const float* a_t, const float* b, float* pieces,
        Size tokens, Size inputs, Size outputs, Size rank, Size wide) {
#pragma omp parallel for schedule(static)
    for (Size begin = 0; begin < tokens; begin += LONG) {
        Room room(2 * BLOCK * wide);
        float *inner = room.take(BLOCK * wide), *outer = room.take(BLOCK * wide),
            *to_a = pieces + begin / LONG * rank * (inputs + outputs), *to_b = to_a + rank * inputs;
        const Size end = std::min<Size>(begin + LONG, tokens);
        for (Size first = begin; first < end; first += BLOCK) {
            const Size rows = std::min<Size>(BLOCK, end - first);
            const float *given = gradient + first * outputs, *from = x + first * inputs;
            product<float>(rows, wide, outputs, given, outputs, 1, b, wide, inner, wide, false);
            product<float>(rows, wide, inputs, from, inputs, 1, a_t, wide, outer, wide, false);
            product<float>(rank, inputs, rows, inner, 1, wide, from, inputs, to_a, inputs, first > begin);
            product<float>(rank, outputs, rows, outer, 1, wide, given, outputs, to_b, outputs, first > begin);
        }
    }
}

}  // namespace

#define EXPORT(E, SUFFIX) \
    void rms_norm##SUFFIX(const E* x, const float* weight, E* out, Size rows, Size width, float eps) { \
        rms_norm<E>(x, weight, out, rows, width, eps); \
    } \
    void rms_norm_backward##SUFFIX(const E* x, const float* weight, const E* gradient, const E* residual, \
            E* gradient_x, float* gradient_weight, float* pieces, Size rows, Size width, float eps) { \
        rms_norm_backward<E>(x, weight, gradient, residual, gradient_x, gradient_weight, pieces, \
            rows, width, eps); \
    } \
    void swiglu##SUFFIX(const E* gate, const E* up, E* out, Size count) { \
        swiglu<E>(gate, up, out, count); \
    } \
    void swiglu_backward##SUFFIX(const E* gate, const E* up, E* gradient, E* gradient_gate, \
            E* gradient_up, Size count) { \
        swiglu_backward<E>(gate, up, gradient, gradient_gate, gradient_up, count); \
    } \
    void rotate##SUFFIX(const E* x, const float* cosine, const float* sine, E* out, Size tokens, \
            Size positions, Size heads, Size width, float direction) { \
        rotate<E>(x, cosine, sine, out, tokens, positions, heads, width, direction); \
    } \
    void attention##SUFFIX(const E* q, const E* k, const E* v, const int32_t* start, E* out, \
            float* log_sums, Size rows, Size length, Size heads, Size kv_heads, Size width, float scale) { \
        attention<E>(q, k, v, start, out, log_sums, rows, length, heads, kv_heads, width, scale); \
    } \
    void attention_backward##SUFFIX(const E* gradient, const E* q, const E* k, const E* v, const E* out, \
            const float* log_sums, const int32_t* start, E* gradient_q, E* gradient_k, E* gradient_v, \
            Size rows, Size length, Size heads, Size kv_heads, Size width, float scale) { \
        attention_backward<E>(gradient, q, k, v, out, log_sums, start, gradient_q, gradient_k, \
            gradient_v, rows, length, heads, kv_heads, width, scale); \
    } \
    void cross_entropy##SUFFIX(E* logits, const int64_t* targets, const float* weights, double* total, \
            Size rows, Size vocabulary, float z, int want_gradient) { \
        cross_entropy<E>(logits, targets, weights, total, rows, vocabulary, z, want_gradient); \
    } \
    void accumulate##SUFFIX(const E* addend, float* total, Size count) { \
        accumulate<E>(addend, total, count); \
    }

extern "C" {
EXPORT(float, )
EXPORT(Bfloat16, _bf16)
void low_rank_gradients(const float* gradient, const float* x, const float* a_t, const float* b,
        float* pieces, Size tokens, Size inputs, Size outputs, Size rank, Size wide) {
    low_rank(gradient, x, a_t, b, pieces, tokens, inputs, outputs, rank, wide);
}
}
