// Structure check of a CSR matrix: everything a kernel's loop relies on, found out in one pass over the indices.
#include <nanobind/nanobind.h>
#include <nanobind/ndarray.h>

#include <algorithm>
#include <atomic>
#include <cstdint>
#include <limits>
#include <type_traits>

#include "python_call.hpp"
#include "registry.hpp"
#include "thread_pool.hpp"

namespace nb = nanobind;

namespace {

template <class T>
using Array = nb::ndarray<const T, nb::ndim<1>, nb::c_contig, nb::device::cpu>;

enum Fault : std::int64_t { none = 0, first_pointer = 1, decreasing = 2, past_the_end = 3, index_range = 4 };

constexpr std::int64_t chunk = 1 << 16;

template <class P>
std::int64_t first_decrease(const P *indptr, std::int64_t rows) {
    for (std::int64_t begin = 0; begin < rows; begin += chunk) {
        const std::int64_t end = std::min(rows, begin + chunk);
        bool bad = false;
        for (std::int64_t i = begin; i < end; ++i) bad |= indptr[i + 1] < indptr[i];
        if (!bad) continue;
        for (std::int64_t i = begin; i < end; ++i)
            if (indptr[i + 1] < indptr[i]) return i;
    }
    return -1;
}

template <class I>
std::int64_t first_outside(const I *indices, std::int64_t begin, std::int64_t end, std::int64_t cols) {
    using U = std::make_unsigned_t<I>;
    U largest = 0;  // a negative index is a huge unsigned one
    for (std::int64_t p = begin; p < end; ++p) largest = std::max(largest, static_cast<U>(indices[p]));
    const bool negative = largest > static_cast<U>(std::numeric_limits<I>::max());
    if (begin == end || (!negative && static_cast<std::int64_t>(largest) < cols)) return -1;
    for (std::int64_t p = begin; p < end; ++p)
        if (indices[p] < 0 || static_cast<std::int64_t>(indices[p]) >= cols) return p;
    return -1;
}

// -> (fault, position, are the column indices of every row strictly rising). The caller has compared all lengths.
template <class P, class I>
nb::tuple check_csr(Array<P> indptr_array, Array<I> indices_array, std::int64_t cols, bool read_indices) {
    const P *indptr = indptr_array.data();
    const I *indices = indices_array.data();
    const std::int64_t rows = static_cast<std::int64_t>(indptr_array.size()) - 1;
    const std::int64_t stored = static_cast<std::int64_t>(indices_array.size());
    std::int64_t fault = none, where = 0;
    bool rising = true;
    {
        const workbench::WithoutGil released;
        if (indptr[0] != 0) {
            fault = first_pointer;
        } else if ((where = first_decrease(indptr, rows)) >= 0) {
            fault = decreasing;
        } else if (static_cast<std::int64_t>(indptr[rows]) > stored) {
            fault = past_the_end;
            where = rows;
        }
        if (fault == none && read_indices) {
            const std::int64_t nnz = indptr[rows];
            const std::int64_t tasks = (nnz + chunk - 1) / chunk;
            std::atomic<std::int64_t> outside{INT64_MAX};
            std::atomic<bool> all_rising{true};
            const auto body = [&](std::int64_t task, int) {
                const std::int64_t begin = task * chunk, end = std::min(nnz, begin + chunk);
                const std::int64_t p = first_outside(indices, begin, end, cols);
                if (p >= 0) {
                    std::int64_t seen = outside;
                    while (p < seen && !outside.compare_exchange_weak(seen, p)) {
                    }
                }
                // Falls within the chunk, less those at row starts, must be none.
                const std::int64_t from = std::max<std::int64_t>(begin, 1);
                std::int64_t falls = 0;
                for (std::int64_t q = from; q < end; ++q) falls += indices[q] <= indices[q - 1];
                if (falls == 0) return;
                const P *row = std::lower_bound(indptr, indptr + rows + 1, static_cast<P>(from));
                std::int64_t last = -1;
                for (; row <= indptr + rows && *row < end; ++row) {
                    const std::int64_t q = *row;
                    if (q == last) continue;
                    last = q;
                    falls -= indices[q] <= indices[q - 1];
                }
                if (falls != 0) all_rising = false;
            };
            workbench::parallel_for(tasks, 0, body);
            rising = all_rising;
            if (outside != INT64_MAX) {
                fault = index_range;
                where = outside;
            }
        }
    }
    return nb::make_tuple(fault, where, rising);
}

}  // namespace

WORKBENCH_BIND(bind_check) {
    using i32 = std::int32_t;
    using i64 = std::int64_t;
    m.def("check_csr", &check_csr<i32, i32>, nb::arg("indptr").noconvert(), nb::arg("indices").noconvert(), nb::arg("cols"),
          nb::arg("read_indices"));
    m.def("check_csr", &check_csr<i64, i64>, nb::arg("indptr").noconvert(), nb::arg("indices").noconvert(), nb::arg("cols"),
          nb::arg("read_indices"));
    m.def("check_csr", &check_csr<i32, i64>, nb::arg("indptr").noconvert(), nb::arg("indices").noconvert(), nb::arg("cols"),
          nb::arg("read_indices"));
    m.def("check_csr", &check_csr<i64, i32>, nb::arg("indptr").noconvert(), nb::arg("indices").noconvert(), nb::arg("cols"),
          nb::arg("read_indices"));
}
