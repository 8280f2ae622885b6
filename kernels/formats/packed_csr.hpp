// A CSR matrix in the order in which SpMM reads it; `packed_csr.py` describes the arrays.
#pragma once
#include <cstdint>

namespace workbench {

constexpr std::int64_t tile_rows = 256;  // as many as a byte tells apart

template <class S>
struct PackedCsr {
    std::int64_t m, k, block;
    const std::int64_t *cells;  // of each: its first segment, its first entry
    const std::uint8_t *rows, *lengths, *columns;
    const S *values;
    std::int64_t tiles() const { return (m + tile_rows - 1) / tile_rows; }
    std::int64_t blocks() const { return (k + block - 1) / block; }
};

}  // namespace workbench
