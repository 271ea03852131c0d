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

// Consecutive tokens that attend to each other. first: in all rows, one after the other.
struct Document {
    Size first, length;
};

// Of start [rows, length], the position in its row at which each token's document begins; the longest first,
// so that threads end together.
std::vector<Document> documents(const int32_t* start, Size rows, Size length) {
    std::vector<Document> found;
    for (Size t = 0; t < rows * length; ++t) {
        if (t % length == 0 || start[t] == t % length) found.push_back({t, 0});
        ++found.back().length;
    }
    std::stable_sort(found.begin(), found.end(), [](Document a, Document b) { return a.length > b.length; });
    return found;
}

// Scores of a row, of which `high` count, that a product of a triangle may read.
int reading(int high) { return std::min<int>(padded(high + ROWS - 1), BLOCK); }

// Causal attention inside documents, each of which comes out as it does alone. q, out: [rows, length, heads,
// width]; k, v: [rows, length, kv_heads, width]; log_sums: [rows, length, heads]; start: see `documents`. No
// scores are kept (Dao et al. 2022, algorithm 1).
template <class E>
void attention(const E* q, const E* k, const E* v, const int32_t* start, E* out, float* log_sums, Size rows,
        Size length, Size heads, Size kv_heads, Size width, float scale) {
    const Size group = heads / kv_heads, wide = padded(width), depth = words<E>(width);
    const Size q_stride = heads * width, kv_stride = kv_heads * width;
    const std::vector<Document> all = documents(start, rows, length);
    const Size longest = all.front().length, blocks = (longest + BLOCK - 1) / BLOCK;
#pragma omp parallel
    {
        const Size turned = blocks * depth * BLOCK, packed = words<E>(longest) * wide;
        Room room(turned + packed + 2 * BLOCK * BLOCK + BLOCK * (wide + 1 + WIDTH));
        float *keys = room.take(turned), *values = room.take(packed), *scores = room.take(BLOCK * BLOCK),
            *narrow = room.take(BLOCK * BLOCK);
        float *sums = room.take(BLOCK * wide), *highest = room.take(BLOCK), *total = room.take(BLOCK * WIDTH);
#pragma omp for schedule(dynamic, 1)
        for (Size task = 0; task < static_cast<Size>(all.size()) * kv_heads; ++task) {
            const Document document = all[task / kv_heads];
            const Size kv_head = task % kv_heads, at = document.first;
            pack_transposed(k + at * kv_stride + kv_head * width, kv_stride, document.length, width, keys);
            pack(v + at * kv_stride + kv_head * width, kv_stride, document.length, width, values);
            for (Size head = kv_head * group; head < (kv_head + 1) * group; ++head)
                for (Size first = 0; first < document.length; first += BLOCK) {
                    const Size count = std::min<Size>(BLOCK, document.length - first);
                    std::fill(highest, highest + BLOCK, -INFINITY);
                    std::fill(total, total + BLOCK * WIDTH, 0.0f);
                    std::fill(sums, sums + BLOCK * wide, 0.0f);
                    const Word* queries = words(q + (at + first) * q_stride + head * width);
                    for (Size base = 0; base <= first; base += BLOCK) {
                        const bool diagonal = base == first;
                        const Size seen = diagonal ? count : BLOCK;
                        product<E>(diagonal ? RESULT : NONE, count, padded(seen), depth, queries,
                            words<E>(q_stride), 1, keys + base * depth, BLOCK, scores, BLOCK, false);
                        for (Size i = 0; i < count; ++i) {
                            float* score = scores + i * BLOCK;
                            // Scores that count; those that a product reads, in whole vectors.
                            const int high = diagonal ? i + 1 : BLOCK, read = reading(high);
                            Vector tops = highest[i] - Vector{};
                            for (int j = 0; j < read; j += WIDTH) {
                                Vector& part = *reinterpret_cast<Vector*>(score + j);
                                part = LANES < high - j ? part * scale : -INFINITY - Vector{};
                                tops = part > tops ? part : tops;
                            }
                            const float top = highest_lane(tops);
                            Vector& sum = *reinterpret_cast<Vector*>(total + i * WIDTH);
                            if (top > highest[i]) {
                                const float fade = exponential(highest[i] - top);
                                sum *= fade;
                                for (Size j = 0; j < wide; j += WIDTH)
                                    *reinterpret_cast<Vector*>(sums + i * wide + j) *= fade;
                                highest[i] = top;
                            }
                            for (int j = 0; j < read; j += WIDTH) {
                                Vector& part = *reinterpret_cast<Vector*>(score + j);
                                part = LANES < high - j ? exponential(part - top) : Vector{};
                                sum += part;
                            }
                        }
                        product<E>(diagonal ? ROW : NONE, count, wide, words<E>(seen),
                            along_rows<E>(scores, count, narrow), words<E>(BLOCK), 1,
                            values + words<E>(base) * wide, wide, sums, wide, true);
                    }
                    for (Size i = 0; i < count; ++i) {
                        E* to = out + (at + first + i) * q_stride + head * width;
                        float all_of_it = 0.0f;
                        for (int j = 0; j < WIDTH; ++j) all_of_it += total[i * WIDTH + j];
                        const float share = 1.0f / all_of_it;
#pragma omp simd
                        for (Size j = 0; j < width; ++j) store(to[j], sums[i * wide + j] * share);
                        log_sums[(at + first + i) * heads + head] = highest[i] + std::log(all_of_it);
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
    const Size group = heads / kv_heads, wide = padded(width), depth = words<E>(width);
    const Size q_stride = heads * width, kv_stride = kv_heads * width;
    const std::vector<Document> all = documents(start, rows, length);
    const Size longest = all.front().length, blocks = (longest + BLOCK - 1) / BLOCK;
#pragma omp parallel
    {
        const Size turned = blocks * depth * BLOCK, packed = words<E>(longest) * wide,
            results = longest * wide, square = BLOCK * BLOCK;
        Room room(2 * turned + 3 * packed + 3 * results + 2 * longest + 3 * square);
        float *keys_t = room.take(turned), *values_t = room.take(turned), *keys = room.take(packed),
            *queries = room.take(packed);
        float *given = room.take(packed), *to_q = room.take(results), *to_k = room.take(results),
            *to_v = room.take(results);
        float *chances = room.take(square), *slopes = room.take(square), *narrow = room.take(square),
            *along = room.take(longest), *sums = room.take(longest);
#pragma omp for schedule(dynamic, 1)
        for (Size task = 0; task < static_cast<Size>(all.size()) * kv_heads; ++task) {
            const Document document = all[task / kv_heads];
            const Size kv_head = task % kv_heads, tokens = document.length,
                kv_at = document.first * kv_stride + kv_head * width;
            pack_transposed(k + kv_at, kv_stride, tokens, width, keys_t);
            pack_transposed(v + kv_at, kv_stride, tokens, width, values_t);
            pack(k + kv_at, kv_stride, tokens, width, keys);
            std::fill(to_k, to_k + tokens * wide, 0.0f);
            std::fill(to_v, to_v + tokens * wide, 0.0f);
            for (Size head = kv_head * group; head < (kv_head + 1) * group; ++head) {
                const Size q_at = document.first * q_stride + head * width;
                pack(q + q_at, q_stride, tokens, width, queries);
                pack(gradient + q_at, q_stride, tokens, width, given);
                for (Size t = 0; t < tokens; ++t) {
                    const E *result = out + q_at + t * q_stride, *slope = gradient + q_at + t * q_stride;
                    float sum = 0.0f;
#pragma omp simd reduction(+ : sum)
                    for (Size j = 0; j < width; ++j) sum += widen(result[j]) * widen(slope[j]);
                    along[t] = sum;
                    sums[t] = log_sums[(document.first + t) * heads + head];
                }
                std::fill(to_q, to_q + tokens * wide, 0.0f);
                for (Size base = 0; base < tokens; base += BLOCK) {
                    const Size seen = std::min<Size>(BLOCK, tokens - base);
                    for (Size first = base; first < tokens; first += BLOCK) {
                        const Size count = std::min<Size>(BLOCK, tokens - first);
                        const bool diagonal = base == first;
                        const Size at = q_at + first * q_stride;
                        product<E>(diagonal ? RESULT : NONE, count, padded(seen), depth, words(q + at),
                            words<E>(q_stride), 1, keys_t + base * depth, BLOCK, chances, BLOCK, false);
                        product<E>(diagonal ? RESULT : NONE, count, padded(seen), depth, words(gradient + at),
                            words<E>(q_stride), 1, values_t + base * depth, BLOCK, slopes, BLOCK, false);
                        for (Size i = 0; i < count; ++i) {
                            float *chance = chances + i * BLOCK, *slope = slopes + i * BLOCK;
                            const int high = diagonal ? i + 1 : BLOCK, read = reading(high);
                            const float total = sums[first + i], mean = along[first + i];
                            for (int j = 0; j < read; j += WIDTH) {
                                Vector &part = *reinterpret_cast<Vector*>(chance + j),
                                       &given = *reinterpret_cast<Vector*>(slope + j);
                                part = LANES < high - j ? exponential(part * scale - total) : Vector{};
                                given = LANES < high - j ? part * (given - mean) * scale : Vector{};
                            }
                        }
                        const Size later = words<E>(first) * wide;
                        product<E>(diagonal ? COLUMN : NONE, seen, wide, words<E>(count),
                            down_columns<E>(chances, count, narrow), 1, BLOCK, given + later, wide,
                            to_v + base * wide, wide, true);
                        product<E>(diagonal ? COLUMN : NONE, seen, wide, words<E>(count),
                            down_columns<E>(slopes, count, narrow), 1, BLOCK, queries + later, wide,
                            to_k + base * wide, wide, true);
                        product<E>(diagonal ? ROW : NONE, count, wide, words<E>(seen),
                            along_rows<E>(slopes, count, narrow), words<E>(BLOCK), 1,
                            keys + words<E>(base) * wide, wide, to_q + first * wide, wide, true);
                    }
                }
                for (Size t = 0; t < tokens; ++t)
                    for (Size j = 0; j < width; ++j)
                        store(gradient_q[q_at + t * q_stride + j], to_q[t * wide + j]);
            }
            for (Size t = 0; t < tokens; ++t)
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

// One tile of inner [R, C * WIDTH / 2] = x [R, depth] f: f [depth / 2, C * WIDTH] holds two summands side by
// side, so that few columns fill a vector.
template <int R, int C>
inline void thin_tile(Size depth, const float* x, Size stride, const float* f, Size wide, float* inner) {
    Vector sums[R][C] = {};
    for (Size k = 0; k < depth; k += 2)
        for (int j = 0; j < C; ++j) {
            const Vector row = *reinterpret_cast<const Vector*>(f + k * wide + j * WIDTH);
            for (int i = 0; i < R; ++i) {
                Size two;
                std::memcpy(&two, x + i * stride + k, sizeof two);
                sums[i][j] += reinterpret_cast<Vector>(two - Pairs{}) * row;
            }
        }
    for (int i = 0; i < R; ++i)
        for (int j = 0; j < C * WIDTH / 2; ++j)
            inner[i * wide + j] = sums[i][2 * j / WIDTH][2 * j % WIDTH] +
                sums[i][2 * j / WIDTH][2 * j % WIDTH + 1];
}

// inner [rows, wide] = x [rows, depth] f; wide is a multiple of 8.
void thin(Size rows, Size depth, const float* x, const float* f, Size wide, float* inner) {
    constexpr int C = 16 / WIDTH, R = C == 1 ? 2 * ROWS : ROWS;
    for (Size column = 0; column < wide; column += 8) {
        Size i = 0;
        for (; i + R <= rows; i += R)
            thin_tile<R, C>(depth, x + i * depth, depth, f + 2 * column, wide, inner + i * wide + column);
        for (; i < rows; ++i)
            thin_tile<1, C>(depth, x + i * depth, depth, f + 2 * column, wide, inner + i * wide + column);
    }
}

// Factors [summands, rank] by strides as `thin` takes them, zeros beyond the rank.
void pack_pairs(const float* from, Size along, Size across, Size summands, Size rank, Size wide, float* to) {
    std::fill(to, to + summands * wide, 0.0f);
    for (Size k = 0; k < summands; ++k)
        for (Size r = 0; r < rank; ++r)
            to[k / 2 * 2 * wide + 2 * r + k % 2] = from[k * along + r * across];
}

// Gradients s (g B)' x of A [rank, inputs] and s g' (x A') of B [outputs, rank], whose product s B A is added
// to a weight. Gradient g [tokens, outputs] and x [tokens, inputs] are read once: a block of them stays in
// the cache. Each LONG tokens have sums of their own: pieces [ceil(tokens / LONG), rank, inputs; then rank,
// outputs], behind which there is room for A and B, padded to a rank that is a multiple of 8. inputs and
// outputs are multiples of WIDTH.
void low_rank(const float* gradient, const float* x, const float* a, const float* b, float* to_a, float* to_b,
        float* pieces, Size tokens, Size inputs, Size outputs, Size rank, float scale) {
    const Size wide = (rank + 7) / 8 * 8, count = (tokens + LONG - 1) / LONG;
    const Size sums = rank * (inputs + outputs);
    float *a_pairs = pieces + count * sums, *b_pairs = a_pairs + wide * inputs;
    pack_pairs(a, 1, inputs, inputs, rank, wide, a_pairs);
    pack_pairs(b, rank, 1, outputs, rank, wide, b_pairs);
#pragma omp parallel
    {
        Room room(2 * BLOCK * wide);
        float *inner = room.take(BLOCK * wide), *outer = room.take(BLOCK * wide);
#pragma omp for schedule(static)
        for (Size piece = 0; piece < count; ++piece) {
            float *for_a = pieces + piece * sums, *for_b = for_a + rank * inputs;
            const Size begin = piece * LONG, end = std::min<Size>(begin + LONG, tokens);
            for (Size first = begin; first < end; first += BLOCK) {
                const Size rows = std::min<Size>(BLOCK, end - first);
                const float *given = gradient + first * outputs, *from = x + first * inputs;
                const bool add = first > begin;
                thin(rows, outputs, given, b_pairs, wide, inner);
                thin(rows, inputs, from, a_pairs, wide, outer);
                product<float>(rank, inputs, rows, inner, 1, wide, from, inputs, for_a, inputs, add);
                product<float>(rank, outputs, rows, outer, 1, wide, given, outputs, for_b, outputs, add);
            }
        }
#pragma omp for schedule(static)
        for (Size r = 0; r < 2 * rank; ++r) {
            const bool of_a = r < rank;
            const float* row = of_a ? pieces + r * inputs : pieces + rank * inputs + (r - rank) * outputs;
            float* to = of_a ? to_a + r * inputs : to_b + r - rank;
            const Size step = of_a ? 1 : rank;
            for (Size i = 0; i < (of_a ? inputs : outputs); ++i) {
                float sum = 0.0f;
                for (Size piece = 0; piece < count; ++piece) sum += row[piece * sums + i];
                to[i * step] = sum * scale;
            }
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
void low_rank_gradients(const float* gradient, const float* x, const float* a, const float* b, float* to_a,
        float* to_b, float* pieces, Size tokens, Size inputs, Size outputs, Size rank, float scale) {
    low_rank(gradient, x, a, b, to_a, to_b, pieces, tokens, inputs, outputs, rank, scale);
}
}
