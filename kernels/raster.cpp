// Nonzeros into pixel bins, and into square blocks: one task per pixel row (block row), so no two threads share a bin.
#include <nanobind/nanobind.h>
#include <nanobind/ndarray.h>

#include <algorithm>
#include <atomic>
#include <bit>
#include <cstdint>
#include <cstring>
#include <memory>
#include <type_traits>
#include <utility>
#include <vector>

#include "csr.hpp"
#include "python_call.hpp"
#include "registry.hpp"
#include "thread_pool.hpp"

namespace nb = nanobind;

namespace workbench {
namespace {

template <class T>
using Output1 = nb::ndarray<T, nb::ndim<1>, nb::c_contig, nb::device::cpu>;
using Picture = nb::ndarray<std::uint32_t, nb::ndim<2>, nb::c_contig, nb::device::cpu>;
using Bits = nb::ndarray<const std::uint8_t, nb::ndim<2>, nb::c_contig, nb::device::cpu>;

struct Window {
    std::int64_t r0, r1, c0, c1;
};

// First element of bin i when `size` elements fall into `bins` bins, 1 <= bins <= size: ceil(i size / bins).
std::int64_t bin_start(std::int64_t i, std::int64_t size, std::int64_t bins) {
    const auto product = static_cast<unsigned __int128>(i) * static_cast<std::uint64_t>(size);
    return static_cast<std::int64_t>((product + static_cast<std::uint64_t>(bins) - 1) / static_cast<std::uint64_t>(bins));
}

// floor(x bins / size) for 0 <= x < size, exact: m = ceil(2^s bins / size) errs by less than x / 2^s < 1 / size
// when 2^s >= size^2, too little to cross an integer.
class BinOf {
  public:
    BinOf(std::int64_t size, std::int64_t bins) {
        size_ = static_cast<std::uint64_t>(size), bins_ = static_cast<std::uint64_t>(bins);
        shift_ = 2 * std::bit_width(size_);
        divides_ = std::bit_width(size_) + std::bit_width(bins_) > 62;  // the factor would not fit 64 bits: divide instead
        if (divides_) return;
        const auto scaled = (static_cast<unsigned __int128>(bins) << shift_) + static_cast<std::uint64_t>(size) - 1;
        factor_ = static_cast<std::uint64_t>(scaled / static_cast<std::uint64_t>(size));
        narrow_ = shift_ + std::bit_width(static_cast<std::uint64_t>(bins)) < 63;
    }
    bool narrow() const { return narrow_; }
    std::int64_t narrow(std::uint64_t x) const { return static_cast<std::int64_t>((x * factor_) >> shift_); }
    std::int64_t wide(std::uint64_t x) const {
        if (divides_) return static_cast<std::int64_t>(static_cast<unsigned __int128>(x) * bins_ / size_);
        return static_cast<std::int64_t>((static_cast<unsigned __int128>(x) * factor_) >> shift_);
    }

  private:
    int shift_;
    bool narrow_ = false, divides_;
    std::uint64_t factor_ = 0, size_, bins_;
};

constexpr std::int64_t chunk = 4096;  // entries that stay in the first-level cache from the check to the count

template <class I>
using Unsigned = std::make_unsigned_t<I>;

// Count a run of columns into `copies` histograms of bins + 1 counters each; the last one takes what lies outside.
// Neighbours of a sorted row fall into one bin: with one histogram each increment would wait for the one before.
template <bool narrow, int copies, class I>
void count_run(const I *begin, const I *end, std::int64_t c0, std::int64_t width, const BinOf &bin, std::uint32_t *counts,
               std::int64_t stride) {
    const auto bin_of = [&](I column) {
        const auto x = static_cast<std::uint64_t>(static_cast<std::int64_t>(column) - c0);
        const std::uint64_t inside = std::min(x, static_cast<std::uint64_t>(width));  // width itself falls into bin `bins`
        return narrow ? bin.narrow(inside) : bin.wide(inside);
    };
    for (; end - begin >= copies; begin += copies)
        for (int k = 0; k < copies; ++k) ++counts[k * stride + bin_of(begin[k])];
    for (; begin != end; ++begin) ++counts[bin_of(*begin)];
}

// -> whether every column index read lies in [0, cols)
template <bool narrow, class P, class I>
bool count_window(const P *indptr, const I *indices, std::int64_t cols, Window w, Picture picture, int threads) {
    constexpr int most_copies = 4;
    const auto h = static_cast<std::int64_t>(picture.shape(0)), bins = static_cast<std::int64_t>(picture.shape(1));
    const std::int64_t height = w.r1 - w.r0, width = w.c1 - w.c0, stride = bins + 1;
    const BinOf bin(width, bins);
    std::vector<std::vector<std::uint32_t>> histograms(256);
    std::atomic<bool> valid{true};
    const auto body = [&](std::int64_t i, int worker) {
        auto &counts = histograms[static_cast<size_t>(worker)];
        const I *begin = indices + indptr[w.r0 + bin_start(i, height, h)];
        const I *const end = indices + indptr[w.r0 + bin_start(i + 1, height, h)];
        const int copies = bins <= 1024 && end - begin >= most_copies * bins ? most_copies : 1;
        counts.assign(static_cast<size_t>(copies * stride), 0);
        Unsigned<I> largest = 0;  // a negative index is a huge unsigned one
        Pace pace;
        for (const I *stop; begin != end; begin = stop) {
            pace.step(chunk);
            stop = begin + std::min<std::int64_t>(chunk, end - begin);
            for (const I *p = begin; p != stop; ++p) largest = std::max(largest, static_cast<Unsigned<I>>(*p));
            if (copies == 1)
                count_run<narrow, 1>(begin, stop, w.c0, width, bin, counts.data(), stride);
            else
                count_run<narrow, most_copies>(begin, stop, w.c0, width, bin, counts.data(), stride);
        }
        if (cols == 0 ? largest != 0 : largest > static_cast<Unsigned<I>>(cols - 1)) valid = false;
        std::uint32_t *out = picture.data() + i * bins;
        std::copy_n(counts.data(), bins, out);
        for (int k = 1; k < copies; ++k)
            for (std::int64_t j = 0; j < bins; ++j) out[j] += counts[static_cast<size_t>(k * stride + j)];
    };
    parallel_for(h, threads, body);
    return valid;
}

template <class P, class I>
bool raster_csr(InputArray<P> indptr, InputArray<I> indices, std::int64_t cols, std::int64_t r0, std::int64_t r1,
                std::int64_t c0, std::int64_t c1, Picture picture, int threads) {
    if (picture.size() == 0) return true;
    const WithoutGil released;
    const bool narrow = BinOf(c1 - c0, static_cast<std::int64_t>(picture.shape(1))).narrow();
    const auto count = narrow ? count_window<true, P, I> : count_window<false, P, I>;
    return count(indptr.data(), indices.data(), cols, {r0, r1, c0, c1}, picture, threads);
}

// The 64-bit words that a bin of columns covers, and which bits of the first and last word belong to it.
struct WordRange {
    std::int64_t first, last;
    std::uint64_t first_bits, last_bits;
};

WordRange words_of(std::int64_t begin, std::int64_t end) {  // begin < end
    const std::int64_t first = begin / 64, last = (end - 1) / 64;
    std::uint64_t first_bits = ~std::uint64_t{0} << (begin % 64), last_bits = ~std::uint64_t{0} >> (63 - (end - 1) % 64);
    if (first == last) first_bits &= last_bits;
    return {first, last, first_bits, last_bits};
}

std::uint64_t word_at(const std::uint8_t *row, std::int64_t word, std::int64_t stride) {
    std::uint64_t bits = 0;
    const std::int64_t left = stride - word * 8;
    if (left >= 8)
        std::memcpy(&bits, row + word * 8, 8);
    else
        for (std::int64_t k = 0; k < left; ++k) bits |= std::uint64_t{row[word * 8 + k]} << (8 * k);
    return bits;
}

void raster_bits(Bits bits, std::int64_t r0, std::int64_t r1, std::int64_t c0, std::int64_t c1, Picture picture,
                 int threads) {
    static_assert(std::endian::native == std::endian::little);
    if (picture.size() == 0) return;
    const WithoutGil released;
    const auto h = static_cast<std::int64_t>(picture.shape(0)), bins = static_cast<std::int64_t>(picture.shape(1));
    const auto stride = static_cast<std::int64_t>(bits.shape(1));
    std::vector<WordRange> ranges(static_cast<size_t>(bins));
    for (std::int64_t j = 0; j < bins; ++j)
        ranges[static_cast<size_t>(j)] =
            words_of(c0 + bin_start(j, c1 - c0, bins), c0 + bin_start(j + 1, c1 - c0, bins));
    const auto body = [&](std::int64_t i, int) {
        std::uint32_t *out = picture.data() + i * bins;
        std::memset(out, 0, static_cast<size_t>(bins) * sizeof *out);
        const std::int64_t end_row = r0 + bin_start(i + 1, r1 - r0, h);
        Pace pace;
        for (std::int64_t r = r0 + bin_start(i, r1 - r0, h); r < end_row; ++r) {
            pace.step(stride / 8 + bins);
            const std::uint8_t *row = bits.data() + r * stride;
            for (std::int64_t j = 0; j < bins; ++j) {
                const WordRange &range = ranges[static_cast<size_t>(j)];
                int count = std::popcount(word_at(row, range.first, stride) & range.first_bits);
                for (std::int64_t word = range.first + 1; word < range.last; ++word)
                    count += std::popcount(word_at(row, word, stride));
                if (range.last > range.first) count += std::popcount(word_at(row, range.last, stride) & range.last_bits);
                out[j] += static_cast<std::uint32_t>(count);
            }
        }
    };
    parallel_for(h, threads, body);
}

constexpr std::int64_t entries_between_looks = 1 << 20;

// The blocks in which a run of columns falls, rising, and how often it falls into each.
template <class I>
void count_sorted(const I *begin, const I *end, std::int64_t block, std::vector<std::int64_t> &blocks,
                  std::vector<std::int64_t> &counts) {
    in_runs(0, end - begin, entries_between_looks, [&](std::int64_t from, std::int64_t to) {
        for (std::int64_t p = from; p < to; ++p) blocks.push_back(static_cast<std::int64_t>(begin[p]) / block);
    });
    Pace pace;
    std::sort(blocks.begin(), blocks.end(), [&](std::int64_t x, std::int64_t y) {
        pace.step(1);
        return x < y;
    });
    counts.clear();
    size_t distinct = 0;
    for (const std::int64_t bj : blocks) {
        if (distinct == 0 || bj != blocks[distinct - 1]) {
            blocks[distinct++] = bj;
            counts.push_back(0);
        }
        ++counts.back();
    }
    blocks.resize(distinct);
}

// Per block with at least one entry: entries / area goes into one of ten bins. Entries must be distinct positions.
template <class P, class I>
void block_fill(InputArray<P> indptr_array, InputArray<I> indices_array, std::int64_t cols, std::int64_t block,
                Output1<std::int64_t> histogram, Output1<std::int64_t> covered_full, int threads) {
    const WithoutGil released;
    const P *indptr = indptr_array.data();
    const I *indices = indices_array.data();
    const auto rows = static_cast<std::int64_t>(indptr_array.size()) - 1;
    constexpr std::int64_t most_counters = 1 << 20;
    const std::int64_t block_rows = (rows + block - 1) / block, block_cols = cols / block + (cols % block != 0);
    std::atomic<std::int64_t> bins[10] = {};
    std::atomic<std::int64_t> covered{0}, full{0};
    struct Scratch {
        std::vector<std::int64_t> entries, touched;
    };
    std::vector<Scratch> scratch(256);
    const auto body = [&](std::int64_t bi, int worker) {
        Scratch &s = scratch[static_cast<size_t>(worker)];
        const std::int64_t first = bi * block, last = std::min(rows, first + block);
        const auto begin = static_cast<std::int64_t>(indptr[first]), end = static_cast<std::int64_t>(indptr[last]);
        s.touched.clear();
        const bool narrow = block_cols <= most_counters;
        if (narrow) {  // a counter for each block
            if (s.entries.empty()) s.entries.assign(static_cast<size_t>(block_cols), 0);
            s.touched.resize(static_cast<size_t>(std::min(block_cols, end - begin)));
            const I *const columns = indices;
            std::int64_t *const counters = s.entries.data(), *const touched = s.touched.data();
            const std::int64_t size = block;
            std::int64_t distinct = 0;
            in_runs(begin, end, entries_between_looks, [&](std::int64_t from, std::int64_t to) {
                for (std::int64_t p = from; p < to; ++p) {
                    const std::int64_t bj = static_cast<std::int64_t>(columns[p]) / size;
                    if (counters[bj]++ == 0) touched[distinct++] = bj;
                }
            });
            s.touched.resize(static_cast<size_t>(distinct));
        } else {  // memory by entries, however wide the matrix
            count_sorted(indices + begin, indices + end, block, s.touched, s.entries);
        }
        std::int64_t local[10] = {}, area_sum = 0, full_count = 0;
        for (size_t t = 0; t < s.touched.size(); ++t) {
            const std::int64_t bj = s.touched[t], area = (last - first) * std::min(block, cols - bj * block);
            const std::int64_t entries = std::exchange(s.entries[narrow ? static_cast<size_t>(bj) : t], 0);
            ++local[std::min<std::int64_t>(9, entries * 10 / area)];
            area_sum += area;
            full_count += entries >= area;
        }
        for (int k = 0; k < 10; ++k) bins[k] += local[k];
        covered += area_sum;
        full += full_count;
    };
    parallel_for(block_rows, threads, body);
    for (int k = 0; k < 10; ++k) histogram.data()[k] = bins[k];
    covered_full.data()[0] = covered;
    covered_full.data()[1] = full;
}

template <class P, class I>
void bind(nb::module_ &m) {
    m.def("raster_csr", &raster_csr<P, I>);
    m.def("block_fill", &block_fill<P, I>);
}

}  // namespace
}  // namespace workbench

WORKBENCH_BIND(raster) {
    using namespace workbench;
    bind<std::int32_t, std::int32_t>(m);
    bind<std::int64_t, std::int64_t>(m);
    bind<std::int64_t, std::int32_t>(m);
    bind<std::int32_t, std::int64_t>(m);
    m.def("raster_bits", &raster_bits);
}
