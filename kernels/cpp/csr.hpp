// CSR operands as the loops see them: plain pointers into buffers that the public door has checked.
#pragma once
#include <nanobind/nanobind.h>
#include <nanobind/ndarray.h>

#include <cstdint>

namespace workbench {

template <class T>
using InputArray = nanobind::ndarray<const T, nanobind::ndim<1>, nanobind::c_contig, nanobind::device::cpu>;

// How many groups of 64 it takes to hold so many columns.
inline std::int64_t groups_of_64(std::int64_t columns) { return columns / 64 + (columns % 64 != 0); }

template <class I>
struct Pattern {
    std::int64_t rows, cols;
    const I *indptr, *indices;

    std::int64_t row_nnz(std::int64_t i) const { return static_cast<std::int64_t>(indptr[i + 1]) - indptr[i]; }
    std::int64_t nnz() const { return indptr[rows]; }
};

template <class I, class T>
struct Csr : Pattern<I> {
    const T *data;
};

}  // namespace workbench
