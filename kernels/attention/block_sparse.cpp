// Exact softmax attention over the kept blocks, streaming over keys (Dao 2023, Alg. 1), forward and backward.
// Arrays are packed once: rows padded to whole blocks, d to a multiple of 16, and the transposes that the
// products need; after that every loop runs on full vectors.
#include <nanobind/nanobind.h>
#include <nanobind/ndarray.h>
#include <nanobind/stl/optional.h>

#include <algorithm>
#include <cstring>
#include <memory>
#include <type_traits>
#include <vector>

#include "python_call.hpp"
#include "registry.hpp"
#include "simd.hpp"
#include "thread_pool.hpp"

namespace nb = nanobind;
using namespace workbench::simd;

namespace {

constexpr float minus_inf = -std::numeric_limits<float>::infinity();
constexpr double log2_e = 1.4426950408889634;

struct Shape {
    std::int64_t heads;       // batch times heads: the unit of packing
    std::int64_t t;           // tokens
    int d, block;             // head width, tokens per block
    bool causal;
    std::int64_t blocks() const { return (t + block - 1) / block; }
    std::int64_t padded() const { return blocks() * block; }
    int width() const { return (d + 15) / 16 * 16; }
    std::int64_t rows_in(std::int64_t b) const { return std::min<std::int64_t>(block, t - b * block); }
};

struct Buffer {
    std::unique_ptr<float[]> data;
    explicit Buffer(std::int64_t n) : data(new float[static_cast<std::size_t>(std::max<std::int64_t>(n, 1))]) {}
    float *at(std::int64_t i) const { return data.get() + i; }
};

float widen(float x) { return x; }
float widen(std::uint16_t x) {  // bfloat16 is the upper half of a float
    const std::uint32_t bits = static_cast<std::uint32_t>(x) << 16;
    float y;
    std::memcpy(&y, &bits, sizeof y);
    return y;
}

// One block: (rows, d) -> (block, width), zeros where the input ends.
template <class T>
void pack_block(const Shape &s, const T *from, std::int64_t rows, float *to) {
    const int width = s.width();
    std::fill(to, to + static_cast<std::int64_t>(s.block) * width, 0.0f);
    for (std::int64_t r = 0; r < rows; ++r)
        for (int c = 0; c < s.d; ++c) to[r * width + c] = widen(from[r * s.d + c]);
}

// One block: (rows, d) -> (width, block) times factor, the right operand of q k^T; 16 x 16 at a time to stay in cache.
template <class T>
void turn_block(const Shape &s, const T *from, std::int64_t rows, float factor, float *to) {
    if (rows < s.block || s.d < s.width()) std::fill(to, to + static_cast<std::int64_t>(s.block) * s.width(), 0.0f);
    for (std::int64_t r0 = 0; r0 < rows; r0 += 16)
        for (int c0 = 0; c0 < s.d; c0 += 16)
            for (int c = c0; c < std::min(c0 + 16, s.d); ++c)
                for (std::int64_t r = r0; r < std::min(r0 + 16, rows); ++r) to[c * s.block + r] = factor * widen(from[r * s.d + c]);
}

template <class T>
void pack_head(const Shape &s, const T *from, float *to) {
    for (std::int64_t b = 0; b < s.blocks(); ++b)
        pack_block(s, from + b * s.block * s.d, s.rows_in(b), to + b * s.block * s.width());
}

template <class T>
void turn_head(const Shape &s, const T *from, float *to) {
    for (std::int64_t b = 0; b < s.blocks(); ++b)
        turn_block(s, from + b * s.block * s.d, s.rows_in(b), 1.0f, to + b * s.block * s.width());
}

struct Layout {
    const std::uint8_t *mask;      // (mask heads, blocks, blocks)
    const std::int32_t *position;  // (heads, t) original position of each key slot, or null: the slot itself
};

// Whether block pair (qb, kb) needs the token mask: the diagonal, the ragged end, or shuffled keys that reach past qb.
bool needs_token_mask(const Shape &s, const std::int32_t *position, std::int64_t qb, std::int64_t kb) {
    if (s.rows_in(kb) < s.block) return true;
    if (!s.causal) return false;
    if (position == nullptr) return kb >= qb;
    const std::int32_t *p = position + kb * s.block;
    return *std::max_element(p, p + s.block) > qb * s.block;
}

// Whether query i of row block qb sees key j of column block kb.
bool sees(const Shape &s, const std::int32_t *position, std::int64_t qb, std::int64_t kb, std::int64_t i, std::int64_t j) {
    const std::int64_t key = kb * s.block + j;
    return j < s.rows_in(kb) && (!s.causal || (position ? position[key] : key) <= qb * s.block + i);
}

void apply_token_mask(const Shape &s, const std::int32_t *position, std::int64_t qb, std::int64_t kb, float hidden, float *tile) {
    for (std::int64_t i = 0; i < s.rows_in(qb); ++i)
        for (std::int64_t j = 0; j < s.block; ++j)
            if (!sees(s, position, qb, kb, i, j)) tile[i * s.block + j] = hidden;
}

// Products over a block pair that the token mask cuts run over whole tiles, with zeros where it hides. Zero times NaN or
// infinity is NaN, so where those stand the pairs are taken one by one, in the same order.
template <class Use>
void for_pairs(const Shape &s, const std::int32_t *position, std::int64_t qb, std::int64_t kb, Use use) {
    for (std::int64_t i = 0; i < s.rows_in(qb); ++i)
        for (std::int64_t j = 0; j < s.rows_in(kb); ++j)
            if (sees(s, position, qb, kb, i, j)) use(i, j);
}

bool all_finite(const float *x, std::int64_t n) {
    constexpr std::int32_t magnitude = 0x7fffffff, infinity = 0x7f800000;
    std::int32_t largest_bits = 0;
    for (std::int64_t i = 0; i < n; ++i) {
        std::int32_t bits;
        std::memcpy(&bits, x + i, sizeof bits);
        largest_bits = std::max(largest_bits, bits & magnitude);
    }
    return largest_bits < infinity;
}

void add_row(float factor, const float *row, int width, float *sum) {
    for (int c = 0; c < width; c += W) store(sum + c, fma(set1(factor), load(row + c), load(sum + c)));
}

// Without shuffled keys, a block right of the diagonal holds nothing a causal query may see.
bool kept(const Shape &s, const Layout &layout, const std::uint8_t *mask, std::int64_t qb, std::int64_t kb) {
    return mask[qb * s.blocks() + kb] && !(s.causal && layout.position == nullptr && kb > qb);
}

// One row block of one head. q is (t, d); k_turned carries scale * log2(e), so that softmax runs in powers of two.
void forward_rows(const Shape &s, const Layout &layout, const std::uint8_t *mask, const std::int32_t *position,
                  std::int64_t qb, const float *q, const float *k_turned, const float *v, float *scores, float *acc,
                  float *out, float *lse) {
    const int width = s.width(), block = s.block, rows = static_cast<int>(s.rows_in(qb));
    float top[128], total[128];
    std::fill(top, top + rows, minus_inf);
    std::fill(total, total + rows, 0.0f);
    std::fill(acc, acc + static_cast<std::int64_t>(rows) * width, 0.0f);
    workbench::Pace pace;
    for (std::int64_t kb = 0; kb < s.blocks(); ++kb) {
        if (!kept(s, layout, mask, qb, kb)) continue;
        pace.step(static_cast<std::int64_t>(block) * width);
        gemm(rows, block, s.d, q + qb * block * s.d, s.d, 1, k_turned + kb * block * width, block, scores, block, false);
        const bool masked = needs_token_mask(s, position, qb, kb);
        if (masked) apply_token_mask(s, position, qb, kb, minus_inf, scores);
        for (int i = 0; i < rows; ++i) {
            float *row = scores + i * block;
            vf best = load(row);
            for (int j = W; j < block; j += W) best = max(best, load(row + j));
            const float highest = largest(best);
            if (!(highest <= top[i])) {  // also for NaN, which must reach the output
                const float shrink = top[i] == minus_inf ? 0.0f : std::exp2(top[i] - highest);
                total[i] *= shrink;
                for (int c = 0; c < width; c += W) store(acc + i * width + c, mul(load(acc + i * width + c), set1(shrink)));
                top[i] = highest;
            }
            if (top[i] == minus_inf) {  // nothing seen yet
                std::fill(row, row + block, 0.0f);
                continue;
            }
            const vf shift = set1(top[i]);
            vf mass = set1(0.0f);
            for (int j = 0; j < block; j += W) {
                const vf p = exp2(sub(load(row + j), shift));
                store(row + j, p);
                mass = add(mass, p);
            }
            total[i] += sum(mass);
        }
        const int keys = static_cast<int>(s.rows_in(kb));
        const float *values = v + kb * block * width;
        if (masked && !all_finite(values, static_cast<std::int64_t>(keys) * width))
            for_pairs(s, position, qb, kb, [&](std::int64_t i, std::int64_t j) { add_row(scores[i * block + j], values + j * width, width, acc + i * width); });
        else
            gemm(rows, width, keys, scores, block, 1, values, width, acc, width, true);
    }
    for (int i = 0; i < rows; ++i) {
        const float factor = total[i] == 0.0f ? 0.0f : 1.0f / total[i];
        const std::int64_t token = qb * block + i;
        for (int c = 0; c < s.d; ++c) out[token * s.d + c] = acc[i * width + c] * factor;
        lse[token] = total[i] == 0.0f ? minus_inf : (top[i] + std::log2(total[i])) / static_cast<float>(log2_e);
    }
}

// Rows that the loops can read where they lie, or a copy: bfloat16 is widened, v is padded to whole vectors.
const float *rows_or_copy(const float *in, bool ready, const Buffer &copy) { return ready ? in : copy.at(0); }
const float *rows_or_copy(const std::uint16_t *, bool, const Buffer &copy) { return copy.at(0); }

// No scratch for threads that would find no task.
int workers_for(std::int64_t tasks, int threads) {
    return static_cast<int>(std::min<std::int64_t>(threads > 0 ? threads : workbench::get_num_threads(), std::max<std::int64_t>(tasks, 1)));
}

template <class T>
void forward(const Shape &s, const T *q, const T *k, const T *v, const Layout &layout, std::int64_t mask_step_batch,
             std::int64_t heads_per_batch, float scale, float *out, float *lse, int threads) {
    const std::int64_t size = s.padded() * s.width(), plane = s.t * s.d, blocks = s.blocks();
    const auto workers = workers_for(s.heads * blocks, threads);
    constexpr bool is_float = std::is_same_v<T, float>;
    const bool v_ready = is_float && s.d == s.width();
    const std::int64_t v_plane = v_ready ? plane : size;
    Buffer q_copy(is_float ? 0 : s.heads * plane), v_copy(v_ready ? 0 : s.heads * size), k_turned(s.heads * size);
    workbench::parallel_for(s.heads * blocks, workers, [&](std::int64_t task, int) {
        const std::int64_t h = task / blocks, b = task % blocks, rows = s.rows_in(b), first = h * plane + b * s.block * s.d;
        if (!is_float) std::transform(q + first, q + first + rows * s.d, q_copy.at(first), [](T x) { return widen(x); });
        if (!v_ready) pack_block(s, v + first, rows, v_copy.at(h * size + b * s.block * s.width()));
        turn_block(s, k + first, rows, scale * static_cast<float>(log2_e), k_turned.at(h * size + b * s.block * s.width()));
    });
    const float *queries = rows_or_copy(q, true, q_copy), *values = rows_or_copy(v, v_ready, v_copy);
    const std::int64_t tile = static_cast<std::int64_t>(s.block) * (s.block + s.width());
    Buffer tiles(workers * tile);
    workbench::parallel_for(s.heads * blocks, workers, [&](std::int64_t task, int worker) {
        const std::int64_t h = task / blocks, qb = blocks - 1 - task % blocks;  // long causal rows first
        const std::uint8_t *mask = layout.mask + ((h / heads_per_batch) * mask_step_batch + h % heads_per_batch) * blocks * blocks;
        const std::int32_t *position = layout.position ? layout.position + h * s.t : nullptr;
        float *scores = tiles.at(worker * tile), *acc = scores + static_cast<std::int64_t>(s.block) * s.block;
        forward_rows(s, layout, mask, position, qb, queries + h * plane, k_turned.at(h * size), values + h * v_plane,
                     scores, acc, out + h * plane, lse + h * s.t);
    });
}

// Gradients of one head, key block by key block (Dao 2023, Alg. 2); serial within a head, so always the same sums.
struct HeadGradient {
    const Shape &s;
    Buffer q, k, grad, k_turned, v_turned, dq, dk, dv, p, ds;
    std::vector<float> delta, lse2;
    explicit HeadGradient(const Shape &shape)
        : s(shape), q(size()), k(size()), grad(size()), k_turned(size()), v_turned(size()), dq(size()),
          dk(size()), dv(size()), p(tile()), ds(tile()), delta(s.padded()), lse2(s.padded()) {}
    std::int64_t size() const { return s.padded() * s.width(); }
    std::int64_t tile() const { return static_cast<std::int64_t>(s.block) * s.block; }

    template <class T>
    void run(const T *q_in, const T *k_in, const T *v_in, const float *out, const float *lse, const float *grad_in,
             const Layout &layout, const std::uint8_t *mask, const std::int32_t *position, float scale, float *dq_out,
             float *dk_out, float *dv_out) {
        const int width = s.width(), block = s.block;
        const float to_log2 = scale * static_cast<float>(log2_e);
        pack_head(s, q_in, q.at(0));
        pack_head(s, k_in, k.at(0));
        pack_head(s, grad_in, grad.at(0));
        turn_head(s, k_in, k_turned.at(0));
        turn_head(s, v_in, v_turned.at(0));
        for (const Buffer *b : {&dq, &dk, &dv}) std::fill(b->at(0), b->at(size()), 0.0f);
        for (std::int64_t r = 0; r < s.t; ++r) {
            double dot = 0;
            for (int c = 0; c < s.d; ++c) dot += static_cast<double>(out[r * s.d + c]) * grad_in[r * s.d + c];
            delta[r] = static_cast<float>(dot);
            lse2[r] = lse[r] * static_cast<float>(log2_e);
        }
        workbench::Pace pace;
        for (std::int64_t kb = 0; kb < s.blocks(); ++kb)
            for (std::int64_t qb = 0; qb < s.blocks(); ++qb) {
                if (!kept(s, layout, mask, qb, kb)) continue;
                pace.step(std::int64_t{4} * block * width);
                const int rows = static_cast<int>(s.rows_in(qb));
                const std::int64_t q0 = qb * block * width, k0 = kb * block * width;
                gemm(rows, block, width, q.at(q0), width, 1, k_turned.at(k0), block, p.at(0), block, false);
                gemm(rows, block, width, grad.at(q0), width, 1, v_turned.at(k0), block, ds.at(0), block, false);
                for (int i = 0; i < rows; ++i) {
                    const std::int64_t token = qb * block + i;
                    const bool blind = lse2[token] == minus_inf;
                    const vf shift = set1(blind ? 0.0f : -lse2[token]), base = set1(delta[token]);
                    for (int j = 0; j < block; j += W) {
                        float *pp = p.at(i * block + j), *dd = ds.at(i * block + j);
                        const vf prob = exp2(fma(load(pp), set1(to_log2), shift));
                        store(pp, prob);
                        store(dd, mul(mul(prob, sub(load(dd), base)), set1(scale)));
                    }
                }
                const bool masked = needs_token_mask(s, position, qb, kb);
                if (masked)
                    for (const Buffer *tile : {&p, &ds}) apply_token_mask(s, position, qb, kb, 0.0f, tile->at(0));
                const std::int64_t q_size = static_cast<std::int64_t>(rows) * width, k_size = s.rows_in(kb) * width;
                if (masked && !(all_finite(grad.at(q0), q_size) && all_finite(q.at(q0), q_size) && all_finite(k.at(k0), k_size))) {
                    for_pairs(s, position, qb, kb, [&](std::int64_t i, std::int64_t j) {
                        add_row(*p.at(i * block + j), grad.at(q0 + i * width), width, dv.at(k0 + j * width));
                        add_row(*ds.at(i * block + j), q.at(q0 + i * width), width, dk.at(k0 + j * width));
                        add_row(*ds.at(i * block + j), k.at(k0 + j * width), width, dq.at(q0 + i * width));
                    });
                    continue;
                }
                gemm(block, width, rows, p.at(0), 1, block, grad.at(q0), width, dv.at(k0), width, true);
                gemm(block, width, rows, ds.at(0), 1, block, q.at(q0), width, dk.at(k0), width, true);
                gemm(rows, width, block, ds.at(0), block, 1, k.at(k0), width, dq.at(q0), width, true);
            }
        for (std::int64_t r = 0; r < s.t; ++r)
            for (int c = 0; c < s.d; ++c) {
                dq_out[r * s.d + c] = *dq.at(r * width + c);
                dk_out[r * s.d + c] = *dk.at(r * width + c);
                dv_out[r * s.d + c] = *dv.at(r * width + c);
            }
    }
};

using Floats = nb::ndarray<float, nb::c_contig, nb::device::cpu>;
using ConstFloats = nb::ndarray<const float, nb::c_contig, nb::device::cpu>;
template <class T>
using Input = nb::ndarray<const T, nb::ndim<4>, nb::c_contig, nb::device::cpu>;  // (b, h, t, d)
using Mask = nb::ndarray<const std::uint8_t, nb::ndim<4>, nb::c_contig, nb::device::cpu>;
using Positions = nb::ndarray<const std::int32_t, nb::ndim<3>, nb::c_contig, nb::device::cpu>;

template <class T>
Shape shape_of(const Input<T> &q, int block, bool causal) {
    return {static_cast<std::int64_t>(q.shape(0) * q.shape(1)), static_cast<std::int64_t>(q.shape(2)),
            static_cast<int>(q.shape(3)), block, causal};
}

template <class T>
void bind_forward(Input<T> q, Input<T> k, Input<T> v, Mask mask, std::optional<Positions> position, int block,
                  bool causal, float scale, Floats out, Floats lse, int threads) {
    const Shape s = shape_of(q, block, causal);
    const Layout layout{mask.data(), position ? position->data() : nullptr};
    const std::int64_t per_batch = static_cast<std::int64_t>(q.shape(1));
    const workbench::WithoutGil released;
    forward(s, q.data(), k.data(), v.data(), layout, mask.shape(0) == 1 ? 0 : per_batch, per_batch, scale, out.data(),
            lse.data(), threads);
}

template <class T>
void bind_backward(Input<T> q, Input<T> k, Input<T> v, Mask mask, std::optional<Positions> position, int block,
                   bool causal, float scale, ConstFloats out, ConstFloats lse, ConstFloats grad, Floats dq, Floats dk,
                   Floats dv, int threads) {
    const Shape s = shape_of(q, block, causal);
    const Layout layout{mask.data(), position ? position->data() : nullptr};
    const std::int64_t per_batch = static_cast<std::int64_t>(q.shape(1)), plane = s.t * s.d, blocks = s.blocks();
    const workbench::WithoutGil released;
    const int workers = workers_for(s.heads, threads);
    std::vector<std::unique_ptr<HeadGradient>> scratch(static_cast<std::size_t>(workers));
    workbench::parallel_for(s.heads, workers, [&](std::int64_t h, int worker) {
        const std::int64_t mask_batch = mask.shape(0) == 1 ? 0 : h / per_batch;
        auto &gradient = scratch[static_cast<std::size_t>(worker)];
        if (!gradient) gradient = std::make_unique<HeadGradient>(s);
        gradient->run(
            q.data() + h * plane, k.data() + h * plane, v.data() + h * plane, out.data() + h * plane, lse.data() + h * s.t,
            grad.data() + h * plane, layout, layout.mask + (mask_batch * per_batch + h % per_batch) * blocks * blocks,
            layout.position ? layout.position + h * s.t : nullptr, scale, dq.data() + h * plane, dk.data() + h * plane,
            dv.data() + h * plane);
    });
}

// Without noconvert() nanobind would cast bfloat16 bits to floats by value.
template <class T>
void bind(nb::module_ &m) {
    m.def("block_sparse_forward", &bind_forward<T>, nb::arg("q").noconvert(), nb::arg("k").noconvert(),
          nb::arg("v").noconvert(), nb::arg("mask"), nb::arg("position").none(), nb::arg("block"), nb::arg("causal"),
          nb::arg("scale"), nb::arg("out").noconvert(), nb::arg("lse").noconvert(), nb::arg("threads"));
    m.def("block_sparse_backward", &bind_backward<T>, nb::arg("q").noconvert(), nb::arg("k").noconvert(),
          nb::arg("v").noconvert(), nb::arg("mask"), nb::arg("position").none(), nb::arg("block"), nb::arg("causal"),
          nb::arg("scale"), nb::arg("out"), nb::arg("lse"), nb::arg("grad"), nb::arg("dq").noconvert(),
          nb::arg("dk").noconvert(), nb::arg("dv").noconvert(), nb::arg("threads"));
}

}  // namespace

WORKBENCH_BIND(block_sparse_attention) {
    bind<float>(m);
    bind<std::uint16_t>(m);
}
