// Counts of a product from the structure of its operands.
#pragma once
#include <algorithm>
#include <cstdint>
#include <memory>
#include <utility>
#include <vector>

#include "csr.hpp"
#include "python_call.hpp"
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

// A short row lists its products. For a longer one memory follows what is found, not how many products find it: a bitmap
// over all columns where that is small, else a hash table that grows with the distinct columns.
template <class I>
class DistinctColumns {
  public:
    std::int64_t count(const Pattern<I> &a, const Pattern<I> &b, std::int64_t i) {
        columns_.clear();
        for (std::int64_t p = a.indptr[i]; p < a.indptr[i + 1]; ++p) {
            const std::int64_t t = a.indices[p];
            if (static_cast<std::int64_t>(columns_.size()) + b.row_nnz(t) > most_listed)
                return groups_of_64(b.cols) <= most_words ? in_bitmap(a, b, i) : in_table(a, b, i);
            columns_.insert(columns_.end(), b.indices + b.indptr[t], b.indices + b.indptr[t + 1]);
        }
        return in_list(groups_of_64(b.cols));
    }

  private:
    static constexpr std::int64_t most_words = 1 << 18, most_listed = 1 << 16;
    static constexpr I empty = -1;

    template <class Use>
    static void for_columns(const Pattern<I> &a, const Pattern<I> &b, std::int64_t i, Use use) {
        in_runs(a.indptr[i], a.indptr[i + 1], 256, [&](std::int64_t from, std::int64_t to) {
            for (std::int64_t p = from; p < to; ++p) {
                const std::int64_t t = a.indices[p], end = b.indptr[t + 1];
                for (std::int64_t q = b.indptr[t]; q < end; ++q) use(b.indices[q]);
            }
        });
    }

    std::int64_t in_list(std::int64_t words) {
        if (words > most_words || words > 64 * static_cast<std::int64_t>(columns_.size())) {
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

    std::int64_t in_bitmap(const Pattern<I> &a, const Pattern<I> &b, std::int64_t i) {
        const auto words = static_cast<std::size_t>(groups_of_64(b.cols));
        if (seen_.size() < words) seen_.resize(words);
        std::int64_t distinct = 0;
        for_columns(a, b, i, [&](I j) {
            const std::uint64_t bit = std::uint64_t{1} << (j % 64);
            distinct += (seen_[j / 64] & bit) == 0;
            seen_[j / 64] |= bit;
        });
        for_columns(a, b, i, [&](I j) { seen_[j / 64] = 0; });
        return distinct;
    }

    std::int64_t in_table(const Pattern<I> &a, const Pattern<I> &b, std::int64_t i) {
        std::size_t distinct = 0;
        slots_.assign(64, empty);
        for_columns(a, b, i, [&](I j) {
            distinct += insert(j);
            if (2 * distinct > slots_.size()) widen();
        });
        return static_cast<std::int64_t>(distinct);
    }

    bool insert(I j) {
        const std::size_t mask = slots_.size() - 1;
        std::size_t slot = static_cast<std::size_t>((static_cast<std::uint64_t>(j) * 0x9E3779B97F4A7C15ull) >> 32) & mask;
        while (slots_[slot] != empty && slots_[slot] != j) slot = (slot + 1) & mask;
        return std::exchange(slots_[slot], j) == empty;
    }

    void widen() {
        const std::vector<I> held = std::exchange(slots_, std::vector<I>(2 * slots_.size(), empty));
        for (const I j : held)
            if (j != empty) insert(j);
    }

    std::vector<I> columns_, slots_;
    std::vector<std::uint64_t> seen_;
};

}  // namespace workbench
