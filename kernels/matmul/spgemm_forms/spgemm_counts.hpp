// Counts of a product from the structure of its operands.
#pragma once
#include <algorithm>
#include <cstdint>
#include <memory>
#include <vector>

#include "csr.hpp"
#include "thread_pool.hpp"

namespace workbench {

constexpr std::int64_t counted_rows_per_task = 256;

// f_i = sum over the nonzeros a_it of row i of nnz(b_t): the products that row i of the result takes.
template <class I>
std::unique_ptr<std::int64_t[]> products_per_row(const Pattern<I> &a, const Pattern<I> &b, int threads) {
    std::unique_ptr<std::int64_t[]> products(new std::int64_t[a.rows]);
    const auto body = [&](std::int64_t task, int) {
        const std::int64_t end = std::min(a.rows, (task + 1) * counted_rows_per_task);
        for (std::int64_t i = task * counted_rows_per_task; i < end; ++i) {
            std::int64_t sum = 0;
            for (std::int64_t p = a.indptr[i]; p < a.indptr[i + 1]; ++p) sum += b.row_nnz(a.indices[p]);
            products[i] = sum;
        }
    };
    parallel_for((a.rows + counted_rows_per_task - 1) / counted_rows_per_task, threads, body);
    return products;
}

template <class I>
class DistinctColumns {
  public:
    std::int64_t count(const Pattern<I> &a, const Pattern<I> &b, std::int64_t i) {
        columns_.clear();
        for (std::int64_t p = a.indptr[i]; p < a.indptr[i + 1]; ++p) {
            const std::int64_t t = a.indices[p];
            columns_.insert(columns_.end(), b.indices + b.indptr[t], b.indices + b.indptr[t + 1]);
        }
        const std::int64_t words = (b.cols + 63) / 64;
        if (words > 64 * static_cast<std::int64_t>(columns_.size())) {
            std::sort(columns_.begin(), columns_.end());
            return std::unique(columns_.begin(), columns_.end()) - columns_.begin();
        }
        if (static_cast<std::int64_t>(seen_.size()) < words) seen_.resize(words);
        std::int64_t distinct = 0;
        for (const I j : columns_) {
            const std::uint64_t bit = std::uint64_t{1} << (j % 64);
            distinct += (seen_[j / 64] & bit) == 0;
            seen_[j / 64] |= bit;
        }
        for (const I j : columns_) seen_[j / 64] = 0;
        return distinct;
    }

  private:
    std::vector<I> columns_;
    std::vector<std::uint64_t> seen_;
};

}  // namespace workbench
