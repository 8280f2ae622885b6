// N:M weights times a dense matrix. README.md in this folder says why the loops are as they are.
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
using DenseOut = nb::ndarray<float, nb::ndim<2>, nb::c_contig, nb::device::cpu>;

template <int vectors, int keep, int of>
void panel(const Operands &a, std::int64_t column, std::int64_t first_row, std::int64_t end_row, float *copy,
           float *sums) {
    constexpr std::int64_t width = vectors * W;
    const std::int64_t there = std::min(width, a.columns - column), groups = a.k / a.m;
    const std::int64_t step = std::max<std::int64_t>(1, panel_floats / width / a.m);
    for (std::int64_t g = 0; g < groups; g += step) {
        const std::int64_t count = std::min(step, groups - g);
        workbench::check_stop();
        for (std::int64_t r = 0; r < count * a.m; ++r) {
            const float *line = a.b + (g * a.m + r) * a.columns + column;
            std::copy(line, line + there, copy + r * width);
            std::fill(copy + r * width + there, copy + (r + 1) * width, 0.0f);
        }
        for (std::int64_t i = first_row; i < end_row; ++i) {
            const std::int64_t at = i * a.kept() + g * a.n;
            const float *values = a.values + at;
            const std::uint8_t *positions = a.positions + at;
            for (std::int64_t p = 0; p < count * a.n; p += 16) __builtin_prefetch(values + soon * a.kept() + p);
            __builtin_prefetch(positions + soon * a.kept());
            add_groups<vectors, keep, of>(a, values, positions, count, copy, sums + (i - first_row) * width, g == 0);
        }
    }
    for (std::int64_t i = first_row; i < end_row; ++i)
        std::copy_n(sums + (i - first_row) * width, there, a.out + i * a.columns + column);
}

using Panel = void (*)(const Operands &, std::int64_t, std::int64_t, std::int64_t, float *, float *);

template <int keep, int of, int vectors = panel_vectors>
Panel panel_of(int wanted) {
    if constexpr (vectors > 1)
        if (wanted < vectors) return panel_of<keep, of, vectors - 1>(wanted);
    return panel<vectors, keep, of>;
}

Panel panel_for(const Operands &a, int vectors) {
    if (a.n == 2 && a.m == 4) return panel_of<2, 4>(vectors);
    if (a.n == 1 && a.m == 4) return panel_of<1, 4>(vectors);
    if (a.n == 4 && a.m == 8) return panel_of<4, 8>(vectors);
    return panel_of<0, 0>(vectors);
}

void few(const Operands &a, const Picking &picking, int threads) {
    Columns x(a.k, a.columns, picking);
    x.copy(a.b, a.k);
    const int workers = workbench::threads_worth_waking(threads, few_work(a), few_work_of_a_thread);
    workbench::parallel_for((a.rows + rows_of_few - 1) / rows_of_few, workers, [&](std::int64_t task, int) {
        const std::int64_t first = task * rows_of_few, end = std::min(a.rows, first + rows_of_few);
        all_few(a, picking, x, first, end, {a.out + first * a.columns, a.columns, 1});
    });
}

void nm_spmm(Values values, Positions positions, int n, int m, Values b, DenseOut out, int threads) {
    const Operands a{static_cast<std::int64_t>(out.shape(0)), static_cast<std::int64_t>(b.shape(0)),
                     static_cast<std::int64_t>(out.shape(1)), n, m, values.data(), positions.data(), b.data(), out.data()};
    const workbench::WithoutGil released;
    if (a.k == 0) {
        std::fill(a.out, a.out + a.rows * a.columns, 0.0f);
        return;
    }
    if (const Picking picking(a.n, a.m); a.columns <= picking.most_columns()) return few(a, picking, threads);
    constexpr std::int64_t width = panel_vectors * W;
    const int workers = threads > 0 ? threads : workbench::get_num_threads();
    const std::int64_t panels = (a.columns + width - 1) / width;
    std::int64_t parts = std::max<std::int64_t>(1, (a.rows + most_rows - 1) / most_rows);
    while (panels * parts % workers && parts < a.rows / least_rows) ++parts;  // as many tasks for every thread
    const std::int64_t size = std::max<std::int64_t>(panel_floats, a.m * width);
    std::vector<std::vector<float>> scratch(workers, std::vector<float>(size + std::min(a.rows, most_rows) * width + 16));
    workbench::parallel_for(panels * parts, threads, [&](std::int64_t task, int worker) {
        const std::int64_t column = task / parts * width, part = task % parts;
        const int vectors = static_cast<int>((std::min(width, a.columns - column) + W - 1) / W);
        float *copy = scratch[worker].data();
        copy += (64 - reinterpret_cast<std::uintptr_t>(copy) % 64) % 64 / sizeof(float);
        panel_for(a, vectors)(a, column, a.rows * part / parts, a.rows * (part + 1) / parts, copy, copy + size);
    });
}

}  // namespace

WORKBENCH_BIND(nm) {
    m.def("nm_spmm", &nm_spmm, nb::arg("values").noconvert(), nb::arg("positions").noconvert(), nb::arg("n"), nb::arg("m"),
          nb::arg("b").noconvert(), nb::arg("out").noconvert(), nb::arg("threads"));
}
