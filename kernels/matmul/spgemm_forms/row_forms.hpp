// The textbook forms of one row of a product: dense accumulator, sorted expansion, inner products, outer products.
// Each class has row(i, indices, data) -> entries written, and is used by one worker.
#pragma once
#include <algorithm>
#include <cstdint>
#include <utility>
#include <vector>

#include "csr.hpp"
#include "thread_pool.hpp"
#include "window_accumulator.hpp"

namespace workbench {

// Gustavson: every product is added to a dense row.
template <class I, class T>
class DenseRows {
  public:
    DenseRows(const Csr<I, T> &a, const Csr<I, T> &b) : a_(a), b_(b), window_(b.cols) {}

    std::int64_t row(std::int64_t i, I *indices, T *data) {
        if (a_.row_nnz(i) == 0) return 0;
        for (std::int64_t p = a_.indptr[i]; p < a_.indptr[i + 1]; ++p) {
            const std::int64_t t = a_.indices[p], begin = b_.indptr[t];
            window_.add(0, a_.data[p], b_.indices + begin, b_.data + begin, b_.row_nnz(t));
        }
        return window_.template take<true>(0, (b_.cols + 63) / 64, indices, data);
    }

  private:
    const Csr<I, T> &a_, &b_;
    WindowAccumulator<I, T> window_;
};

// Sum neighbours of equal column in a list sorted by column. -> entries written
template <class I, class T>
std::int64_t sum_equal_columns(const std::vector<std::pair<I, T>> &sorted, I *indices, T *data) {
    std::int64_t count = 0;
    for (std::size_t s = 0; s < sorted.size(); ++s) {
        if (s == 0 || sorted[s].first != sorted[s - 1].first) {
            indices[count] = sorted[s].first;
            data[count++] = T(0);
        }
        data[count - 1] += sorted[s].second;
    }
    return count;
}

// Expand, sort, compress.
template <class I, class T>
class SortedRows {
  public:
    SortedRows(const Csr<I, T> &a, const Csr<I, T> &b) : a_(a), b_(b) {}

    std::int64_t row(std::int64_t i, I *indices, T *data) {
        products_.clear();
        for (std::int64_t p = a_.indptr[i]; p < a_.indptr[i + 1]; ++p) {
            const std::int64_t t = a_.indices[p];
            for (std::int64_t q = b_.indptr[t]; q < b_.indptr[t + 1]; ++q)
                products_.emplace_back(b_.indices[q], a_.data[p] * b_.data[q]);
        }
        std::stable_sort(products_.begin(), products_.end(), [](const auto &x, const auto &y) { return x.first < y.first; });
        return sum_equal_columns(products_, indices, data);
    }

  private:
    const Csr<I, T> &a_, &b_;
    std::vector<std::pair<I, T>> products_;
};

// CSC form, rows rising within a column; entries that share a place keep their order.
template <class I, class T>
struct Columns {
    std::vector<std::int64_t> indptr;
    std::vector<I> rows;
    std::vector<T> data;

    explicit Columns(const Csr<I, T> &a) : indptr(a.cols + 1), rows(a.nnz()), data(a.nnz()) {
        for (std::int64_t p = 0; p < a.nnz(); ++p) ++indptr[a.indices[p] + 1];
        for (std::int64_t j = 0; j < a.cols; ++j) indptr[j + 1] += indptr[j];
        std::vector<std::int64_t> next(indptr.begin(), indptr.end() - 1);
        for (std::int64_t i = 0; i < a.rows; ++i)
            for (std::int64_t p = a.indptr[i]; p < a.indptr[i + 1]; ++p) {
                const std::int64_t place = next[a.indices[p]]++;
                rows[place] = static_cast<I>(i);
                data[place] = a.data[p];
            }
    }
};

// Row i of A against every column of B.
template <class I, class T>
class InnerRows {
  public:
    InnerRows(const Csr<I, T> &a, const Columns<I, T> &b, std::int64_t columns)
        : a_(a), b_(b), columns_(columns), row_(a.cols), held_(a.cols) {}

    std::int64_t row(std::int64_t i, I *indices, T *data) {
        const std::int64_t begin = a_.indptr[i], end = a_.indptr[i + 1];
        if (begin == end) return 0;
        for (std::int64_t p = begin; p < end; ++p) {
            row_[a_.indices[p]] += a_.data[p];
            held_[a_.indices[p]] = 1;
        }
        std::int64_t count = 0;
        for (std::int64_t j = 0; j < columns_; ++j) {
            T dot = 0;
            bool meets = false;
            for (std::int64_t q = b_.indptr[j]; q < b_.indptr[j + 1]; ++q) {
                const std::int64_t t = b_.rows[q];
                if (!held_[t]) continue;
                dot += row_[t] * b_.data[q];
                meets = true;
            }
            if (!meets) continue;
            indices[count] = static_cast<I>(j);
            data[count++] = dot;
        }
        for (std::int64_t p = begin; p < end; ++p) {
            row_[a_.indices[p]] = 0;
            held_[a_.indices[p]] = 0;
        }
        return count;
    }

  private:
    const Csr<I, T> &a_;
    const Columns<I, T> &b_;
    const std::int64_t columns_;
    std::vector<T> row_;
    std::vector<std::uint8_t> held_;
};

// All products of column t of A with row t of B, t rising, piled up by row of the result: F of them live at once.
template <class I, class T>
struct OuterProducts {
    std::vector<std::int64_t> start;  // of each row's pile
    std::vector<std::pair<I, T>> pile;

    OuterProducts(const Csr<I, T> &a, const Csr<I, T> &b, const std::int64_t *products, int threads) : start(a.rows + 1) {
        for (std::int64_t i = 0; i < a.rows; ++i) start[i + 1] = start[i] + products[i];
        pile.resize(start[a.rows]);
        const Columns<I, T> columns(a);
        std::vector<std::int64_t> next(start.begin(), start.end() - 1);
        const auto body = [&](std::int64_t task, int) {  // each task piles a range of rows
            const I first = static_cast<I>(a.rows * task / threads), last = static_cast<I>(a.rows * (task + 1) / threads);
            for (std::int64_t t = 0; t < a.cols; ++t) {
                const I *begin = columns.rows.data() + columns.indptr[t], *end = columns.rows.data() + columns.indptr[t + 1];
                for (const I *i = std::lower_bound(begin, end, first); i < end && *i < last; ++i) {
                    const T scale = columns.data[i - columns.rows.data()];
                    for (std::int64_t q = b.indptr[t]; q < b.indptr[t + 1]; ++q)
                        pile[next[*i]++] = {b.indices[q], scale * b.data[q]};
                }
            }
        };
        parallel_for(threads, threads, body);
    }
};

template <class I, class T>
class OuterRows {
  public:
    explicit OuterRows(const OuterProducts<I, T> &products) : products_(products) {}

    std::int64_t row(std::int64_t i, I *indices, T *data) {
        sorted_.assign(products_.pile.begin() + products_.start[i], products_.pile.begin() + products_.start[i + 1]);
        std::stable_sort(sorted_.begin(), sorted_.end(), [](const auto &x, const auto &y) { return x.first < y.first; });
        return sum_equal_columns(sorted_, indices, data);
    }

  private:
    const OuterProducts<I, T> &products_;
    std::vector<std::pair<I, T>> sorted_;
};

}  // namespace workbench
