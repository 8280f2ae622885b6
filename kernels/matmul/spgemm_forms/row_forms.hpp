// The textbook forms of one row of a product: dense accumulator, sorted expansion, inner products, outer products.
// Each class has row(i, indices, data) -> entries written, and is used by one worker.
#pragma once
#include <algorithm>
#include <cstdint>
#include <memory>
#include <span>
#include <utility>
#include <vector>

#include "csr.hpp"
#include "python_call.hpp"
#include "thread_pool.hpp"
#include "window_accumulator.hpp"

namespace workbench {

constexpr std::int64_t rows_between_looks = 256;  // rows of B that one row adds up before it looks at the call again

// Gustavson: every product is added to a dense row.
template <class I, class T>
class DenseRows {
  public:
    DenseRows(const Csr<I, T> &a, const Csr<I, T> &b) : a_(a), b_(b) { window_.grow(groups_of_64(b.cols)); }

    std::int64_t row(std::int64_t i, I *indices, T *data) {
        if (a_.row_nnz(i) == 0) return 0;
        in_runs(a_.indptr[i], a_.indptr[i + 1], rows_between_looks, [&](std::int64_t from, std::int64_t to) {
            for (std::int64_t p = from; p < to; ++p) {
                const std::int64_t t = a_.indices[p], begin = b_.indptr[t];
                window_.add(0, a_.data[p], b_.indices + begin, b_.data + begin, b_.row_nnz(t));
            }
        });
        return window_.template take<true>(0, groups_of_64(b_.cols), indices, data);
    }

  private:
    const Csr<I, T> &a_, &b_;
    WindowAccumulator<I, T> window_;
};

// A product and its column; memory for many is not cleared before they are written.
template <class I, class T>
struct Entry {
    I first;
    T second;
};

// Sum neighbours of equal column in a list sorted by column. -> entries written
template <class I, class T>
std::int64_t sum_equal_columns(std::span<const Entry<I, T>> sorted, I *indices, T *data) {
    std::int64_t count = 0;
    in_runs(0, static_cast<std::int64_t>(sorted.size()), 1 << 20, [&](std::int64_t from, std::int64_t to) {
        for (std::int64_t s = from; s < to; ++s) {
            if (s == 0 || sorted[s].first != sorted[s - 1].first) {
                indices[count] = sorted[s].first;
                data[count++] = T(0);
            }
            data[count - 1] += sorted[s].second;
        }
    });
    return count;
}

// stable: entries of equal column keep their order. A long sort looks at the call between comparisons.
template <bool stable, class E>
void sort_by_column(std::span<E> entries) {
    const auto sort = [&](auto before) {
        if constexpr (stable)
            std::stable_sort(entries.begin(), entries.end(), before);
        else
            std::sort(entries.begin(), entries.end(), before);
    };
    Pace pace;
    if (entries.size() < (1 << 18)) {
        sort([](const auto &x, const auto &y) { return x.first < y.first; });
    } else {
        sort([&](const auto &x, const auto &y) {
            pace.step(1);
            return x.first < y.first;
        });
    }
}

// Expand, sort, compress.
template <class I, class T>
class SortedRows {
  public:
    SortedRows(const Csr<I, T> &a, const Csr<I, T> &b) : a_(a), b_(b) {}

    std::int64_t row(std::int64_t i, I *indices, T *data) {
        products_.clear();
        in_runs(a_.indptr[i], a_.indptr[i + 1], rows_between_looks, [&](std::int64_t from, std::int64_t to) {
            for (std::int64_t p = from; p < to; ++p) {
                const std::int64_t t = a_.indices[p];
                for (std::int64_t q = b_.indptr[t]; q < b_.indptr[t + 1]; ++q)
                    products_.push_back({b_.indices[q], a_.data[p] * b_.data[q]});
            }
        });
        sort_by_column<true>(std::span(products_));
        return sum_equal_columns<I, T>(products_, indices, data);
    }

  private:
    const Csr<I, T> &a_, &b_;
    std::vector<Entry<I, T>> products_;
};

// CSC form, rows rising within a column; entries that share a place keep their order. A matrix much wider than it has
// entries is held as the columns that have some, so that memory follows the entries.
template <class I, class T>
struct Columns {
    std::vector<I> names;  // of the columns, rising; empty where column j is the j-th
    std::vector<std::int64_t> indptr;
    std::vector<I> rows;
    std::vector<T> data;

    explicit Columns(const Csr<I, T> &a) : rows(a.nnz()), data(a.nnz()) {
        if (a.cols / 16 > a.nnz()) {
            names.assign(a.indices, a.indices + a.nnz());
            std::sort(names.begin(), names.end());
            names.erase(std::unique(names.begin(), names.end()), names.end());
            indptr.resize(names.size() + 1);
            fill(a, [&](I j) { return std::lower_bound(names.begin(), names.end(), j) - names.begin(); });
        } else {
            indptr.resize(a.cols + 1);
            fill(a, [](I j) { return static_cast<std::int64_t>(j); });
        }
    }

    std::int64_t count() const { return static_cast<std::int64_t>(indptr.size()) - 1; }
    std::int64_t name(std::int64_t j) const { return names.empty() ? j : names[j]; }

  private:
    template <class Place>
    void fill(const Csr<I, T> &a, Place place) {
        constexpr std::int64_t steps = 1 << 20;
        in_runs(0, a.nnz(), steps, [&](std::int64_t from, std::int64_t to) {
            for (std::int64_t p = from; p < to; ++p) ++indptr[place(a.indices[p]) + 1];
        });
        for (std::int64_t j = 0; j < count(); ++j) indptr[j + 1] += indptr[j];
        std::vector<std::int64_t> next(indptr.begin(), indptr.end() - 1);
        Pace pace;
        for (std::int64_t i = 0; i < a.rows; ++i) {
            for (std::int64_t p = a.indptr[i]; p < a.indptr[i + 1]; ++p) {
                const std::int64_t to = next[place(a.indices[p])]++;
                rows[to] = static_cast<I>(i);
                data[to] = a.data[p];
            }
            pace.step(a.row_nnz(i));
        }
    }
};

// Row i of A against every column of B.
template <class I, class T>
class InnerRows {
  public:
    InnerRows(const Csr<I, T> &a, const Columns<I, T> &b) : a_(a), b_(b), row_(a.cols), held_(a.cols) {}

    std::int64_t row(std::int64_t i, I *indices, T *data) {
        const std::int64_t begin = a_.indptr[i], end = a_.indptr[i + 1];
        if (begin == end) return 0;
        bool repeated = false;
        for (std::int64_t p = begin; p < end; ++p) {
            repeated |= held_[a_.indices[p]];
            row_[a_.indices[p]] = a_.data[p];
            held_[a_.indices[p]] = 1;
        }
        if (repeated) link(begin, end);
        std::int64_t count = 0;
        Pace pace;
        for (std::int64_t j = 0; j < b_.count(); ++j) {
            T dot = 0;
            const std::int64_t products = repeated ? dot_one_by_one(begin, j, dot) : plain_dot(j, dot);
            pace.step(products + b_.indptr[j + 1] - b_.indptr[j] + 1);
            if (products == 0) continue;
            indices[count] = static_cast<I>(b_.name(j));
            data[count++] = dot;
        }
        for (std::int64_t p = begin; p < end; ++p) held_[a_.indices[p]] = 0;
        return count;
    }

  private:
    // -> how many products were added
    std::int64_t plain_dot(std::int64_t j, T &dot) const {
        std::int64_t products = 0;
        for (std::int64_t q = b_.indptr[j]; q < b_.indptr[j + 1]; ++q) {
            const std::int64_t t = b_.rows[q];
            if (!held_[t]) continue;
            dot += row_[t] * b_.data[q];
            ++products;
        }
        return products;
    }

    // Entries of the row that share a column are multiplied one by one: their sum times an infinity may be another thing
    // than the sum of their products.
    std::int64_t dot_one_by_one(std::int64_t begin, std::int64_t j, T &dot) const {
        std::int64_t products = 0;
        for (std::int64_t q = b_.indptr[j]; q < b_.indptr[j + 1]; ++q) {
            if (!held_[b_.rows[q]]) continue;
            for (std::int64_t p = first_[b_.rows[q]]; p != none; p = next_[p - begin], ++products) dot += a_.data[p] * b_.data[q];
        }
        return products;
    }

    void link(std::int64_t begin, std::int64_t end) {
        first_.resize(a_.cols);
        next_.resize(end - begin);
        for (std::int64_t p = begin; p < end; ++p) first_[a_.indices[p]] = none;
        for (std::int64_t p = end - 1; p >= begin; --p) next_[p - begin] = std::exchange(first_[a_.indices[p]], p);
    }

    static constexpr std::int64_t none = -1;

    const Csr<I, T> &a_;
    const Columns<I, T> &b_;
    std::vector<T> row_;
    std::vector<std::uint8_t> held_;
    std::vector<std::int64_t> first_, next_;  // entries of the row in each column, in the order they are stored
};

// All products of column t of A with row t of B, t rising, piled up by row of the result: F of them live at once.
template <class I, class T>
struct OuterProducts {
    std::vector<std::int64_t> start;  // of each row's pile
    std::unique_ptr<Entry<I, T>[]> pile;

    OuterProducts(const Csr<I, T> &a, const Csr<I, T> &b, const std::int64_t *products, int threads) : start(a.rows + 1) {
        for (std::int64_t i = 0; i < a.rows; ++i) start[i + 1] = start[i] + products[i];
        pile.reset(new Entry<I, T>[static_cast<std::size_t>(start[a.rows])]);
        const Columns<I, T> columns(a);
        std::vector<std::int64_t> next(start.begin(), start.end() - 1);
        const auto body = [&](std::int64_t task, int) {  // each task piles a range of rows
            const I first = static_cast<I>(a.rows * task / threads), last = static_cast<I>(a.rows * (task + 1) / threads);
            Pace pace;
            for (std::int64_t j = 0; j < columns.count(); ++j) {
                const std::int64_t t = columns.name(j);
                const I *begin = columns.rows.data() + columns.indptr[j], *end = columns.rows.data() + columns.indptr[j + 1];
                for (const I *i = std::lower_bound(begin, end, first); i < end && *i < last; ++i) {
                    const T scale = columns.data[i - columns.rows.data()];
                    for (std::int64_t q = b.indptr[t]; q < b.indptr[t + 1]; ++q)
                        pile[next[*i]++] = {b.indices[q], scale * b.data[q]};
                    pace.step(b.row_nnz(t) + 1);
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
        const std::span row(products_.pile.get() + products_.start[i], products_.pile.get() + products_.start[i + 1]);
        sort_by_column<true>(row);
        return sum_equal_columns<I, T>(row, indices, data);
    }

  private:
    const OuterProducts<I, T> &products_;
};

}  // namespace workbench
