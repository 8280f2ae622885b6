// SpMM and SDDMM over int64 CSR, float32: rows in chunks over the threads, columns in registers.
#include <nanobind/nanobind.h>
#include <nanobind/ndarray.h>

#include <algorithm>

#include "python_call.hpp"
#include "registry.hpp"
#include "simd.hpp"
#include "thread_pool.hpp"

namespace nb = nanobind;
using namespace workbench::simd;

namespace {

using Index = nb::ndarray<const std::int64_t, nb::ndim<1>, nb::c_contig, nb::device::cpu>;
using Values = nb::ndarray<const float, nb::ndim<1>, nb::c_contig, nb::device::cpu>;
using Dense = nb::ndarray<const float, nb::ndim<2>, nb::c_contig, nb::device::cpu>;
using DenseOut = nb::ndarray<float, nb::ndim<2>, nb::c_contig, nb::device::cpu>;
using ValuesOut = nb::ndarray<float, nb::ndim<1>, nb::c_contig, nb::device::cpu>;

constexpr std::int64_t rows_per_task = 32, entries_between_looks = 1 << 16;

// `vectors` vectors of one output row, kept in registers over all its nonzeros.
template <int vectors>
void row_panel(std::int64_t begin, std::int64_t end, const std::int64_t *columns, const float *values, const float *b,
               std::int64_t n, float *out) {
    vf acc[vectors];
#pragma GCC unroll 8
    for (int j = 0; j < vectors; ++j) acc[j] = set1(0.0f);
    workbench::in_runs(begin, end, entries_between_looks, [&](std::int64_t from, std::int64_t to) {
        for (std::int64_t p = from; p < to; ++p) {
            const vf x = set1(values[p]);
            const float *line = b + columns[p] * n;
#pragma GCC unroll 8
            for (int j = 0; j < vectors; ++j) acc[j] = fma(x, load(line + j * W), acc[j]);
        }
    });
#pragma GCC unroll 8
    for (int j = 0; j < vectors; ++j) store(out + j * W, acc[j]);
}

void spmm(Index indptr, Index indices, Values values, Dense b, DenseOut out, int threads) {
    const std::int64_t m = static_cast<std::int64_t>(out.shape(0)), n = static_cast<std::int64_t>(out.shape(1));
    const std::int64_t *rows = indptr.data(), *columns = indices.data();
    const float *x = values.data(), *dense = b.data();
    float *to = out.data();
    const workbench::WithoutGil released;
    workbench::parallel_for((m + rows_per_task - 1) / rows_per_task, threads, [&](std::int64_t task, int) {
        for (std::int64_t i = task * rows_per_task; i < std::min(m, (task + 1) * rows_per_task); ++i) {
            std::int64_t j = 0;
            for (; j + 8 * W <= n; j += 8 * W) row_panel<8>(rows[i], rows[i + 1], columns, x, dense + j, n, to + i * n + j);
            for (; j + 2 * W <= n; j += 2 * W) row_panel<2>(rows[i], rows[i + 1], columns, x, dense + j, n, to + i * n + j);
            for (; j + W <= n; j += W) row_panel<1>(rows[i], rows[i + 1], columns, x, dense + j, n, to + i * n + j);
            for (; j < n; ++j) {
                float sum_j = 0.0f;
                for (std::int64_t p = rows[i]; p < rows[i + 1]; ++p) sum_j += x[p] * dense[columns[p] * n + j];
                to[i * n + j] = sum_j;
            }
        }
    });
}

float dot(const float *x, const float *y, std::int64_t d) {
    vf acc = set1(0.0f), more = set1(0.0f);
    std::int64_t c = 0;
    for (; c + 2 * W <= d; c += 2 * W) {
        acc = fma(load(x + c), load(y + c), acc);
        more = fma(load(x + c + W), load(y + c + W), more);
    }
    for (; c + W <= d; c += W) acc = fma(load(x + c), load(y + c), acc);
    float total = sum(add(acc, more));
    for (; c < d; ++c) total += x[c] * y[c];
    return total;
}

void sddmm(Index indptr, Index indices, Dense x, Dense y, ValuesOut out, int threads) {
    const std::int64_t m = static_cast<std::int64_t>(x.shape(0)), d = static_cast<std::int64_t>(x.shape(1));
    const std::int64_t *rows = indptr.data(), *columns = indices.data();
    const float *left = x.data(), *right = y.data();
    float *to = out.data();
    const workbench::WithoutGil released;
    workbench::parallel_for((m + rows_per_task - 1) / rows_per_task, threads, [&](std::int64_t task, int) {
        for (std::int64_t i = task * rows_per_task; i < std::min(m, (task + 1) * rows_per_task); ++i)
            workbench::in_runs(rows[i], rows[i + 1], entries_between_looks, [&](std::int64_t from, std::int64_t stop) {
                for (std::int64_t p = from; p < stop; ++p) to[p] = dot(left + i * d, right + columns[p] * d, d);
            });
    });
}

}  // namespace

WORKBENCH_BIND(spmm_sddmm) {
    m.def("spmm", &spmm, nb::arg("indptr"), nb::arg("indices"), nb::arg("values"), nb::arg("b"),
          nb::arg("out").noconvert(), nb::arg("threads"));
    m.def("sddmm", &sddmm, nb::arg("indptr"), nb::arg("indices"), nb::arg("x"), nb::arg("y"),
          nb::arg("out").noconvert(), nb::arg("threads"));
}
