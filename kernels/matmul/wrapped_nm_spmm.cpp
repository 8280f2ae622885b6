// C = A S B X for N:M weights S between two block-diagonal matrices A and B, panel of X's columns by panel: B X stays in
// cache while all rows of S read it, and A takes the sums of some rows on their way into C. Few columns have a way of their own.
#include <nanobind/nanobind.h>
#include <nanobind/ndarray.h>

#include <algorithm>
#include <cstdint>
#include <vector>

#include "nm_few_columns.hpp"
#include "nm_rows.hpp"
#include "panels.hpp"
#include "python_call.hpp"
#include "registry.hpp"
#include "thread_pool.hpp"

namespace nb = nanobind;
using namespace workbench::nm;

namespace {

using Values = nb::ndarray<const float, nb::ndim<2>, nb::c_contig, nb::device::cpu>;
using Positions = nb::ndarray<const std::uint8_t, nb::ndim<2>, nb::c_contig, nb::device::cpu>;
using DiagonalBlocks = nb::ndarray<const float, nb::ndim<3>, nb::c_contig, nb::device::cpu>;
using DenseOut = nb::ndarray<float, nb::ndim<2>, nb::c_contig, nb::device::cpu>;

constexpr std::int64_t most_floats = 1 << 18;  // of B X for one panel: a megabyte, which the second cache holds
constexpr int block_rows = 4;                  // rows of a block whose sums are in registers together

// Square blocks along a diagonal; without data the unit matrix.
struct Diagonal {
    const float *data;
    std::int64_t side;
    const float *block(std::int64_t which) const { return data + which * side * side; }
};

// `rows` rows of a block times `count` vectors of each line of a panel.
template <int rows, int count>
inline void block_tile(const float *w, std::int64_t side, const float *panel, std::int64_t width, float *out) {
    vf acc[rows][count];
#pragma GCC unroll 4
    for (int i = 0; i < rows; ++i)
#pragma GCC unroll 4
        for (int j = 0; j < count; ++j) acc[i][j] = set1(0.0f);
    for (std::int64_t p = 0; p < side; ++p, panel += width) {
        vf line[count];
#pragma GCC unroll 4
        for (int j = 0; j < count; ++j) line[j] = load(panel + j * W);
#pragma GCC unroll 4
        for (int i = 0; i < rows; ++i) {
            const vf x = set1(w[i * side + p]);
#pragma GCC unroll 4
            for (int j = 0; j < count; ++j) acc[i][j] = fma(x, line[j], acc[i][j]);
        }
    }
#pragma GCC unroll 4
    for (int i = 0; i < rows; ++i)
#pragma GCC unroll 4
        for (int j = 0; j < count; ++j) store(out + i * width + j * W, acc[i][j]);
}

template <int rows, int vectors>
inline void block_lines(const float *w, std::int64_t side, const float *panel, float *out) {
    constexpr std::int64_t width = vectors * W;
    int j = 0;
    for (; j + gemm_vectors <= vectors; j += gemm_vectors) block_tile<rows, gemm_vectors>(w, side, panel + j * W, width, out + j * W);
    for (; j < vectors; ++j) block_tile<rows, 1>(w, side, panel + j * W, width, out + j * W);
}

// One block times a panel of `side` lines.
template <int vectors>
void block_times(const float *w, std::int64_t side, const float *panel, float *out) {
    constexpr std::int64_t width = vectors * W;
    std::int64_t i = 0;
    for (; i + block_rows <= side; i += block_rows) block_lines<block_rows, vectors>(w + i * side, side, panel, out + i * width);
    for (; i < side; ++i) block_lines<1, vectors>(w + i * side, side, panel, out + i * width);
}

struct Scratch {
    float *wrapped, *sums, *block;  // (k, width), (rows of a task, width), (side, width)
};

template <int vectors, int keep, int of>
void panel(const Operands &a, Diagonal left, Diagonal right, std::int64_t column, std::int64_t first, std::int64_t end,
           std::int64_t height, Scratch at) {
    constexpr std::int64_t width = vectors * W;
    const std::int64_t there = std::min(width, a.columns - column), groups = a.k / a.m;
    const auto copy = [&](std::int64_t line, float *to) {
        std::copy_n(a.b + line * a.columns + column, there, to);
        std::fill(to + there, to + width, 0.0f);
    };
    if (!right.data)
        for (std::int64_t r = 0; r < a.k; ++r) copy(r, at.wrapped + r * width);
    else
        for (std::int64_t r = 0; r < a.k; r += right.side) {
            workbench::check_stop();
            for (std::int64_t i = 0; i < right.side; ++i) copy(r + i, at.block + i * width);
            block_times<vectors>(right.block(r / right.side), right.side, at.block, at.wrapped + r * width);
        }
    const std::int64_t step = std::max<std::int64_t>(1, panel_floats / width / a.m);
    for (std::int64_t from = first; from < end; from += height) {
        const std::int64_t to = std::min(end, from + height);
        for (std::int64_t g = 0; g < groups; g += step) {
            const std::int64_t count = std::min(step, groups - g);
            workbench::check_stop();
            for (std::int64_t i = from; i < to; ++i) {
                const float *values = a.values + i * a.kept() + g * a.n;
                const std::uint8_t *positions = a.positions + i * a.kept() + g * a.n;
                for (std::int64_t p = 0; p < count * a.n; p += 16) __builtin_prefetch(values + soon * a.kept() + p);
                __builtin_prefetch(positions + soon * a.kept());
                add_groups<vectors, keep, of>(a, values, positions, count, at.wrapped + g * a.m * width,
                                              at.sums + (i - from) * width, g == 0);
            }
        }
        if (!left.data) {
            for (std::int64_t i = from; i < to; ++i)
                std::copy_n(at.sums + (i - from) * width, there, a.out + i * a.columns + column);
            continue;
        }
        for (std::int64_t r = from; r < to; r += left.side) {
            block_times<vectors>(left.block(r / left.side), left.side, at.sums + (r - from) * width, at.block);
            for (std::int64_t i = 0; i < left.side; ++i)
                std::copy_n(at.block + i * width, there, a.out + (r + i) * a.columns + column);
        }
    }
}

using Panel = void (*)(const Operands &, Diagonal, Diagonal, std::int64_t, std::int64_t, std::int64_t, std::int64_t, Scratch);

template <int keep, int of, int vectors = panel_vectors>
Panel panel_of(int wanted) {
    if constexpr (vectors > 1)
        if (wanted < vectors) return panel_of<keep, of, vectors - 1>(wanted);
    return panel<vectors, keep, of>;
}

Panel panel_for(const Operands &a, int vectors) {
    if (a.n == 2 && a.m == 4) return panel_of<2, 4>(vectors);
    return panel_of<0, 0>(vectors);
}

// W rows of a block times a column, by vectors along the rows: lane r is the sum of row r. Of fewer rows the last one fills up.
template <bool all>
inline vf block_rows_times(const float *w, std::int64_t side, std::int64_t there, const float *x) {
    vf acc[W];
#pragma GCC unroll 16
    for (int r = 0; r < W; ++r) acc[r] = set1(0.0f);
    const auto add_lines = [&](const float *row, const vf &line, auto load_part) {
#pragma GCC unroll 16
        for (int r = 0; r < W; ++r) {
            acc[r] = fma(load_part(row), line, acc[r]);
            row += all || r + 1 < there ? side : 0;
        }
    };
    std::int64_t p = 0;
    for (; p + W <= side; p += W) add_lines(w + p, load(x + p), [](const float *at) { return load(at); });
    if (p < side) {
        const Lanes rest = first_lanes<float>(static_cast<int>(side - p));
        add_lines(w + p, load(x + p, rest), [&](const float *at) { return load(at, rest); });
    }
    return sums<float>(acc);
}

// A block times few columns, each `stride` behind the one before.
void block_times_few(const float *w, std::int64_t side, const float *x, std::int64_t stride, std::int64_t columns, const Target &to) {
    workbench::Pace pace;
    for (std::int64_t i = 0; i < side; i += W) {
        const std::int64_t there = std::min<std::int64_t>(W, side - i);
        const auto rows_times = there == W ? block_rows_times<true> : block_rows_times<false>;
        for (std::int64_t j = 0; j < columns; ++j) to.put(i, j, rows_times(w + i * side, side, there, x + j * stride), there);
        pace.step(W * side * columns);
    }
}

// B X once for all rows, its columns one behind the other, then some rows of S at a time with their blocks of A.
void few(const Operands &a, const Picking &picking, Diagonal left, Diagonal right, int threads) {
    Columns given(a.k, a.columns, picking), wrapped(right.data ? a.k : 0, a.columns, picking);
    given.copy(a.b, a.k);
    const double per_value = static_cast<double>(a.columns + 1);
    if (right.data) {
        const std::int64_t blocks = a.k / right.side, run = std::max<std::int64_t>(1, rows_of_few / right.side);
        const int workers = workbench::threads_worth_waking(threads, per_value * a.k * right.side, few_work_of_a_thread);
        workbench::parallel_for((blocks + run - 1) / run, workers, [&](std::int64_t task, int) {
            for (std::int64_t which = task * run; which < std::min(blocks, (task + 1) * run); ++which) {
                const std::int64_t first = which * right.side;
                block_times_few(right.block(which), right.side, given.of(0) + first, given.stride, a.columns,
                                {wrapped.of(0) + first, 1, wrapped.stride});
            }
        });
    }
    const Columns &x = right.data ? wrapped : given;
    const std::int64_t side = left.side, height = std::max<std::int64_t>(1, rows_of_few / side) * side;
    const double work = few_work(a) + (left.data ? per_value * a.rows * side : 0);
    const int workers = workbench::threads_worth_waking(threads, work, few_work_of_a_thread);
    std::vector<Floats> sums(workers);
    workbench::parallel_for((a.rows + height - 1) / height, workers, [&](std::int64_t task, int worker) {
        const std::int64_t first = task * height, end = std::min(a.rows, first + height);
        const Target to{a.out + first * a.columns, a.columns, 1};
        if (!left.data) return all_few(a, picking, x, first, end, to);
        if (!sums[worker].data) sums[worker].reserve(height * a.columns);
        float *held = sums[worker].data;
        all_few(a, picking, x, first, end, {held, 1, height});
        for (std::int64_t r = first; r < end; r += side)
            block_times_few(left.block(r / side), side, held + r - first, height, a.columns,
                            {to.data + (r - first) * a.columns, a.columns, 1});
    });
}

void wrapped_nm_spmm(Values values, Positions positions, int n, int m, DiagonalBlocks left, DiagonalBlocks right, Values b,
                     DenseOut out, int threads) {
    const Operands a{static_cast<std::int64_t>(out.shape(0)), static_cast<std::int64_t>(b.shape(0)),
                     static_cast<std::int64_t>(out.shape(1)), n, m, values.data(), positions.data(), b.data(), out.data()};
    const auto diagonal = [](const DiagonalBlocks &of) {
        return Diagonal{of.shape(0) ? of.data() : nullptr, of.shape(0) ? static_cast<std::int64_t>(of.shape(1)) : 1};
    };
    const Diagonal first = diagonal(left), second = diagonal(right);
    const workbench::WithoutGil released;
    if (a.k == 0) {
        std::fill(a.out, a.out + a.rows * a.columns, 0.0f);
        return;
    }
    if (const Picking picking(a.n, a.m); a.columns <= picking.most_columns()) return few(a, picking, first, second, threads);
    const int most = a.k * panel_vectors * W > most_floats ? panel_vectors / 2 : panel_vectors;
    const std::int64_t width = most * W, panels = (a.columns + width - 1) / width;
    const int workers = threads > 0 ? threads : workbench::get_num_threads();
    const std::int64_t height = std::max<std::int64_t>(1, most_rows / first.side) * first.side;  // whole blocks of A
    const std::int64_t blocks = a.rows / first.side, most_parts = std::max<std::int64_t>(1, a.rows / std::max(least_rows, first.side));
    std::int64_t parts = 1;  // B X is computed again for each, so they are as few as keep all threads busy
    while (parts < most_parts && panels * parts % workers && panels * parts < 4 * workers) ++parts;
    const std::int64_t side = std::max(first.data ? first.side : 0, second.data ? second.side : 0);
    const std::int64_t floats = (a.k + std::min(a.rows, height) + side) * width;
    std::vector<std::vector<float>> scratch(workers);
    workbench::parallel_for(panels * parts, workers, [&](std::int64_t task, int worker) {
        const std::int64_t column = task / parts * width, part = task % parts;
        const int vectors = static_cast<int>((std::min(width, a.columns - column) + W - 1) / W);
        auto &room = scratch[worker];
        if (room.empty()) room.resize(floats + 16);
        float *at = room.data();
        at += (64 - reinterpret_cast<std::uintptr_t>(at) % 64) % 64 / sizeof(float);
        float *sums = at + a.k * width, *block = sums + std::min(a.rows, height) * width;
        panel_for(a, vectors)(a, first, second, column, blocks * part / parts * first.side,
                              blocks * (part + 1) / parts * first.side, height, {at, sums, block});
    });
}

}  // namespace

WORKBENCH_BIND(wrapped_nm) {
    m.def("wrapped_nm_spmm", &wrapped_nm_spmm, nb::arg("values").noconvert(), nb::arg("positions").noconvert(), nb::arg("n"),
          nb::arg("m"), nb::arg("left").noconvert(), nb::arg("right").noconvert(), nb::arg("b").noconvert(),
          nb::arg("out").noconvert(), nb::arg("threads"));
}
