// SpMM, A sparse: packed, by panels of columns that stay in the nearest cache; CSR as it comes, row by row. float32, float64.
#include <nanobind/nanobind.h>
#include <nanobind/ndarray.h>

#include <algorithm>
#include <bit>
#include <memory>

#include "../formats/packed_csr.hpp"
#include "panels.hpp"
#include "python_call.hpp"
#include "registry.hpp"
#include "simd.hpp"
#include "thread_pool.hpp"

namespace nb = nanobind;
using namespace workbench::simd;

namespace {

template <class T>
using Array = nb::ndarray<const T, nb::ndim<1>, nb::c_contig, nb::device::cpu>;
template <class S>
using Dense = nb::ndarray<const S, nb::ndim<2>, nb::c_contig, nb::device::cpu>;
template <class S>
using DenseOut = nb::ndarray<S, nb::ndim<2>, nb::c_contig, nb::device::cpu>;

constexpr std::int64_t rows_per_task = 32, entries_between_looks = 1 << 16;
constexpr int most_vectors = 8;             // of a row of C in registers
constexpr std::int64_t panel_bytes = 1 << 15, most_width_bytes = 256;
constexpr std::int64_t most_tiles = 2;      // of a task, whose sums stay in the second cache
constexpr double work_of_a_thread = 50000;  // multiply-adds of a vector: 15 to 30 microseconds

// Rows that are summed at once: their chains of multiply-adds are independent.
template <int vectors>
constexpr int together = vectors <= 2 ? 4 : vectors <= 4 ? 2 : 1;

template <class S>
using Vector = decltype(load(static_cast<const S *>(nullptr)));

// f(number<v>) for the v in 1..most that is wanted.
template <int value>
struct Number {
    static constexpr int of = value;
};
template <int most, class F>
void with_number(int wanted, F f) {
    if constexpr (most > 1)
        if (wanted < most) return with_number<most - 1>(wanted, f);
    f(Number<most>{});
}

// ---- packed ----

// Some segments of one length: row r of `sums` += the sum over p of values[p] * (row columns[p] of `panel`).
template <int vectors, int count, class S>
inline void add_segments(const std::uint8_t *rows, std::int64_t entries, const std::uint8_t *columns, const S *values,
                         const S *panel, S *sums) {
    constexpr int w = lanes<S>, width = vectors * w;
    Vector<S> acc[count][vectors];
#pragma GCC unroll 8
    for (int i = 0; i < count; ++i)
#pragma GCC unroll 8
        for (int j = 0; j < vectors; ++j) acc[i][j] = load(sums + rows[i] * width + j * w);
    for (std::int64_t p = 0; p < entries; ++p)
#pragma GCC unroll 8
        for (int i = 0; i < count; ++i) {
            const auto x = set1(values[i * entries + p]);
            const S *line = panel + columns[i * entries + p] * width;
#pragma GCC unroll 8
            for (int j = 0; j < vectors; ++j) acc[i][j] = fma(x, load(line + j * w), acc[i][j]);
        }
#pragma GCC unroll 8
    for (int i = 0; i < count; ++i)
#pragma GCC unroll 8
        for (int j = 0; j < vectors; ++j) store(sums + rows[i] * width + j * w, acc[i][j]);
}

// Segments of one length lie side by side: how often the loop over their entries turns is foreseen.
template <int vectors, class S>
void add_cell(const workbench::PackedCsr<S> &a, std::int64_t cell, const S *panel, S *sums) {
    constexpr int some = together<vectors>;
    const std::int64_t *starts = a.cells + 2 * cell;
    const std::uint8_t *columns = a.columns + starts[1];
    const S *values = a.values + starts[1];
    for (std::int64_t s = starts[0]; s < starts[2];) {
        const std::int64_t entries = a.lengths[s];
        const bool all = s + some <= starts[2] && a.lengths[s + some - 1] == entries;
        if (all)
            add_segments<vectors, some>(a.rows + s, entries, columns, values, panel, sums);
        else
            add_segments<vectors, 1>(a.rows + s, entries, columns, values, panel, sums);
        const int done = all ? some : 1;
        s += done;
        columns += done * entries;
        values += done * entries;
    }
}

template <class S>
struct Scratch {
    std::unique_ptr<S[]> room;
    S *panel, *sums;  // aligned to 64 bytes
    void reserve(std::int64_t panel_size, std::int64_t sums_size) {
        if (room) return;
        room.reset(new S[panel_size + sums_size + 32]);
        const auto aligned = [](S *p) { return p + (64 - reinterpret_cast<std::uintptr_t>(p) % 64) % 64 / sizeof(S); };
        panel = aligned(room.get());
        sums = aligned(panel + panel_size);
    }
};

// Tiles [first, stop) of C in the columns from `column` on.
template <int vectors, class S>
void add_tiles(const workbench::PackedCsr<S> &a, const S *b, std::int64_t n, std::int64_t column, std::int64_t first,
               std::int64_t stop, S *out, const Scratch<S> &scratch) {
    constexpr std::int64_t width = vectors * lanes<S>, tile_size = workbench::tile_rows * width;
    const std::int64_t there = std::min(width, n - column);
    std::fill(scratch.sums, scratch.sums + (stop - first) * tile_size, S(0));
    for (std::int64_t block = 0; block < a.blocks(); ++block) {
        workbench::check_stop();
        S *line = scratch.panel;
        for (std::int64_t r = block * a.block; r < std::min(a.k, (block + 1) * a.block); ++r, line += width) {
            std::copy(b + r * n + column, b + r * n + column + there, line);
            std::fill(line + there, line + width, S(0));
        }
        for (std::int64_t tile = first; tile < stop; ++tile)
            add_cell<vectors>(a, tile * a.blocks() + block, scratch.panel, scratch.sums + (tile - first) * tile_size);
    }
    for (std::int64_t i = first * workbench::tile_rows; i < std::min(a.m, stop * workbench::tile_rows); ++i) {
        const S *sums = scratch.sums + (i - first * workbench::tile_rows) * width;
        std::copy(sums, sums + there, out + i * n + column);
    }
}

template <class S>
void spmm_packed(Array<std::int64_t> cells, Array<std::uint8_t> rows, Array<std::uint8_t> lengths,
                 Array<std::uint8_t> columns, Array<S> values, std::int64_t block, Dense<S> b, DenseOut<S> out, int threads) {
    const workbench::PackedCsr<S> a{static_cast<std::int64_t>(out.shape(0)), static_cast<std::int64_t>(b.shape(0)), block,
                                    cells.data(), rows.data(), lengths.data(), columns.data(), values.data()};
    const std::int64_t n = static_cast<std::int64_t>(out.shape(1)), w = lanes<S>;
    const S *from = b.data();
    S *to = out.data();
    const workbench::WithoutGil released;
    if (a.m == 0 || n == 0) return;
    const std::int64_t line_bytes = std::min(panel_bytes / block, most_width_bytes);
    const std::int64_t most = std::clamp<std::int64_t>(std::bit_floor(static_cast<std::uint64_t>(line_bytes / (w * sizeof(S)))), 1, most_vectors);
    const std::int64_t width = most * w, panels = (n + width - 1) / width;
    const double work = static_cast<double>(a.cells[2 * a.tiles() * a.blocks() + 1]) * ((n + w - 1) / w);
    const int workers = workbench::threads_worth_waking(threads, work, work_of_a_thread);
    const std::int64_t wanted = workers > 1 ? (3 * workers + panels - 1) / panels : 1;
    const std::int64_t parts = std::clamp(wanted, (a.tiles() + most_tiles - 1) / most_tiles, a.tiles());
    const auto scratch = std::make_unique<Scratch<S>[]>(workers);
    workbench::parallel_for(panels * parts, workers, [&](std::int64_t task, int worker) {
        const std::int64_t column = task / parts * width, part = task % parts;
        scratch[worker].reserve(block * width, most_tiles * workbench::tile_rows * width);
        with_number<most_vectors>(static_cast<int>((std::min(width, n - column) + w - 1) / w), [&](auto vectors) {
            add_tiles<vectors.of>(a, from, n, column, a.tiles() * part / parts, a.tiles() * (part + 1) / parts, to, scratch[worker]);
        });
    });
}

// ---- CSR as it comes ----

template <class I, class S>
struct Csr {
    std::int64_t m, n;
    const std::int64_t *rows;
    const I *columns;
    const S *values, *b;
    S *out;
};

// `count` rows of C from row i on, `vectors` vectors from `column` on, the last of them with the lanes `last`: adds the
// entries that each row has in [begin, stop) of its own.
template <int vectors, int count, bool whole, class I, class S>
inline void add_rows(const Csr<I, S> &a, std::int64_t i, std::int64_t column, std::int64_t begin, std::int64_t stop, Lanes last) {
    constexpr int w = lanes<S>;
    const auto get = [&](const S *p, int j) { return whole || j < vectors - 1 ? load(p + j * w) : load(p + j * w, last); };
    S *out = a.out + i * a.n + column;
    const S *b = a.b + column;
    Vector<S> acc[count][vectors];
#pragma GCC unroll 8
    for (int r = 0; r < count; ++r)
#pragma GCC unroll 8
        for (int j = 0; j < vectors; ++j) acc[r][j] = get(out + r * a.n, j);
    for (std::int64_t p = begin; p < stop; ++p)
#pragma GCC unroll 8
        for (int r = 0; r < count; ++r) {
            const std::int64_t at = a.rows[i + r] + p;
            const auto x = set1(a.values[at]);
            const S *line = b + a.columns[at] * a.n;
#pragma GCC unroll 8
            for (int j = 0; j < vectors; ++j) acc[r][j] = fma(x, get(line, j), acc[r][j]);
        }
#pragma GCC unroll 8
    for (int r = 0; r < count; ++r)
#pragma GCC unroll 8
        for (int j = 0; j < vectors; ++j)
            if (whole || j < vectors - 1)
                store(out + r * a.n + j * w, acc[r][j]);
            else
                store(out + r * a.n + j * w, acc[r][j], last);
}

// Rows [i, i + count): as many entries as all of them have together, then what is left of each.
template <int vectors, int count, bool whole, class I, class S>
void add_group(const Csr<I, S> &a, std::int64_t i, std::int64_t column, Lanes last) {
    std::int64_t common = a.rows[i + 1] - a.rows[i];
    for (int r = 1; r < count; ++r) common = std::min(common, a.rows[i + r + 1] - a.rows[i + r]);
    workbench::in_runs(0, common, entries_between_looks, [&](std::int64_t begin, std::int64_t stop) {
        add_rows<vectors, count, whole>(a, i, column, begin, stop, last);
    });
    if constexpr (count > 1)
        for (int r = 0; r < count; ++r)
            workbench::in_runs(common, a.rows[i + r + 1] - a.rows[i + r], entries_between_looks,
                               [&](std::int64_t begin, std::int64_t stop) { add_rows<vectors, 1, whole>(a, i + r, column, begin, stop, last); });
}

template <int vectors, bool whole, class I, class S>
void add_all(const Csr<I, S> &a, std::int64_t first, std::int64_t stop, std::int64_t column, Lanes last) {
    constexpr int some = together<vectors>;
    std::int64_t i = first;
    for (; i + some <= stop; i += some) add_group<vectors, some, whole>(a, i, column, last);
    for (; i < stop; ++i) add_group<vectors, 1, whole>(a, i, column, last);
}

template <class I, class S>
void spmm_rows(Array<std::int64_t> indptr, Array<I> indices, Array<S> values, Dense<S> b, DenseOut<S> out, int threads) {
    const Csr<I, S> a{static_cast<std::int64_t>(out.shape(0)), static_cast<std::int64_t>(out.shape(1)), indptr.data(),
                      indices.data(), values.data(), b.data(), out.data()};
    constexpr std::int64_t w = lanes<S>, width = most_vectors * w;
    const workbench::WithoutGil released;
    if (a.m == 0 || a.n == 0) return;
    const int workers = workbench::threads_worth_waking(threads, static_cast<double>(a.rows[a.m]) * ((a.n + w - 1) / w), work_of_a_thread);
    workbench::parallel_for((a.m + rows_per_task - 1) / rows_per_task, workers, [&](std::int64_t task, int) {
        const std::int64_t first = task * rows_per_task, stop = std::min(a.m, first + rows_per_task);
        std::fill(a.out + first * a.n, a.out + stop * a.n, S(0));
        std::int64_t column = 0;
        for (; column + width <= a.n; column += width) add_all<most_vectors, true>(a, first, stop, column, first_lanes<S>(w));
        if (column == a.n) return;
        const int vectors = static_cast<int>((a.n - column + w - 1) / w);
        const Lanes last = first_lanes<S>(static_cast<int>(a.n - column - (vectors - 1) * w));
        with_number<most_vectors>(vectors, [&](auto v) { add_all<v.of, false>(a, first, stop, column, last); });
    });
}

template <class S>
void bind(nb::module_ &m) {
    m.def("spmm_packed", &spmm_packed<S>, nb::arg("cells").noconvert(), nb::arg("rows").noconvert(),
          nb::arg("lengths").noconvert(), nb::arg("columns").noconvert(), nb::arg("values").noconvert(), nb::arg("block"),
          nb::arg("b").noconvert(), nb::arg("out").noconvert(), nb::arg("threads"));
    const auto by_rows = [&](auto function) {
        m.def("spmm_rows", function, nb::arg("indptr").noconvert(), nb::arg("indices").noconvert(),
              nb::arg("values").noconvert(), nb::arg("b").noconvert(), nb::arg("out").noconvert(), nb::arg("threads"));
    };
    by_rows(&spmm_rows<std::int32_t, S>);
    by_rows(&spmm_rows<std::int64_t, S>);
}

}  // namespace

WORKBENCH_BIND(spmm) {
    bind<float>(m);
    bind<double>(m);
}
