// SpMM and SDDMM over int64 CSR, float32 and float64. README.md in this folder says why SpMM has two forms.
#include <nanobind/nanobind.h>
#include <nanobind/ndarray.h>

#include <algorithm>
#include <atomic>
#include <memory>
#include <optional>
#include <vector>

#include "python_call.hpp"
#include "registry.hpp"
#include "simd.hpp"
#include "thread_pool.hpp"

namespace nb = nanobind;
using namespace workbench::simd;

namespace {

using Index = nb::ndarray<const std::int64_t, nb::ndim<1>, nb::c_contig, nb::device::cpu>;
template <class S>
using Values = nb::ndarray<const S, nb::ndim<1>, nb::c_contig, nb::device::cpu>;
template <class S>
using Dense = nb::ndarray<const S, nb::ndim<2>, nb::c_contig, nb::device::cpu>;
template <class S>
using DenseOut = nb::ndarray<S, nb::ndim<2>, nb::c_contig, nb::device::cpu>;
template <class S>
using ValuesOut = nb::ndarray<S, nb::ndim<1>, nb::c_contig, nb::device::cpu>;

constexpr std::int64_t rows_per_task = 32, entries_between_looks = 1 << 16;
constexpr int panel_vectors = 8;  // columns of C at a time: eight registers hold them
constexpr std::int64_t least_block = 96, most_block = 384, entries_per_segment = 24, rows_per_panel_task = 256;

template <class S>
struct Operands {
    std::int64_t m, k, n;
    const std::int64_t *rows, *columns;
    const S *values, *b;
    S *out;
};

// `vectors` vectors of one output row, kept in registers over some entries. `line` holds row c of B at c * stride.
template <int vectors, class I, class S>
void add_entries(const I *columns, const S *values, std::int64_t entries, const S *line, std::int64_t stride, S *out,
                 bool first) {
    constexpr int w = lanes<S>;
    decltype(load(out)) acc[vectors];
#pragma GCC unroll 8
    for (int j = 0; j < vectors; ++j) acc[j] = first ? set1(S(0)) : load(out + j * w);
    for (std::int64_t p = 0; p < entries; ++p) {
        const auto x = set1(values[p]);
        const S *at = line + columns[p] * stride;
#pragma GCC unroll 8
        for (int j = 0; j < vectors; ++j) acc[j] = fma(x, load(at + j * w), acc[j]);
    }
#pragma GCC unroll 8
    for (int j = 0; j < vectors; ++j) store(out + j * w, acc[j]);
}

// Row by row, each with all its entries: for few columns, few entries a row, and rows out of order.
template <class S>
void by_rows(const Operands<S> &a, int threads) {
    constexpr int w = lanes<S>;
    workbench::parallel_for((a.m + rows_per_task - 1) / rows_per_task, threads, [&](std::int64_t task, int) {
        for (std::int64_t i = task * rows_per_task; i < std::min(a.m, (task + 1) * rows_per_task); ++i) {
            S *to = a.out + i * a.n;
            std::fill(to, to + a.n, S(0));
            workbench::in_runs(a.rows[i], a.rows[i + 1], entries_between_looks, [&](std::int64_t begin, std::int64_t end) {
                const std::int64_t *at = a.columns + begin;
                const S *x = a.values + begin;
                std::int64_t j = 0;
                for (; j + 8 * w <= a.n; j += 8 * w) add_entries<8>(at, x, end - begin, a.b + j, a.n, to + j, false);
                for (; j + 2 * w <= a.n; j += 2 * w) add_entries<2>(at, x, end - begin, a.b + j, a.n, to + j, false);
                for (; j + w <= a.n; j += w) add_entries<1>(at, x, end - begin, a.b + j, a.n, to + j, false);
                if (j == a.n) return;
                for (std::int64_t p = begin; p < end; ++p)
                    for (std::int64_t c = j; c < a.n; ++c) to[c] = fma_one(a.values[p], a.b[a.columns[p] * a.n + c], to[c]);
            });
        }
    });
}

// A's entries by blocks of columns, and within a block by rows: each block is one stream.
template <class S>
struct Packed {
    std::int64_t block, blocks;
    std::vector<std::int64_t> starts;         // of row i in block b: starts[b * m + i]
    std::unique_ptr<std::uint16_t[]> columns;  // within the block
    std::unique_ptr<S[]> values;
};

// Nothing if a row is out of order.
template <class S>
std::optional<Packed<S>> pack(const Operands<S> &a, std::int64_t block, int threads) {
    Packed<S> to{block, (a.k + block - 1) / block, {}, {}, {}};
    std::vector<std::int64_t> from(a.m * (to.blocks + 1));
    std::atomic<bool> ordered{true};
    const std::int64_t tasks = (a.m + rows_per_panel_task - 1) / rows_per_panel_task;
    workbench::parallel_for(tasks, threads, [&](std::int64_t task, int) {
        bool rises = true;
        for (std::int64_t i = task * rows_per_panel_task; i < std::min(a.m, (task + 1) * rows_per_panel_task); ++i) {
            std::int64_t *row = from.data() + i * (to.blocks + 1), p = a.rows[i], last = 0;
            for (std::int64_t b = 0; b < to.blocks; ++b) {
                row[b] = p;
                for (const std::int64_t limit = (b + 1) * block; p < a.rows[i + 1] && a.columns[p] < limit; ++p) {
                    rises &= a.columns[p] >= last;
                    last = a.columns[p];
                }
            }
            row[to.blocks] = p;
        }
        if (!rises) ordered = false;
    });
    if (!ordered) return std::nullopt;
    to.starts.reserve(to.blocks * a.m + 1);
    std::int64_t total = 0;
    for (std::int64_t b = 0; b < to.blocks; ++b)
        for (std::int64_t i = 0; i < a.m; ++i) {
            to.starts.push_back(total);
            total += from[i * (to.blocks + 1) + b + 1] - from[i * (to.blocks + 1) + b];
        }
    to.starts.push_back(total);
    to.columns.reset(new std::uint16_t[total]);
    to.values.reset(new S[total]);
    workbench::parallel_for(tasks, threads, [&](std::int64_t task, int) {
        for (std::int64_t i = task * rows_per_panel_task; i < std::min(a.m, (task + 1) * rows_per_panel_task); ++i)
            for (std::int64_t b = 0; b < to.blocks; ++b) {
                const std::int64_t *row = from.data() + i * (to.blocks + 1), at = to.starts[b * a.m + i];
                for (std::int64_t p = row[b]; p < row[b + 1]; ++p) {
                    to.columns[at + p - row[b]] = static_cast<std::uint16_t>(a.columns[p] - b * block);
                    to.values[at + p - row[b]] = a.values[p];
                }
            }
    });
    return to;
}

template <int vectors, class S>
void panel(const Operands<S> &a, const Packed<S> &packed, std::int64_t column, std::int64_t first_row,
           std::int64_t end_row, S *copy) {
    constexpr std::int64_t width = vectors * lanes<S>;
    const std::int64_t there = std::min(width, a.n - column);
    for (std::int64_t b = 0; b < packed.blocks; ++b) {
        const std::int64_t from = b * packed.block, to = std::min(a.k, from + packed.block);
        for (std::int64_t r = from; r < to; ++r) {
            S *line = copy + (r - from) * width;
            std::copy(a.b + r * a.n + column, a.b + r * a.n + column + there, line);
            std::fill(line + there, line + width, S(0));
        }
        workbench::check_stop();
        for (std::int64_t i = first_row; i < end_row; ++i) {
            const std::int64_t *start = packed.starts.data() + b * a.m + i, entries = start[1] - start[0];
            if (b > 0 && entries == 0) continue;
            const std::uint16_t *columns = packed.columns.get() + start[0];
            const S *values = packed.values.get() + start[0];
            S *out = a.out + i * a.n + column;
            if (there == width) {
                add_entries<vectors>(columns, values, entries, copy, width, out, b == 0);
                continue;
            }
            S whole[width] = {};
            std::copy(out, out + (b == 0 ? 0 : there), whole);
            add_entries<vectors>(columns, values, entries, copy, width, whole, b == 0);
            std::copy(whole, whole + there, out);
        }
    }
}

template <class S, int vectors = panel_vectors>
void panel_of(int wanted, const Operands<S> &a, const Packed<S> &packed, std::int64_t column, std::int64_t first_row,
              std::int64_t end_row, S *copy) {
    if constexpr (vectors > 1)
        if (wanted < vectors) return panel_of<S, vectors - 1>(wanted, a, packed, column, first_row, end_row, copy);
    panel<vectors>(a, packed, column, first_row, end_row, copy);
}

// Panels of columns, and in each blocks of B's rows, copied together so that they stay in cache while the rows pass.
template <class S>
void by_panels(const Operands<S> &a, const Packed<S> &packed, int threads) {
    constexpr std::int64_t width = panel_vectors * lanes<S>;
    const int workers = threads > 0 ? threads : workbench::get_num_threads();
    const std::int64_t panels = (a.n + width - 1) / width, wanted = 4 * workers;
    std::int64_t parts = std::max<std::int64_t>(1, std::min((wanted + panels - 1) / panels, a.m / rows_per_panel_task));
    while (panels * parts % workers && parts < a.m / rows_per_task) ++parts;  // as many tasks for every thread
    std::vector<std::vector<S>> copies(workers, std::vector<S>(packed.block * width + 16));
    workbench::parallel_for(panels * parts, threads, [&](std::int64_t task, int worker) {
        const std::int64_t column = task / parts * width, part = task % parts;
        const int vectors = static_cast<int>((std::min(width, a.n - column) + lanes<S> - 1) / lanes<S>);
        S *copy = copies[worker].data();
        copy += (64 - reinterpret_cast<std::uintptr_t>(copy) % 64) % 64 / sizeof(S);
        panel_of<S>(vectors, a, packed, column, a.m * part / parts, a.m * (part + 1) / parts, copy);
    });
}

template <class S>
void spmm(Index indptr, Index indices, Values<S> values, Dense<S> b, DenseOut<S> out, int threads) {
    const Operands<S> a{static_cast<std::int64_t>(out.shape(0)), static_cast<std::int64_t>(b.shape(0)),
                        static_cast<std::int64_t>(out.shape(1)), indptr.data(), indices.data(), values.data(),
                        b.data(), out.data()};
    const workbench::WithoutGil released;
    const std::int64_t nnz = a.m ? a.rows[a.m] : 0;
    if (nnz && a.n >= lanes<S>) {
        const double fitting = static_cast<double>(entries_per_segment) * a.m * a.k / nnz;
        const std::int64_t block = static_cast<std::int64_t>(std::clamp<double>(fitting, least_block, most_block)) / 32 * 32;
        if (nnz / a.m >= 4 * ((a.k + block - 1) / block) && a.m >= 4 * rows_per_task)
            if (const auto packed = pack(a, block, threads)) return by_panels(a, *packed, threads);
    }
    by_rows(a, threads);
}

template <class S>
S dot(const S *x, const S *y, std::int64_t d) {
    constexpr int w = lanes<S>;
    auto acc = set1(S(0)), more = set1(S(0));
    std::int64_t c = 0;
    for (; c + 2 * w <= d; c += 2 * w) {
        acc = fma(load(x + c), load(y + c), acc);
        more = fma(load(x + c + w), load(y + c + w), more);
    }
    for (; c + w <= d; c += w) acc = fma(load(x + c), load(y + c), acc);
    S total = sum(add(acc, more));
    for (; c < d; ++c) total += x[c] * y[c];
    return total;
}

template <class S>
void sddmm(Index indptr, Index indices, Dense<S> x, Dense<S> y, ValuesOut<S> out, int threads) {
    const std::int64_t m = static_cast<std::int64_t>(x.shape(0)), d = static_cast<std::int64_t>(x.shape(1));
    const std::int64_t *rows = indptr.data(), *columns = indices.data();
    const S *left = x.data(), *right = y.data();
    S *to = out.data();
    const workbench::WithoutGil released;
    workbench::parallel_for((m + rows_per_task - 1) / rows_per_task, threads, [&](std::int64_t task, int) {
        for (std::int64_t i = task * rows_per_task; i < std::min(m, (task + 1) * rows_per_task); ++i)
            workbench::in_runs(rows[i], rows[i + 1], entries_between_looks, [&](std::int64_t from, std::int64_t stop) {
                for (std::int64_t p = from; p < stop; ++p) to[p] = dot(left + i * d, right + columns[p] * d, d);
            });
    });
}

template <class S>
void bind(nb::module_ &m) {
    m.def("spmm", &spmm<S>, nb::arg("indptr"), nb::arg("indices"), nb::arg("values").noconvert(),
          nb::arg("b").noconvert(), nb::arg("out").noconvert(), nb::arg("threads"));
    m.def("sddmm", &sddmm<S>, nb::arg("indptr"), nb::arg("indices"), nb::arg("x").noconvert(), nb::arg("y").noconvert(),
          nb::arg("out").noconvert(), nb::arg("threads"));
}

}  // namespace

WORKBENCH_BIND(spmm_sddmm) {
    bind<float>(m);
    bind<double>(m);
}
