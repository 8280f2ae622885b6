// Bindings of the sparse product: each method fills the same frame (row_blocks.hpp) with its own form of a row.
#include <nanobind/nanobind.h>
#include <nanobind/ndarray.h>
#include <nanobind/stl/string.h>

#include <algorithm>
#include <limits>
#include <stdexcept>
#include <string>
#include <vector>

#include "csr.hpp"
#include "output_buffer.hpp"
#include "python_call.hpp"
#include "registry.hpp"
#include "row_blocks.hpp"
#include "row_forms.hpp"
#include "smash_windows.hpp"
#include "spgemm_auto.hpp"
#include "spgemm_counts.hpp"

namespace nb = nanobind;

namespace workbench {
namespace {

constexpr std::int64_t block_entries = 1 << 15, block_products = 1 << 16;  // a block's scratch stays in the cache

template <class I, class T>
struct Call {
    Csr<I, T> a, b;
    const std::int64_t *products;
    bool b_rising, drop_zeros;
    int threads;
    SmashOptions smash;
};

template <class I, class T>
struct Result {
    RowBlocks blocks;
    Product<I, T> product;
};

template <class I, class T, class MakeKernel>
void run_rows(const Call<I, T> &call, Result<I, T> &result, MakeKernel make_kernel) {
    result.blocks = cut_rows(call.products, call.a.rows, call.b.cols, block_entries, block_products);
    multiply_blocks<I, T>(call.a.rows, result.blocks, call.threads, call.drop_zeros, make_kernel, result.product);
}

template <class I, class T>
void run_auto(const Call<I, T> &call, Result<I, T> &result) {
    const bool same = call.a.indptr == call.b.indptr && call.a.indices == call.b.indices && call.a.rows == call.b.rows;
    const auto b_repeats = call.b_rising ? find_repeats<I>(call.b, call.threads) : std::vector<std::uint8_t>();
    const auto a_repeats = same || b_repeats.empty() ? b_repeats : find_repeats<I>(call.a, call.threads);
    const bool stencil = !a_repeats.empty() && !b_repeats.empty();
    const AutoPlan<I, T> plan{call.a, call.b, call.products, call.b_rising, stencil ? a_repeats.data() : nullptr,
                              stencil ? b_repeats.data() : nullptr};
    run_rows(call, result, [&] { return AutoRows<I, T>(plan); });
}

template <class I, class T>
void run_dense(const Call<I, T> &call, Result<I, T> &result) {
    run_rows(call, result, [&] { return DenseRows<I, T>(call.a, call.b); });
}

template <class I, class T>
void run_merge(const Call<I, T> &call, Result<I, T> &result) {
    run_rows(call, result, [&] { return SortedRows<I, T>(call.a, call.b); });
}

template <class I, class T>
void run_inner(const Call<I, T> &call, Result<I, T> &result) {
    const Columns<I, T> columns(call.b);
    run_rows(call, result, [&] { return InnerRows<I, T>(call.a, columns); });
}

template <class I, class T>
void run_outer(const Call<I, T> &call, Result<I, T> &result) {
    const OuterProducts<I, T> products(call.a, call.b, call.products, call.threads);
    run_rows(call, result, [&] { return OuterRows<I, T>(products); });
}

template <class I, class T>
void run_smash(const Call<I, T> &call, Result<I, T> &result) {
    RowBlocks &windows = result.blocks;
    windows = cut_rows(call.products, call.a.rows, call.b.cols, call.smash.capacity, std::numeric_limits<std::int64_t>::max());
    for (std::int64_t w = 0; w < windows.count(); ++w) {
        std::int64_t places;
        if (__builtin_mul_overflow(windows.first[w + 1] - windows.first[w], call.b.cols, &places))
            throw std::overflow_error("spgemm: a window of " + std::to_string(windows.first[w + 1] - windows.first[w]) +
                                      " rows times " + std::to_string(call.b.cols) +
                                      " columns has no 63-bit tags; use method='auto'");
    }
    multiply_blocks<I, T>(call.a.rows, windows, call.threads, call.drop_zeros,
                          [&] { return SmashWindows<I, T>(call.a, call.b, call.products, call.smash); }, result.product);
}

template <class I, class T>
using Method = void (*)(const Call<I, T> &, Result<I, T> &);

template <class I, class T>
Method<I, T> method_named(const std::string &name) {
    static const std::pair<const char *, Method<I, T>> methods[] = {
        {"auto", run_auto<I, T>},   {"dense", run_dense<I, T>}, {"merge", run_merge<I, T>},
        {"inner", run_inner<I, T>}, {"outer", run_outer<I, T>}, {"windows", run_smash<I, T>}};
    for (const auto &[known, method] : methods)
        if (name == known) return method;
    throw std::invalid_argument("spgemm: unknown method " + name);
}

template <class I>
Pattern<I> pattern(const InputArray<I> &indptr, const InputArray<I> &indices, std::int64_t cols) {
    return {static_cast<std::int64_t>(indptr.size()) - 1, cols, indptr.data(), indices.data()};
}

template <class I, class T>
nb::tuple spgemm(InputArray<I> a_indptr, InputArray<I> a_indices, InputArray<T> a_data, InputArray<I> b_indptr,
                 InputArray<I> b_indices, InputArray<T> b_data, std::int64_t cols, const std::string &method_name,
                 bool b_rising, bool sort, bool drop_zeros, int threads, int version, int log2_slots, double load) {
    const Method<I, T> method = method_named<I, T>(method_name);
    const std::int64_t inner = static_cast<std::int64_t>(b_indptr.size()) - 1;
    const auto capacity = std::max<std::int64_t>(1, static_cast<std::int64_t>(load * static_cast<double>(1 << log2_slots)));
    Call<I, T> call{{pattern(a_indptr, a_indices, inner), a_data.data()}, {pattern(b_indptr, b_indices, cols), b_data.data()},
                    nullptr, b_rising, drop_zeros, threads > 0 ? threads : get_num_threads(),
                    {version, log2_slots, capacity, sort}};
    Result<I, T> result;
    OutputBuffer<std::int64_t> wide;
    const std::int64_t rows = call.a.rows;
    bool fits = true;
    {
        const WithoutGil released;
        const auto products = products_per_row<I>(call.a, call.b, call.threads);
        call.products = products.get();
        method(call, result);
        const I *local = result.product.indptr.data();
        fits = result.product.nnz <= std::numeric_limits<I>::max();
        if (fits) {
            place_rows(result.blocks, result.product, local, result.product.indptr.data());
        } else {
            wide.reserve(rows + 1);
            place_rows(result.blocks, result.product, local, wide.data());
        }
    }
    auto &product = result.product;
    nb::object indptr = fits ? nb::cast(product.indptr.finish(rows + 1)) : nb::cast(wide.finish(rows + 1));
    return nb::make_tuple(indptr, product.indices.finish(product.nnz), product.data.finish(product.nnz));
}

template <class I>
auto row_flops(InputArray<I> a_indptr, InputArray<I> a_indices, InputArray<I> b_indptr) {
    const std::int64_t rows = static_cast<std::int64_t>(a_indptr.size()) - 1;
    OutputBuffer<std::int64_t> counts;
    counts.reserve(rows);
    {
        const WithoutGil released;
        const Pattern<I> a{rows, 0, a_indptr.data(), a_indices.data()}, b{0, 0, b_indptr.data(), nullptr};
        std::copy_n(products_per_row<I>(a, b, 0).get(), rows, counts.data());
    }
    return counts.finish(rows);
}

template <class I>
auto symbolic_nnz(InputArray<I> a_indptr, InputArray<I> a_indices, InputArray<I> b_indptr, InputArray<I> b_indices,
                  std::int64_t cols) {
    const auto a = pattern(a_indptr, a_indices, 0), b = pattern(b_indptr, b_indices, cols);
    OutputBuffer<std::int64_t> counts;
    counts.reserve(a.rows);
    {
        const WithoutGil released;
        std::vector<DistinctColumns<I>> counters(get_num_threads());
        const auto body = [&](std::int64_t task, int worker) {
            const std::int64_t end = std::min(a.rows, (task + 1) * counted_rows_per_task);
            for (std::int64_t i = task * counted_rows_per_task; i < end; ++i)
                counts.data()[i] = counters[worker].count(a, b, i);
        };
        parallel_for((a.rows + counted_rows_per_task - 1) / counted_rows_per_task, static_cast<int>(counters.size()), body);
    }
    return counts.finish(a.rows);
}

template <class I>
void bind_counts(nb::module_ &m) {
    m.def("spgemm_row_flops", &row_flops<I>, nb::arg().noconvert(), nb::arg().noconvert(), nb::arg().noconvert());
    m.def("spgemm_symbolic_nnz", &symbolic_nnz<I>, nb::arg().noconvert(), nb::arg().noconvert(), nb::arg().noconvert(),
          nb::arg().noconvert(), nb::arg());
}

template <class I, class T>
void bind_product(nb::module_ &m) {
    m.def("spgemm", &spgemm<I, T>, nb::arg("a_indptr").noconvert(), nb::arg("a_indices").noconvert(),
          nb::arg("a_data").noconvert(), nb::arg("b_indptr").noconvert(), nb::arg("b_indices").noconvert(),
          nb::arg("b_data").noconvert(), nb::arg("cols"), nb::arg("method"), nb::arg("b_rising"), nb::arg("sort"),
          nb::arg("drop_zeros"), nb::arg("threads"), nb::arg("version"), nb::arg("log2_slots"), nb::arg("load"));
}

}  // namespace
}  // namespace workbench

WORKBENCH_BIND(bind_spgemm) {
    using namespace workbench;
    bind_counts<std::int32_t>(m);
    bind_counts<std::int64_t>(m);
    bind_product<std::int32_t, float>(m);
    bind_product<std::int32_t, double>(m);
    bind_product<std::int64_t, float>(m);
    bind_product<std::int64_t, double>(m);
}
