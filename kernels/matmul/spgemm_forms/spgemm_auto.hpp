// The row-wise product that `method="auto"` runs: each row takes the cheapest of several forms of the same sum, chosen
// from counts that are at hand. All forms add the products of an entry in the same order, so the choice shows only in time.
#pragma once
#include <algorithm>
#include <cstdint>

#include "csr.hpp"
#include "python_call.hpp"
#include "ranked_bitmap.hpp"
#include "repeated_rows.hpp"
#include "row_forms.hpp"
#include "run_tiles.hpp"
#include "window_accumulator.hpp"

namespace workbench {

template <class I, class T>
struct AutoPlan {
    Csr<I, T> a, b;
    const std::int64_t *products;                  // of each row of a
    bool b_rising;                                 // columns of every row of b rise strictly
    const std::uint8_t *a_repeats, *b_repeats;     // see repeated_rows.hpp; null where few rows do
};

template <class I, class T>
class AutoRows {
  public:
    explicit AutoRows(const AutoPlan<I, T> &plan) : plan_(plan), a_(plan.a), b_(plan.b) {}

    std::int64_t row(std::int64_t i, I *indices, T *data) {
        prefetch(i + 2);
        if (plan_.products[i] == 0) return 0;
        if (!plan_.b_rising) return scattered(i, 0, b_.cols, indices, data);
        if (repeated_.follows(i) && repeats(i)) return repeated_.next(a_, b_, indices, data);
        const std::int64_t count = fresh_row(i, indices, data);
        if (i + 1 < a_.rows && plan_.products[i] <= repeated_.most_products && repeats(i + 1))
            repeated_.learn(i, a_, b_, indices, count);
        return count;
    }

  private:
    bool repeats(std::int64_t i) const {
        if (plan_.a_repeats == nullptr || !plan_.a_repeats[i]) return false;
        bool all = true;
        for (std::int64_t p = a_.indptr[i]; p < a_.indptr[i + 1]; ++p) all &= plan_.b_repeats[a_.indices[p]] != 0;
        return all;
    }

    std::int64_t fresh_row(std::int64_t i, I *indices, T *data) {
        std::int64_t low = b_.cols, high = 0, sources = 0, last = 0;
        bool runs = true;
        for (std::int64_t p = a_.indptr[i]; p < a_.indptr[i + 1]; ++p) {
            const std::int64_t t = a_.indices[p], begin = b_.indptr[t], end = b_.indptr[t + 1];
            if (begin == end) continue;
            const std::int64_t first_column = b_.indices[begin], end_column = b_.indices[end - 1] + std::int64_t{1};
            low = std::min(low, first_column);
            high = std::max(high, end_column);
            runs &= end_column - first_column == end - begin;
            ++sources;
            last = p;
        }
        if (sources == 1) return scaled(last, indices, data);
#if defined(__AVX512F__)
        if (runs && high - low <= plan_.products[i]) return sum_of_runs(i, low, high, indices, data);
#endif
        return scattered(i, low, high, indices, data);
    }

    // Ask for the lines that row i will touch.
    void prefetch(std::int64_t i) const {
        if (i >= a_.rows || plan_.a_repeats != nullptr) return;
        for (std::int64_t p = a_.indptr[i]; p < a_.indptr[i + 1]; ++p) {
            const std::int64_t t = a_.indices[p], begin = b_.indptr[t], last = b_.indptr[t + 1] - 1;
            __builtin_prefetch(b_.indices + begin);
            __builtin_prefetch(b_.indices + last);
            __builtin_prefetch(b_.data + begin);
            __builtin_prefetch(b_.data + last);
        }
    }

    std::int64_t scaled(std::int64_t p, I *indices, T *data) const {
        const std::int64_t t = a_.indices[p], begin = b_.indptr[t], count = b_.row_nnz(t);
        const T scale = a_.data[p];
        for (std::int64_t s = 0; s < count; ++s) {
            indices[s] = b_.indices[begin + s];
            data[s] = T(0) + scale * b_.data[begin + s];
        }
        return count;
    }

#if defined(__AVX512F__)
    std::int64_t sum_of_runs(std::int64_t i, std::int64_t low, std::int64_t high, I *indices, T *data) const {
        const std::int64_t begin = a_.indptr[i];
        const auto run = [&](std::int64_t e, std::int64_t &first, std::int64_t &count, T &scale, const T *&values) {
            const std::int64_t t = a_.indices[begin + e], q = b_.indptr[t];
            count = b_.row_nnz(t);
            first = count > 0 ? static_cast<std::int64_t>(b_.indices[q]) : low;
            scale = a_.data[begin + e];
            values = b_.data + q;
        };
        return sum_runs(low, high, a_.row_nnz(i), run, indices, data);
    }
#endif

    std::int64_t scattered(std::int64_t i, std::int64_t low, std::int64_t high, I *indices, T *data) {
        const std::int64_t base = low & ~std::int64_t{63}, groups = groups_of_64(high - base);
        if (groups > most_words && groups > 16 * plan_.products[i]) return sorted_.row(i, indices, data);
        const double filling = static_cast<double>(plan_.products[i]) / static_cast<double>(groups);
        if (filling < 8) return ranked(i, base, groups, indices, data);
        window_.grow(groups);
        return filling < 24 ? windowed<false>(i, base, groups, indices, data) : windowed<true>(i, base, groups, indices, data);
    }

    template <bool full>
    std::int64_t windowed(std::int64_t i, std::int64_t base, std::int64_t groups, I *indices, T *data) {
        in_runs(a_.indptr[i], a_.indptr[i + 1], rows_between_looks, [&](std::int64_t from, std::int64_t to) {
            for (std::int64_t p = from; p < to; ++p) {
                const std::int64_t t = a_.indices[p], begin = b_.indptr[t];
                window_.add(base, a_.data[p], b_.indices + begin, b_.data + begin, b_.row_nnz(t));
            }
        });
        return window_.template take<full>(base, groups, indices, data);
    }

    std::int64_t ranked(std::int64_t i, std::int64_t base, std::int64_t words, I *indices, T *data) {
        bitmap_.grow(words);
        in_runs(a_.indptr[i], a_.indptr[i + 1], rows_between_looks, [&](std::int64_t from, std::int64_t to) {
            for (std::int64_t p = from; p < to; ++p) {
                const std::int64_t t = a_.indices[p];
                bitmap_.mark(base, b_.indices + b_.indptr[t], b_.row_nnz(t));
            }
        });
        const std::int64_t count = bitmap_.columns(base, words, indices);
        std::fill_n(data, count, T(0));
        in_runs(a_.indptr[i], a_.indptr[i + 1], rows_between_looks, [&](std::int64_t from, std::int64_t to) {
            for (std::int64_t p = from; p < to; ++p) {
                const std::int64_t t = a_.indices[p], begin = b_.indptr[t];
                bitmap_.add(base, a_.data[p], b_.indices + begin, b_.data + begin, b_.row_nnz(t), data);
            }
        });
        bitmap_.clear();
        return count;
    }

    static constexpr std::int64_t most_words = 1 << 18;  // beyond, only rows with much work may grow the bitmap

    const AutoPlan<I, T> &plan_;
    const Csr<I, T> &a_ = plan_.a, &b_ = plan_.b;
    WindowAccumulator<I, T> window_;
    RankedBitmap<I, T> bitmap_;
    RepeatedRow<I, T> repeated_;
    SortedRows<I, T> sorted_{a_, b_};
};

}  // namespace workbench
