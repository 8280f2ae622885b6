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

// The end of the entries from p on that lie left of `limit`, in a row that ends at `end`. Looks at some entries at once:
// where a segment ends is hard to foresee, how often this loop turns is not.
template <class I>
inline std::int64_t end_of_segment(const I *indices, std::int64_t p, std::int64_t end, std::int64_t readable, I limit) {
    constexpr std::int64_t some = 16;
    for (; p < end; p += some) {
        const std::int64_t there = std::min(some, readable - p);
        int left = 0;
        if (there == some)
            for (std::int64_t i = 0; i < some; ++i) left += indices[p + i] < limit;
        else
            for (std::int64_t i = 0; i < there; ++i) left += indices[p + i] < limit;
        if (left < some) return std::min(end, p + left);
    }
    return end;
}

// rows and lengths have room for a segment of every row in every block. -> how many segments there are
template <class I, class S>
std::int64_t pack(Array<const std::int64_t> indptr, Array<const I> indices, Array<const S> values, std::int64_t k,
                  std::int64_t block, Array<std::int64_t> cells, Array<std::uint8_t> rows, Array<std::uint8_t> lengths,
                  Array<std::uint8_t> columns, Array<S> packed, int threads) {
    const std::int64_t m = static_cast<std::int64_t>(indptr.size()) - 1, nnz = static_cast<std::int64_t>(indices.size());
    const std::int64_t tiles = (m + workbench::tile_rows - 1) / workbench::tile_rows, blocks = (k + block - 1) / block;
    const std::int64_t *starts = indptr.data();
    const I *from = indices.data();
    const S *x = values.data();
    std::int64_t *cell_starts = cells.data();
    std::uint8_t *to_rows = rows.data(), *to_lengths = lengths.data(), *to_columns = columns.data();
    S *to = packed.data();
    const workbench::WithoutGil released;
    const auto ends = std::make_unique<std::int64_t[]>(m * (blocks + 1));  // of row i in block b: ends[i * (blocks + 1) + b + 1]
    std::fill(cell_starts, cell_starts + 2 * (tiles * blocks + 1), 0);
    workbench::parallel_for(tiles, threads, [&](std::int64_t tile, int) {
        const std::int64_t top = tile * workbench::tile_rows;
        for (std::int64_t i = top; i < std::min(m, top + workbench::tile_rows); ++i) {
            std::int64_t *row = ends.get() + i * (blocks + 1), *cell = cell_starts + 2 * (tile * blocks + 1);
            row[0] = starts[i];
            for (std::int64_t b = 0; b < blocks; ++b, cell += 2) {
                const I limit = static_cast<I>(std::min((b + 1) * block, k));
                row[b + 1] = end_of_segment(from, row[b], starts[i + 1], nnz, limit);
                cell[0] += row[b + 1] != row[b];
                cell[1] += row[b + 1] - row[b];
            }
        }
    });
    for (std::int64_t i = 2; i < 2 * (tiles * blocks + 1); ++i) cell_starts[i] += cell_starts[i - 2];
    workbench::parallel_for(tiles, threads, [&](std::int64_t tile, int) {
        const std::int64_t top = tile * workbench::tile_rows, height = std::min(workbench::tile_rows, m - top);
        for (std::int64_t b = 0; b < blocks; ++b) {
            const std::int64_t *cell = cell_starts + 2 * (tile * blocks + b), *row = ends.get() + top * (blocks + 1) + b;
            const auto length = [&](std::int64_t r) { return row[r * (blocks + 1) + 1] - row[r * (blocks + 1)]; };
            std::int64_t places[workbench::tile_rows + 1] = {};  // of the next segment of each length, long ones first
            for (std::int64_t r = 0; r < height; ++r) ++places[length(r)];
            std::int64_t place = cell[0];
            for (std::int64_t entries = block; entries > 0; --entries) place += std::exchange(places[entries], place);
            for (std::int64_t r = 0; r < height; ++r)
                if (const std::int64_t entries = length(r)) {
                    to_rows[places[entries]] = static_cast<std::uint8_t>(r);
                    to_lengths[places[entries]++] = static_cast<std::uint8_t>(entries);
                }
            std::int64_t at = cell[1];
            const I left = static_cast<I>(b * block);
            for (std::int64_t s = cell[0]; s < cell[2]; ++s) {
                const std::int64_t begin = row[to_rows[s] * (blocks + 1)], entries = to_lengths[s];
                for (std::int64_t p = 0; p < entries; ++p) to_columns[at + p] = static_cast<std::uint8_t>(from[begin + p] - left);
                for (std::int64_t p = 0; p < entries; ++p) to[at + p] = x[begin + p];
                at += entries;
            }
        }
    });
    return cell_starts[2 * tiles * blocks];
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
