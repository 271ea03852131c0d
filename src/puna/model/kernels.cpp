// Kernels of the decoder for CPUs, in float32: the parts between the matrix products, and causal attention
// inside documents.
//
// Every function takes plain arrays, splits its work over OpenMP's threads (torch's own, since the library is
// already loaded) and writes each result from exactly one thread. Sums over rows are taken in pieces of a
// fixed size and then over the pieces in order, so no result depends on timing or on the number of threads.

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <numeric>
#include <vector>

#if defined(__AVX512F__)
constexpr int WIDTH = 16, COLUMNS = 4;
#elif defined(__AVX__)
constexpr int WIDTH = 8, COLUMNS = 2;
#else
constexpr int WIDTH = 4, COLUMNS = 2;
#endif
constexpr int ROWS = 6;     // a tile of ROWS x COLUMNS vectors of a product's result is held in registers
constexpr int BLOCK = 64;   // queries and keys computed together: scores of 16 KB stay in the L1 cache
typedef float Vector __attribute__((vector_size(4 * WIDTH), aligned(4)));
constexpr int PART = 4096;  // elements of a long array that a thread takes at once
constexpr int PIECE = 64;   // rows that are summed together, as PIECE_ROWS of kernels.py
constexpr int STRIP = 64;   // columns of the pieces' sums that a thread adds up at once
typedef int64_t Size;

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

// exp(x) to 2 units in the last place, without branches, so that loops over it are vectorised (Cephes'
// polynomial). x is clamped to [-60, 60]: 9e-27 vanishes beside 1 in float32, while subnormal numbers would
// cost a hundred times the time.
inline float exponential(float x) {
    x = x < -60.0f ? -60.0f : x;
    x = x > 60.0f ? 60.0f : x;
    const float shifted = x * 1.44269504088896341f + 12582912.0f;  // adding 1.5 * 2^23 rounds to an integer
    const float whole = shifted - 12582912.0f;
    const float rest = (x - whole * 0.693359375f) + whole * 2.12194440e-4f;
    float p = 1.9875691500e-4f;
    p = p * rest + 1.3981999507e-3f;
    p = p * rest + 8.3334519073e-3f;
    p = p * rest + 4.1665795894e-2f;
    p = p * rest + 1.6666665459e-1f;
    p = p * rest + 5.0000001201e-1f;
    p = p * rest * rest + rest + 1.0f;
    return p * __builtin_bit_cast(float, (static_cast<int32_t>(whole) + 127) << 23);
}

// One tile of c [R, C * WIDTH] (+)= a [R, depth] b [depth, C * WIDTH]; element (i, k) of a is
// a[i * ai + k * ak].
template <int R, int C>
inline void tile(Size depth, const float* a, Size ai, Size ak, const float* b, Size bk, float* c, Size ci,
        bool add) {
    Vector sums[R][C] = {};
    for (Size k = 0; k < depth; ++k) {
        Vector row[C];
        for (int j = 0; j < C; ++j) row[j] = *reinterpret_cast<const Vector*>(b + k * bk + j * WIDTH);
        for (int i = 0; i < R; ++i) {
            const float factor = a[i * ai + k * ak];
            for (int j = 0; j < C; ++j) sums[i][j] += factor * row[j];
        }
    }
    for (int i = 0; i < R; ++i)
        for (int j = 0; j < C; ++j) {
            Vector* to = reinterpret_cast<Vector*>(c + i * ci + j * WIDTH);
            *to = add ? *to + sums[i][j] : sums[i][j];
        }
}

template <int C>
inline void columns(Size m, Size depth, const float* a, Size ai, Size ak, const float* b, Size bk, float* c,
        Size ci, bool add) {
    Size i = 0;
    for (; i + ROWS <= m; i += ROWS) tile<ROWS, C>(depth, a + i * ai, ai, ak, b, bk, c + i * ci, ci, add);
    a += i * ai, c += i * ci;
    switch (m - i) {
        case 5: tile<5, C>(depth, a, ai, ak, b, bk, c, ci, add); break;
        case 4: tile<4, C>(depth, a, ai, ak, b, bk, c, ci, add); break;
        case 3: tile<3, C>(depth, a, ai, ak, b, bk, c, ci, add); break;
        case 2: tile<2, C>(depth, a, ai, ak, b, bk, c, ci, add); break;
        case 1: tile<1, C>(depth, a, ai, ak, b, bk, c, ci, add); break;
    }
}

// c [m, n] (+)= a [m, depth] b [depth, n], n a multiple of WIDTH.
inline void product(Size m, Size n, Size depth, const float* a, Size ai, Size ak, const float* b, Size bk,
        float* c, Size ci, bool add) {
    Size j = 0;
    for (; j + COLUMNS * WIDTH <= n; j += COLUMNS * WIDTH)
        columns<COLUMNS>(m, depth, a, ai, ak, b + j, bk, c + j, ci, add);
    const Size left = (n - j) / WIDTH;
    if (left == 3) columns<3>(m, depth, a, ai, ak, b + j, bk, c + j, ci, add);
    if (left == 2) columns<2>(m, depth, a, ai, ak, b + j, bk, c + j, ci, add);
    if (left == 1) columns<1>(m, depth, a, ai, ak, b + j, bk, c + j, ci, add);
}

inline Size padded(Size width) { return (width + WIDTH - 1) / WIDTH * WIDTH; }

// The same where one operand is a block of scores on the diagonal, of which only column <= row counts.
enum Triangle {
    NONE,
    RESULT,  // c is the block: columns beyond the last row of a tile are not computed (nor written)
    ROW,     // a is the block: columns beyond the last row of a tile are not read
    COLUMN,  // a is the block transposed: rows before the first of a tile are not read
};

inline void product(Triangle triangle, Size m, Size n, Size depth, const float* a, Size ai, Size ak,
        const float* b, Size bk, float* c, Size ci, bool add) {
    if (triangle == NONE) return product(m, n, depth, a, ai, ak, b, bk, c, ci, add);
    for (Size i = 0; i < m; i += ROWS) {
        const Size rows = std::min<Size>(ROWS, m - i), end = i + rows, before = triangle == COLUMN ? i : 0;
        product(rows, triangle == RESULT ? std::min(n, padded(end)) : n,
            (triangle == ROW ? std::min(depth, end) : depth) - before, a + i * ai + before * ak, ai, ak,
            b + before * bk, bk, c + i * ci, ci, add);
    }
}

// Copy the rows of one head, padded with zeros: out [length, padded(width)].
void pack(const float* x, Size stride, Size length, Size width, float* out) {
    const Size wide = padded(width);
    for (Size t = 0; t < length; ++t) {
        std::memcpy(out + t * wide, x + t * stride, width * sizeof(float));
        std::fill(out + t * wide + width, out + (t + 1) * wide, 0.0f);
    }
}

// The same, transposed block by block: out [blocks, width, BLOCK], zeros after the last row.
void pack_transposed(const float* x, Size stride, Size length, Size width, float* out) {
    const Size blocks = (length + BLOCK - 1) / BLOCK;
    for (Size block = 0; block < blocks; ++block) {
        float* to = out + block * width * BLOCK;
        const Size count = std::min<Size>(BLOCK, length - block * BLOCK);
        if (count < BLOCK) std::fill(to, to + width * BLOCK, 0.0f);
        for (Size t = 0; t < count; ++t) {
            const float* from = x + (block * BLOCK + t) * stride;
            for (Size i = 0; i < width; ++i) to[i * BLOCK + t] = from[i];
        }
    }
}

// One thread's part of a long array; __restrict says that the arrays do not overlap.
void swiglu_part(const float* __restrict gate, const float* __restrict up, float* __restrict out,
        Size count) {
#pragma omp simd
    for (Size i = 0; i < count; ++i) out[i] = gate[i] / (1.0f + exponential(-gate[i])) * up[i];
}

void swiglu_backward_part(const float* __restrict gate, const float* __restrict up,
        float* __restrict gradient, float* __restrict gradient_gate, float* __restrict gradient_up,
        Size count) {
#pragma omp simd
    for (Size i = 0; i < count; ++i) {
        const float sigmoid = 1.0f / (1.0f + exponential(-gate[i])), silu = gate[i] * sigmoid,
            given = gradient[i], above = up[i];
        gradient[i] = silu * above;
        gradient_gate[i] = given * above * (sigmoid + silu * (1.0f - sigmoid));
        gradient_up[i] = given * silu;
    }
}

}  // namespace

extern "C" {

// out = x / sqrt(mean(x^2) + eps) * weight, row by row.
void rms_norm(const float* x, const float* weight, float* out, Size rows, Size width, float eps) {
#pragma omp parallel for schedule(static)
    for (Size r = 0; r < rows; ++r) {
        const float* from = x + r * width;
        float* to = out + r * width;
        float squares = 0.0f;
#pragma omp simd reduction(+ : squares)
        for (Size i = 0; i < width; ++i) squares += from[i] * from[i];
        const float scale = 1.0f / std::sqrt(squares / width + eps);
#pragma omp simd
        for (Size i = 0; i < width; ++i) to[i] = from[i] * scale * weight[i];
    }
}

// gradient_x = residual (null: none) + d rms_norm / dx . gradient; gradient_weight [width].
// pieces: [ceil(rows / PIECE), width] of scratch.
void rms_norm_backward(const float* x, const float* weight, const float* gradient, const float* residual,
        float* gradient_x, float* gradient_weight, float* pieces, Size rows, Size width, float eps) {
    const Size count = (rows + PIECE - 1) / PIECE;
#pragma omp parallel
    {
#pragma omp for schedule(static)
        for (Size piece = 0; piece < count; ++piece) {
            float* sums = pieces + piece * width;
            std::fill(sums, sums + width, 0.0f);
            for (Size r = piece * PIECE; r < std::min<Size>((piece + 1) * PIECE, rows); ++r) {
                const float *from = x + r * width, *given = gradient + r * width,
                    *beside = residual ? residual + r * width : nullptr;
                float* to = gradient_x + r * width;
                float squares = 0.0f, along = 0.0f;
#pragma omp simd reduction(+ : squares, along)
                for (Size i = 0; i < width; ++i) {
                    squares += from[i] * from[i];
                    along += from[i] * given[i] * weight[i];
                }
                const float scale = 1.0f / std::sqrt(squares / width + eps),
                    back = along * scale * scale * scale / width;
#pragma omp simd
                for (Size i = 0; i < width; ++i) {
                    sums[i] += given[i] * from[i] * scale;
                    to[i] = given[i] * weight[i] * scale - from[i] * back;
                }
                if (!beside) continue;
#pragma omp simd
                for (Size i = 0; i < width; ++i) to[i] += beside[i];
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
void swiglu(const float* gate, const float* up, float* out, Size count) {
#pragma omp parallel for schedule(static)
    for (Size begin = 0; begin < count; begin += PART)
        swiglu_part(gate + begin, up + begin, out + begin, std::min<Size>(PART, count - begin));
}

// silu(gate) * up again, in the memory of its gradient, and the gradients of gate and up.
void swiglu_backward(const float* gate, const float* up, float* gradient, float* gradient_gate,
        float* gradient_up, Size count) {
#pragma omp parallel for schedule(static)
    for (Size begin = 0; begin < count; begin += PART)
        swiglu_backward_part(gate + begin, up + begin, gradient + begin, gradient_gate + begin,
            gradient_up + begin, std::min<Size>(PART, count - begin));
}

// Rotate neighbouring pairs of x [tokens, heads, width] by the angles of cosine, sine [positions, width / 2],
// where token i has position i % positions; direction -1 rotates by the negative angle. out may be x.
void rotate(const float* x, const float* cosine, const float* sine, float* out, Size tokens, Size positions,
        Size heads, Size width, float direction) {
#pragma omp parallel for schedule(static)
    for (Size t = 0; t < tokens; ++t) {
        const float *c = cosine + t % positions * (width / 2), *s = sine + t % positions * (width / 2);
        for (Size h = 0; h < heads; ++h) {
            const float* pair = x + (t * heads + h) * width;
            float* to = out + (t * heads + h) * width;
#pragma omp simd
            for (Size i = 0; i < width / 2; ++i) {
                const float even = pair[2 * i], odd = pair[2 * i + 1], turn = s[i] * direction;
                to[2 * i] = even * c[i] - odd * turn;
                to[2 * i + 1] = even * turn + odd * c[i];
            }
        }
    }
}

// Causal attention inside documents. q, out: [rows, length, heads, width]; k, v: [rows, length, kv_heads,
// width]; log_sums: [rows, heads, length]. start [rows, length]: the first position that a position attends
// to, never decreasing along a row. Blocks of scores that no position attends to are not computed, and no
// scores are kept (Dao et al. 2022, algorithm 1).
void attention(const float* q, const float* k, const float* v, const int32_t* start, float* out,
        float* log_sums, Size rows, Size length, Size heads, Size kv_heads, Size width, float scale) {
    const Size group = heads / kv_heads, wide = padded(width), blocks = (length + BLOCK - 1) / BLOCK;
    const Size q_stride = heads * width, kv_stride = kv_heads * width;
#pragma omp parallel
    {
        Room room(blocks * width * BLOCK + length * wide + BLOCK * BLOCK + BLOCK * wide + 2 * BLOCK);
        float *keys = room.take(blocks * width * BLOCK), *values = room.take(length * wide),
            *scores = room.take(BLOCK * BLOCK);
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
                    const float* queries = q + (row * length + first) * q_stride + head * width;
                    for (Size block = from[first] / BLOCK; block <= first / BLOCK; ++block) {
                        const Size base = block * BLOCK, seen = std::min<Size>(BLOCK, length - base);
                        const bool diagonal = base == first;
                        product(diagonal ? RESULT : NONE, count, BLOCK, width, queries, q_stride, 1,
                            keys + block * width * BLOCK, BLOCK, scores, BLOCK, false);
                        for (Size i = 0; i < count; ++i) {
                            float* score = scores + i * BLOCK;
                            const Size low = std::max<Size>(from[first + i] - base, 0),
                                high = std::min<Size>(first + i - base + 1, BLOCK);
                            // Scores of the row that are computed, in whole vectors.
                            const Size known = std::min<Size>(padded(high), BLOCK);
                            float top = highest[i], sum = 0.0f;
                            if (low >= high) {
                                std::fill(score, score + BLOCK, 0.0f);
                                continue;
                            }
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
                        product(diagonal ? ROW : NONE, count, wide, seen, scores, BLOCK, 1,
                            values + base * wide, wide, sums, wide, true);
                    }
                    for (Size i = 0; i < count; ++i) {
                        float* to = out + (row * length + first + i) * q_stride + head * width;
                        const float share = 1.0f / total[i];
#pragma omp simd
                        for (Size j = 0; j < width; ++j) to[j] = sums[i * wide + j] * share;
                        log_sums[(row * heads + head) * length + first + i] = highest[i] + std::log(total[i]);
                    }
                }
        }
    }
}

// Gradients of `attention`: the scores are computed again block by block from the saved log-sums (Dao et al.
// 2022, algorithm 4).
void attention_backward(const float* gradient, const float* q, const float* k, const float* v,
        const float* out, const float* log_sums, const int32_t* start, float* gradient_q, float* gradient_k,
        float* gradient_v, Size rows, Size length, Size heads, Size kv_heads, Size width, float scale) {
    const Size group = heads / kv_heads, wide = padded(width), blocks = (length + BLOCK - 1) / BLOCK;
    const Size q_stride = heads * width, kv_stride = kv_heads * width;
#pragma omp parallel
    {
        const Size turned = blocks * width * BLOCK, packed = length * wide, square = BLOCK * BLOCK;
        Room room(2 * turned + 6 * packed + length + 2 * square);
        float *keys_t = room.take(turned), *values_t = room.take(turned), *keys = room.take(packed),
            *queries = room.take(packed);
        float *given = room.take(packed), *to_q = room.take(packed), *to_k = room.take(packed),
            *to_v = room.take(packed);
        float *chances = room.take(square), *slopes = room.take(square), *along = room.take(length);
#pragma omp for schedule(dynamic, 1)
        for (Size task = 0; task < rows * kv_heads; ++task) {
            const Size row = task / kv_heads, kv_head = task % kv_heads,
                kv_at = row * length * kv_stride + kv_head * width;
            const int32_t* from = start + row * length;
            pack_transposed(k + kv_at, kv_stride, length, width, keys_t);
            pack_transposed(v + kv_at, kv_stride, length, width, values_t);
            pack(k + kv_at, kv_stride, length, width, keys);
            std::fill(to_k, to_k + packed, 0.0f);
            std::fill(to_v, to_v + packed, 0.0f);
            for (Size head = kv_head * group; head < (kv_head + 1) * group; ++head) {
                const Size q_at = row * length * q_stride + head * width;
                const float* sums = log_sums + (row * heads + head) * length;
                pack(q + q_at, q_stride, length, width, queries);
                pack(gradient + q_at, q_stride, length, width, given);
                for (Size t = 0; t < length; ++t) {
                    const float *result = out + q_at + t * q_stride, *slope = given + t * wide;
                    float sum = 0.0f;
#pragma omp simd reduction(+ : sum)
                    for (Size j = 0; j < width; ++j) sum += result[j] * slope[j];
                    along[t] = sum;
                }
                std::fill(to_q, to_q + packed, 0.0f);
                for (Size block = 0; block < blocks; ++block) {
                    const Size base = block * BLOCK, seen = std::min<Size>(BLOCK, length - base);
                    for (Size first = base; first < length && from[first] < base + BLOCK; first += BLOCK) {
                        const Size count = std::min<Size>(BLOCK, length - first);
                        const bool diagonal = base == first;
                        product(diagonal ? RESULT : NONE, count, BLOCK, width, queries + first * wide, wide,
                            1, keys_t + block * width * BLOCK, BLOCK, chances, BLOCK, false);
                        product(diagonal ? RESULT : NONE, count, BLOCK, width, given + first * wide, wide, 1,
                                values_t + block * width * BLOCK, BLOCK, slopes, BLOCK, false);
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
                        product(diagonal ? COLUMN : NONE, seen, wide, count, chances, 1, BLOCK,
                            given + first * wide, wide, to_v + base * wide, wide, true);
                        product(diagonal ? COLUMN : NONE, seen, wide, count, slopes, 1, BLOCK,
                            queries + first * wide, wide, to_k + base * wide, wide, true);
                        product(diagonal ? ROW : NONE, count, wide, seen, slopes, BLOCK, 1,
                            keys + base * wide, wide, to_q + first * wide, wide, true);
                    }
                }
                for (Size t = 0; t < length; ++t)
                    std::memcpy(gradient_q + q_at + t * q_stride, to_q + t * wide, width * sizeof(float));
            }
            for (Size t = 0; t < length; ++t) {
                std::memcpy(gradient_k + kv_at + t * kv_stride, to_k + t * wide, width * sizeof(float));
                std::memcpy(gradient_v + kv_at + t * kv_stride, to_v + t * wide, width * sizeof(float));
            }
        }
    }
}

// total = sum over the rows of weight * (lse - logit of the target + z * lse^2), weights null for 1. With
// want_gradient the logits are overwritten by its gradient.
void cross_entropy(float* logits, const int64_t* targets, const float* weights, double* total, Size rows,
        Size vocabulary, float z, int want_gradient) {
    std::vector<double> losses(rows);
#pragma omp parallel for schedule(static)
    for (Size r = 0; r < rows; ++r) {
        float* row = logits + r * vocabulary;
        const int64_t target = targets[r];
        const float weight = weights ? weights[r] : 1.0f;
        float top = row[0];
#pragma omp simd reduction(max : top)
        for (Size i = 0; i < vocabulary; ++i) top = std::max(top, row[i]);
        const double chosen = row[target];
        double sum = 0.0;
        // Partial sums keep float32 exact enough for any vocabulary.
        for (Size begin = 0; begin < vocabulary; begin += 1024) {
            const Size end = std::min<Size>(begin + 1024, vocabulary);
            float part = 0.0f;
            if (want_gradient) {
#pragma omp simd reduction(+ : part)
                for (Size i = begin; i < end; ++i) part += row[i] = exponential(row[i] - top);
            } else {
#pragma omp simd reduction(+ : part)
                for (Size i = begin; i < end; ++i) part += exponential(row[i] - top);
            }
            sum += part;
        }
        const double log_sum = top + std::log(sum);
        losses[r] = weight * (log_sum - chosen + z * log_sum * log_sum);
        if (want_gradient) {
            const float factor = static_cast<float>(weight * (1.0 + 2.0 * z * log_sum) / sum);
#pragma omp simd
            for (Size i = 0; i < vocabulary; ++i) row[i] *= factor;
            row[target] -= weight;
        }
    }
    *total = std::accumulate(losses.begin(), losses.end(), 0.0);
}

}  // extern "C"
