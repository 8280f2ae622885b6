// Accumulator for sparse rows: which columns are reached goes into a bitmap small enough for the first-level cache; the
// place of a column in the sorted row is then its rank among the set bits. No sorting, no probing, and the sums are
// built in the result itself.
#pragma once
#include <algorithm>
#include <bit>
#include <cstdint>
#include <vector>

#include "bit_positions.hpp"

namespace workbench {

template <class I, class T>
class RankedBitmap {
  public:
    // All columns are given relative to a multiple of 64, in [0, 64 * words).
    void grow(std::int64_t words) {
        if (static_cast<std::int64_t>(bits_.size()) >= words) return;
        bits_.resize(words);
        rank_.resize(words);
        summary_.resize((words + 63) / 64);
        used_.resize(words + 64);
    }

    void mark(std::int64_t base, const I *columns, std::int64_t count) {
        for (std::int64_t s = 0; s < count; ++s) {
            const std::uint64_t j = static_cast<std::uint64_t>(columns[s] - base);
            bits_[j / 64] |= std::uint64_t{1} << (j % 64);
            summary_[j / 4096] |= std::uint64_t{1} << (j / 64 % 64);
        }
    }

    // Write the marked columns, rising, and remember their ranks. -> how many
    std::int64_t columns(std::int64_t base, std::int64_t words, I *indices) {
        used_count_ = 0;
        for (std::int64_t cluster = 0; cluster < words; cluster += 64) {
            const std::uint64_t found = summary_[cluster / 64];
            summary_[cluster / 64] = 0;
            used_count_ += store_positions(found, static_cast<std::int32_t>(cluster), used_.data() + used_count_);
        }
        std::int64_t count = 0;
        for (std::int64_t u = 0; u < used_count_; ++u) {
            const std::int64_t word = used_[u];
            rank_[word] = static_cast<std::uint32_t>(count);
            count += store_positions(bits_[word], static_cast<I>(base + 64 * word), indices + count);
        }
        return count;
    }

    // data[rank of column] += scale * value
    void add(std::int64_t base, T scale, const I *columns, const T *values, std::int64_t count, T *data) const {
        for (std::int64_t s = 0; s < count; ++s) {
            const std::uint64_t j = static_cast<std::uint64_t>(columns[s] - base);
            const std::uint64_t below = bits_[j / 64] & ((std::uint64_t{1} << (j % 64)) - 1);
            data[rank_[j / 64] + std::popcount(below)] += scale * values[s];
        }
    }

    void clear() {
        for (std::int64_t u = 0; u < used_count_; ++u) bits_[used_[u]] = 0;
    }

  private:
    std::vector<std::uint64_t> bits_, summary_;  // summary: which words are not zero
    std::vector<std::uint32_t> rank_;
    std::vector<std::int32_t> used_;
    std::int64_t used_count_ = 0;
};

}  // namespace workbench
