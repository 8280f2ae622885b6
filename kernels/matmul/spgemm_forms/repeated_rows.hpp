// Stencils: where a row of A and the rows of B that it picks all repeat the row before them one column further right,
// row i of the result has the structure of row i - 1 moved by one, so its places are known and only values are summed.
#pragma once
#include <algorithm>
#include <atomic>
#include <cstdint>
#include <vector>

#include "csr.hpp"
#include "thread_pool.hpp"

namespace workbench {

// repeats[i] = 1: row i equals row i - 1 moved one column to the right.
template <class I>
inline bool row_repeats(const Pattern<I> &a, std::int64_t i) {
    const std::int64_t begin = a.indptr[i], count = a.row_nnz(i);
    if (i == 0 || count != a.row_nnz(i - 1)) return false;
    const I *row = a.indices + begin, *before = row - count;
    bool same = true;
    for (std::int64_t s = 0; s < count; ++s) same &= row[s] == before[s] + 1;
    return same;
}

// Empty unless a sample says that most rows repeat.
template <class I>
std::vector<std::uint8_t> find_repeats(const Pattern<I> &a, int threads) {
    constexpr std::int64_t samples = 64, rows_per_task = 4096;
    std::int64_t hits = 0;
    if (a.rows < samples) return {};
    for (std::int64_t s = 0; s < samples; ++s) {
        const std::int64_t i = a.rows / samples * s + a.rows / (2 * samples), count = a.row_nnz(i);
        const I *row = a.indices + a.indptr[i];
        const bool run = count > 1 && row[count - 1] - row[0] == count - 1;  // has a faster form: run_tiles.hpp
        hits += !run && row_repeats(a, i);
    }
    if (2 * hits < samples) return {};
    std::vector<std::uint8_t> repeats(a.rows);
    const auto body = [&](std::int64_t task, int) {
        const std::int64_t end = std::min(a.rows, (task + 1) * rows_per_task);
        for (std::int64_t i = task * rows_per_task; i < end; ++i) repeats[i] = row_repeats(a, i);
    };
    parallel_for((a.rows + rows_per_task - 1) / rows_per_task, threads, body);
    return repeats;
}

// Where each product of a row goes, kept from one row to the next.
template <class I, class T>
class RepeatedRow {
  public:
    static constexpr std::int64_t most_products = 1 << 12;

    bool follows(std::int64_t i) const { return i == row_ + 1; }

    void learn(std::int64_t i, const Csr<I, T> &a, const Csr<I, T> &b, const I *indices, std::int64_t count) {
        columns_.assign(indices, indices + count);
        places_.clear();
        for (std::int64_t p = a.indptr[i]; p < a.indptr[i + 1]; ++p)
            for (std::int64_t q = b.indptr[a.indices[p]]; q < b.indptr[a.indices[p] + 1]; ++q)
                places_.push_back(static_cast<std::uint32_t>(
                    std::lower_bound(columns_.begin(), columns_.end(), b.indices[q]) - columns_.begin()));
        row_ = i;
    }

    std::int64_t next(const Csr<I, T> &a, const Csr<I, T> &b, I *indices, T *data) {
        ++row_;
        const std::int64_t count = static_cast<std::int64_t>(columns_.size());
        for (std::int64_t s = 0; s < count; ++s) indices[s] = ++columns_[s];
        std::fill_n(data, count, T(0));
        const std::uint32_t *place = places_.data();
        for (std::int64_t p = a.indptr[row_]; p < a.indptr[row_ + 1]; ++p) {
            const std::int64_t t = a.indices[p], products = b.row_nnz(t);
            const T scale = a.data[p], *values = b.data + b.indptr[t];
            for (std::int64_t s = 0; s < products; ++s) data[place[s]] += scale * values[s];
            place += products;
        }
        return count;
    }

  private:
    std::int64_t row_ = -2;
    std::vector<I> columns_;
    std::vector<std::uint32_t> places_;
};

}  // namespace workbench
