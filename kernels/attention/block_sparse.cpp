// Exact softmax attention over the kept blocks, streaming over keys (Dao 2023, Alg. 1), forward and backward.
// Keys are packed once, turned as the product q k^T wants them, d and blocks padded to a multiple of 16; after that every
// loop runs on full vectors. Query heads share the packed keys and values of their key head.
#include <nanobind/nanobind.h>
#include <nanobind/ndarray.h>
#include <nanobind/stl/optional.h>

#include <algorithm>
#include <cstring>
#include <limits>
#include <memory>
#include <type_traits>
#include <vector>

#include "block_rules.hpp"
#include "half.hpp"
#include "python_call.hpp"
#include "registry.hpp"
#include "simd.hpp"
#include "thread_pool.hpp"

namespace nb = nanobind;
using namespace workbench::attention;
using namespace workbench::simd;

namespace {

constexpr int row_tile = 64, key_tile = 128;  // queries and keys whose scores lie in cache together
constexpr int few_queries = 4;                // up to here keys are read where they lie: turning them costs more
constexpr double log2_e = 1.4426950408889634;
struct Half {
    std::uint16_t bits;
};
struct BFloat16 {
    std::uint16_t bits;
};
template <class T>
using Sum = std::conditional_t<std::is_same_v<T, double>, double, float>;  // the type of scores and sums

float widen(float x) { return x; }
double widen(double x) { return x; }
float widen(BFloat16 x) { return workbench::float_from_bits(static_cast<std::uint32_t>(x.bits) << 16); }  // the upper half of a float
float widen(Half x) { return workbench::float_from_half(x.bits); }

template <class S>
struct Buffer {
    std::unique_ptr<S[]> data;
    explicit Buffer(std::int64_t n) : data(new S[static_cast<std::size_t>(std::max<std::int64_t>(n, 1))]) {}
    S *at(std::int64_t i) const { return data.get() + i; }
};

// (rows, d) -> (rows, width), zeros where the input ends.
template <class T, class S>
void pack_rows(const T *from, std::int64_t rows, int d, int width, S *to) {
    for (std::int64_t r = 0; r < rows; ++r) {
        for (int c = 0; c < d; ++c) to[r * width + c] = widen(from[r * d + c]);
        std::fill(to + r * width + d, to + (r + 1) * width, S(0));
    }
}

// One block: (rows, d) -> (width, stride) times factor, the right operand of q k^T; 16 x 16 at a time to stay in cache.
template <class T, class S>
void turn_block(const T *from, int rows, int d, int stride, S factor, S *to) {
    if (rows < stride || d % 16) std::fill(to, to + static_cast<std::int64_t>(whole_vectors(d)) * stride, S(0));
    for (int r0 = 0; r0 < rows; r0 += 16)
        for (int c0 = 0; c0 < d; c0 += 16)
            for (int c = c0; c < std::min(c0 + 16, d); ++c)
                for (int r = r0; r < std::min(r0 + 16, rows); ++r) to[c * stride + r] = factor * widen(from[static_cast<std::int64_t>(r) * d + c]);
}

template <class T, class S>
void turn_head(const Shape &s, const T *from, int d, S *to) {
    for (std::int64_t kb = 0; kb < s.key_blocks(); ++kb)
        turn_block(from + kb * s.block * d, s.keys_in(kb), d, s.stride(), S(1), to + kb * whole_vectors(d) * s.stride());
}

template <class S>
bool all_finite(const S *x, std::int64_t n) {
    using Bits = std::conditional_t<sizeof(S) == 8, std::int64_t, std::int32_t>;
    constexpr Bits magnitude = std::numeric_limits<Bits>::max();
    constexpr Bits infinity = sizeof(S) == 8 ? static_cast<Bits>(0x7ff0000000000000) : static_cast<Bits>(0x7f800000);
    Bits largest_bits = 0;
    for (std::int64_t i = 0; i < n; ++i) {
        Bits bits;
        std::memcpy(&bits, x + i, sizeof bits);
        largest_bits = std::max(largest_bits, bits & magnitude);
    }
    return largest_bits < infinity;
}

template <class S>
void add_row(S factor, const S *row, int width, S *sum) {
    for (int c = 0; c < width; c += lanes<S>) store(sum + c, fma(set1(factor), load(row + c), load(sum + c)));
}

// Scores of few queries, key by key: no turned copy of the keys is made for them.
template <class T, class S>
void dot_rows(const Tile<S> &tile, const S *q, const T *k, int d, S factor, S *scores, int ld) {
    S line[512];
    for (int j = 0; j < tile.keys; ++j) {
        for (int c = 0; c < d; ++c) line[c] = widen(k[static_cast<std::int64_t>(j) * d + c]);
        for (int i = 0; i < tile.rows; ++i) {
            auto part = set1(S(0));
            int c = 0;
            for (; c + lanes<S> <= d; c += lanes<S>) part = fma(load(q + i * d + c), load(line + c), part);
            S dot = sum(part);
            for (; c < d; ++c) dot += q[i * d + c] * line[c];
            scores[i * ld + j] = dot * factor;
        }
    }
}

template <class S>
struct Running {  // softmax of one tile of queries so far: the largest score, the sum and the weighted values
    S top[row_tile], total[row_tile];
    S *acc;  // (rows, v_width)
};

// Turns scores into weights, in powers of two, and shrinks what was summed under a smaller top.
template <class S>
void weigh(const Tile<S> &tile, int ld, int v_width, S *scores, Running<S> &run) {
    const int padded = whole_vectors(tile.keys);
    for (int i = 0; i < tile.rows; ++i) {
        S *row = scores + static_cast<std::int64_t>(i) * ld;
        std::fill(row + tile.keys, row + padded, minus_inf<S>);
        auto best = load(row);
        for (int j = lanes<S>; j < padded; j += lanes<S>) best = max(best, load(row + j));
        const S highest = largest(best);
        if (!(highest <= run.top[i])) {  // also for NaN, which must reach the output
            const S shrink = run.top[i] == minus_inf<S> ? S(0) : std::exp2(run.top[i] - highest);
            run.total[i] *= shrink;
            for (int c = 0; c < v_width; c += lanes<S>) store(run.acc + i * v_width + c, mul(load(run.acc + i * v_width + c), set1(shrink)));
            run.top[i] = highest;
        }
        if (run.top[i] == minus_inf<S>) {  // nothing seen yet
            std::fill(row, row + padded, S(0));
            continue;
        }
        const auto shift = set1(run.top[i]);
        auto mass = set1(S(0));
        for (int j = 0; j < padded; j += lanes<S>) {
            const auto p = exp2(sub(load(row + j), shift));
            store(row + j, p);
            mass = add(mass, p);
        }
        run.total[i] += sum(mass);
    }
}

// What one head reads. k_turned carries scale * log2(e), so that softmax runs in powers of two.
template <class T, class S>
struct HeadInput {
    const T *k;
    const S *k_turned, *v;  // k_turned is null for few queries
};

template <class T, class S>
void forward_rows(const Shape &s, const Rules<S> &rules, const HeadInput<T, S> &head, std::int64_t qb, std::int64_t query,
                  int rows, const S *q, S to_log2, S *scores, S *acc, S *out, S *lse) {
    const int v_width = s.v_width(), stride = s.stride(), ld = std::min(stride, key_tile);
    Running<S> run;
    run.acc = acc;
    std::fill(run.top, run.top + rows, minus_inf<S>);
    std::fill(run.total, run.total + rows, S(0));
    std::fill(acc, acc + static_cast<std::int64_t>(rows) * v_width, S(0));
    workbench::Pace pace;
    for (std::int64_t kb = 0; kb < s.key_blocks(); ++kb) {
        if (!rules.blocks[qb * s.key_blocks() + kb]) continue;
        for (int from = 0; from < s.keys_in(kb); from += key_tile) {
            const Tile<S> tile{query, kb * s.block + from, rows, std::min(s.keys_in(kb) - from, key_tile)};
            const Hidden hidden = hidden_in(s, rules, tile);
            if (hidden == Hidden::all) continue;
            pace.step(static_cast<std::int64_t>(rows) * (s.width() + v_width));
            if (head.k_turned == nullptr)
                dot_rows(tile, q, head.k + tile.key * s.d, s.d, to_log2, scores, ld);
            else
                gemm(rows, whole_vectors(tile.keys), s.d, q, s.d, 1, head.k_turned + kb * s.width() * stride + from, stride, scores, ld, false);
            if (hidden == Hidden::some) hide(s, rules, tile, minus_inf<S>, static_cast<S>(log2_e), scores, ld);
            weigh(tile, ld, v_width, scores, run);
            const S *values = head.v + tile.key * v_width;
            if (hidden == Hidden::some && !all_finite(values, static_cast<std::int64_t>(tile.keys) * v_width))
                for_pairs(s, rules, tile, [&](int i, int j) { add_row(scores[i * ld + j], values + j * v_width, v_width, acc + i * v_width); });
            else
                gemm(rows, v_width, tile.keys, scores, ld, 1, values, v_width, acc, v_width, true);
        }
    }
    for (int i = 0; i < rows; ++i) {
        const S factor = run.total[i] == S(0) ? S(0) : S(1) / run.total[i];
        for (int c = 0; c < s.dv; ++c) out[static_cast<std::int64_t>(i) * s.dv + c] = acc[i * v_width + c] * factor;
        lse[i] = run.total[i] == S(0) ? minus_inf<S> : (run.top[i] + std::log2(run.total[i])) / static_cast<S>(log2_e);
    }
}

// No scratch for threads that would find no task.
int workers_for(std::int64_t tasks, int threads) {
    return static_cast<int>(std::min<std::int64_t>(threads > 0 ? threads : workbench::get_num_threads(), std::max<std::int64_t>(tasks, 1)));
}

template <class T, class S>
void forward(const Shape &s, const T *q, const T *k, const T *v, const AllRules<S> &rules, S scale, S *out, S *lse, int threads) {
    const std::int64_t key_heads = s.batches * s.key_heads, heads = s.batches * s.q_heads, key_blocks = s.key_blocks();
    const int d = s.d, dv = s.dv, v_width = s.v_width(), stride = s.stride();
    const S to_log2 = scale * static_cast<S>(log2_e);
    constexpr bool is_plain = std::is_same_v<T, S>;
    const bool v_ready = is_plain && dv == v_width, turning = s.tq > few_queries;
    Buffer<S> v_copy(v_ready ? 0 : key_heads * s.tk * v_width), k_turned(turning ? key_heads * s.turned(s.width()) : 0);
    workbench::parallel_for(v_ready && !turning ? 0 : key_heads * key_blocks, workers_for(key_heads * key_blocks, threads), [&](std::int64_t task, int) {
        const std::int64_t h = task / key_blocks, kb = task % key_blocks, row = h * s.tk + kb * s.block;
        if (!v_ready) pack_rows(v + row * dv, s.keys_in(kb), dv, v_width, v_copy.at(row * v_width));
        if (turning) turn_block(k + row * d, s.keys_in(kb), d, stride, to_log2, k_turned.at(h * s.turned(s.width()) + kb * s.width() * stride));
    });
    const int parts = (s.block + row_tile - 1) / row_tile;  // tiles of queries in a block row
    const std::int64_t tasks = heads * s.row_blocks() * parts;
    const int workers = workers_for(tasks, threads);
    const std::int64_t room = static_cast<std::int64_t>(row_tile) * (std::min(stride, key_tile) + v_width + d);
    Buffer<S> scratch(workers * room);
    workbench::parallel_for(tasks, workers, [&](std::int64_t task, int worker) {
        const std::int64_t h = task / (s.row_blocks() * parts), rest = s.row_blocks() * parts - 1 - task % (s.row_blocks() * parts);
        const std::int64_t qb = rest / parts, begin = s.query_begin(qb) + rest % parts * row_tile;  // long causal rows first
        const int rows = static_cast<int>(std::min<std::int64_t>(s.query_end(qb) - begin, row_tile));
        if (rows <= 0) return;
        S *scores = scratch.at(worker * room), *acc = scores + static_cast<std::int64_t>(row_tile) * std::min(stride, key_tile);
        const std::int64_t token = h * s.tq + begin, kh = s.key_head(h);
        const S *queries;
        if constexpr (is_plain)
            queries = q + token * d;
        else {
            S *widened = acc + static_cast<std::int64_t>(row_tile) * v_width;
            pack_rows(q + token * d, rows, d, d, widened);
            queries = widened;
        }
        const S *values;
        if constexpr (is_plain)
            values = v_ready ? v : v_copy.at(0);
        else
            values = v_copy.at(0);
        const HeadInput<T, S> head{k + kh * s.tk * d, turning ? k_turned.at(kh * s.turned(s.width())) : nullptr, values + kh * s.tk * v_width};
        forward_rows(s, rules.of(s, h), head, qb, begin, rows, queries, to_log2, scores, acc, out + token * dv, lse + token);
    });
}

// Gradients of one query head, key block by key block (Dao 2023, Alg. 2); serial within a head, so always the same sums.
template <class S>
struct HeadGradient {
    const Shape &s;
    Buffer<S> q, k, grad, k_turned, v_turned, dq, dk, dv, p, ds;
    std::vector<S> delta, lse2;
    explicit HeadGradient(const Shape &shape)
        : s(shape), q(s.tq * s.width()), k(s.tk * s.width()), grad(s.tq * s.v_width()), k_turned(s.turned(s.width())),
          v_turned(s.turned(s.v_width())), dq(s.tq * s.width()), dk(s.tk * s.width()), dv(s.tk * s.v_width()), p(tile_size()),
          ds(tile_size()), delta(s.tq), lse2(s.tq) {}
    std::int64_t tile_size() const { return static_cast<std::int64_t>(s.block) * s.stride(); }

    // p becomes the weights of a tile, ds the gradient of its scores times scale.
    void weigh_again(const Rules<S> &rules, const Tile<S> &tile, S scale, bool cut) {
        const int ld = s.stride(), padded = whole_vectors(tile.keys);
        S to_log2 = scale * static_cast<S>(log2_e);
        if (cut && rules.added) {
            for (int i = 0; i < tile.rows; ++i)
                for (int j = 0; j < tile.keys; ++j) *p.at(static_cast<std::int64_t>(i) * ld + j) *= to_log2;
            hide(s, rules, tile, S(0), static_cast<S>(log2_e), p.at(0), ld);
            to_log2 = S(1);
        }
        for (int i = 0; i < tile.rows; ++i) {
            const std::int64_t token = tile.query + i;
            const auto shift = set1(lse2[token] == minus_inf<S> ? S(0) : -lse2[token]), base = set1(delta[token]);
            for (int j = 0; j < padded; j += lanes<S>) {
                S *pp = p.at(static_cast<std::int64_t>(i) * ld + j), *dd = ds.at(static_cast<std::int64_t>(i) * ld + j);
                const auto prob = exp2(fma(load(pp), set1(to_log2), shift));
                store(pp, prob);
                store(dd, mul(mul(prob, sub(load(dd), base)), set1(scale)));
            }
        }
        if (cut)
            for (const Buffer<S> *each : {&p, &ds}) hide(s, rules, tile, S(0), S(0), each->at(0), ld);
    }

    void add_tile(const Rules<S> &rules, const Tile<S> &tile, bool cut) {
        const int width = s.width(), v_width = s.v_width(), ld = s.stride();
        S *my_q = q.at(tile.query * width), *my_grad = grad.at(tile.query * v_width), *my_k = k.at(tile.key * width);
        S *my_dq = dq.at(tile.query * width), *my_dk = dk.at(tile.key * width), *my_dv = dv.at(tile.key * v_width);
        const std::int64_t rows = tile.rows, keys = tile.keys;
        if (cut && !(all_finite(my_grad, rows * v_width) && all_finite(my_q, rows * width) && all_finite(my_k, keys * width))) {
            for_pairs(s, rules, tile, [&](std::int64_t i, std::int64_t j) {
                add_row(*p.at(i * ld + j), my_grad + i * v_width, v_width, my_dv + j * v_width);
                add_row(*ds.at(i * ld + j), my_q + i * width, width, my_dk + j * width);
                add_row(*ds.at(i * ld + j), my_k + j * width, width, my_dq + i * width);
            });
            return;
        }
        gemm(tile.keys, v_width, tile.rows, p.at(0), 1, ld, my_grad, v_width, my_dv, v_width, true);
        gemm(tile.keys, width, tile.rows, ds.at(0), 1, ld, my_q, width, my_dk, width, true);
        gemm(tile.rows, width, tile.keys, ds.at(0), ld, 1, my_k, width, my_dq, width, true);
    }

    template <class T>
    void run(const T *q_in, const T *k_in, const T *v_in, const S *out, const S *lse, const S *grad_in, const Rules<S> &rules,
             S scale, S *dq_out, S *dk_out, S *dv_out) {
        const int width = s.width(), v_width = s.v_width(), ld = s.stride();
        pack_rows(q_in, s.tq, s.d, width, q.at(0));
        pack_rows(k_in, s.tk, s.d, width, k.at(0));
        pack_rows(grad_in, s.tq, s.dv, v_width, grad.at(0));
        turn_head(s, k_in, s.d, k_turned.at(0));
        turn_head(s, v_in, s.dv, v_turned.at(0));
        std::fill(dq.at(0), dq.at(s.tq * width), S(0));
        std::fill(dk.at(0), dk.at(s.tk * width), S(0));
        std::fill(dv.at(0), dv.at(s.tk * v_width), S(0));
        for (std::int64_t r = 0; r < s.tq; ++r) {
            double dot = 0;
            for (int c = 0; c < s.dv; ++c) dot += static_cast<double>(out[r * s.dv + c]) * grad_in[r * s.dv + c];
            delta[r] = static_cast<S>(dot);
            lse2[r] = lse[r] * static_cast<S>(log2_e);
        }
        workbench::Pace pace;
        for (std::int64_t kb = 0; kb < s.key_blocks(); ++kb)
            for (std::int64_t qb = 0; qb < s.row_blocks(); ++qb) {
                if (!rules.blocks[qb * s.key_blocks() + kb]) continue;
                const std::int64_t begin = s.query_begin(qb);
                const Tile<S> tile{begin, kb * s.block, static_cast<int>(s.query_end(qb) - begin), s.keys_in(kb)};
                const Hidden hidden = hidden_in(s, rules, tile);
                if (hidden == Hidden::all) continue;
                pace.step(std::int64_t{2} * tile.rows * (width + v_width));
                const int padded = whole_vectors(tile.keys);
                gemm(tile.rows, padded, width, q.at(begin * width), width, 1, k_turned.at(kb * width * ld), ld, p.at(0), ld, false);
                gemm(tile.rows, padded, v_width, grad.at(begin * v_width), v_width, 1, v_turned.at(kb * v_width * ld), ld, ds.at(0), ld, false);
                weigh_again(rules, tile, scale, hidden == Hidden::some);
                add_tile(rules, tile, hidden == Hidden::some);
            }
        for (std::int64_t r = 0; r < s.tq; ++r) std::copy_n(dq.at(r * width), s.d, dq_out + r * s.d);
        for (std::int64_t r = 0; r < s.tk; ++r) {
            std::copy_n(dk.at(r * width), s.d, dk_out + r * s.d);
            std::copy_n(dv.at(r * v_width), s.dv, dv_out + r * s.dv);
        }
    }
};

template <class S>
using Out = nb::ndarray<S, nb::c_contig, nb::device::cpu>;
template <class T>
using Input = nb::ndarray<const T, nb::ndim<4>, nb::c_contig, nb::device::cpu>;  // (b, h, t, d)
template <class T>
using Strided = nb::ndarray<const T, nb::ndim<4>, nb::device::cpu>;
using Positions = nb::ndarray<const std::int32_t, nb::ndim<3>, nb::c_contig, nb::device::cpu>;  // (b, key heads, tk)

// The arguments that forward and backward share, as plain numbers and pointers: read while the GIL is held.
template <class T, class S, class Stored>
struct Call {
    Shape shape;
    AllRules<S> rules;
    const T *q, *k, *v;
    Call(const Input<Stored> &q_in, const Input<Stored> &k_in, const Input<Stored> &v_in, const Strided<std::uint8_t> &blocks,
         const std::optional<Positions> &position, const std::optional<Strided<std::uint8_t>> &allowed,
         const std::optional<Strided<S>> &added, int block, bool causal)
        : shape{static_cast<std::int64_t>(q_in.shape(0)), static_cast<std::int64_t>(q_in.shape(1)), static_cast<std::int64_t>(k_in.shape(1)),
                static_cast<std::int64_t>(q_in.shape(2)), static_cast<std::int64_t>(k_in.shape(2)), static_cast<int>(q_in.shape(3)),
                static_cast<int>(v_in.shape(3)), block, causal},
          rules{}, q(reinterpret_cast<const T *>(q_in.data())), k(reinterpret_cast<const T *>(k_in.data())), v(reinterpret_cast<const T *>(v_in.data())) {
        rules.first.blocks = blocks.data();
        rules.blocks_by_batch = blocks.stride(0), rules.blocks_by_head = blocks.stride(1);
        if (position) rules.first.position = position->data();
        const auto take = [&](const auto &mask) {
            rules.mask_by_batch = mask.stride(0), rules.mask_by_head = mask.stride(1);
            rules.first.by_query = mask.stride(2), rules.first.by_key = mask.stride(3);
        };
        if (allowed) rules.first.allowed = allowed->data(), take(*allowed);
        if (added) rules.first.added = added->data(), take(*added);
    }
};

template <class T, class Stored>
void bind_forward(Input<Stored> q, Input<Stored> k, Input<Stored> v, Strided<std::uint8_t> blocks, std::optional<Positions> position,
                  std::optional<Strided<std::uint8_t>> allowed, std::optional<Strided<Sum<T>>> added, int block, bool causal,
                  double scale, Out<Sum<T>> out, Out<Sum<T>> lse, int threads) {
    using S = Sum<T>;
    const Call<T, S, Stored> call(q, k, v, blocks, position, allowed, added, block, causal);
    const workbench::WithoutGil released;
    forward(call.shape, call.q, call.k, call.v, call.rules, static_cast<S>(scale), out.data(), lse.data(), threads);
}

template <class T, class Stored>
void bind_backward(Input<Stored> q, Input<Stored> k, Input<Stored> v, Strided<std::uint8_t> blocks, std::optional<Positions> position,
                   std::optional<Strided<std::uint8_t>> allowed, std::optional<Strided<Sum<T>>> added, int block, bool causal,
                   double scale, Out<const Sum<T>> out, Out<const Sum<T>> lse, Out<const Sum<T>> grad, Out<Sum<T>> dq,
                   Out<Sum<T>> dk, Out<Sum<T>> dv, int threads) {
    using S = Sum<T>;
    const Call<T, S, Stored> call(q, k, v, blocks, position, allowed, added, block, causal);
    const Shape &s = call.shape;
    const workbench::WithoutGil released;
    const std::int64_t heads = s.batches * s.q_heads, q_size = s.tq * s.d, out_size = s.tq * s.dv, k_size = s.tk * s.d, v_size = s.tk * s.dv;
    const int workers = workers_for(heads, threads);
    std::vector<std::unique_ptr<HeadGradient<S>>> scratch(static_cast<std::size_t>(workers));
    workbench::parallel_for(heads, workers, [&](std::int64_t h, int worker) {
        auto &gradient = scratch[static_cast<std::size_t>(worker)];
        if (!gradient) gradient = std::make_unique<HeadGradient<S>>(s);
        const std::int64_t kh = s.key_head(h);
        gradient->run(call.q + h * q_size, call.k + kh * k_size, call.v + kh * v_size, out.data() + h * out_size, lse.data() + h * s.tq,
                      grad.data() + h * out_size, call.rules.of(s, h), static_cast<S>(scale), dq.data() + h * q_size,
                      dk.data() + h * k_size, dv.data() + h * v_size);
    });
}

// Without noconvert() nanobind would cast the bits of half precision to floats by value.
template <class T, class Stored>
void bind(nb::module_ &m, const char *forward_name, const char *backward_name) {
    m.def(forward_name, &bind_forward<T, Stored>, nb::arg("q").noconvert(), nb::arg("k").noconvert(), nb::arg("v").noconvert(),
          nb::arg("blocks"), nb::arg("position").none(), nb::arg("allowed").noconvert().none(), nb::arg("added").noconvert().none(),
          nb::arg("block"), nb::arg("causal"), nb::arg("scale"), nb::arg("out").noconvert(), nb::arg("lse").noconvert(), nb::arg("threads"));
    m.def(backward_name, &bind_backward<T, Stored>, nb::arg("q").noconvert(), nb::arg("k").noconvert(), nb::arg("v").noconvert(),
          nb::arg("blocks"), nb::arg("position").none(), nb::arg("allowed").noconvert().none(), nb::arg("added").noconvert().none(),
          nb::arg("block"), nb::arg("causal"), nb::arg("scale"), nb::arg("out").noconvert(), nb::arg("lse").noconvert(),
          nb::arg("grad").noconvert(), nb::arg("dq").noconvert(), nb::arg("dk").noconvert(), nb::arg("dv").noconvert(), nb::arg("threads"));
}

}  // namespace

WORKBENCH_BIND(block_sparse_attention) {
    bind<float, float>(m, "block_sparse_forward_float32", "block_sparse_backward_float32");
    bind<double, double>(m, "block_sparse_forward_float64", "block_sparse_backward_float64");
    bind<Half, std::uint16_t>(m, "block_sparse_forward_float16", "block_sparse_backward_float16");
    bind<BFloat16, std::uint16_t>(m, "block_sparse_forward_bfloat16", "block_sparse_backward_bfloat16");
}
