// SMASH: rows are grouped into windows whose results fit a hash table; products are merged there and never stored.
//
// A product's tag is its place (row - first row) * n + column. Version 1 hashes by the high-order bits of the tag, so a
// scan of the table is almost sorted; version 2 by the low-order bits; version 3 keeps only an offset in the table, with
// columns and sums in dense segments, one per row. A row too large for the table takes several passes over column ranges.
#pragma once
#include <algorithm>
#include <bit>
#include <cstdint>
#include <tuple>
#include <utility>
#include <vector>

#include "csr.hpp"
#include "python_call.hpp"
#include "row_blocks.hpp"
#include "row_forms.hpp"

namespace workbench {

struct SmashOptions {
    int version;
    int log2_slots;
    std::int64_t capacity;  // load * slots, at least 1
    bool sort;
};

template <class I, class T>
class SmashWindows {
  public:
    SmashWindows(const Csr<I, T> &a, const Csr<I, T> &b, const std::int64_t *products, const SmashOptions &options)
        : a_(a), b_(b), products_(products), options_(options), slots_(std::int64_t{1} << options.log2_slots),
          tags_(slots_, empty), sums_(options.version == 3 ? 0 : slots_), offsets_(options.version == 3 ? slots_ : 0) {}

    // Rows [first, last) into indices and data; row_end[i - first] counts from the start. -> entries written
    std::int64_t rows(std::int64_t first, std::int64_t last, I *indices, T *data, I *row_end) {
        std::int64_t need = 0;
        for (std::int64_t i = first; i < last; ++i) need += std::min(products_[i], b_.cols);
        if (need > options_.capacity) {
            const std::int64_t count = in_passes(first, 0, b_.cols, indices, data);
            row_end[0] = static_cast<I>(count);
            return count;
        }
        return window(first, last, 0, b_.cols, indices, data, row_end);
    }

  private:
    static constexpr std::int64_t empty = -1;

    std::int64_t in_passes(std::int64_t i, std::int64_t low, std::int64_t high, I *indices, T *data) {
        std::int64_t inside = 0;
        for_products(i, low, high, [&](I, T) { ++inside; });
        if (inside == 0) return 0;
        if (std::min(inside, high - low) > options_.capacity) {
            const std::int64_t middle = low + (high - low) / 2;
            const std::int64_t count = in_passes(i, low, middle, indices, data);
            return count + in_passes(i, middle, high, indices + count, data + count);
        }
        I end;
        return window(i, i + 1, low, high, indices, data, &end);
    }

    template <class Use>
    void for_products(std::int64_t i, std::int64_t low, std::int64_t high, Use use) const {
        for (std::int64_t p = a_.indptr[i]; p < a_.indptr[i + 1]; ++p) {
            if (p % rows_between_looks == 0) check_stop();
            for (std::int64_t q = b_.indptr[a_.indices[p]]; q < b_.indptr[a_.indices[p] + 1]; ++q)
                if (b_.indices[q] >= low && b_.indices[q] < high) use(b_.indices[q], a_.data[p] * b_.data[q]);
        }
    }

    // -> slot of the tag, claimed if it is new
    std::int64_t probe(std::int64_t tag, bool &is_new) {
        std::int64_t slot = options_.version == 1 ? tag >> shift_ : tag & (slots_ - 1);
        while (tags_[slot] != empty && tags_[slot] != tag) slot = (slot + 1) & (slots_ - 1);
        is_new = tags_[slot] == empty;
        tags_[slot] = tag;
        return slot;
    }

    std::int64_t window(std::int64_t first, std::int64_t last, std::int64_t low, std::int64_t high, I *indices, T *data,
                        I *row_end) {
        const std::uint64_t places = static_cast<std::uint64_t>(last - first) * static_cast<std::uint64_t>(b_.cols);
        shift_ = std::max(0, static_cast<int>(std::bit_width(places - (places > 0))) - options_.log2_slots);
        const std::int64_t count = options_.version == 3 ? hash_fragmented(first, last, low, high, indices, data, row_end)
                                                         : hash_whole(first, last, low, high, indices, data, row_end);
        if (options_.sort && options_.version != 1) {
            std::int64_t begin = 0;
            for (std::int64_t i = first; i < last; ++i) {
                sort_row(indices + begin, data + begin, row_end[i - first] - begin);
                begin = row_end[i - first];
            }
        }
        return count;
    }

    std::int64_t hash_whole(std::int64_t first, std::int64_t last, std::int64_t low, std::int64_t high, I *indices, T *data,
                            I *row_end) {
        for (std::int64_t i = first; i < last; ++i)
            for_products(i, low, high, [&](I column, T product) {
                bool is_new;
                const std::int64_t slot = probe((i - first) * b_.cols + column, is_new);
                sums_[slot] = (is_new ? T(0) : sums_[slot]) + product;
            });
        found_.clear();
        for (std::int64_t slot = 0; slot < slots_; ++slot) {
            if (tags_[slot] == empty) continue;
            found_.emplace_back(tags_[slot], sums_[slot]);
            tags_[slot] = empty;
        }
        if (options_.version == 1) insertion_sort();
        // Counting sort by row keeps the order within rows.
        next_.assign(last - first + 1, 0);
        for (const auto &[tag, sum] : found_) ++next_[tag / b_.cols + 1];
        for (std::int64_t r = 0; r < last - first; ++r) {
            next_[r + 1] += next_[r];
            row_end[r] = static_cast<I>(next_[r + 1]);
        }
        for (const auto &[tag, sum] : found_) {
            const std::int64_t place = next_[tag / b_.cols]++;
            indices[place] = static_cast<I>(tag % b_.cols);
            data[place] = sum;
        }
        return static_cast<std::int64_t>(found_.size());
    }

    std::int64_t hash_fragmented(std::int64_t first, std::int64_t last, std::int64_t low, std::int64_t high, I *indices,
                                 T *data, I *row_end) {
        if (columns_.empty()) {
            columns_.resize(options_.capacity);
            segment_sums_.resize(options_.capacity);
        }
        std::int64_t base = 0, count = 0;
        for (std::int64_t i = first; i < last; ++i) {
            std::int64_t used = 0;
            for_products(i, low, high, [&](I column, T product) {
                bool is_new;
                const std::int64_t slot = probe((i - first) * b_.cols + column, is_new);
                if (is_new) {
                    claimed_.push_back(slot);
                    offsets_[slot] = base + used;
                    columns_[base + used] = column;
                    segment_sums_[base + used++] = T(0);
                }
                segment_sums_[offsets_[slot]] += product;
            });
            std::copy_n(columns_.begin() + base, used, indices + count);
            std::copy_n(segment_sums_.begin() + base, used, data + count);
            row_end[i - first] = static_cast<I>(count += used);
            base += std::min({products_[i], b_.cols, options_.capacity - base});
        }
        for (const std::int64_t slot : claimed_) tags_[slot] = empty;
        claimed_.clear();
        return count;
    }

    void insertion_sort() {
        Pace pace;
        for (std::size_t s = 1; s < found_.size(); ++s) {
            const auto entry = found_[s];
            std::size_t hole = s;
            for (; hole > 0 && found_[hole - 1].first > entry.first; --hole) found_[hole] = found_[hole - 1];
            pace.step(static_cast<std::int64_t>(s - hole) + 1);
            found_[hole] = entry;
        }
    }

    void sort_row(I *indices, T *data, std::int64_t count) {
        row_.clear();
        for (std::int64_t s = 0; s < count; ++s) row_.emplace_back(indices[s], data[s]);
        sort_by_column<false>(std::span(row_));
        for (std::int64_t s = 0; s < count; ++s) std::tie(indices[s], data[s]) = row_[s];
    }

    const Csr<I, T> &a_, &b_;
    const std::int64_t *products_;
    const SmashOptions options_;
    const std::int64_t slots_;
    int shift_ = 0;
    std::vector<std::int64_t> tags_;
    std::vector<T> sums_;                               // versions 1 and 2
    std::vector<std::pair<std::int64_t, T>> found_;
    std::vector<std::int64_t> next_;
    std::vector<std::int64_t> offsets_, claimed_;       // version 3
    std::vector<I> columns_;
    std::vector<T> segment_sums_;
    std::vector<std::pair<I, T>> row_;
};

}  // namespace workbench
