// Row-wise SpGEMM: bindings and the plain two-pass form.
#include <nanobind/nanobind.h>
#include <nanobind/ndarray.h>
#include <nanobind/stl/string.h>

#include <algorithm>
#include <memory>
#include <vector>

#include "csr.hpp"
#include "registry.hpp"
#include "thread_pool.hpp"

namespace nb = nanobind;

namespace workbench {
namespace {

constexpr std::int64_t rows_per_task = 256;

template <class T>
nb::ndarray<nb::numpy, T, nb::ndim<1>> owned(std::unique_ptr<T[]> buffer, std::int64_t size) {
    T *data = buffer.release();
    nb::capsule owner(data, [](void *p) noexcept { delete[] static_cast<T *>(p); });
    return {data, {static_cast<size_t>(size)}, owner};
}

// f_i = sum over the nonzeros a_it of row i of nnz(b_t): the products that row i of the result takes.
template <class I>
std::unique_ptr<std::int64_t[]> products_per_row(const Pattern<I> &a, const Pattern<I> &b) {
    std::unique_ptr<std::int64_t[]> products(new std::int64_t[a.rows]);
    const auto body = [&](std::int64_t task, int) {
        const std::int64_t end = std::min(a.rows, (task + 1) * rows_per_task);
        for (std::int64_t i = task * rows_per_task; i < end; ++i) {
            std::int64_t sum = 0;
            for (std::int64_t p = a.indptr[i]; p < a.indptr[i + 1]; ++p) sum += b.row_nnz(a.indices[p]);
            products[i] = sum;
        }
    };
    parallel_for((a.rows + rows_per_task - 1) / rows_per_task, 0, body);
    return products;
}

template <class I>
std::unique_ptr<std::int64_t[]> distinct_per_row(const Pattern<I> &a, const Pattern<I> &b, int threads) {
    std::unique_ptr<std::int64_t[]> distinct(new std::int64_t[a.rows]);
    std::vector<std::vector<std::int64_t>> seen(threads);
    const auto body = [&](std::int64_t task, int worker) {
        auto &mark = seen[worker];
        if (mark.empty()) mark.assign(b.cols, -1);
        const std::int64_t end = std::min(a.rows, (task + 1) * rows_per_task);
        for (std::int64_t i = task * rows_per_task; i < end; ++i) {
            std::int64_t count = 0;
            for (std::int64_t p = a.indptr[i]; p < a.indptr[i + 1]; ++p)
                for (std::int64_t q = b.indptr[a.indices[p]]; q < b.indptr[a.indices[p] + 1]; ++q) {
                    const std::int64_t j = b.indices[q];
                    count += mark[j] != i;
                    mark[j] = i;
                }
            distinct[i] = count;
        }
    };
    parallel_for((a.rows + rows_per_task - 1) / rows_per_task, threads, body);
    return distinct;
}

template <class I>
Pattern<I> pattern(const InputArray<I> &indptr, const InputArray<I> &indices, std::int64_t cols) {
    return {static_cast<std::int64_t>(indptr.size()) - 1, cols, indptr.data(), indices.data()};
}

template <class I>
auto row_flops(InputArray<I> a_indptr, InputArray<I> a_indices, InputArray<I> b_indptr) {
    const std::int64_t rows = static_cast<std::int64_t>(a_indptr.size()) - 1;
    std::unique_ptr<std::int64_t[]> products;
    {
        nb::gil_scoped_release released;
        products = products_per_row<I>({rows, 0, a_indptr.data(), a_indices.data()}, {0, 0, b_indptr.data(), nullptr});
    }
    return owned(std::move(products), rows);
}

template <class I>
auto symbolic_nnz(InputArray<I> a_indptr, InputArray<I> a_indices, InputArray<I> b_indptr, InputArray<I> b_indices,
                  std::int64_t cols) {
    const auto a = pattern(a_indptr, a_indices, 0), b = pattern(b_indptr, b_indices, cols);
    std::unique_ptr<std::int64_t[]> distinct;
    {
        nb::gil_scoped_release released;
        distinct = distinct_per_row(a, b, get_num_threads());
    }
    return owned(std::move(distinct), a.rows);
}

template <class I, class T>
nb::tuple spgemm(InputArray<I> a_indptr, InputArray<I> a_indices, InputArray<T> a_data, InputArray<I> b_indptr,
                 InputArray<I> b_indices, InputArray<T> b_data, std::int64_t cols, int threads) {
    const auto a = pattern(a_indptr, a_indices, 0), b = pattern(b_indptr, b_indices, cols);
    if (threads <= 0) threads = get_num_threads();
    std::unique_ptr<I[]> indptr(new I[a.rows + 1]), indices;
    std::unique_ptr<T[]> data;
    std::int64_t nnz = 0;
    {
        nb::gil_scoped_release released;
        const auto distinct = distinct_per_row(a, b, threads);
        indptr[0] = 0;
        for (std::int64_t i = 0; i < a.rows; ++i) indptr[i + 1] = static_cast<I>(nnz += distinct[i]);
        indices.reset(new I[nnz]);
        data.reset(new T[nnz]);
        std::vector<std::vector<T>> sums(threads);
        std::vector<std::vector<std::int64_t>> marks(threads);
        const auto body = [&](std::int64_t task, int worker) {
            auto &sum = sums[worker];
            auto &mark = marks[worker];
            if (sum.empty()) sum.assign(cols, T(0)), mark.assign(cols, -1);
            const std::int64_t end = std::min(a.rows, (task + 1) * rows_per_task);
            for (std::int64_t i = task * rows_per_task; i < end; ++i) {
                I *out = indices.get() + indptr[i];
                std::int64_t count = 0;
                for (std::int64_t p = a.indptr[i]; p < a.indptr[i + 1]; ++p)
                    for (std::int64_t q = b.indptr[a.indices[p]]; q < b.indptr[a.indices[p] + 1]; ++q) {
                        const I j = b.indices[q];
                        sum[j] += a_data.data()[p] * b_data.data()[q];
                        if (mark[j] != i) out[count++] = j;
                        mark[j] = i;
                    }
                std::sort(out, out + count);
                T *values = data.get() + indptr[i];
                for (std::int64_t s = 0; s < count; ++s) {
                    values[s] = sum[out[s]];
                    sum[out[s]] = T(0);
                }
            }
        };
        parallel_for((a.rows + rows_per_task - 1) / rows_per_task, threads, body);
    }
    return nb::make_tuple(owned(std::move(indptr), a.rows + 1), owned(std::move(indices), nnz), owned(std::move(data), nnz));
}

template <class I>
void bind_pattern(nb::module_ &m) {
    m.def("spgemm_row_flops", &row_flops<I>, nb::arg().noconvert(), nb::arg().noconvert(), nb::arg().noconvert());
    m.def("spgemm_symbolic_nnz", &symbolic_nnz<I>, nb::arg().noconvert(), nb::arg().noconvert(), nb::arg().noconvert(),
          nb::arg().noconvert(), nb::arg());
}

template <class I, class T>
void bind_values(nb::module_ &m) {
    m.def("spgemm", &spgemm<I, T>, nb::arg().noconvert(), nb::arg().noconvert(), nb::arg().noconvert(),
          nb::arg().noconvert(), nb::arg().noconvert(), nb::arg().noconvert(), nb::arg(), nb::arg());
}

}  // namespace
}  // namespace workbench

WORKBENCH_BIND(bind_spgemm) {
    using namespace workbench;
    bind_pattern<std::int32_t>(m);
    bind_pattern<std::int64_t>(m);
    bind_values<std::int32_t, float>(m);
    bind_values<std::int32_t, double>(m);
    bind_values<std::int64_t, float>(m);
    bind_values<std::int64_t, double>(m);
}
