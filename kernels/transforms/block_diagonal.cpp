// Chains of products with block-diagonal matrices, each along an axis.
// A stage is y[a, o, c] = sum over i of w[a inner + c, o, i] x[a, i, c]: block-diagonal for inner = 1, and with the permutation
// of a Monarch matrix on both sides of it for inner > 1. Many rows of x are turned, so that a vector holds the same feature of
// many rows and weights are read where they lie; a permutation is then only the row of the panel that is read or written.
#include <nanobind/nanobind.h>
#include <nanobind/ndarray.h>
#include <nanobind/stl/vector.h>

#include <algorithm>
#include <cstdint>
#include <vector>

#include "block_stages.hpp"
#include "python_call.hpp"
#include "registry.hpp"
#include "simd.hpp"
#include "thread_pool.hpp"
#include "turn.hpp"

namespace nb = nanobind;
using namespace workbench::blocks;
using namespace workbench::simd;

namespace {

constexpr std::int64_t few_rows = 4;               // up to here rows are taken one by one, and nothing is turned
constexpr std::int64_t panel_bytes = 320 * 1024;   // of one panel; two of them lie in the second cache
constexpr std::int64_t kept_bytes = 768 * 1024, few_lines = 24;  // of turned weights; rows that pass through them together
constexpr std::int64_t large_block = 320 * 1024;    // bytes of a block that had better be read once for all rows

// x (rows, count), rows `stride` apart -> panel (count, width); lanes behind the last row are cleared.
template <class S>
void into_panel(const S *x, std::int64_t stride, std::int64_t rows, std::int64_t count, std::int64_t width, S *panel) {
    constexpr int n = lanes<S>;
    Vec<S> v[n];
    for (std::int64_t r = 0; r < width; r += n)
        for (std::int64_t f = 0; f < count; f += n) {
            const std::int64_t there = std::min<std::int64_t>(n, count - f);
            const auto some = first_lanes<S>(static_cast<int>(there));
#pragma GCC unroll 16
            for (int i = 0; i < n; ++i) {
                const S *from = x + (r + i) * stride + f;
                v[i] = r + i >= rows ? set1(S(0)) : there == n ? load(from) : load(from, some);
            }
            turn<S>(v);
            S *to = panel + f * width + r;
            if (there == n)
#pragma GCC unroll 16
                for (int i = 0; i < n; ++i) store(to + i * width, v[i]);
            else
                for (int i = 0; i < there; ++i) store(to + i * width, v[i]);
        }
}

// panel (count, width) -> y (rows, count), rows `stride` apart.
template <class S>
void out_of_panel(const S *panel, std::int64_t width, std::int64_t rows, std::int64_t count, std::int64_t stride, S *y) {
    constexpr int n = lanes<S>;
    Vec<S> v[n];
    for (std::int64_t r = 0; r < rows; r += n)
        for (std::int64_t f = 0; f < count; f += n) {
            const std::int64_t there = std::min<std::int64_t>(n, count - f);
            const S *from = panel + f * width + r;
#pragma GCC unroll 16
            for (int i = 0; i < n; ++i) v[i] = i < there ? load(from + i * width) : set1(S(0));
            turn<S>(v);
            S *to = y + r * stride + f;
            const std::int64_t high = std::min<std::int64_t>(n, rows - r);
            if (there == n && high == n)
#pragma GCC unroll 16
                for (int i = 0; i < n; ++i) store(to + i * stride, v[i]);
            else
                for (int i = 0; i < high; ++i) store(to + i * stride, v[i], first_lanes<S>(static_cast<int>(there)));
        }
}

// A matrix of which neighbours in a row lie `apart` from each other, in real numbers.
template <class S>
struct Left {
    const S *data;
    std::int64_t stride, apart;
    Left from(std::int64_t row) const { return {data + row * stride, stride, apart}; }
};

// out[i, lane] = sum over p < in of w[i, p] panel[p, lane], in the order of p; rows of out lie `step` apart.
template <class T, int rows, int vectors>
inline void tile(Left<Real<T>> w, std::int64_t in, const Real<T> *panel, Real<T> *out, std::int64_t step) {
    using S = Real<T>;
    constexpr int parts = Parts<T>::count, width = vectors * lanes<S>;
    Vec<S> acc[rows * parts][vectors];
#pragma GCC unroll 16
    for (int i = 0; i < rows * parts; ++i)
#pragma GCC unroll 8
        for (int j = 0; j < vectors; ++j) acc[i][j] = set1(S(0));
    for (std::int64_t p = 0; p < in; ++p, panel += parts * width) {
        Vec<S> line[parts][vectors];
#pragma GCC unroll 2
        for (int part = 0; part < parts; ++part)
#pragma GCC unroll 8
            for (int j = 0; j < vectors; ++j) line[part][j] = load(panel + part * width + j * lanes<S>);
#pragma GCC unroll 16
        for (int i = 0; i < rows; ++i) {
            const S *at = w.data + i * w.stride + p * w.apart;
            const auto x = set1(at[0]);
            if constexpr (parts == 1) {
#pragma GCC unroll 8
                for (int j = 0; j < vectors; ++j) acc[i][j] = fma(x, line[0][j], acc[i][j]);
            } else {
                const auto y = set1(at[1]), minus = set1(-at[1]);
#pragma GCC unroll 8
                for (int j = 0; j < vectors; ++j) {
                    acc[2 * i][j] = fma(minus, line[1][j], fma(x, line[0][j], acc[2 * i][j]));
                    acc[2 * i + 1][j] = fma(y, line[0][j], fma(x, line[1][j], acc[2 * i + 1][j]));
                }
            }
        }
    }
#pragma GCC unroll 16
    for (int i = 0; i < rows; ++i)
#pragma GCC unroll 2
        for (int part = 0; part < parts; ++part)
#pragma GCC unroll 8
            for (int j = 0; j < vectors; ++j) store(out + i * step + part * width + j * lanes<S>, acc[i * parts + part][j]);
}

template <class T, int vectors>
void tiles(Left<Real<T>> w, std::int64_t rows, std::int64_t in, const Real<T> *panel, Real<T> *out, std::int64_t step) {
    constexpr int most = gemm_rows;
    std::int64_t i = 0;
    for (; i + most <= rows; i += most) tile<T, most, vectors>(w.from(i), in, panel, out + i * step, step);
    if constexpr (most > 4)
        for (; i + 4 <= rows; i += 4) tile<T, 4, vectors>(w.from(i), in, panel, out + i * step, step);
    for (; i + 2 <= rows; i += 2) tile<T, 2, vectors>(w.from(i), in, panel, out + i * step, step);
    if (i < rows) tile<T, 1, vectors>(w.from(i), in, panel, out + i * step, step);
}

// Rows of x that go through the chain together. Stage t reads buffer t - 1 and writes buffer t; the first reads x, the last writes y.
template <class T>
struct Panel {
    const Real<T> *x;
    Real<T> *y;
    std::int64_t x_stride, y_stride, rows;
    Real<T> *buffers[2];
};

template <class T>
using Chain = std::vector<Stage<T>>;

// What is turned on its own: x for a first stage that reads it across, y for a last one that writes it across.
template <class T>
bool turns_first(const Chain<T> &chain) { return chain.front().inner > 1; }
template <class T>
bool turns_last(const Chain<T> &chain) { return chain.back().inner > 1; }

template <class T, int vectors>
void stage_on_panel(const Chain<T> &chain, std::size_t t, const Panel<T> &rows, std::int64_t begin, std::int64_t end, Room<Real<T>> &room) {
    using S = Real<T>;
    constexpr std::int64_t parts = Parts<T>::count, width = vectors * lanes<S>, line = parts * width;
    const Stage<T> &a = chain[t];
    const bool from_x = t == 0 && !turns_first(chain), to_y = t + 1 == chain.size() && !turns_last(chain);
    const S *in = rows.buffers[(t + 1) % 2];
    S *out = rows.buffers[t % 2], *local = room.of((a.in + a.out) * line), *result = local + a.in * line;
    workbench::Pace pace;
    for (std::int64_t k = begin; k < end; ++k) {
        const S *block = local;
        if (from_x)
            into_panel(rows.x + a.input(k) * parts, rows.x_stride, rows.rows, a.in * parts, width, local);
        else if (a.inner == 1)
            block = in + a.input(k) * line;
        else
            for (std::int64_t i = 0; i < a.in; ++i) std::copy_n(in + (a.input(k) + i * a.inner) * line, line, local + i * line);
        tiles<T, vectors>({a.block(k), a.in * parts, parts}, a.out, a.in, block, to_y ? result : out + a.output(k) * line, (to_y ? 1 : a.inner) * line);
        if (to_y) out_of_panel(result, width, rows.rows, a.out * parts, rows.y_stride, rows.y + a.output(k) * parts);
        pace.step(a.in * a.out * line);
    }
}

template <class T, int vectors>
void on_panels(const Chain<T> &chain, const Real<T> *x, std::int64_t rows, std::int64_t x_width, std::int64_t y_width, Real<T> *y, int workers) {
    using S = Real<T>;
    constexpr std::int64_t parts = Parts<T>::count, width = vectors * lanes<S>, line = parts * width;
    const std::int64_t panels = (rows + width - 1) / width;
    std::int64_t features = x_width;
    for (const auto &a : chain) features = std::max(features, a.blocks * a.out);
    const bool alone = panels >= 2 * workers || workers == 1;  // a thread takes a panel through all stages
    const std::int64_t held = alone ? workers : panels;
    Room<S> room;
    const bool buffered = chain.size() > 1 || turns_first(chain) || turns_last(chain);
    S *buffers = room.of(buffered ? held * 2 * features * line : 1);
    std::vector<Room<S>> local(workers);
    const auto panel_of = [&](std::int64_t which, std::int64_t place) {
        S *mine = buffered ? buffers + place * 2 * features * line : nullptr;
        return Panel<T>{x + which * width * x_width * parts, y + which * width * y_width * parts, x_width * parts, y_width * parts,
                        std::min(width, rows - which * width), {mine, buffered ? mine + features * line : nullptr}};
    };
    const auto turn_in = [&](const Panel<T> &p) { into_panel(p.x, p.x_stride, p.rows, x_width * parts, width, p.buffers[1]); };
    const auto turn_out = [&](const Panel<T> &p) { out_of_panel(p.buffers[(chain.size() - 1) % 2], width, p.rows, y_width * parts, p.y_stride, p.y); };
    if (alone) {
        workbench::parallel_for(panels, workers, [&](std::int64_t which, int worker) {
            const Panel<T> panel = panel_of(which, worker);
            if (turns_first(chain)) turn_in(panel);
            for (std::size_t t = 0; t < chain.size(); ++t) stage_on_panel<T, vectors>(chain, t, panel, 0, chain[t].blocks, local[worker]);
            if (turns_last(chain)) turn_out(panel);
        });
        return;
    }
    const auto for_all = [&](const auto &body) {
        workbench::parallel_for(panels, workers, [&](std::int64_t which, int) { body(panel_of(which, which)); });
    };
    if (turns_first(chain)) for_all(turn_in);
    for (std::size_t t = 0; t < chain.size(); ++t) {
        const std::int64_t blocks = chain[t].blocks, pieces = std::min<std::int64_t>(blocks, 2 * workers);
        workbench::parallel_for(panels * pieces, workers, [&](std::int64_t task, int worker) {
            const std::int64_t which = task / pieces, piece = task % pieces;
            stage_on_panel<T, vectors>(chain, t, panel_of(which, which), blocks * piece / pieces, blocks * (piece + 1) / pieces, local[worker]);
        });
    }
    if (turns_last(chain)) for_all(turn_out);
}

// One row of x with up to lanes<S> rows of a block at once, vectors along its columns: lane i is the sum of row i.
template <class S>
Vec<S> rows_of_block(const S *w, std::int64_t in, std::int64_t there, const S *x) {
    constexpr int n = lanes<S>;
    Vec<S> acc[n];
    const S *row[n];
#pragma GCC unroll 16
    for (int i = 0; i < n; ++i) {
        acc[i] = set1(S(0));
        row[i] = w + std::min<std::int64_t>(i, there - 1) * in;
    }
    std::int64_t p = 0;
    for (; p + n <= in; p += n) {
        const auto line = load(x + p);
#pragma GCC unroll 16
        for (int i = 0; i < n; ++i) acc[i] = fma(load(row[i] + p), line, acc[i]);
    }
    if (p < in) {
        const auto rest = first_lanes<S>(static_cast<int>(in - p));
        const auto line = load(x + p, rest);
#pragma GCC unroll 16
        for (int i = 0; i < n; ++i) acc[i] = fma(load(row[i] + p, rest), line, acc[i]);
    }
    return sums<S>(acc);
}

template <class S>
void on_rows(const Chain<S> &chain, const S *x, std::int64_t rows, std::int64_t x_width, std::int64_t y_width, S *y, int workers) {
    std::int64_t features = 1;
    for (const auto &a : chain) features = std::max({features, a.blocks * a.out, a.blocks * a.in});
    Room<S> room;
    S *buffers = room.of(2 * rows * features);
    std::vector<Room<S>> local(workers);
    for (std::size_t t = 0; t < chain.size(); ++t) {
        const Stage<S> &a = chain[t];
        const S *in = t == 0 ? x : buffers + (t - 1) % 2 * rows * features;
        const std::int64_t in_stride = t == 0 ? x_width : features;
        S *out = t + 1 == chain.size() ? y : buffers + t % 2 * rows * features;
        const std::int64_t out_stride = t + 1 == chain.size() ? y_width : features;
        const std::int64_t pieces = std::min<std::int64_t>(a.blocks, workers > 1 ? 2 * workers : 1);
        workbench::parallel_for(pieces, workers, [&](std::int64_t piece, int worker) {
            constexpr int n = lanes<S>;
            S *gathered = local[worker].of(rows * a.in), held[n];
            for (std::int64_t k = a.blocks * piece / pieces; k < a.blocks * (piece + 1) / pieces; ++k) {
                if (a.inner > 1)
                    for (std::int64_t r = 0; r < rows; ++r)
                        for (std::int64_t i = 0; i < a.in; ++i) gathered[r * a.in + i] = in[r * in_stride + a.input(k) + i * a.inner];
                for (std::int64_t o = 0; o < a.out; o += n) {  // all rows of x, while these rows of the block are in cache
                    const std::int64_t there = std::min<std::int64_t>(n, a.out - o);
                    for (std::int64_t r = 0; r < rows; ++r) {
                        const S *from = a.inner > 1 ? gathered + r * a.in : in + r * in_stride + a.input(k);
                        const auto sum = rows_of_block(a.block(k) + o * a.in, a.in, there, from);
                        S *to = out + r * out_stride + a.output(k) + o * a.inner;
                        if (a.inner == 1) {
                            store(to, sum, first_lanes<S>(static_cast<int>(there)));
                            continue;
                        }
                        store(held, sum);
                        for (std::int64_t i = 0; i < there; ++i) to[i * a.inner] = held[i];
                    }
                }
            }
        });
    }
}

// One stage, many rows: what is turned is a panel of the weights, and x and y stay as they lie.
template <class S, int vectors>
void rows_on_panel(Left<S> x, std::int64_t rows, std::int64_t in, const S *panel, Left<S> y, S *to, std::int64_t there) {
    constexpr std::int64_t width = vectors * lanes<S>, most = gemm_rows;
    if (there == width && y.apart == 1) {
        tiles<S, vectors>(x, rows, in, panel, to, y.stride);
        return;
    }
    S held[most * width];
    for (std::int64_t r = 0; r < rows; r += most, to += most * y.stride) {
        const std::int64_t high = std::min(most, rows - r);
        tiles<S, vectors>(x.from(r), high, in, panel, held, width);
        for (std::int64_t i = 0; i < high; ++i)
            for (std::int64_t o = 0; o < there; ++o) to[i * y.stride + o * y.apart] = held[i * width + o];
    }
}

template <class S>
void on_weights(const Stage<S> &a, const S *x, std::int64_t rows, S *y, int workers) {
    constexpr std::int64_t width = gemm_vectors * lanes<S>;
    const std::int64_t pieces = (a.out + width - 1) / width, x_stride = a.blocks * a.in, y_stride = a.blocks * a.out;
    const auto vectors_of = [&](std::int64_t there) { return there <= lanes<S> ? 1 : there <= 2 * lanes<S> ? 2 : gemm_vectors; };
    const auto copy = [&](std::int64_t which, S *panel) {
        const std::int64_t k = which / pieces, first = which % pieces * width, there = std::min(width, a.out - first);
        into_panel(a.block(k) + first * a.in, a.in, there, a.in, vectors_of(there) * lanes<S>, panel);
    };
    const auto some_rows = [&](std::int64_t which, std::int64_t begin, std::int64_t end, const S *panel) {
        const std::int64_t k = which / pieces, first = which % pieces * width, there = std::min(width, a.out - first);
        const auto run = vectors_of(there) == 1 ? rows_on_panel<S, 1> : vectors_of(there) == 2 ? rows_on_panel<S, 2> : rows_on_panel<S, gemm_vectors>;
        workbench::in_runs(begin, end, std::max<std::int64_t>(gemm_rows, (1 << 22) / (a.in * width)), [&](std::int64_t from, std::int64_t to) {
            run({x + from * x_stride + a.input(k), x_stride, a.inner}, to - from, a.in, panel, {nullptr, y_stride, a.inner},
                y + from * y_stride + a.output(k) + first * a.inner, there);
        });
    };
    const std::int64_t cells = a.in * width, panels = a.blocks * pieces;
    if (panels * cells * static_cast<std::int64_t>(sizeof(S)) > kept_bytes || rows <= few_lines) {
        workbench::for_panels<S>(panels, rows, cells, workers, copy, some_rows);
        return;
    }
    Room<S> room;  // all panels, so that the lines of x and y are visited once
    S *turned = room.of(panels * cells);
    workbench::parallel_for(panels, workers, [&](std::int64_t which, int) { copy(which, turned + which * cells); });
    const std::int64_t parts = std::max<std::int64_t>(1, rows / few_lines);
    workbench::parallel_for(parts, workers, [&](std::int64_t part, int) {
        for (std::int64_t which = 0; which < panels; ++which) some_rows(which, rows * part / parts, rows * (part + 1) / parts, turned + which * cells);
    });
}

// A chain of large blocks: weights that no cache holds are read once for all rows, so it goes stage by stage.
template <class S>
void on_large_blocks(const Chain<S> &chain, const S *x, std::int64_t rows, S *y, int workers) {
    Room<S> rooms[2];
    for (std::size_t t = 0; t < chain.size(); ++t) {
        S *out = t + 1 == chain.size() ? y : rooms[t % 2].of(rows * chain[t].blocks * chain[t].out);
        on_weights<S>(chain[t], x, rows, out, workers);
        x = out;
    }
}

template <class T>
void chain_product(In<T, 2> x, std::vector<In<T, 3>> weights, std::vector<std::int64_t> inner, Out<T, 2> y, int threads) {
    using S = Real<T>;
    Chain<T> chain;
    const std::int64_t rows = static_cast<std::int64_t>(x.shape(0)), x_width = static_cast<std::int64_t>(x.shape(1)),
                       y_width = static_cast<std::int64_t>(y.shape(1));
    double work = 0;
    bool large = true;
    std::int64_t features = x_width;
    for (std::size_t t = 0; t < weights.size(); ++t) {
        const auto &w = weights[t];
        chain.push_back({static_cast<std::int64_t>(w.shape(0)), static_cast<std::int64_t>(w.shape(1)), static_cast<std::int64_t>(w.shape(2)),
                         inner[t], reinterpret_cast<const S *>(w.data())});
        work += static_cast<double>(rows) * static_cast<double>(w.size()) * Parts<T>::count * Parts<T>::count;
        features = std::max(features, chain.back().blocks * chain.back().out);
        large = large && chain.back().out * chain.back().in * static_cast<std::int64_t>(sizeof(T)) > large_block;
    }
    const S *from = reinterpret_cast<const S *>(x.data());
    S *to = reinterpret_cast<S *>(y.data());
    const workbench::WithoutGil released;
    if (rows == 0) return;
    const int workers = workbench::threads_worth_waking(threads, work, work_of_a_thread);
    if constexpr (Parts<T>::count == 1) {
        if (rows <= few_rows) {
            on_rows<S>(chain, from, rows, x_width, y_width, to, workers);
            return;
        }
        if (large || (chain.size() == 1 && chain[0].inner == 1)) {
            on_large_blocks<S>(chain, from, rows, to, workers);
            return;
        }
    }
    constexpr int most = gemm_vectors / Parts<T>::count;
    const std::int64_t line = features * Parts<T>::count * lanes<S> * static_cast<std::int64_t>(sizeof(S));
    const bool fits = chain.size() == 1 || most * line <= panel_bytes;
    if constexpr (most > 2)
        if (rows > 2 * lanes<S> && fits) {
            on_panels<T, most>(chain, from, rows, x_width, y_width, to, workers);
            return;
        }
    if constexpr (most > 1)
        if (rows > lanes<S>) {
            on_panels<T, 2>(chain, from, rows, x_width, y_width, to, workers);
            return;
        }
    on_panels<T, 1>(chain, from, rows, x_width, y_width, to, workers);
}

template <class T>
void bind(nb::module_ &m) {
    m.def("block_chain", &chain_product<T>, nb::arg("x").noconvert(), nb::arg("weights").noconvert(), nb::arg("inner"), nb::arg("y").noconvert(), nb::arg("threads"));
}

}  // namespace

WORKBENCH_BIND(block_diagonal) {
    bind<float>(m);
    bind<double>(m);
    bind<std::complex<float>>(m);
    bind<std::complex<double>>(m);
}
