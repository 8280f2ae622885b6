// Packing a CSR matrix whose rows rise strictly: its entries by tiles of rows, blocks of columns, and lengths of segments.
#include "packed_csr.hpp"

#include <nanobind/nanobind.h>
#include <nanobind/ndarray.h>

#include <algorithm>
#include <memory>
#include <utility>

#include "python_call.hpp"
#include "registry.hpp"
#include "thread_pool.hpp"

namespace nb = nanobind;

namespace {

template <class T>
using Array = nb::ndarray<T, nb::ndim<1>, nb::c_contig, nb::device::cpu>;

// Where a segment ends is hard to foresee, how often a loop over so many entries turns is not.
constexpr int some = 16;

// The end of the entries from p on that lie left of `limit`, in a row that ends at `end`.
template <class I>
inline std::int64_t end_of_segment(const I *indices, std::int64_t p, std::int64_t end, std::int64_t readable, I limit) {
    for (; p < end; p += some) {
        const int there = static_cast<int>(std::min<std::int64_t>(some, end - p));
        int left = 0;
        if (p + some <= readable)
            for (int i = 0; i < some; ++i) left += (indices[p + i] < limit) & (i < there);
        else
            for (int i = 0; i < there; ++i) left += indices[p + i] < limit;
        if (left < some) return p + left;
    }
    return end;
}

// Bytes may alias anything, so what the loops below write to lies in local variables of their own.
template <class I, class S>
struct Packing {
    std::int64_t m, k, nnz, block, blocks;
    const std::int64_t *starts;
    const I *indices;
    const S *values;
    std::int64_t *ends;   // of row i in block b: ends[i * (blocks + 1) + b + 1]
    std::int64_t *cells;  // first segment and first entry of each
    std::uint8_t *rows, *lengths, *columns;
    S *packed;
};

// Where the segments of a tile's rows end, and in cells[c + 1] how many segments and entries cell c has.
template <class I, class S>
void find_segments(const Packing<I, S> &a, std::int64_t tile) {
    const std::int64_t top = tile * workbench::tile_rows;
    for (std::int64_t i = top; i < std::min(a.m, top + workbench::tile_rows); ++i) {
        std::int64_t *row = a.ends + i * (a.blocks + 1), *cell = a.cells + 2 * (tile * a.blocks + 1), p = a.starts[i];
        row[0] = p;
        for (std::int64_t b = 0; b < a.blocks; ++b, cell += 2) {
            const std::int64_t end =
                end_of_segment(a.indices, p, a.starts[i + 1], a.nnz, static_cast<I>(std::min((b + 1) * a.block, a.k)));
            cell[0] += end != p;
            cell[1] += end - p;
            row[b + 1] = p = end;
        }
    }
}

// Sorts the segments of a cell by falling length, rows rising among equal ones. `ends` is that of the tile's first row.
inline void sort_segments(const std::int64_t *ends, std::int64_t height, std::int64_t pitch, std::int64_t block, std::uint8_t *rows,
                          std::uint8_t *lengths) {
    std::int32_t places[workbench::tile_rows] = {}, place = 0;  // of the next segment of each length
    std::uint8_t found[workbench::tile_rows];
    for (std::int64_t r = 0; r < height; ++r) {
        found[r] = static_cast<std::uint8_t>(ends[r * pitch + 1] - ends[r * pitch]);
        ++places[found[r]];
    }
    for (std::int64_t entries = block; entries > 0; --entries) place += std::exchange(places[entries], place);
    for (std::int64_t r = 0; r < height; ++r)
        if (found[r]) {
            const std::int32_t at = places[found[r]]++;
            rows[at] = static_cast<std::uint8_t>(r);
            lengths[at] = found[r];
        }
}

template <class I, class S>
void copy_segments(const Packing<I, S> &a, std::int64_t tile) {
    const std::int64_t top = tile * workbench::tile_rows, height = std::min(workbench::tile_rows, a.m - top);
    const std::int64_t pitch = a.blocks + 1, last = a.cells[2 * (tile + 1) * a.blocks + 1], nnz = a.nnz;
    const I *indices = a.indices;
    const S *values = a.values;
    std::uint8_t *columns = a.columns;
    S *packed = a.packed;
    for (std::int64_t b = 0; b < a.blocks; ++b) {
        const std::int64_t *cell = a.cells + 2 * (tile * a.blocks + b), *ends = a.ends + top * pitch + b;
        std::uint8_t *rows = a.rows + cell[0], *lengths = a.lengths + cell[0];
        sort_segments(ends, height, pitch, a.block, rows, lengths);
        const I left = static_cast<I>(b * a.block);
        const std::int64_t segments = cell[2] - cell[0];
        std::int64_t to = cell[1];
        for (std::int64_t s = 0; s < segments; ++s) {
            const std::int64_t from = ends[rows[s] * pitch], entries = lengths[s], ample = (entries + some - 1) / some * some;
            if (to + ample <= last && from + ample <= nnz) {  // what is copied too much, the next segments overwrite
                for (std::int64_t p = 0; p < entries; p += some) {
                    for (int i = 0; i < some; ++i) columns[to + p + i] = static_cast<std::uint8_t>(indices[from + p + i] - left);
                    for (int i = 0; i < some; ++i) packed[to + p + i] = values[from + p + i];
                }
            } else {
                for (std::int64_t p = 0; p < entries; ++p) columns[to + p] = static_cast<std::uint8_t>(indices[from + p] - left);
                for (std::int64_t p = 0; p < entries; ++p) packed[to + p] = values[from + p];
            }
            to += entries;
        }
    }
}

// rows and lengths have room for a segment of every row in every block. -> how many segments there are
template <class I, class S>
std::int64_t pack(Array<const std::int64_t> indptr, Array<const I> indices, Array<const S> values, std::int64_t k,
                  std::int64_t block, Array<std::int64_t> cells, Array<std::uint8_t> rows, Array<std::uint8_t> lengths,
                  Array<std::uint8_t> columns, Array<S> packed, int threads) {
    const std::int64_t m = static_cast<std::int64_t>(indptr.size()) - 1, blocks = (k + block - 1) / block;
    const std::int64_t tiles = (m + workbench::tile_rows - 1) / workbench::tile_rows;
    Packing<I, S> a{m, k, static_cast<std::int64_t>(indices.size()), block, blocks, indptr.data(), indices.data(), values.data(),
                    nullptr, cells.data(), rows.data(), lengths.data(), columns.data(), packed.data()};
    const workbench::WithoutGil released;
    const std::unique_ptr<std::int64_t[]> ends(new std::int64_t[m * (blocks + 1)]);
    a.ends = ends.get();
    std::fill(a.cells, a.cells + 2 * (tiles * blocks + 1), 0);
    workbench::parallel_for(tiles, threads, [&](std::int64_t tile, int) { find_segments(a, tile); });
    for (std::int64_t i = 2; i < 2 * (tiles * blocks + 1); ++i) a.cells[i] += a.cells[i - 2];
    workbench::parallel_for(tiles, threads, [&](std::int64_t tile, int) { copy_segments(a, tile); });
    return a.cells[2 * tiles * blocks];
}

template <class I, class S>
void bind(nb::module_ &m) {
    m.def("pack_csr", &pack<I, S>, nb::arg("indptr").noconvert(), nb::arg("indices").noconvert(),
          nb::arg("values").noconvert(), nb::arg("k"), nb::arg("block"), nb::arg("cells").noconvert(),
          nb::arg("rows").noconvert(), nb::arg("lengths").noconvert(), nb::arg("columns").noconvert(),
          nb::arg("packed").noconvert(), nb::arg("threads"));
}

}  // namespace

WORKBENCH_BIND(packed_csr) {
    bind<std::int32_t, float>(m);
    bind<std::int64_t, float>(m);
    bind<std::int32_t, double>(m);
    bind<std::int64_t, double>(m);
}
